"""What a finished run leaves in its folder: report.html, metrics.json, the champion, photos and shopping lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.pipeline import Outcome, Rung
from flows.runs import RunRecord, write_json
from inspector.report import write_report
from storage.catalog import categories_of
from storage.files import replace_file
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest
from storage.store import Store
from tasks.confidence import UNTRAINED, ListConfidence
from tasks.fusion import fused_objects
from tasks.list_files import list_files
from tasks.shopping_list import ShoppingList, draw_detections, kept, prices_of, shopping_list

_CHAMPION_FILES = {"checkpoint": "model.safetensors", "config": "model.json"}
_FIGURES = ("cAcc", "ACD", "mCCD", "mCIoU", "mAP50", "mmAP")
_DRAWN = 24


def write_outputs(outcome: Outcome, *, record: RunRecord, store: Store, folder: Path) -> None:
    """Write everything the run has to show."""
    folder.mkdir(parents=True, exist_ok=True)
    champion = outcome.rungs[outcome.champion]
    write_json(folder / "metrics.json", metrics(outcome))
    write_champion(champion.checkpoint, store=store, folder=folder / "champion")
    write_lists(champion, photos=outcome.prepared.test, store=store, folder=folder)
    write_report(record.to_json(), store=store, out=folder / "report.html")


def metrics(outcome: Outcome) -> dict[str, object]:
    """The ladder: for each rung the honest figures on test at the val threshold, by level and averaged."""
    ladder = {
        name: {level: {figure: values[figure] for figure in _FIGURES} for level, values in _levels(rung).items()}
        for name, rung in outcome.rungs.items()
    }
    return {
        **ladder,
        "champion": outcome.champion,
        "target_protocol": outcome.prepared.target_protocol,
        "thresholds": {name: rung.report["threshold"] for name, rung in outcome.rungs.items()},
    }


def _levels(rung: Rung) -> Mapping[str, Mapping[str, float]]:
    return rung.report["honest"]


def write_champion(checkpoint: Manifest, *, store: Store, folder: Path) -> None:
    """The checkpoint's weights and JSON, as `tally predict --model` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for item_id, name in _CHAMPION_FILES.items():
        replace_file(folder / name, store.read(checkpoint.row(item_id)), sync=False)


def write_lists(rung: Rung, *, photos: Manifest, store: Store, folder: Path) -> list[ShoppingList]:
    """shopping_lists.csv, .json and .parquet of all photos, and the first ones with the products drawn in."""
    categories = categories_of(photos)
    names, prices = {category.sku: category.title for category in categories}, prices_of(categories)
    threshold, scale = float(rung.report["threshold"]), rung.report["count_scale"]
    # No scale: the evaluation was told to decide with the detection view alone, which says nothing about whole lists.
    trust = UNTRAINED if scale is None else ListConfidence.from_json(rung.report["confidence"])
    lists = []
    for index, row in enumerate(photos.ok):
        found = rung.test_predictions.row(row.item_id)
        count = (scale or 1.0) * float(found.attributes["count"])
        scored = found.objects if scale is None else fused_objects(found.objects, count=count)
        name = Path(row.url).name
        one = shopping_list(
            name, objects=scored, count=count, threshold=threshold, trust=trust, names=names, prices=prices
        )
        lists.append(one)
        target = folder / "photos" / name
        if index < _DRAWN:
            target.parent.mkdir(exist_ok=True)
            listed = kept(scored, threshold=threshold)
            drawn_HW3 = draw_detections(decode_rgb(store.read(row)), objects=listed, names=names, total=one.total)
            replace_file(target, encode_jpeg(drawn_HW3), sync=False)
    for name, data in list_files(lists).items():
        replace_file(folder / name, data, sync=False)
    return lists
