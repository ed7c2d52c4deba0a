"""A stage among Prefect's artifacts: an event sink that publishes progress and result from inside the stage's task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from uuid import UUID

from httpx import HTTPError

from flows.environment import set_prefect_defaults

set_prefect_defaults()

from prefect.artifacts import (  # noqa: E402 - the settings above are read at import
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException  # noqa: E402

from flows.evaluation_artifacts import publish_evaluation  # noqa: E402
from flows.links import stage_url  # noqa: E402
from flows.stage_markdown import artifact_key, decision_markdown, failure_markdown, ladder_markdown, stage_markdown  # noqa: E402
from storage.digest import JSON  # noqa: E402
from storage.store import Store  # noqa: E402
from tasks.context import EventSink  # noqa: E402
from tasks.params import EvaluateParams  # noqa: E402

# Seconds that a stage has to take before its progress is shown, and between two updates.
_LONG = 5.0


class StageArtifacts:
    """An event sink that passes events on and publishes what a stage has to show. Used inside the stage's task."""

    def __init__(
        self,
        name: str,
        *,
        run: str,
        store: Store,
        events: EventSink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name`: the stage's in the run; `run`: the run's folder, as the inspector's pages know it."""
        self._name, self._run, self._store, self._events, self._clock = name, run, store, events, clock
        self._started, self._told = clock(), float("-inf")
        self._progress: UUID | None = None

    def __call__(self, event: dict[str, JSON]) -> None:
        """Take one event of the stage. A server that does not take an artifact fails no stage."""
        self._events(event)
        try:
            if event["kind"] == "progress" and event.get("total"):
                self._tell(100 * event["done"] / event["total"], what=str(event["what"]))
            elif event["kind"] == "end":
                self._publish(event)
        except (HTTPError, PrefectException) as error:
            self._events({"kind": "log", "stage": self._name, "message": f"no artifact in Prefect: {error}"})

    def _tell(self, percent: float, *, what: str) -> None:
        """How far the stage is: from a few seconds on, and not more often than that."""
        now = self._clock()
        if min(now - self._started, now - self._told) < _LONG:
            return
        self._told = now
        if self._progress is None:
            key = artifact_key(self._name, of="progress of ")
            made = create_progress_artifact(percent, key=key, description=f"{self._name}: {what}")
            self._progress = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self._progress, progress=percent, description=f"{self._name}: {what}")

    def _publish(self, event: dict[str, JSON]) -> None:
        if self._progress is not None:
            update_progress_artifact(self._progress, progress=100.0, description=f"{self._name}: done")
        manifest = self._store.load(event["manifest"])
        if manifest.stage == EvaluateParams.stage:
            publish_evaluation(self._name, manifest, store=self._store, page=stage_url(self._run, stage=self._name))
            return
        text = stage_markdown(
            self._name,
            run=self._run,
            manifest=manifest,
            cached=bool(event["cached"]),
            seconds=float(event["seconds"]),
            store=self._store,
        )
        key = artifact_key(self._name, of="stage ")
        create_markdown_artifact(text, key=key, description=f"{self._name}: {event['rows']} items")


def publish_failure(name: str, *, run: str, error: BaseException) -> None:
    """Tell among the flow run's artifacts what failed and what to do."""
    text = failure_markdown(name, run=run, error=error)
    create_markdown_artifact(text, key=artifact_key(name, of="failure of "), description=f"{name} failed: what to do")


def publish_outcome(
    ladder: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    champion: str,
    protocol: str,
    decision: Mapping[str, JSON] | None,
) -> None:
    """The ladder, and what was decided about the model, among the flow run's artifacts."""
    create_markdown_artifact(
        ladder_markdown(ladder, champion=champion, protocol=protocol), key="ladder", description="the ladder on test"
    )
    if decision is not None:
        create_markdown_artifact(decision_markdown(decision), key="decision", description="champion and challenger")
