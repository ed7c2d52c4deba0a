"""The flows that are deployed beside `pipeline`: its parts, and what an operator runs on their own.

Each takes the fields of one options model, so that Prefect's form and its refusals say what the command line says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.environment import set_prefect_defaults

set_prefect_defaults()

from prefect import flow  # noqa: E402 - the settings above are read at import
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.client.schemas.objects import State  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402
from prefect.states import Cancelled, Completed  # noqa: E402
from pydantic import BaseModel, ValidationError  # noqa: E402

from flows.announcements import announce_version  # noqa: E402
from flows.catalog import Catalog, add_products, catalog_name  # noqa: E402
from flows.evaluate_model import evaluate_model  # noqa: E402
from flows.execution import carry_out  # noqa: E402
from flows.gc import by_stage, collect  # noqa: E402
from flows.live import LiveRun  # noqa: E402
from flows.mapped import mapped_by  # noqa: E402
from flows.options import (  # noqa: E402
    EvaluateOptions,
    GcOptions,
    IngestOptions,
    PredictOptions,
    RetrainOptions,
    RunOptions,
    worker_count,
)
from flows.prefect_flows import PrefectRunner, pipeline, shown, takes, watcher  # noqa: E402
from flows.refusals import checked  # noqa: E402
from flows.retrain_run import retraining_of  # noqa: E402
from flows.runs import RunRecord  # noqa: E402
from flows.superseded import newer_waiting_run  # noqa: E402
from flows.time_limit import time_limit  # noqa: E402
from storage.store import Store  # noqa: E402

_LISTED = 100


def deployable(name: str, options: type[BaseModel], **settings: Any) -> Callable[[Callable[..., Any]], Any]:  # noqa: ANN401 - settings of a Prefect flow
    """Decorator: a function of one options model becomes a flow whose parameters are the model's fields."""

    def wrap(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a Prefect flow
        def run(**values: Any) -> Any:  # noqa: ANN401 - the fields of the options
            return function(checked(options, values))

        run.__doc__, run.__name__ = function.__doc__, function.__name__
        # Checked by the options themselves, whose words are clearer than Prefect's.
        made = flow(name=name, persist_result=False, validate_parameters=False, **settings)
        return made(takes(options)(run))

    return wrap


@deployable("prepare", RunOptions)
def prepare(options: RunOptions) -> State:
    """Photos are validated, products cut out of their exemplars, and the views kept that a checkout camera sees."""
    return _up_to("prune", options)


@deployable("synthesize", RunOptions)
def synthesize(options: RunOptions) -> State:
    """Empty boards are recovered, synthetic photos composed and given the look of the pool."""
    return _up_to("render", options)


@deployable("distill", RunOptions)
def distill(options: RunOptions) -> State:
    """The ladder is climbed: source only, rendered photos, whole pool photos, confident items of the others."""
    return pipeline.fn(**options.model_dump())


def _up_to(last: str, options: RunOptions) -> State:
    """The pipeline up to a stage, or to where the options end it sooner."""
    ends = options.to_stage or options.only
    return pipeline.fn(**(options if ends else options.model_copy(update={"to_stage": last})).model_dump())


@deployable("evaluate", EvaluateOptions)
def evaluate(options: EvaluateOptions) -> State:
    """A trained model is measured on val and test: RPC's metrics by level, at the threshold that val chose."""
    store, workers = Store.open(options.store), worker_count(options.workers)
    with time_limit(options.time_limit, events=watcher.get()) as events:
        report = evaluate_model(
            options, run=PrefectRunner(store=store, run=options.name, workers=workers, events=events)
        )
    rows = [{"level": level, **_rounded(figures)} for level, figures in report["honest"].items()]
    create_table_artifact(rows, key="evaluation", description=f"{options.model} on test, {options.dataset}")
    return Completed(message=f"test cAcc {report['honest']['averaged']['cAcc']:.3f}", data=report["honest"])


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in figures.items() if isinstance(value, float)}


