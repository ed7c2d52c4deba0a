"""Stage `evaluate`: RPC's metrics on test, by level and averaged, at a threshold frozen on val; tables and plots.

Two protocols, never mixed up. honest (the headline): every photo counts, one threshold, chosen on val. compat: what
rpctool 0.1.6 prints, threshold tuned on the evaluated photos; only for comparison with published tables. Every table
names the target protocol (what of the target domain training has seen), because published rows mix them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from storage.catalog import categories_of
from storage.digest import JSON, canonical_json
from storage.manifest import Manifest, ManifestRow
from tasks.coco_map import coco_map
from tasks.confidence import acceptance_report, fit_confidence
from tasks.context import StageContext
from tasks.evaluation_outputs import analyse, confusion_sheet, encode_table
from tasks.evaluation_set import AVERAGED, LEVELS, EvaluationSet, by_level, from_coco, from_manifests
from tasks.fusion import count_scale, fused
from tasks.metrics import METRICS, absent_classes, best_threshold, bootstrap_intervals, checkout_metrics, counts_at
from tasks.params import EvaluateParams
from tasks.rpctool_protocol import compat_metrics
from tasks.stage import stage

Protocol = Literal["honest", "compat", "both"]
Decision = Literal["both views", "detection view"]
Report = dict[str, Any]
Results = Sequence[Mapping[str, Any]]
Annotations = Mapping[str, Any]
CocoPair = tuple[Results, Annotations]
_UNTUNED_THRESHOLD = 0.5
_TUNED_ON_TEST = "tuned on test"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What is evaluated: `test`, and `val` where the threshold is chosen on it; what was odd about the inputs.

    Where the counting view had a say in the scores: `count_scale`, the scaled `counts` of val's and test's photos, and
    both sets as the detection view alone sees them, `plain`.
    """

    test: EvaluationSet
    val: EvaluationSet | None = None
    warnings: list[str] = field(default_factory=list)
    count_scale: float | None = None
    counts: tuple[list[float], list[float]] | None = None
    plain: tuple[EvaluationSet, EvaluationSet] | None = None


def from_results(results: Results, annotations: Annotations, *, val: CocoPair | None = None) -> Evaluated:
    """COCO detection results against an RPC annotation file, both as parsed JSON.

    Args:
        results: dicts with image_id, category_id, bbox [left, top, width, height] and score in [0, 1].
        annotations: RPC's file as a dict (images with a level, annotations, categories).
        val: (results, annotations) of the validation photos.

    Raises:
        ValueError: the input is not what it should be.
    """
    test, warnings = from_coco(results, annotations=annotations)
    if val is None:
        return Evaluated(test=test, warnings=warnings)
    validation, val_warnings = from_coco(val[0], annotations=val[1])
    _require_same_categories(test, val=validation)
    return Evaluated(test=test, val=validation, warnings=warnings + [f"val: {warning}" for warning in val_warnings])


def _require_same_categories(test: EvaluationSet, *, val: EvaluationSet) -> None:
    if test.category_ids != val.category_ids:
        raise ValueError(
            f"val: expected the category ids of the test annotations, got {len(val.category_ids)} that are not the "
            f"same {len(test.category_ids)}"
        )


def from_predictions(
    photos: Manifest,
    *,
    predictions: Manifest,
    val: tuple[Manifest, Manifest] | None = None,
    decision: Decision = "both views",
) -> Evaluated:
    """Manifests of photos and of what was predicted for them; `val`: (photos, predictions) of the validation photos.

    Without val the detection view decides alone, because val says what a count is worth.

    Raises:
        ValueError: the manifests do not fit together.
    """
    categories = categories_of(photos)
    test = from_manifests(photos, predictions=predictions, categories=categories)
    if val is None:
        return Evaluated(test=test, warnings=_warnings(test=test))
    validation = from_manifests(val[0], predictions=val[1], categories=categories, role="val")
    evaluated = Evaluated(test=test, val=validation, warnings=_warnings(val=validation, test=test))
    if decision == "detection view":
        return evaluated
    return _fused_views(evaluated, val_predictions=val[1], test_predictions=predictions)


