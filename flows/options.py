"""What a run needs to know: the options of `tally run`, the parameters of its deployments, the form in Prefect's pages.

One model for all three, so that a value is refused in the same words everywhere, before anything starts.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.catalog import catalog_name
from flows.checkpoints import named_checkpoint
from flows.parts import Part, part_of, part_that_selects
from flows.pipeline import DatasetChoice
from flows.presets import PAPER_THRESHOLDS, PRESETS, Preset
from flows.runs import last_run, read_run
from storage.catalogs import CatalogVersion, catalog_version
from storage.champions import current_champion
from storage.manifest import Manifest
from storage.store import Store
from tasks.params import Renderer

# Where a team keeps its artifacts, so that nobody has to say it each time.
_STORE = os.environ.get("TALLY_STORE", "store")
_NAME = r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$"
MAX_WORKERS = 1024
TaskRunner = Literal["threads", "processes", "dask"]
Hours = Annotated[float, Field(ge=0, le=10_000, description="hours after which the run ends; 0: never")]
Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]


class RunOptions(BaseModel):
    """What a run needs to know; also the form of the deployed flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(description="folder of the data set: RPC layout, or catalog/SKU/, pool/, val/, test/")
    preset: Literal["micro", "demo", "cpu", "gpu", "paper"] = Field(default="cpu", description="which configuration")
    name: str = Field(
        default="",
        pattern=_NAME,
        description="folder of the run under `runs`; the preset when empty",
    )
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of the runs")
    pool_source: Literal["pool", "test"] = Field(
        default="pool", description="test: the test photos, without labels, are the pool (transductive)"
    )
    catalog: str = Field(default="", pattern=_NAME, description="name of the catalog; the data set's folder when empty")
    catalog_version: int = Field(
        default=0, ge=0, description="0: the newest, or the data set's own exemplars where no version was made"
    )
    seed: int = Field(default=0, ge=0, description="seed of every stage")
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="parallel workers of a stage; 0: one a processor")
    task_runner: TaskRunner = Field(
        default="threads", description="what maps segment, compose, render and predict; the results are the same"
    )
    dask_address: str = Field(
        default="", description="scheduler of a Dask cluster; a cluster of `workers` processes here when empty"
    )
    from_stage: Annotated[str, Parameter(name="--from")] = Field(
        default="", description="first stage that may be computed; what comes before is only taken from the store"
    )
    to_stage: Annotated[str, Parameter(name="--to")] = Field(default="", description="stage after which to stop")
    only: str = Field(default="", description="the one stage that may be computed; stops after it")
    checkpoint: str = Field(
        default="",
        description="with --only select: the model that selects, a rung of this run (render), RUN/RUNG, or RUN for its "
        "champion; the round's own teacher when empty",
    )
    refresh: Names = Field(default=(), description="stages to compute again although they are cached")
    sku: Names = Field(default=(), description="products whose exemplars are used; all when empty")
    feedback: bool = Field(
        default=False,
        description="weigh views and compose photos once more by the views, sizes, light and layout that the first "
        "round's pseudo-labels show",
    )
    selection: Literal["", "precision", "thresholds"] = Field(
        default="",
        description="what decides which pool photos are taken whole: the expected precision of their items, or the "
        "paper's thresholds of the scores, which rise by round from 0.80 to 0.95; empty: as the preset",
    )
    renderer: Literal[Renderer, "auto", ""] = Field(
        default="",
        description="what gives synthetic photos the look of the pool; auto: what teaches best; empty: as the preset",
    )
    time_limit: Hours = 0.0
    promote: bool = Field(default=True, description="the run's model becomes champion if it is better on val")
    dry_run: bool = Field(default=False, description="tell which stages would be computed, and compute none")
    engine: Literal["prefect", "local"] = Field(default="prefect", description="local: without Prefect")

    @model_validator(mode="after")
    def _stages_exist(self) -> RunOptions:
        if self.dask_address and self.task_runner != "dask":
            raise ValueError(f"dask_address: expected task_runner dask beside it, got {self.task_runner}")
        if self.only and (self.from_stage or self.to_stage):
            raise ValueError("only: expected no --from and no --to beside it, got both; --only X is --from X --to X")
        self.part()
        return self

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self.runs) / (self.name or self.preset)

    @property
    def catalog_name(self) -> str:
        """The name under which the catalog's versions and champions stand in the store."""
        return self.catalog or catalog_name(self.dataset)

    def version(self, store: Store) -> CatalogVersion | None:
        """The version of the catalog that is meant; None where it has only the data set's own exemplars.

        Raises:
            ValueError: there is no such version.
        """
        return catalog_version(store, catalog=self.catalog_name, number=self.catalog_version)

    def choice(self, store: Store) -> DatasetChoice:
        """The data set, the pool and the products.

        Raises:
            ValueError: there is no such version of the catalog.
        """
        version = self.version(store)
        catalog = None if version is None else store.load(version.manifest)
        return DatasetChoice(dataset=self.dataset, pool_source=self.pool_source, skus=self.sku, catalog=catalog)

    def configuration(self) -> Preset:
        """The preset with the run's seed in every stage, and with the feedback, selection and renderer asked for."""
        preset = PRESETS[self.preset]()
        render = preset.render.model_copy(update={"renderer": self.renderer or preset.render.renderer})
        thresholds = {"": preset.thresholds, "precision": (), "thresholds": PAPER_THRESHOLDS}[self.selection]
        changes = {"feedback": self.feedback or preset.feedback, "thresholds": thresholds, "render": render}
        return preset.model_copy(update=changes).seeded(self.seed)

    def selecting_checkpoint(self, store: Store) -> Manifest:
        """The checkpoint that `checkpoint` names.

        Raises:
            ValueError: there is none.
        """
        return named_checkpoint(self.checkpoint, runs=Path(self.runs), own=self.folder.name, store=store)

    def part(self) -> Part:
        """Which stages may be computed, which must be, and where the run ends.

        Raises:
            ValueError: a name is not that of a stage of this run.
        """
        if self.checkpoint:
            part = part_that_selects(self.only, preset=self.configuration())
            again = part_of(self.configuration(), first="", last="", only="", refresh=self.refresh).refresh
            return replace(part, refresh=again)
        return part_of(
            self.configuration(),
            first=self.only or self.from_stage,
            last=self.only or self.to_stage,
            only=self.only,
            refresh=self.refresh,
        )

    def command(self) -> str:
        """The command line that asks for the same."""
        words = ["tally", "run"]
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not field.is_required() and value == field.default:
                continue
            option = name.removesuffix("_stage").replace("_", "-")
            values = value if isinstance(value, tuple) else (value,)
            flag = f"--{option}" if value else f"--no-{option}"
            words += [flag] if isinstance(value, bool) else [f"--{option}", *map(str, values)]
        return shlex.join(words)

    def worker_count(self) -> int:
        """The number of workers: as asked, or one a processor this process may use."""
        return worker_count(self.workers)


