"""Stage `evaluate`: RPC's metrics on test, by level and averaged, at a threshold frozen on val; tables and plots.

Two protocols, never mixed up. honest (the headline): every photo counts, one threshold, chosen on val. compat: what
rpctool 0.1.6 prints, threshold tuned on the evaluated photos; only for comparison with published tables. Every table
names the target protocol (what of the target domain training has seen), because published rows mix them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.catalog import categories_of
from storage.digest import JSON, canonical_json
from storage.images import Picture
from storage.manifest import Manifest, ManifestRow
from tasks import evaluation_plots as plots
from tasks.coco_map import coco_map
from tasks.confidence import acceptance_report, fit_confidence
from tasks.context import StageContext
from tasks.evaluation_analysis import (
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
from tasks.evaluation_set import AVERAGED, LEVELS, EvaluationSet, by_level, from_coco, from_manifests
from tasks.fusion import count_scale, fused
from tasks.metrics import absent_classes, best_threshold, bootstrap_intervals, checkout_metrics, counts_at
from tasks.params import EvaluateParams
from tasks.rpctool_protocol import compat_metrics
from tasks.stage import stage

Protocol = Literal["honest", "compat", "both"]
Report = dict[str, Any]
_UNTUNED_THRESHOLD = 0.5
_TUNED_ON_TEST = "tuned on test"
_CROPS = 6
_CONFUSIONS = pa.schema([("true_sku", pa.string()), ("found_sku", pa.string()), ("times", pa.int64())])
_MISTAKES = pa.schema(
    [
        ("photo", pa.string()),
        ("kind", pa.string()),
        ("true_sku", pa.string()),
        ("found_sku", pa.string()),
        ("score", pa.float64()),
        ("box", pa.list_(pa.float32(), 4)),
    ]
)
_RELIABILITY = pa.schema(
    [
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("detections", pa.int64()),
        ("mean_score", pa.float64()),
        ("precision", pa.float64()),
    ]
)


def evaluate_results(
    results: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    *,
    protocol: Protocol = "both",
    threshold: float | None = None,
    val: tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    target_protocol: str = "unlabelled-target",
    resamplings: int = 1000,
    seed: int = 0,
) -> Report:
    """The report on COCO detection results against an RPC annotation file, both as parsed JSON.

    Args:
        results: dicts with image_id, category_id, bbox [left, top, width, height] and score in [0, 1].
        annotations: RPC's file as a dict (images with a level, annotations, categories).
        threshold: the score from which a detection counts in the honest protocol, chosen beforehand.
        val: (results, annotations) of the validation photos, on which the threshold is chosen instead.

    Raises:
        ValueError: the input is not what it should be, or both `threshold` and `val` are given.
    """
    evaluated, warnings = from_coco(results, annotations=annotations)
    validation = None
    if val is not None:
        if threshold is not None:
            raise ValueError("evaluate: expected a threshold or val to choose it on, got both")
        validation, val_warnings = from_coco(val[0], annotations=val[1])
        warnings += [f"val: {warning}" for warning in val_warnings]
    elif threshold is None and protocol != "compat":
        warnings.append(f"no val and no threshold given: the honest figures use {_UNTUNED_THRESHOLD}, not tuned at all")
    return {
        **report_on(
            evaluated,
            val=validation,
            threshold=_UNTUNED_THRESHOLD if threshold is None else threshold,
            protocol=protocol,
            target_protocol=target_protocol,
            rng=np.random.default_rng(seed),
            resamplings=resamplings,
        ),
        "warnings": warnings,
    }


def report_on(
    test: EvaluationSet,
    *,
    val: EvaluationSet | None,
    threshold: float,
    protocol: Protocol,
    target_protocol: str,
    rng: np.random.Generator,
    resamplings: int,
) -> Report:
    """The report as a JSON object; NaN and infinity stand where a figure does not exist.

    `threshold` is used where there is no `val`, or no detection on it, to choose one on.
    """
    if val is not None and len(val.found):
        threshold = best_threshold(val)
    parts = by_level(test)
    maps = {level: coco_map(part) for level, part in parts.items()}
    report: Report = {"threshold": threshold, "target_protocol": target_protocol}
    if protocol != "compat":
        report["honest"] = {
            level: {**honest_metrics(part, threshold=threshold), **maps[level]} for level, part in parts.items()
        }
        report["intervals"] = {
            level: _intervals(part, threshold=threshold, rng=rng, resamplings=resamplings)
            for level, part in parts.items()
        }
        report["absent_classes"] = {level: absent_classes(part, threshold=threshold) for level, part in parts.items()}
    if protocol != "honest":
        figures = {level: {**compat_metrics(part), **maps[level]} for level, part in parts.items()}
        report["compat"] = {**figures, "note": _TUNED_ON_TEST}
    if val is not None:
        report["val"] = {
            level: {**honest_metrics(part, threshold=threshold), **coco_map(part)}
            for level, part in by_level(val).items()
        }
    return report


def honest_metrics(evaluated: EvaluationSet, *, threshold: float) -> dict[str, float]:
    """cAcc, ACD, mCCD and mCIoU over every photo at a threshold chosen elsewhere, and the number of photos."""
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    return {**checkout_metrics(found_NK, true_NK=true_NK), "photos": evaluated.photos}


def _intervals(
    evaluated: EvaluationSet, *, threshold: float, rng: np.random.Generator, resamplings: int
) -> dict[str, list[float]]:
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    found = bootstrap_intervals(found_NK, true_NK=true_NK, rng=rng, resamplings=resamplings)
    return {name: list(interval) for name, interval in found.items()}


def markdown_table(report: Report, *, method: str = "tally") -> str:
    """rpctool's markdown table for each protocol in `report`, under a line that says what its figures are."""
    target = f"target protocol: {report['target_protocol']}"
    headings = {
        "honest": f"honest: every photo counts, one threshold ({report['threshold']:.4f}) for all levels; {target}",
        "compat": f"compat: as rpctool 0.1.6, {_TUNED_ON_TEST}, only to compare with published tables; {target}",
    }
    parts = [
        f"{heading}\n\n{rpctool_table(report[protocol], method=method)}"
        for protocol, heading in headings.items()
        if protocol in report
    ]
    return "\n\n".join(parts) + "\n"


