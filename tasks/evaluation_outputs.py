"""What an evaluation has to show beside its figures: Parquet tables, SVG plots and pictures of the mistakes. Pure."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import JSON
from storage.images import Picture
from tasks import evaluation_plots as plots
from tasks.evaluation_analysis import (
    WRONG_SKU,
    Matches,
    accuracy_by_items,
    calibration_error,
    confusions,
    curve_on_grid,
    error_kinds,
    match,
    mistakes,
    reliability,
    sku_table,
)
from tasks.evaluation_set import EvaluationSet, by_level
from tasks.metrics import counts_at

_CROPS = 6
# How much of its surroundings a picture of a mistake shows, as a share of the box's longer side.
_SURROUNDINGS = 0.15
_SCHEMAS: dict[str, pa.Schema] = {
    "confusions": pa.schema([("true_sku", pa.string()), ("found_sku", pa.string()), ("times", pa.int64())]),
    "mistakes": pa.schema(
        [
            ("photo", pa.string()),
            ("kind", pa.string()),
            ("true_sku", pa.string()),
            ("found_sku", pa.string()),
            ("score", pa.float64()),
            ("box", pa.list_(pa.float32(), 4)),
        ]
    ),
    "reliability": pa.schema(
        [
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("detections", pa.int64()),
            ("mean_score", pa.float64()),
            ("precision", pa.float64()),
        ]
    ),
    "accuracy_by_items": pa.schema([("products", pa.int64()), ("photos", pa.int64()), ("cAcc", pa.float64())]),
    "error_kinds": pa.schema([("level", pa.string()), ("kind", pa.string()), ("number", pa.int64())]),
}
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """`figures` for the report, `tables` and `plots` (SVG) by name."""

    figures: dict[str, JSON]
    tables: dict[str, pa.Table]
    plots: dict[str, bytes]


def analyse(test: EvaluationSet, *, val: EvaluationSet | None, threshold: float) -> Analysis:
    """What went wrong at `threshold`, by photo, SKU, kind and number of products; the curves with `val` where there is
    one."""
    kept = replace(test, found=test.found.take(test.found.score_M >= threshold))
    matches = match(kept)
    bins = reliability(test, matches=match(test))
    kinds, error = error_kinds(matches), calibration_error(bins)
    curves = {name: curve_on_grid(part) for name, part in (("val", val), ("test", test)) if part is not None}
    by_items, skus = accuracy_by_items(test, threshold=threshold), sku_table(kept, matches=matches)
    drawn = {
        "threshold_curve": plots.plot_threshold_curve(curves, threshold=threshold, tuned=val is not None),
        "accuracy_by_items": plots.plot_accuracy_by_items(by_items),
        "error_kinds": plots.plot_error_kinds(kinds),
        "worst_skus": plots.plot_worst_skus(skus),
        **({"reliability": plots.plot_reliability(bins, error=error)} if bins else {}),
    }
    return Analysis(
        figures={"error_kinds": kinds, "calibration_error": error},
        tables={
            "photos": pa.table(photo_table(test, threshold=threshold)),
            "skus": pa.table(skus),
            **_record_tables(kept, matches=matches, bins=bins, by_items=by_items),
            **{f"curve_{name}": pa.table(curve) for name, curve in curves.items()},
        },
        plots=drawn,
    )


def _record_tables(
    kept: EvaluationSet, *, matches: Matches, bins: Sequence[Record], by_items: Sequence[tuple[int, int, float]]
) -> dict[str, pa.Table]:
    records: dict[str, Sequence[Record]] = {
        "confusions": [
            {"true_sku": true, "found_sku": found, "times": times}
            for true, found, times in confusions(kept, matches=matches)
        ],
        "mistakes": mistakes(kept, matches=matches),
        "reliability": bins,
        "accuracy_by_items": [
            {"products": items, "photos": photos, "cAcc": accuracy} for items, photos, accuracy in by_items
        ],
        "error_kinds": [
            {"level": level, "kind": kind, "number": number}
            for level, part in by_level(kept).items()
            for kind, number in error_kinds(match(part)).items()
        ],
    }
    return {name: pa.Table.from_pylist(list(rows), schema=_SCHEMAS[name]) for name, rows in records.items()}


def photo_table(test: EvaluationSet, *, threshold: float) -> dict[str, list[Any]]:
    """One entry a photo: its level, how many products are in it, how many were found, how many items are wrong."""
    found_NK, true_NK = counts_at(test, threshold=threshold)
    return {
        "photo": list(test.photo_ids),
        "level": list(test.levels),
        "products": true_NK.sum(axis=1).tolist(),
        "found": found_NK.sum(axis=1).tolist(),
        "wrong": np.abs(found_NK - true_NK).sum(axis=1).tolist(),
    }


def encode_table(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def confusion_sheet(analysis: Analysis, *, read: Callable[[str], Picture], pairs: int) -> bytes | None:
    """PNG of the `pairs` most confused SKU pairs, a row of crops each; None where nothing was confused.

    `read` gives a photo by its id, as uint8 RGB.
    """
    listed = [one for one in analysis.tables["mistakes"].to_pylist() if one["kind"] == WRONG_SKU]
    tiles = []
    for pair in analysis.tables["confusions"].to_pylist()[:pairs]:
        true, found = pair["true_sku"], pair["found_sku"]
        cases = [one for one in listed if (one["true_sku"], one["found_sku"]) == (true, found)]
        crops = [crop(read(case["photo"]), box=case["box"]) for case in cases[:_CROPS]]
        tiles.append((f"{true} taken for {found}: {pair['times']}", crops))
    return plots.contact_sheet(tiles) if tiles else None


def crop(photo_HW3: Picture, *, box: Sequence[float]) -> Picture:
    """What an xyxy box shows, with a little of its surroundings; at least one pixel of the photo."""
    height, width = photo_HW3.shape[:2]
    room = _SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])
    x0, y0 = (
        int(np.clip(round(value - room), 0, most - 1)) for value, most in zip(box[:2], (width, height), strict=True)
    )
    x1, y1 = (round(value + room) for value in box[2:])
    return photo_HW3[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
