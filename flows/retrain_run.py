"""One retraining from its options: a no-op while nothing has changed, else the stages of `flows.retrain`.

This is what `tally retrain` and the deployed flow both call. Without a champion the whole pipeline is run.
"""

from __future__ import annotations

from flows.execution import UnchangedError, Work, carry_out, pipeline_of, settle
from flows.live import LiveRun
from flows.mapped import mapped_by
from flows.options import RetrainOptions, RunOptions
from flows.pipeline import Outcome, ingest_splits
from flows.promotion import Challenger, inputs_of, settled
from flows.retrain import retrain
from flows.runner import LocalRunner, LookUpRunner, NotCachedError, Runner
from flows.runs import RunRecord
from flows.time_limit import time_limit
from storage.champions import champion_history, current_champion
from storage.store import Store
from tasks.context import EventSink, discard_event

CHALLENGER = "challenger"


def execute_retraining(options: RetrainOptions, *, events: EventSink = discard_event) -> RunRecord:
    """Retrain as the options say; its state is `unchanged` where the champion knows catalog and pool already.

    Raises:
        ValueError: the data set, an option or the champion is wrong.
        StageFailedError: a training process failed; the next run goes on from where it was.
    """
    store = Store.open(options.store)
    known = options.run_options(store)
    try:
        return carry_out(known, run=LookUpRunner(store=store), work=retraining_of(known), events=events)
    except NotCachedError:
        pass
    if options.engine == "local":
        with time_limit(options.time_limit, events=events) as limited, mapped_by(known) as mapped:
            live = LiveRun(limited)
            run = LocalRunner(store=store, workers=known.worker_count(), mapped=mapped, events=live)
            return carry_out(known, run=run, work=retraining_of(known), events=live, live=live)
    from flows.deployed import retrain as flow
    from flows.prefect_flows import watched_by

    with watched_by(events):
        return flow(**options.model_dump())


def retraining_of(options: RunOptions) -> Work:
    """The stages of a retraining and what is decided about the challenger."""

    def work(run: Runner, record: RunRecord) -> Outcome:
        champion = current_champion(run.store, catalog=options.catalog_name)
        if champion is None:
            return pipeline_of(options)(run, record)
        splits = ingest_splits(run, choice=options.choice(run.store))
        if settled(champion_history(run.store, catalog=options.catalog_name), inputs=inputs_of(splits)):
            raise UnchangedError
        made = retrain(run, splits=splits, record=champion, preset=options.configuration())
        challenger = Challenger(
            catalog=record.catalog,
            catalog_version=record.catalog_version,
            run=record.name,
            preset=record.preset,
            name=CHALLENGER,
            rung=made.rung,
            stages={name: manifest.url for name, manifest in made.stages.items()},
        )
        record.decision = settle(run, challenger=challenger, splits=splits, options=options)
        return Outcome(prepared=splits, rungs={CHALLENGER: made.rung})

    return work
