"""One run from its options to its folder: look everything up first, then run what is missing, then write what to show.

This is what `tally run` and the deployed flow both call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flows import pipeline as order
from flows.outputs import write_outputs
from flows.pipeline import DatasetChoice, Outcome
from flows.presets import PRESETS, Preset
from flows.runner import LocalRunner, LookUpRunner, NotCachedError, Runner
from flows.runs import RunRecord, now
from storage.store import Store
from tasks.context import EventSink, discard_event

Climb = Callable[[Runner], Outcome]


class RunOptions(BaseModel):
    """What a run needs to know; also the form of the deployed flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(description="folder of the data set: RPC layout, or catalog/SKU/, pool/, val/, test/")
    preset: Literal["micro", "demo", "cpu", "gpu", "paper"] = Field(default="cpu", description="which configuration")
    name: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", description="folder of the run under `runs`; the preset when empty"
    )
    store: str = Field(default="store", description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of the runs")
    pool_source: Literal["pool", "test"] = Field(
        default="pool", description="test: the test photos, without labels, are the pool (transductive)"
    )
    seed: int = Field(default=0, ge=0, description="seed of every stage")
    workers: int = Field(default=0, ge=0, description="parallel workers of a stage; 0: one a processor")
    refresh: tuple[str, ...] = Field(default=(), description="stages to compute again although they are cached")
    engine: Literal["prefect", "local"] = Field(default="prefect", description="local: without Prefect")

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self.runs) / (self.name or self.preset)

    @property
    def choice(self) -> DatasetChoice:
        """The data set and the pool."""
        return DatasetChoice(dataset=self.dataset, pool_source=self.pool_source)

    def configuration(self) -> Preset:
        """The preset with the run's seed in every stage."""
        return PRESETS[self.preset]().seeded(self.seed)

    def worker_count(self) -> int:
        """The number of workers: as asked, or one a processor this process may use."""
        return self.workers or len(os.sched_getaffinity(0))


def execute_run(options: RunOptions, *, events: EventSink = discard_event) -> RunRecord:
    """Make the run that `options` describe, or find it made already.

    Raises:
        ValueError: the data set or an option is wrong.
        StageFailedError: a training process failed; the next run goes on from where it was.
    """
    store = Store.open(options.store)
    if not options.refresh:
        try:
            return carry_out(options, run=LookUpRunner(store=store), climb=_climb(options))
        except NotCachedError:
            pass
    if options.engine == "local":
        run = LocalRunner(
            store=store, workers=options.worker_count(), refresh=frozenset(options.refresh), events=events
        )
        return carry_out(options, run=run, climb=_climb(options))
    from flows.prefect_flows import pipeline, watched_by

    with watched_by(events):
        return pipeline(options)


def _climb(options: RunOptions) -> Climb:
    return lambda run: order.pipeline(run, choice=options.choice, preset=options.configuration())


def carry_out(options: RunOptions, *, run: Runner, climb: Climb) -> RunRecord:
    """Run the pipeline with one runner, keeping `run.json` up to date, and write the run's outputs."""
    record = RunRecord(
        name=options.folder.name,
        dataset=str(Path(options.dataset).resolve()),
        preset=options.preset,
        store=run.store.url,
        parameters=options.configuration().model_dump(mode="json"),
        results=run.results,
    )
    try:
        outcome = climb(run)
    except NotCachedError:
        raise
    except BaseException as error:
        record.state, record.error, record.finished = "failed", f"{type(error).__name__}: {error}", now()
        record.write(options.folder)
        raise
    record.target_protocol = outcome.prepared.target_protocol
    record.champion = outcome.champion
    record.ladder = {name: rung.report["honest"] for name, rung in outcome.rungs.items()}
    record.state, record.finished = "completed", now()
    write_outputs(outcome, record=record, store=run.store, folder=options.folder)
    record.write(options.folder)
    return record