@deployable("predict", PredictOptions)
def predict(options: PredictOptions) -> State:
    """Shopping lists are read off photos: shopping_lists.csv, .json and .parquet, and annotated photos."""
    from flows.champion import resolve_model
    from flows.predict_photos import find_photos, predict_photos
    from flows.serving import open_reader
    from tasks.photo_lists import PhotoLister

    workers = worker_count(options.workers)
    reader = open_reader(resolve_model(options.model, runs=Path(options.runs)), workers=workers)
    lister = PhotoLister(reader, threshold=options.threshold, draw=options.draw, workers=workers)
    with time_limit(options.time_limit, events=watcher.get()) as events:
        done = predict_photos(find_photos(options.photos), lister=lister, out=Path(options.out), events=events)
    rows = [{"photo": name, "items": one.items, "state": one.state} for name, one in list(done.lists.items())[:_LISTED]]
    create_table_artifact(rows, key="shopping-lists", description=f"{done.summary}; all of them in {options.out}/")
    return Completed(message=done.summary, data={"lists": len(done.lists), "skipped": done.skipped})


@deployable("ingest", IngestOptions)
def ingest(options: IngestOptions) -> State:
    """New products are added to a catalog: a new version, and the event that starts retraining."""
    store = Store.open(options.store)
    workers = worker_count(options.workers)
    with time_limit(options.time_limit, events=watcher.get()) as events:
        catalog = Catalog(dataset=options.root(), store=store, name=options.catalog, workers=workers, events=events)
        change = add_products(options.folder, catalog=catalog, skus=options.sku)
    lines = [f"- refused {reason}" for reason in change.refused.values()]
    lines += [f"- quarantined {row.item_id}: {row.reason}" for row in change.quarantined]
    title = f"catalog {change.version.catalog} version {change.version.number}: " + (
        f"added {', '.join(change.changed[:_LISTED])}" if change.changed else "nothing new"
    )
    create_markdown_artifact("\n".join([f"## {title}", "", *lines[:_LISTED]]), key="catalog")
    if change.changed:
        announce_version(change.version, store=store)
    return Completed(message=title, data={"version": change.version.number, "added": list(change.changed)})


@deployable("retrain", RetrainOptions)
def retrain(options: RetrainOptions) -> RunRecord | State:
    """The champion follows its catalog and pool: what is new is learnt, and the better of both models is champion.

    A run that waited while a newer one was asked for leaves everything to that one.
    """
    newer = newer_waiting_run(subject=_catalog_of)
    if newer is not None:
        return Cancelled(message=f"replaced by {newer}, which was asked for later")
    known = options.run_options(Store.open(options.store))
    with time_limit(options.time_limit, events=watcher.get()) as events, mapped_by(known) as mapped:
        live = LiveRun(events, flow_run=flow_run.id)
        run = PrefectRunner(
            store=Store.open(options.store),
            run=known.folder.name,
            workers=known.worker_count(),
            mapped=mapped,
            events=live,
        )
        return shown(carry_out(known, run=run, work=retraining_of(known), events=live, live=live))


def _catalog_of(parameters: Mapping[str, Any]) -> tuple[str, str] | None:
    """The catalog that a retraining's parameters mean, and its store; None for wrong ones, which are no wish."""
    try:
        options = RetrainOptions.model_validate(parameters)
    except ValidationError:
        return None
    return options.catalog or (catalog_name(options.dataset) if options.dataset else ""), options.store


@deployable("gc", GcOptions)
def gc(options: GcOptions) -> State:
    """Artifacts that no kept run, champion or catalog version reaches are listed and, if told so, removed."""
    with time_limit(options.time_limit, events=watcher.get()) as events:
        found = collect(options, events=events)
    rows = [
        {"what": stage, "reason": reason, "folders": len(ones), "MB": round(sum(one.bytes for one in ones) / 1e6, 1)}
        for stage, reason, ones in by_stage(found)
    ]
    summary = found.summary(deleted=options.delete)
    create_table_artifact(rows[:_LISTED], key="garbage", description=summary)
    return Completed(message=summary, data={"folders": len(found.garbage), "bytes": found.bytes})
