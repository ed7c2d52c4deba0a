"""One run from its options to its folder: look everything up first, then run what is missing, then write what to show.

This is what `tally run` and the deployed flow both call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from flows import pipeline as order
from flows.explain import ExplainRunner, NothingToStandInError, Verdict
from flows.live import LiveRun
from flows.mapped import mapped_by
from flows.options import RunOptions
from flows.outputs_kept import note_outputs, outputs_kept
from flows.parts import PartDoneError, PartRunner, selecting_rounds
from flows.pipeline import Outcome, Splits
from flows.promotion import Challenger, install, judge, kept_stages
from flows.runner import LocalRunner, LookUpRunner, NotCachedError, Runner
from flows.runs import RUN_FILE, RunRecord, now, read_run
from flows.time_limit import time_limit
from storage.champions import current_champion
from storage.digest import JSON
from storage.store import DamagedArtifactError, Store
from storage.verify import may_be_made_again
from tasks.context import EventSink, discard_event
from tasks.process import stop_children

Climb = Callable[[Runner], Outcome]
# What a run does with its runner; it may note in the record what was decided.
Work = Callable[[Runner, RunRecord], Outcome]
UNCHANGED = "unchanged"


class UnchangedError(Exception):
    """Nothing has changed since the last run: there is nothing to do."""


def execute_run(options: RunOptions, *, events: EventSink = discard_event) -> RunRecord:
    """Make the run that `options` describe, or find it made already.

    Raises:
        ValueError: the data set or an option is wrong.
        StageFailedError: a training process failed; the next run goes on from where it was.
    """
    store = Store.open(options.store)
    if options.checkpoint:
        # A wrong name must not leave a failed run in place of the one that it was looked for in.
        options.selecting_checkpoint(store)
    if not options.refresh:
        try:
            return carry_out(options, run=LookUpRunner(store=store), work=pipeline_of(options), events=events)
        except NotCachedError:
            pass
    if options.engine == "local":
        with time_limit(options.time_limit, events=events) as limited, mapped_by(options) as mapped:
            live = LiveRun(limited)
            run = LocalRunner(
                store=store,
                workers=options.worker_count(),
                mapped=mapped,
                refresh=options.part().refresh,
                events=live,
            )
            return carry_out(options, run=run, work=pipeline_of(options), events=live, live=live)
    from flows.prefect_flows import pipeline, watched_by

    with watched_by(events):
        return pipeline(**options.model_dump())


def climb_of(options: RunOptions) -> Climb:
    """The pipeline of the options, to be run with any runner."""
    if options.checkpoint:
        return partial(selected_again, options=options)
    return lambda run: order.pipeline(run, choice=options.choice(run.store), preset=options.configuration())


def selected_again(run: Runner, *, options: RunOptions) -> Outcome:
    """The selections that the options ask of a checkpoint; a run that does nothing else has no rungs."""
    preset = options.configuration()
    prepared = order.reselect(
        run,
        choice=options.choice(run.store),
        preset=preset,
        checkpoint=options.selecting_checkpoint(run.store),
        rounds=selecting_rounds(options.only, preset=preset),
    )
    return Outcome(prepared=prepared)


def pipeline_of(options: RunOptions, climb: Climb | None = None) -> Work:
    """The pipeline, or the part of it that the options ask for, and what is decided about its model.

    `climb` runs the stages; `climb_of(options)` when not given.
    """

    def work(run: Runner, record: RunRecord) -> Outcome:
        outcome = (climb or climb_of(options))(PartRunner(inner=run, part=options.part()))
        record.decision = judged_run(outcome, record=record, options=options, run=run)
        return outcome

    return work


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
    options: RunOptions, *, run: Runner, work: Work, events: EventSink, live: LiveRun | None = None
) -> RunRecord:
    """Do a run's work and write its outputs.

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
        _done(work, run=run, record=record, folder=options.folder, events=events)
    except NotCachedError:
        raise
    except PartDoneError as done:
        return _ended(record, state=f"completed to {done}", folder=options.folder)
    except UnchangedError:
        return _ended(record, state=UNCHANGED, folder=options.folder)
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
    record.write(options.folder)
    return record


def judged_run(outcome: Outcome, *, record: RunRecord, options: RunOptions, run: Runner) -> dict[str, JSON] | None:
    """What is decided about the run's model; None where it does not compete: it saw a part of the catalog, or test."""
    if not options.promote or options.sku or options.pool_source == "test":
        return None
    name = outcome.champion
    challenger = Challenger(
        catalog=record.catalog,
        catalog_version=record.catalog_version,
        run=record.name,
        preset=record.preset,
        name=name,
        rung=outcome.rungs[name],
        stages=kept_stages({name: result.manifest for name, result in run.results.items()}),
    )
    return settle(run, challenger=challenger, splits=outcome.prepared, options=options)


def settle(run: Runner, *, challenger: Challenger, splits: Splits, options: RunOptions) -> dict[str, JSON]:
    """Judge a challenger and have the champion's files where they are looked for; returns what to record of it."""
    made = judge(run, challenger=challenger, splits=splits, preset=options.configuration())
    champion = current_champion(run.store, catalog=challenger.catalog)
    assert champion is not None, "a catalog with a decision has a champion"
    install(champion, store=run.store, runs=Path(options.runs))
    return {"number": made.number, "action": made.action, "reasons": list(made.reasons), "champion": champion.number}


def _ended(record: RunRecord, *, state: str, folder: Path) -> RunRecord:
    record.state, record.finished = state, now()
    record.write(folder)
    return record


def _done(work: Work, *, run: Runner, record: RunRecord, folder: Path, events: EventSink) -> None:
    """Do a run's work and show its outcome; where a stored file turns out to be damaged its stage is run again."""
    remade: set[str] = set()
    while True:
        try:
            outcome = work(run, record)
            _show(outcome, record=record, store=run.store, folder=folder)
            return
        except DamagedArtifactError as error:
            again = error.url not in remade and may_be_made_again(run.store, error.url)
            if not (again and run.store.quarantine(error.url, problem=error.problem)):
                raise
            remade.add(error.url)
            events({"kind": "log", "stage": "store", "message": f"{error.url}: {error.problem}; set aside, made again"})


def _show(outcome: Outcome, *, record: RunRecord, store: Store, folder: Path) -> None:
    """Note what came out of a run, and write its files."""
    record.target_protocol, record.champion = outcome.prepared.target_protocol, outcome.champion
    record.checkpoints = {
        name: {"stage": one.stage, "key": one.key, "content_digest": one.content_digest}
        for name, one in ((name, rung.checkpoint) for name, rung in outcome.rungs.items())
    }
    record.ladder = {name: rung.report["honest"] for name, rung in outcome.rungs.items()}
    record.val_ladder = {name: rung.report["val"] for name, rung in outcome.rungs.items()}
    record.state, record.finished = "completed", now()
    if not outputs_kept(record, folder=folder):
        # It brings what draws pictures and pages, which takes longer than to find that nothing has changed.
        from flows.outputs import write_outputs

        write_outputs(outcome, record=record, store=store, folder=folder)
        note_outputs(record, folder=folder)
