"""The one wrapper that makes a pure function a cached, published, observable stage - and a Prefect task.

The store is the cache: a stage's key is looked up and its manifest verified before anything is computed, so Prefect's
own caching is switched off. Prefect is imported only when a task is asked for: a run that finds everything cached
never pays for it. Results are JSON references to manifests, never data.
"""

from __future__ import annotations

import errno
import importlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from typing import Any

from storage.digest import JSON, stage_key
from storage.manifest import Manifest, columns_of
from storage.store import Store
from tasks.context import CHECKPOINTS, EventSink, StageContext, discard_event
from tasks.fingerprint import framework_fingerprint, stage_fingerprint
from tasks.mapping import THREADS
from tasks.params import StageParams

Input = Manifest | Sequence[Manifest] | None
TRAINING_LIMIT = "TALLY_TRAINING_LIMIT"
RETRY_SECONDS: list[float] = [10, 60, 300]
_TRANSIENT_ERRORS = (
    *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.EREMOTEIO),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
_RECORDED_PACKAGES = ("numpy", "opencv-python-headless", "pyarrow", "torch", "torchvision")


class StageFailedError(RuntimeError):
    """A stage's process ended with an error; the message holds the end of its log."""


class KilledStageError(StageFailedError):
    """A stage's process was killed by somebody else: nothing is known to be wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage function with the class of its parameters; the module `tasks.<name>` holds it under its name."""

    params_class: type[StageParams]
    function: Callable[..., None]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.params_class.stage


def stage(params_class: type[StageParams]) -> Callable[[Callable[..., None]], Stage]:
    """Decorator: `def segment(context, *, params, catalog, …) -> None` becomes the stage its params class names."""

    def wrap(function: Callable[..., None]) -> Stage:
        assert function.__name__ == params_class.stage, f"{function.__name__} must be named {params_class.stage}"
        return Stage(params_class=params_class, function=function)

    return wrap


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Reference to a stage's result: everything JSON, nothing of the data itself.

    `seconds` is what the result took to compute, also where it came from the store.
    """

    stage: str
    key: str
    manifest: str
    content_digest: str
    rows: int
    quarantined: int
    cached: bool
    seconds: float

    def to_json(self) -> dict[str, JSON]:
        """The reference as a JSON object."""
        return asdict(self)


def result_of(manifest: Manifest, *, params: StageParams, key: str, cached: bool) -> StageResult:
    """The reference to a stage's manifest."""
    return StageResult(
        stage=params.stage,
        key=key,
        manifest=manifest.url,
        content_digest=manifest.content_digest,
        rows=len(manifest.rows),
        quarantined=sum(status == "quarantined" for (status,) in columns_of(manifest.rows, "status")),
        cached=cached,
        seconds=round(float(manifest.metadata["seconds"]), 3),
    )


def key_of(params: StageParams, *, inputs: Mapping[str, Input]) -> str:
    """The stage key of `params` on `inputs`: name, version, parameters and the content digests of the inputs."""
    parameters = params.in_key(params.model_dump(mode="json"))
    return stage_key(params.stage, version=params.version, parameters=parameters, inputs=digests_of(inputs))


def digests_of(inputs: Mapping[str, Input]) -> dict[str, str | list[str] | None]:
    """The content digests of named inputs, as they enter the key."""
    return {name: _digests(value) for name, value in inputs.items()}


def _digests(value: Input) -> str | list[str] | None:
    if value is None:
        return None
    if isinstance(value, Manifest):
        return value.content_digest
    return [manifest.content_digest for manifest in value]


def look_up(params: StageParams, *, inputs: Mapping[str, Input], store: Store) -> Manifest | None:
    """The sound cached result of a stage on these inputs, or None. Computes nothing and imports no stage."""
    return store.take(params.stage, key=key_of(params, inputs=inputs))


def execute(
    params: StageParams,
    *,
    inputs: Mapping[str, Input],
    store: Store,
    workers: int = 1,
    refresh: bool = False,
    runner: str = THREADS,
    events: EventSink = discard_event,
    admitted: Callable[[StageParams], AbstractContextManager[object]] = lambda params: nullcontext(),
) -> tuple[Manifest, StageResult]:
    """The result of a stage: from the store if it is there and sound, else computed and published.

    Two processes that need the same key at once: one computes, the other waits and takes the result. `admitted` is
    entered around computing, and only then: what waits for a free GPU waits there. `runner`: what mapped stages work
    with, see `StageContext`.
    """
    key = key_of(params, inputs=inputs)
    with store.lock(params.stage, key=key):
        found = None if refresh else store.take(params.stage, key=key)
        problem = "" if found or refresh else store.quarantine_unsound(params.stage, key=key)
        events({"kind": "start", "stage": params.stage, "key": key, "cached": found is not None})
        if problem:
            events({"kind": "log", "stage": params.stage, "message": f"set aside, made again: {problem}"})
        if found is None:
            with admitted(params):
                manifest = _compute(
                    params, key=key, inputs=inputs, store=store, workers=workers, runner=runner, events=events
                )
        else:
            manifest = found
    result = result_of(manifest, params=params, key=key, cached=found is not None)
    events({"kind": "end", **result.to_json()})
    return manifest, result