def evaluate_sets(
    evaluated: Evaluated,
    *,
    protocol: Protocol = "both",
    threshold: float | None = None,
    target_protocol: str = "unlabelled-target",
    resamplings: int = 1000,
    rng: np.random.Generator,
) -> Report:
    """The report on what is evaluated, at a threshold that val chooses, or at a given one.

    Raises:
        ValueError: there are both, a threshold and val to choose it on, or the threshold is not in [0, 1].
    """
    warnings = [*evaluated.warnings]
    if threshold is not None and evaluated.val is not None:
        raise ValueError("threshold: expected a threshold or val to choose it on, got both")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
    if threshold is None and evaluated.val is None and protocol != "compat":
        warnings.append(f"no val and no threshold given: the honest figures use {_UNTUNED_THRESHOLD}, not tuned at all")
    report = report_on(
        evaluated.test,
        val=evaluated.val,
        threshold=_UNTUNED_THRESHOLD if threshold is None else threshold,
        protocol=protocol,
        target_protocol=target_protocol,
        rng=rng,
        resamplings=resamplings,
    )
    return {
        **report,
        **_trust(evaluated, threshold=report["threshold"]),
        **_without_counts(evaluated),
        "warnings": warnings,
    }


def _without_counts(evaluated: Evaluated) -> Report:
    """What the detection view reaches alone on test, at the threshold that is best for it on val: what the counting
    view's say is worth is the difference to the honest figures."""
    if evaluated.plain is None or not len(evaluated.plain[0].found):
        return {}
    val, test = evaluated.plain
    threshold = best_threshold(val)
    return {"detection_view": {"threshold": threshold, **honest_metrics(test, threshold=threshold)}}


def _trust(evaluated: Evaluated, *, threshold: float) -> Report:
    """How far lists can be trusted, fitted on val, and how many lists of test can be accepted unseen by it."""
    if evaluated.counts is None or evaluated.val is None:
        return {}
    val_counts, test_counts = evaluated.counts
    confidence = fit_confidence(evaluated.val, counts_N=val_counts, threshold=threshold)
    accepted = acceptance_report(confidence, evaluated=evaluated.test, counts_N=test_counts, threshold=threshold)
    return {"confidence": confidence.to_json(), "acceptance": accepted}


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
    """rpctool's markdown table for each protocol in `report`, under a line that says what its figures are.

    Below the honest one: 95 % intervals, and the classes that its class means leave out.
    """
    target = f"target protocol: {report['target_protocol']}"
    parts = []
    if "honest" in report:
        heading = f"honest: every photo counts, one threshold ({report['threshold']:.4f}) for all levels; {target}"
        parts += [heading, rpctool_table(report["honest"], method=method), *_beside_honest(report)]
    if "compat" in report:
        heading = f"compat: as rpctool 0.1.6, {_TUNED_ON_TEST}, only to compare with published tables; {target}"
        parts += [heading, rpctool_table(report["compat"], method=method), *_beside_compat(report["compat"])]
    return "\n\n".join(parts) + "\n"


def _beside_honest(report: Report) -> list[str]:
    columns = ["level", "photos", *METRICS]
    rows = [
        [
            level,
            str(report["honest"][level]["photos"]),
            *(" to ".join(figure_text(name, value=end) for end in intervals[name]) for name in METRICS),
        ]
        for level, intervals in report["intervals"].items()
    ]
    left_out = [
        f"{level}: " + ", ".join(sku if not times else f"{sku} (found {times}×)" for sku, times in absent.items())
        for level, absent in report["absent_classes"].items()
        if absent
    ]
    texts = [f"95 % intervals (bootstrap over photos):\n\n{_markdown(columns, rows)}"]
    return texts + (["not in the photos, so left out of mCCD and mCIoU: " + "; ".join(left_out)] if left_out else [])


