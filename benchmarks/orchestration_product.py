"""What adding one product takes: a run without it, its retraining, and a run with it from the start to compare with."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from benchmarks.reduced_dataset import only_product, with_new_labels, without_product
from benchmarks.shortened import shortened
from flows.catalog import Catalog, add_products
from flows.execution import execute_run
from flows.options import RetrainOptions, RunOptions
from flows.retrain_run import execute_retraining
from flows.runs import read_run, write_json
from storage.catalog import categories_of
from storage.champions import champion_history
from storage.digest import JSON
from storage.manifest import Manifest
from storage.store import Store
from tasks.compare import group_figures, judged
from tasks.params import CompareParams


def adding_a_product(
    dataset: Path, *, preset: str, sku: str, folder: Path, workers: int, effort: float, renderer: str
) -> dict[str, Any]:
    """Times and figures of a retraining beside those of full runs; `sku`: the data set's last product when empty.

    Times are processor time of this process and its children, whatever else the machine does. What is done already in
    `folder` is not done again, and goes on where it was; stages that somebody put into the store `whole` count nothing.
    """
    sku = sku or last_product(dataset)
    shop, arrived = folder / "shop", folder / "arrived"
    if not shop.exists():
        only_product(dataset, sku=sku, out=arrived)
        without_product(dataset, sku=sku, out=shop)
    store = Store.open(str(folder / "store"))
    shared = {"preset": preset, "runs": str(folder / "runs"), "workers": workers, "engine": "local", "catalog": "shop"}
    options = RunOptions(dataset=str(shop), name="before", store=store.url, renderer=renderer, **shared)
    follow = RetrainOptions(dataset=str(shop), name="retrained", store=store.url, **shared)
    whole = RunOptions(dataset=str(dataset), name="whole", store=str(folder / "whole"), renderer=renderer, **shared)

    def retraining() -> None:
        add_products(str(arrived), catalog=Catalog(dataset=str(shop), store=store, name="shop", workers=workers))
        with_new_labels(dataset, out=shop)
        execute_retraining(follow, events=print_event)

    works: dict[str, Callable[[], object]] = {
        "before": lambda: execute_run(options, events=print_event),
        "retrained": retraining,
        "whole": lambda: execute_run(whole, events=print_event),
    }
    with shortened(preset, effort=effort, threads=workers):
        seconds = {name: timed(work, told=folder / f"{name}.json") for name, work in works.items()}
    retrained, whole_run = (read_run(folder / "runs" / name) for name in ("retrained", "whole"))
    rows = {one["name"]: one["rows"] for one in retrained["stages"]}
    decision = champion_history(store, catalog="shop")[-1]
    figures, on_whole = decision.figures["test"], whole_figures(whole_run, sku=sku)
    return {
        "product": sku,
        "photos segmented": f"{rows['segment']} of {rows['gather.segment']}",
        **{f"{name}, processor s": taken for name, taken in seconds.items()},
        "retraining / full run without it": seconds["retrained"] / seconds["before"],
        "cAcc on old products, champion": figures["champion"]["old"]["averaged"]["cAcc"],
        "cAcc on old products, challenger": figures["challenger"]["old"]["averaged"]["cAcc"],
        "cAcc on old products, full run": on_whole["old"]["averaged"]["cAcc"],
        "recall of the new product, challenger": figures["challenger"]["new"]["averaged"]["recall"],
        "recall of the new product, full run": on_whole["new"]["averaged"]["recall"],
        "cAcc on all, challenger": figures["challenger"]["all"]["averaged"]["cAcc"],
        "cAcc on all, full run": on_whole["all"]["averaged"]["cAcc"],
        "decision": f"{decision.action}: {'; '.join(decision.reasons)}",
    }


def timed(work: Callable[[], object], *, told: Path) -> float:
    """Do work unless it was done; the processor time that it took, children included, all tries together, seconds."""
    known = orjson.loads(told.read_bytes()) if told.is_file() else {"seconds": 0.0, "done": False}
    if known["done"]:
        return float(known["seconds"])
    started, done = processor_seconds(), False
    try:
        work()
        done = True
    finally:
        seconds = known["seconds"] + processor_seconds() - started
        write_json(told, {"seconds": seconds, "done": done})
    return float(seconds)


def processor_seconds() -> float:
    """Processor time of this process and of the children that ended, seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def whole_figures(run: Mapping[str, JSON], *, sku: str) -> Mapping[str, Any]:
    """Figures on test of a full run's model, by the groups that stage `compare` has: all, old (all but `sku`), new."""
    store = Store.open(run["store"])
    manifests = {one["name"]: one["manifest"] for one in run["stages"]}

    def made(name: str) -> Manifest:
        return store.load(manifests[name])

    val, test = made("ingest.val"), made("ingest.test")
    predictions = (made(f"predict.{run['champion']}.val"), made(f"predict.{run['champion']}.test"))
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