def _compute(
    params: StageParams,
    *,
    key: str,
    inputs: Mapping[str, Input],
    store: Store,
    workers: int,
    runner: str,
    events: EventSink,
) -> Manifest:
    if params.own_process:
        from tasks.process import run_in_child

        run_in_child(params, key=key, inputs=inputs, store=store, workers=workers, runner=runner, events=events)
        made = store.find(params.stage, key=key)
        assert made is not None, f"stage {params.stage} ended well but published nothing under {key}"
        return made
    return publish(params, key=key, inputs=inputs, store=store, workers=workers, runner=runner, events=events)


def publish(
    params: StageParams,
    *,
    key: str,
    inputs: Mapping[str, Input],
    store: Store,
    workers: int,
    runner: str = THREADS,
    events: EventSink,
) -> Manifest:
    """Run the stage function in this process and commit what it wrote."""
    started = time.time()
    context = StageContext(
        stage=params.stage,
        seed=params.seed,
        store=store,
        publication=store.begin(params.stage, key=key),
        scratch=store.scratch(params.stage, key=key),
        workers=workers,
        runner=runner,
        events=events,
    )
    with _checkpoints_kept(params, key=key, store=store):
        load_stage(params.stage).function(context, params=params, **inputs)
    recorded = {
        **context.metadata,
        "version": params.version,
        "parameters": params.model_dump(mode="json"),
        "inputs": {name: _urls(value) for name, value in inputs.items()},
        "tools": tool_versions(),
        "code": {"stage": stage_fingerprint(params.stage), "framework": framework_fingerprint()},
        "started": started,
        "seconds": time.time() - started,
    }
    return context.publication.commit(metadata=recorded, content=context.content)


def _checkpoints_kept(params: StageParams, *, key: str, store: Store) -> AbstractContextManager[object]:
    """Copies of a training's checkpoints in a remote store: another machine can go on from them."""
    return store.mirrored(params.stage, key=key, folder=CHECKPOINTS) if params.own_process else nullcontext()


def load_stage(name: str) -> Stage:
    """The stage `name` out of its module `tasks.<name>`."""
    found = getattr(importlib.import_module(f"tasks.{name}"), name)
    assert isinstance(found, Stage), f"tasks.{name}.{name} is not decorated with @stage"
    return found


def _urls(value: Input) -> JSON:
    if value is None:
        return None
    if isinstance(value, Manifest):
        return {"manifest": value.url, "content_digest": value.content_digest}
    return [_urls(manifest) for manifest in value]


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results."""
    packages = {name: package_version(name) for name in _RECORDED_PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def run_stage_locally(
    stage: Stage, params: StageParams, *, store: Store, workers: int = 1, **inputs: Input
) -> Manifest:
    """Run a stage in this process, without Prefect and without a child, or take its cached result."""
    assert isinstance(params, stage.params_class), f"{stage.name} takes {stage.params_class.__name__}"
    found = look_up(params, inputs=inputs, store=store)
    key = key_of(params, inputs=inputs)
    return found or publish(params, key=key, inputs=inputs, store=store, workers=workers, events=discard_event)


def prefect_task(name: str, *, events: EventSink) -> Any:  # noqa: ANN401 - Prefect's Task type is not imported here
    """A Prefect task that runs one stage through `execute` and returns its JSON reference, named Cached or Completed.

    Its inputs are references as another such task returned them, or URLs of manifests: small JSON, never data.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed

    @task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=lambda task, run, state: is_transient(_error_of(state)),
    )
    def run_stage(
        stage: str,
        params: dict[str, JSON],
        inputs: dict[str, JSON],
        store_url: str,
        workers: int,
        runner: str,
        refresh: bool,
    ) -> Any:  # noqa: ANN401 - a Prefect State
        store = Store.open(store_url)
        _, result = execute(
            load_stage(stage).params_class(**params),
            inputs={key: load_input(value, store=store) for key, value in inputs.items()},
            store=store,
            workers=workers,
            runner=runner,
            refresh=refresh,
            events=events,
            admitted=training_slot,
        )
        return Completed(name="Cached" if result.cached else "Completed", data=result.to_json())

    return run_stage


def is_transient(error: BaseException | None) -> bool:
    """Whether trying again may help: a service, a network or a disk that did not answer, a training that was killed.

    What a file says or lacks will be the same the next time, and so will a disk that is full.
    """
    if isinstance(error, (KilledStageError, ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError):
        return error.errno in _TRANSIENT_ERRORS
    # What a client of object storage raises when its own attempts are used up.
    return type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")


def _error_of(state: Any) -> BaseException | None:  # noqa: ANN401 - a Prefect State
    """The exception of a failed state."""
    found = state.result(raise_on_failure=False)
    return found if isinstance(found, BaseException) else None


@contextmanager
def training_slot(params: StageParams) -> Iterator[None]:
    """A slot of the global concurrency limit that $TALLY_TRAINING_LIMIT names, for stages that train; else nothing.

    A limit of that name must exist (`tally automations apply` makes it): a missing one would let everybody in.
    """
    limit = os.environ.get(TRAINING_LIMIT)
    if not (limit and params.own_process):
        yield
        return
    from prefect.concurrency.sync import concurrency

    with concurrency(limit, strict=True):
        yield


def load_input(reference: JSON, *, store: Store) -> Input:
    """The manifest (or manifests, or None) of a reference: a URL, or the JSON of a StageResult."""
    if reference is None:
        return None
    if isinstance(reference, list):
        return [store.load(_url_of(one)) for one in reference]
    return store.load(_url_of(reference))


def _url_of(reference: JSON) -> str:
    return str(reference["manifest"] if isinstance(reference, dict) else reference)