class CatalogOptions(BaseModel):
    """Which catalog, in which store."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(default="", description="folder of the data set; that of the last run when not given")
    catalog: str = Field(default="", pattern=_NAME, description="name of the catalog; the data set's folder when empty")
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of the runs")
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="photos validated at once; 0: one a processor")

    def root(self) -> str:
        """The folder of the data set.

        Raises:
            ValueError: none is named, and nothing ran yet.
        """
        if self.dataset:
            return self.dataset
        try:
            return str(read_run(last_run(Path(self.runs)))["dataset"])
        except ValueError as error:
            raise ValueError(f"dataset: expected --dataset DIR, or a run under {self.runs}/ to take it from") from error


class IngestOptions(CatalogOptions):
    """New products for a catalog."""

    folder: str = Field(description="folder with one folder a new product (or in RPC layout)")
    sku: Names = Field(default=(), description="products of the folder that are added; all new ones when empty")
    time_limit: Hours = 0.0


class RetrainOptions(BaseModel):
    """Which catalog's champion follows its catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(default="", description="folder of the data set; that of the catalog or the last run if empty")
    catalog: str = Field(default="", pattern=_NAME, description="name of the catalog; the data set's folder when empty")
    catalog_version: int = Field(default=0, ge=0, description="version of the catalog to follow; 0: the newest")
    preset: Literal["", "micro", "demo", "cpu", "gpu", "paper"] = Field(
        default="", description="configuration; the one that the champion was trained with when empty"
    )
    name: str = Field(default="retrain", min_length=1, pattern=_NAME, description="folder of the run under `runs`")
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of the runs")
    seed: int = Field(default=0, ge=0, description="seed of every stage")
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="parallel workers of a stage; 0: one a processor")
    time_limit: Hours = 0.0
    task_runner: TaskRunner = Field(
        default="threads", description="what maps segment, compose, render and predict; the results are the same"
    )
    dask_address: str = Field(
        default="", description="scheduler of a Dask cluster; a cluster of `workers` processes here when empty"
    )
    engine: Literal["prefect", "local"] = Field(default="prefect", description="local: without Prefect")

    def run_options(self, store: Store) -> RunOptions:
        """The same as a run has them, with the data set and the preset found out.

        Raises:
            ValueError: no data set is named or known.
        """
        version = catalog_version(store, catalog=self.catalog) if self.catalog else None
        dataset = self.dataset or (version.dataset if version else "") or CatalogOptions(runs=self.runs).root()
        champion = current_champion(store, catalog=self.catalog or catalog_name(dataset))
        preset = self.preset or (champion.preset if champion else "") or "cpu"
        shared = ("catalog", "catalog_version", "name", "store", "runs", "seed", "workers", "time_limit", "engine")
        spread = ("task_runner", "dask_address")
        values = {name: getattr(self, name) for name in (*shared, *spread)}
        return RunOptions(dataset=dataset, preset=preset, **values)


