"""One run from its options to its folder: look everything up first, then run what is missing, then write what to show.

This is what `tally run` and the deployed flow both call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flows import pipeline as order
from flows.explain import ExplainRunner, NothingToStandInError, Verdict
from flows.live import LiveRun
from flows.options import RunOptions
from flows.outputs import write_outputs
from flows.parts import PartDoneError, PartRunner
from flows.pipeline import Outcome
from flows.runner import LocalRunner, LookUpRunner, NotCachedError, Runner
from flows.runs import RUN_FILE, RunRecord, now, read_run
from flows.time_limit import time_limit
from storage.store import DamagedArtifactError, Store
from tasks.context import EventSink, discard_event
from tasks.process import stop_children

Climb = Callable[[Runner], Outcome]


def execute_run(options: RunOptions, *, events: EventSink = discard_event) -> RunRecord:
    """Make the run that `options` describe, or find it made already.

    Raises:
        ValueError: the data set or an option is wrong.
        StageFailedError: a training process failed; the next run goes on from where it was.
    """
    store = Store.open(options.store)
    if not options.refresh:
        try:
            return carry_out(options, run=LookUpRunner(store=store), climb=climb_of(options), events=events)
        except NotCachedError:
            pass
    if options.engine == "local":
        with time_limit(options.time_limit, events=events) as limited:
            live = LiveRun(limited)
            run = LocalRunner(store=store, workers=options.worker_count(), refresh=options.part().refresh, events=live)
            return carry_out(options, run=run, climb=climb_of(options), events=live, live=live)
    from flows.prefect_flows import pipeline, watched_by

    with watched_by(events):
        return pipeline(**options.model_dump())


def climb_of(options: RunOptions) -> Climb:
    """The pipeline of the options, to be run with any runner."""
    return lambda run: order.pipeline(run, choice=options.choice(run.store), preset=options.configuration())


def explain_run(options: RunOptions) -> list[Verdict]:
    """What a run would do, stage by stage, compared with the last run of its name; computes and writes nothing.

    Raises:
        ValueError: the data set or an option is wrong.
    """
    former = former_manifests(options.folder)
    part = options.part()
    runner = ExplainRunner(store=Store.open(options.store), former=former, refresh=part.refresh)
    # These end the look ahead: what was seen up to there is the answer.
    with suppress(NothingToStandInError, PartDoneError, DamagedArtifactError):
        climb_of(options)(PartRunner(inner=runner, part=part) if part.last else runner)
    return runner.verdicts


def former_manifests(folder: Path) -> dict[str, str]:
    """URLs of the manifests of the run in `folder` by the names of its stages; empty where there is no run."""
    if not (folder / RUN_FILE).is_file():
        return {}
    return {one["name"]: one["manifest"] for one in read_run(folder)["stages"]}


def carry_out(
    options: RunOptions, *, run: Runner, climb: Climb, events: EventSink, live: LiveRun | None = None
) -> RunRecord:
    """Run the pipeline, or the part that was asked for, and write the run's outputs.

    With `live`, which also gets the runner's events, `run.json` is kept up to date on the way.
    """
    version = options.version(run.store)
    record = RunRecord(
        name=options.folder.name,
        dataset=str(Path(options.dataset).resolve()),
        catalog=options.catalog_name,
        catalog_version=0 if version is None else version.number,
        preset=options.preset,
        store=run.store.url,
        parameters=options.configuration().model_dump(mode="json"),
        command=options.command(),
        options=options.model_dump(mode="json"),
        results=run.results,
    )
    if live is not None:
        live.follow(record, folder=options.folder)
    try:
        outcome = _climbed(climb, run=PartRunner(inner=run, part=options.part()), events=events)
    except NotCachedError:
        raise
    except PartDoneError as done:
        record.state, record.finished = f"completed to {done}", now()
        record.write(options.folder)
        return record
    except BaseException as error:
        # A thread that waits for a training can't be interrupted; the training would outlive a run that was cancelled.
        stop_children()
        record.state = "failed" if isinstance(error, Exception) else "cancelled"
        record.error, record.finished = f"{type(error).__name__}: {error}", now()
        record.write(options.folder)
        raise
    finally:
        if live is not None:
            live.end()
    record.target_protocol = outcome.prepared.target_protocol
    record.champion = outcome.champion
    record.ladder = {name: rung.report["honest"] for name, rung in outcome.rungs.items()}
    record.val_ladder = {name: rung.report["val"] for name, rung in outcome.rungs.items()}
    record.state, record.finished = "completed", now()
    write_outputs(outcome, record=record, store=run.store, folder=options.folder)
    record.write(options.folder)
    return record


def _climbed(climb: Climb, *, run: Runner, events: EventSink) -> Outcome:
    """The outcome; where a stored file turns out to be damaged, its stage is run again and the climb goes on."""
    remade: set[str] = set()
    while True:
        try:
            return climb(run)
        except DamagedArtifactError as error:
            if error.url in remade or not run.store.discard(error.url):
                raise
            remade.add(error.url)
            events({"kind": "log", "stage": "store", "message": f"{error.url}: {error.problem}; made again"})
