"""What adding one product takes: a run without it, its retraining, and a run with it from the start to compare with."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson

from benchmarks.reduced_dataset import only_product, with_new_labels, without_product
from flows.catalog import Catalog, add_products
from flows.execution import execute_run
from flows.options import RetrainOptions, RunOptions
from flows.presets import PRESETS, Preset
from flows.retrain_run import execute_retraining
from flows.runs import RunRecord
from storage.catalog import categories_of
from storage.champions import champion_history
from storage.manifest import Manifest
from storage.store import Store
from tasks.compare import group_figures, judged
from tasks.params import CompareParams, StageParams

Made = TypeVar("Made")


@contextmanager
def shortened(name: str, *, effort: float) -> Iterator[None]:
    """The preset `name` with its training steps and composed photos times `effort`."""
    make = PRESETS[name]
    PRESETS[name] = lambda: _shorter(make(), effort=effort)
    try:
        yield
    finally:
        PRESETS[name] = make


def _shorter(preset: Preset, *, effort: float) -> Preset:
    def cut(params: StageParams, *names: str) -> StageParams:
        counts = {name: getattr(params, name) for name in names if getattr(params, name)}
        return params.model_copy(update={name: max(1, round(effort * count)) for name, count in counts.items()})

    train = {name: cut(params, "steps", "evaluate_every") for name, params in preset.train.items()}
    shorter = {"compose": cut(preset.compose, "photos"), "render": cut(preset.render, "steps"), "train": train}
    return preset.model_copy(update=shorter)


def adding_a_product(
    dataset: Path, *, preset: str, sku: str, folder: Path, workers: int, effort: float
) -> dict[str, Any]:
    """Times and figures of a retraining beside those of full runs; `sku`: the data set's last product when empty.

    Times are processor time of this process and its children, whatever else the machine does.
    """
    sku = sku or last_product(dataset)
    shop, arrived = folder / "shop", folder / "arrived"
    if not shop.exists():
        without_product(dataset, sku=sku, out=shop)
        only_product(dataset, sku=sku, out=arrived)
    store = Store.open(str(folder / "store"))
    shared = {"preset": preset, "runs": str(folder / "runs"), "workers": workers, "engine": "local", "catalog": "shop"}
    with shortened(preset, effort=effort):
        before, before_seconds = timed(
            lambda: execute_run(
                RunOptions(dataset=str(shop), name="before", store=store.url, **shared), events=print_event
            )
        )
        add_products(str(arrived), catalog=Catalog(dataset=str(shop), store=store, name="shop", workers=workers))
        with_new_labels(dataset, out=shop)
        retrained, retrain_seconds = timed(
            lambda: execute_retraining(
                RetrainOptions(dataset=str(shop), name="retrained", store=store.url, **shared), events=print_event
            )
        )
        whole_options = RunOptions(dataset=str(dataset), name="whole", store=str(folder / "whole"), **shared)
        whole, whole_seconds = timed(lambda: execute_run(whole_options, events=print_event))
    decision = champion_history(store, catalog="shop")[-1]
    figures, on_whole = decision.figures["test"], whole_figures(whole, sku=sku)
    return {
        "product": sku,
        "photos segmented": f"{_rows(retrained, 'segment')} of {_rows(retrained, 'gather.segment')}",
        "full run without it, s": before_seconds,
        "retraining, s": retrain_seconds,
        "full run with it, s": whole_seconds,
        "retraining / full run": retrain_seconds / whole_seconds,
        "cAcc on old products, champion": figures["champion"]["old"]["averaged"]["cAcc"],
        "cAcc on old products, challenger": figures["challenger"]["old"]["averaged"]["cAcc"],
        "cAcc on old products, full run": on_whole["old"]["averaged"]["cAcc"],
        "recall of the new product, challenger": figures["challenger"]["new"]["averaged"]["recall"],
        "recall of the new product, full run": on_whole["new"]["averaged"]["recall"],
        "cAcc on all, challenger": figures["challenger"]["all"]["averaged"]["cAcc"],
        "cAcc on all, full run": on_whole["all"]["averaged"]["cAcc"],
        "decision": f"{decision.action}: {'; '.join(decision.reasons)}",
        "cached stages": f"{sum(one.cached for one in before.results.values())} of the first run",
    }


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """The result and the processor time that it took, children included, seconds."""
    started = processor_seconds()
    return work(), processor_seconds() - started


def processor_seconds() -> float:
    """Processor time of this process and of the children that ended, seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def whole_figures(run: RunRecord, *, sku: str) -> Mapping[str, Any]:
    """Figures on test of a full run's model, by the groups that stage `compare` has: all, old (all but `sku`), new."""
    store = Store.open(run.store)

    def made(name: str) -> Manifest:
        return store.load(run.results[name].manifest)

    val, test = made("ingest.val"), made("ingest.test")
    predictions = (made(f"predict.{run.champion}.val"), made(f"predict.{run.champion}.test"))
    _, test_set, threshold = judged(val, test, predictions=predictions, params=CompareParams())
    skus = [category.sku for category in categories_of(val)]
    groups = {"all": skus, "old": [one for one in skus if one != sku], "new": [sku]}
    return group_figures(test_set, threshold=threshold, groups=groups)


def print_event(event: Mapping[str, Any]) -> None:
    """A line for each stage that ended, to standard error."""
    if event["kind"] == "end":
        print(f"{event['name']} {event['seconds']:.1f} s", file=sys.stderr, flush=True)


def last_product(dataset: Path) -> str:
    """The SKU of the last product that a data set in RPC layout lists."""
    listing = orjson.loads((dataset / "instances_train2019.json").read_bytes())
    last = listing["categories"][-1]
    return str(last.get("sku_name") or last["name"])


def _rows(run: RunRecord, name: str) -> int:
    return run.results[name].rows
