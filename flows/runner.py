"""How the stages of a flow are run: looked up only, one after the other here, or as Prefect tasks.

The order of the stages is written once, in `flows.pipeline`, against the small `Runner` interface. A run first goes
through it with `LookUpRunner`: when everything is cached it ends there, and neither Prefect nor torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from storage.digest import JSON
from storage.manifest import Manifest
from storage.store import Store
from tasks.context import EventSink, discard_event
from tasks.mapping import THREADS
from tasks.params import StageParams
from tasks.process import stop_children
from tasks.stage import Input, StageResult, execute, key_of, prefect_task, result_of


class NotCachedError(Exception):
    """A stage's result is not in the store."""


class Runner(Protocol):
    """Runs the stages of a flow in the order they are asked for."""

    store: Store
    results: dict[str, StageResult]

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The result of a stage under a name that is unique in the run, such as `train.source`."""
        ...


@dataclass(kw_only=True)
class LookUpRunner:
    """Takes results from the store and computes nothing; raises NotCachedError at the first that is not there."""

    store: Store
    results: dict[str, StageResult] = field(default_factory=dict)

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The cached result of a stage."""
        key = key_of(params, inputs=inputs)
        found = self.store.take(params.stage, key=key)
        if found is None:
            raise NotCachedError(name)
        self.results[name] = result_of(found, params=params, key=key, cached=True)
        return found


@dataclass(kw_only=True)
class LocalRunner:
    """Runs the stages in this process, one after the other, without Prefect.

    `mapped`: what mapped stages work with: threads, processes or dask:ADDRESS.
    """

    store: Store
    workers: int = 1
    mapped: str = THREADS
    refresh: frozenset[str] = frozenset()
    events: EventSink = discard_event
    results: dict[str, StageResult] = field(default_factory=dict)

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The result of a stage, computed when it is not in the store."""
        manifest, self.results[name] = execute(
            params,
            inputs=inputs,
            store=self.store,
            workers=self.workers,
            runner=self.mapped,
            refresh=name in self.refresh,
            events=_named(self.events, name),
        )
        return manifest


@dataclass(kw_only=True)
class PrefectRunner:
    """Runs each stage as a Prefect task of the flow that is running; futures give Prefect the graph.

    `run` is the run's name, for links from artifacts to its pages.
    """

    store: Store
    run: str
    workers: int = 1
    mapped: str = THREADS
    refresh: frozenset[str] = frozenset()
    events: EventSink = discard_event
    results: dict[str, StageResult] = field(default_factory=dict)
    _futures: dict[str, Any] = field(default_factory=dict)

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The result of a stage, run as a Prefect task when it is not in the store."""
        from flows.stage_artifacts import StageArtifacts, publish_failure

        shown = StageArtifacts(name, run=self.run, store=self.store, events=_named(self.events, name))
        task = prefect_task(name, events=shown)
        future = task.submit(
            params=params.model_dump(mode="json"),
            stage=params.stage,
            inputs={key: self._reference(value) for key, value in inputs.items()},
            store_url=self.store.url,
            workers=self.workers,
            runner=self.mapped,
            refresh=name in self.refresh,
        )
        try:
            reference = _awaited(future)
        except Exception as error:
            publish_failure(name, run=self.run, error=error)
            raise
        self.results[name] = StageResult(**reference)
        self._futures[reference["manifest"]] = future
        return self.store.load(reference["manifest"])

    def _reference(self, value: Input) -> Any:  # noqa: ANN401 - futures or URLs, as deep as the input
        if value is None:
            return None
        if isinstance(value, Manifest):
            return self._futures.get(value.url, value.url)
        return [self._reference(manifest) for manifest in value]


def _awaited(future: Any) -> dict[str, JSON]:  # noqa: ANN401 - a Prefect future
    """The reference that a stage's task returns."""
    try:
        return dict(future.result())
    except Exception:
        raise
    except BaseException:
        # The run was cancelled: Prefect waits for the task's thread, which waits for a training that knows nothing.
        stop_children()
        raise


def _named(events: EventSink, name: str) -> EventSink:
    return lambda event: events({**event, "name": name})


def results_json(results: Mapping[str, StageResult]) -> list[dict[str, JSON]]:
    """The stages of a run in the order they ran, as JSON objects with their name in the run."""
    return [{"name": name, **result.to_json()} for name, result in results.items()]