def rpctool_table(figures: Mapping[str, Any], *, method: str) -> str:
    """One protocol's figures in rpctool's columns, roundings and alignment."""
    columns = ["level", "method", "cAcc", "mCIoU", "ACD", "mCCD", "mAP50", "mmAP"]
    rows = [
        [level, method, *(figure_text(name, value=figures[level][name]) for name in columns[2:])]
        for level in (*LEVELS, AVERAGED)
        if level in figures
    ]
    widths = [max(4, *(len(row[place]) for row in [columns, *rows])) for place in range(len(columns))]
    lines = [columns, ["---:"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def figure_text(name: str, *, value: float | None) -> str:
    """A figure as rpctool prints it; it rounds some with numpy (half to even of the scaled value), some with Python."""
    value = math.nan if value is None else float(value)
    if name in ("mAP50", "mmAP"):
        return f"{float(np.round(value * 100, 2))}%"
    rounded = float(np.round(value, 4))
    if name == "cAcc":
        return f"{float(np.round(rounded * 100, 2))}%"
    return f"{round(rounded * 100, 2)}%" if name == "mCIoU" else str(round(rounded, 2))


def encode_report(report: Report) -> bytes:
    """The report as JSON; figures that do not exist (NaN, infinity) become null."""
    return canonical_json(_finite(report))


def _finite(value: Any) -> JSON:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counting_error(photos: Iterable[ManifestRow], *, predictions: Manifest) -> dict[str, float]:
    """How well the counting view counts: mean absolute error, and the share of photos whose rounded count is right."""
    pairs = [
        (float(count), sum(item.status == "ok" for item in row.objects))
        for row in photos
        if (count := predictions.row(row.item_id).attributes.get("count")) is not None
    ]
    if not pairs:
        return {}
    counted_N, true_N = np.asarray(pairs, np.float64).T
    return {
        "mean_absolute_error": float(np.abs(counted_N - true_N).mean()),
        "right": float((np.rint(counted_N) == true_N).mean()),
    }


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _photo_table(test: EvaluationSet, *, threshold: float) -> dict[str, list[Any]]:
    found_NK, true_NK = counts_at(test, threshold=threshold)
    return {
        "photo": list(test.photo_ids),
        "level": list(test.levels),
        "products": true_NK.sum(axis=1).tolist(),
        "found": found_NK.sum(axis=1).tolist(),
        "wrong": np.abs(found_NK - true_NK).sum(axis=1).tolist(),
    }


@stage(EvaluateParams)
def evaluate(
    context: StageContext,
    *,
    params: EvaluateParams,
    val: Manifest,
    val_predictions: Manifest,
    test: Manifest,
    test_predictions: Manifest,
) -> None:
    """Rows "report" (report.json), "table/…" (Parquet), "plot/…" (SVG) and "picture/confusions" (PNG)."""
    categories = categories_of(test)
    val_set = from_manifests(val, predictions=val_predictions, categories=categories, role="val")
    test_set = from_manifests(test, predictions=test_predictions, categories=categories)
    scale = None
    if params.decision == "both views":
        val_set, test_set, scale = _fused_views(
            val_set, test_set, val_predictions=val_predictions, test_predictions=test_predictions
        )
    report = report_on(
        test_set,
        val=val_set,
        threshold=_UNTUNED_THRESHOLD,
        protocol="both",
        target_protocol=params.target_protocol,
        rng=context.generator("bootstrap"),
        resamplings=params.resamplings,
    )
    report["decision"], report["count_scale"] = params.decision, scale
    if scale is not None:
        report["acceptance"] = _acceptance(
            val_set,
            test=test_set,
            threshold=report["threshold"],
            counts=[
                _scaled(one, predictions=found, scale=scale)
                for one, found in ((val_set, val_predictions), (test_set, test_predictions))
            ],
        )
    report["counting_view"] = counting_error(test.ok, predictions=test_predictions)
    report["warnings"] = _warnings(val_set, test=test_set)
    for warning in report["warnings"]:
        context.log(warning)
    _put_analysis(context, report=report, val=val_set, test=test_set, photos=test, pictures=params.pictures)
    context.put(encode_report(report), path="report.json", row=_row("report", media_type="application/json"))
    context.report(**{name: report["honest"]["averaged"][name] for name in ("cAcc", "ACD", "mCIoU", "mAP50", "mmAP")})


def _fused_views(
    val: EvaluationSet, test: EvaluationSet, *, val_predictions: Manifest, test_predictions: Manifest
) -> tuple[EvaluationSet, EvaluationSet, float | None]:
    """Both sets after the counting view's say and the scale of its counts; as they are where it did not count."""
    counts = [_counts(val, predictions=val_predictions), _counts(test, predictions=test_predictions)]
    if counts[0] is None or counts[1] is None:
        return val, test, None
    scale = count_scale(counts[0], products_N=[len(val.truth)])
    return (
        fused(val, counts_N=[scale * count for count in counts[0]]),
        fused(test, counts_N=[scale * count for count in counts[1]]),
        scale,
    )


def _counts(evaluated: EvaluationSet, *, predictions: Manifest) -> list[float] | None:
    counts = [predictions.row(photo).attributes.get("count") for photo in evaluated.photo_ids]
    known = [float(count) for count in counts if count is not None]
    return known if len(known) == len(counts) else None


def _scaled(evaluated: EvaluationSet, *, predictions: Manifest, scale: float) -> list[float]:
    return [scale * count for count in _counts(evaluated, predictions=predictions) or []]


def _acceptance(
    val: EvaluationSet, *, test: EvaluationSet, threshold: float, counts: Sequence[Sequence[float]]
) -> dict[str, JSON]:
    """How many lists of test can be accepted unseen, with a confidence fitted on val; `counts` of val and of test."""
    confidence = fit_confidence(val, counts_N=counts[0], threshold=threshold)
    return acceptance_report(confidence, evaluated=test, counts_N=counts[1], threshold=threshold)


def _warnings(val: EvaluationSet, *, test: EvaluationSet) -> list[str]:
    found = {"val": len(val.found), "test": len(test.found)}
    warnings = [f"no detection on {name}" for name, count in found.items() if not count]
    return warnings + ([] if found["val"] else [f"the threshold is {_UNTUNED_THRESHOLD}, not tuned"])


def _put_analysis(
    context: StageContext, *, report: Report, val: EvaluationSet, test: EvaluationSet, photos: Manifest, pictures: int
) -> None:
    threshold = report["threshold"]
    kept = _kept(test, threshold=threshold)
    matches, all_matches = match(kept), match(test)
    bins = reliability(test, matches=all_matches)
    report["error_kinds"] = error_kinds(matches)
    report["calibration_error"] = calibration_error(bins)
    pairs = confusions(kept, matches=matches)
    listed = mistakes(kept, matches=matches)
    curves = {"val": curve_on_grid(val), "test": curve_on_grid(test)}
    tables: dict[str, pa.Table] = {
        "photos": pa.table(_photo_table(test, threshold=threshold)),
        "skus": pa.table(sku_table(kept, matches=matches)),
        "confusions": pa.Table.from_pylist(
            [{"true_sku": true, "found_sku": found, "times": times} for true, found, times in pairs], schema=_CONFUSIONS
        ),
        "mistakes": pa.Table.from_pylist(listed, schema=_MISTAKES),
        "reliability": pa.Table.from_pylist(bins, schema=_RELIABILITY),
        **{f"curve_{name}": pa.table(curve) for name, curve in curves.items()},
    }
    for name, table in tables.items():
        row = _row(f"table/{name}", media_type="application/vnd.apache.parquet")
        context.put(_parquet(table), path=f"tables/{name}.parquet", row=row)
    drawn = {
        "threshold_curve": plots.plot_threshold_curve(curves, threshold=threshold),
        "accuracy_by_items": plots.plot_accuracy_by_items(accuracy_by_items(test, threshold=threshold)),
        "error_kinds": plots.plot_error_kinds(report["error_kinds"]),
        **({"reliability": plots.plot_reliability(bins, error=report["calibration_error"])} if bins else {}),
    }
    for name, data in drawn.items():
        context.put(data, path=f"plots/{name}.svg", row=_row(f"plot/{name}", media_type="image/svg+xml"))
    _put_confusions(context, pairs=pairs[:pictures], listed=listed, photos=photos)


def _kept(evaluated: EvaluationSet, *, threshold: float) -> EvaluationSet:
    return EvaluationSet(
        photo_ids=evaluated.photo_ids,
        levels=evaluated.levels,
        category_ids=evaluated.category_ids,
        skus=evaluated.skus,
        truth=evaluated.truth,
        found=evaluated.found.take(evaluated.found.score_M >= threshold),
    )


def _put_confusions(
    context: StageContext,
    *,
    pairs: Sequence[tuple[str, str, int]],
    listed: Sequence[Mapping[str, Any]],
    photos: Manifest,
) -> None:
    tiles = []
    for true_sku, found_sku, times in pairs:
        cases = [
            one
            for one in listed
            if (one["true_sku"], one["found_sku"], one["kind"]) == (true_sku, found_sku, "wrong SKU")
        ]
        crops = [_crop(context.read_rgb(photos.row(case["photo"])), box=case["box"]) for case in cases[:_CROPS]]
        tiles.append((f"{true_sku} taken for {found_sku}: {times}", crops))
    if tiles:
        row = _row("picture/confusions", media_type="image/png")
        context.put(plots.contact_sheet(tiles), path="plots/confusions.png", row=row)


def _crop(photo_HW3: Picture, *, box: Sequence[float]) -> Picture:
    x0, y0, x1, y1 = (int(value) for value in np.round(box))
    height, width = photo_HW3.shape[:2]
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return photo_HW3[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def _row(item_id: str, *, media_type: str) -> ManifestRow:
    return ManifestRow(item_id=item_id, media_type=media_type)