def _beside_compat(figures: Mapping[str, Any]) -> list[str]:
    parts = [
        f"{level} {figures[level]['threshold']:.4f} ({figures[level]['photos']} photos)"
        for level in (*LEVELS, AVERAGED)
        if level in figures
    ]
    return ["thresholds searched on these very photos, and the photos that are left: " + ", ".join(parts)]


def rpctool_table(figures: Mapping[str, Any], *, method: str) -> str:
    """One protocol's figures in rpctool's columns, roundings and alignment."""
    columns = ["level", "method", "cAcc", "mCIoU", "ACD", "mCCD", "mAP50", "mmAP"]
    rows = [
        [level, method, *(figure_text(name, value=figures[level][name]) for name in columns[2:])]
        for level in (*LEVELS, AVERAGED)
        if level in figures
    ]
    return _markdown(columns, rows)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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
    evaluated = from_predictions(
        test, predictions=test_predictions, val=(val, val_predictions), decision=params.decision
    )
    report = evaluate_sets(
        evaluated,
        target_protocol=params.target_protocol,
        rng=context.generator("bootstrap"),
        resamplings=params.resamplings,
    )
    report["decision"], report["count_scale"] = params.decision, evaluated.count_scale
    report["counting_view"] = counting_error(test.ok, predictions=test_predictions)
    for warning in report["warnings"]:
        context.log(warning)
    _put_analysis(context, report=report, evaluated=evaluated, photos=test, pictures=params.pictures)
    context.put(encode_report(report), path="report.json", row=_row("report", media_type="application/json"))
    context.report(**{name: report["honest"]["averaged"][name] for name in ("cAcc", "ACD", "mCIoU", "mAP50", "mmAP")})


def _fused_views(evaluated: Evaluated, *, val_predictions: Manifest, test_predictions: Manifest) -> Evaluated:
    """Both sets after the counting view's say; as they are where it did not count."""
    assert evaluated.val is not None
    counts = _counts(evaluated.val, predictions=val_predictions), _counts(evaluated.test, predictions=test_predictions)
    if counts[0] is None or counts[1] is None:
        return evaluated
    scale = count_scale(counts[0], products_N=[len(evaluated.val.truth)])
    scaled = [scale * count for count in counts[0]], [scale * count for count in counts[1]]
    return replace(
        evaluated,
        val=fused(evaluated.val, counts_N=scaled[0]),
        test=fused(evaluated.test, counts_N=scaled[1]),
        count_scale=scale,
        counts=scaled,
        plain=(evaluated.val, evaluated.test),
    )


def _counts(evaluated: EvaluationSet, *, predictions: Manifest) -> list[float] | None:
    counts = [predictions.row(photo).attributes.get("count") for photo in evaluated.photo_ids]
    known = [float(count) for count in counts if count is not None]
    return known if len(known) == len(counts) else None


def _warnings(**sets: EvaluationSet) -> list[str]:
    warnings = [f"no detection on {name}" for name, one in sets.items() if not len(one.found)]
    return warnings + (
        [f"the threshold is {_UNTUNED_THRESHOLD}, not tuned"] if "no detection on val" in warnings else []
    )


def _put_analysis(
    context: StageContext, *, report: Report, evaluated: Evaluated, photos: Manifest, pictures: int
) -> None:
    found = analyse(evaluated.test, val=evaluated.val, threshold=report["threshold"])
    report.update(found.figures)
    for name, table in found.tables.items():
        row = _row(f"table/{name}", media_type="application/vnd.apache.parquet")
        context.put(encode_table(table), path=f"tables/{name}.parquet", row=row)
    for name, data in found.plots.items():
        context.put(data, path=f"plots/{name}.svg", row=_row(f"plot/{name}", media_type="image/svg+xml"))
    sheet = confusion_sheet(found, read=lambda photo: context.read_rgb(photos.row(photo)), pairs=pictures)
    if sheet is not None:
        row = _row("picture/confusions", media_type="image/png")
        context.put(sheet, path="plots/confusions.png", row=row)


def _row(item_id: str, *, media_type: str) -> ManifestRow:
    return ManifestRow(item_id=item_id, media_type=media_type)
