"""The pipeline as Prefect flows: `pipeline` with the sub-flows `prepare`, `synthesize` and `distill`.

Imported only when something has to be computed. The stages inside are Prefect tasks (`tasks.stage.prefect_task`); their
results are JSON references, and the store, not Prefect, is the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flows.environment import set_prefect_defaults

set_prefect_defaults()

from prefect import flow  # noqa: E402 - the settings above are read at import

from flows import pipeline as order  # noqa: E402
from flows.execution import RunOptions, carry_out  # noqa: E402
from flows.pipeline import Outcome, Prepared, Rung, Synthesized  # noqa: E402
from flows.runner import PrefectRunner, Runner  # noqa: E402
from flows.runs import RunRecord  # noqa: E402
from storage.store import Store  # noqa: E402
from tasks.context import EventSink, discard_event  # noqa: E402

_watcher: ContextVar[EventSink] = ContextVar("watcher", default=discard_event)


@contextmanager
def watched_by(events: EventSink) -> Iterator[None]:
    """Send the events of flows that start inside to `events`."""
    token = _watcher.set(events)
    try:
        yield
    finally:
        _watcher.reset(token)


@flow(name="pipeline", persist_result=False)
def pipeline(options: RunOptions) -> RunRecord:
    """Photos in, a trained model, shopping lists and a report out; returns the run's record."""
    events = _watcher.get()
    run = PrefectRunner(
        store=Store.open(options.store),
        workers=options.worker_count(),
        refresh=frozenset(options.refresh),
        events=events,
    )
    return carry_out(options, run=run, climb=lambda runner: _climb(runner, options=options))


def _climb(run: Runner, *, options: RunOptions) -> Outcome:
    # The sub-flows close over the runner: what a flow takes as a parameter goes to the server and must stay small.
    preset = options.configuration()

    @flow(name="prepare", persist_result=False)
    def prepare() -> Prepared:
        return order.prepare(run, choice=options.choice, preset=preset)

    prepared = prepare()

    @flow(name="synthesize", persist_result=False)
    def synthesize() -> Synthesized:
        return order.synthesize(run, prepared=prepared, preset=preset)

    synthesized = synthesize()

    @flow(name="distill", persist_result=False)
    def distill() -> dict[str, Rung]:
        return order.distill(run, prepared=prepared, synthesized=synthesized, preset=preset)

    return Outcome(prepared=prepared, synthesized=synthesized, rungs=distill())
