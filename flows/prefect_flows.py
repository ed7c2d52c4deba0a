"""The pipeline as Prefect flows: `pipeline` with the sub-flows `prepare`, `synthesize` and `distill`.

Imported only when something has to be computed. The stages inside are Prefect tasks (`tasks.stage.prefect_task`); their
results are JSON references, and the store, not Prefect, is the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from flows.environment import set_prefect_defaults

set_prefect_defaults()

from prefect import flow  # noqa: E402 - the settings above are read at import
from prefect.artifacts import create_link_artifact, create_table_artifact  # noqa: E402
from prefect.client.schemas.objects import State  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402
from prefect.states import Completed  # noqa: E402

from flows import pipeline as order  # noqa: E402
from flows.execution import carry_out, explain_run, pipeline_of, selected_again  # noqa: E402
from flows.links import run_url  # noqa: E402
from flows.live import LiveRun  # noqa: E402
from flows.mapped import mapped_by  # noqa: E402
from flows.options import RunOptions  # noqa: E402
from flows.parts import PartDoneError  # noqa: E402
from flows.pipeline import Outcome  # noqa: E402
from flows.refusals import checked  # noqa: E402
from flows.runner import PrefectRunner, Runner  # noqa: E402
from flows.runs import RunRecord  # noqa: E402
from flows.stage_artifacts import publish_outcome  # noqa: E402
from flows.time_limit import time_limit  # noqa: E402
from storage.store import Store  # noqa: E402
from tasks.context import EventSink, discard_event  # noqa: E402

Result = TypeVar("Result")
watcher: ContextVar[EventSink] = ContextVar("watcher", default=discard_event)


@contextmanager
def watched_by(events: EventSink) -> Iterator[None]:
    """Send the events of flows that start inside to `events`."""
    token = watcher.set(events)
    try:
        yield
    finally:
        watcher.reset(token)


def takes(options: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: a function of keywords gets the fields of `options` as its signature, types and descriptions included.

    Prefect makes the form of a deployment and the check of its parameters out of the signature.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = options.model_fields.items()
        function.__signature__ = Signature([_parameter(name, field) for name, field in fields])  # type: ignore[attr-defined]
        # Prefect takes descriptions from the docstring.
        lines = [f"    {name}: {field.description}" for name, field in fields]
        function.__doc__ = "\n".join([function.__doc__ or "", "", "Args:", *lines])
        return function

    return wrap


def _parameter(name: str, field: FieldInfo) -> Parameter:
    default = Parameter.empty if field.is_required() else field.default
    kind = Annotated[field.annotation, *field.metadata, Field(description=field.description)]  # type: ignore[valid-type]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


# Checked by the options themselves, whose words are clearer than Prefect's.
@flow(name="pipeline", persist_result=False, validate_parameters=False)
@takes(RunOptions)
def pipeline(**values: Any) -> RunRecord | State:  # noqa: ANN401 - the fields of RunOptions
    """Photos in, a trained model, shopping lists and a report out; returns the run's record."""
    options = checked(RunOptions, values)
    if options.dry_run:
        return _planned(options)
    with time_limit(options.time_limit, events=watcher.get()) as events, mapped_by(options) as mapped:
        live = LiveRun(events, flow_run=flow_run.id)
        _link_to_inspector(options)
        run = PrefectRunner(
            store=Store.open(options.store),
            run=options.folder.name,
            workers=options.worker_count(),
            mapped=mapped,
            refresh=options.part().refresh,
            events=live,
        )
        work = pipeline_of(options, partial(_climb, options=options))
        return shown(carry_out(options, run=run, work=work, events=live, live=live))


def shown(record: RunRecord) -> RunRecord:
    """The record, after the ladder and the decision were put among the flow run's artifacts."""
    if record.champion is not None:
        publish_outcome(
            record.ladder, champion=record.champion, protocol=str(record.target_protocol), decision=record.decision
        )
    return record


def _link_to_inspector(options: RunOptions) -> None:
    name = options.folder.name
    create_link_artifact(run_url(name), link_text=f"Run {name} in the inspector", key="inspector")


def _planned(options: RunOptions) -> State:
    """What a dry run found out, as a table among the flow run's artifacts and as its state's message."""
    verdicts = explain_run(options)
    table = [{"stage": one.name, "verdict": one.verdict, "reason": one.reason} for one in verdicts]
    create_table_artifact(table, key="dry-run", description="What a run would do")
    to_compute = [one.name for one in verdicts if one.verdict != "hit"]
    return Completed(message=f"dry run: {len(to_compute)} of {len(verdicts)} stages may be computed", data=to_compute)


def _climb(run: Runner, *, options: RunOptions) -> Outcome:
    # The sub-flows close over the runner: what a flow takes as a parameter goes to the server and must stay small.
    if options.checkpoint:
        return _sub_flow("select", lambda: selected_again(run, options=options))
    preset = options.configuration()
    choice = options.choice(run.store)
    prepared = _sub_flow("prepare", lambda: order.prepare(run, choice=choice, preset=preset))
    synthesized = _sub_flow("synthesize", lambda: order.synthesize(run, prepared=prepared, preset=preset))
    rungs = _sub_flow("distill", lambda: order.distill(run, prepared=prepared, synthesized=synthesized, preset=preset))
    return Outcome(prepared=prepared, rungs=rungs)


def _sub_flow(name: str, work: Callable[[], Result]) -> Result:
    """Run `work` as a flow of its own name. That a part ends inside it is no failure of the flow."""

    @flow(name=name, persist_result=False)
    def run() -> Result | PartDoneError:
        try:
            return work()
        except PartDoneError as done:
            return done

    result = run()
    if isinstance(result, PartDoneError):
        raise result
    return result