class EvaluateOptions(BaseModel):
    """Which model is measured on which data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(description="folder of the data set whose val and test photos are read")
    model: str = Field(default="champion", min_length=1, description="champion, or the name of a run")
    preset: Literal["micro", "demo", "cpu", "gpu", "paper"] = Field(default="cpu", description="how it is evaluated")
    name: str = Field(default="evaluate", pattern=_NAME, description="folder of this run under `runs`")
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of the runs")
    catalog: str = Field(default="", pattern=_NAME, description="name of the catalog; the data set's folder when empty")
    catalog_version: int = Field(
        default=0, ge=0, description="0: the newest, or the data set's own exemplars where no version was made"
    )
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="parallel workers of a stage; 0: one a processor")
    time_limit: Hours = 0.0

    @property
    def run_options(self) -> RunOptions:
        """The same data set, store and preset as a run has them."""
        shared = ("dataset", "preset", "name", "store", "runs", "catalog", "catalog_version", "workers")
        return RunOptions(**{name: getattr(self, name) for name in shared})


class PredictOptions(BaseModel):
    """Which photos are read with which model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    photos: str = Field(min_length=1, description="a photo, a folder of photos, or a glob such as counter/*.jpg")
    model: str = Field(default="champion", min_length=1, description="champion, a run, a champion's folder, or .onnx")
    runs: str = Field(default="runs", description="folder of the runs")
    out: str = Field(default="shopping_lists", min_length=1, description="where the lists and photos/ go")
    threshold: float | None = Field(default=None, ge=0, le=1, description="least score of an item; the model's own")
    draw: bool = Field(default=True, description="write the photos with the products drawn in")
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="photos read at once; 0: one a processor")
    time_limit: Hours = 0.0


class GcOptions(BaseModel):
    """What garbage collection looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    runs: str = Field(default="runs", description="folder of runs that are kept, besides those noted in the store")
    older_than: float = Field(
        default=24.0, ge=0, description="hours since a run made or used it; 0: none may be running"
    )
    delete: bool = Field(default=False, description="remove what was found; without it nothing is removed")
    time_limit: Hours = 0.0


class VerifyOptions(BaseModel):
    """Which store is verified, and what becomes of what is damaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str = Field(default=_STORE, description="folder or URL of the artifact store")
    quarantine: bool = Field(default=False, description="move what is damaged aside, so that a run makes it again")
    photos: bool = Field(default=False, description="also read the data sets' photos, which lie outside the store")
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS, description="files read at once; 0: one a processor")


def worker_count(asked: int) -> int:
    """The number of workers: as asked, or one a processor this process may use."""
    return asked or processors()


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))
