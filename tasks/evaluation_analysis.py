"""What went wrong and where: detections matched with the truth, error kinds, confusions, reliability. Pure numpy.

Shapes: N photos, K classes, D detections, T true products, B bins.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.boxes import iou_matrix
from tasks.evaluation_set import EvaluationSet, Floats, Ints
from tasks.metrics import checkout_metrics, counts_at

RIGHT, WRONG_SKU, DOUBLE, BACKGROUND, MISSED = "right", "wrong SKU", "double", "background", "missed"
_MATCHING_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Every kept detection with what it is. `truth_D`: index of the true product it lies on, -1 for none;
    `kind_D`: RIGHT, WRONG_SKU, DOUBLE or BACKGROUND; `missed`: indices of true products that no detection lies on."""

    truth_D: Ints
    kind_D: NDArray[np.str_]
    missed: Ints


def match(evaluated: EvaluationSet) -> Matches:
    """Match each photo's detections with its true products, best score first, at IoU >= 0.5.

    First by class (right), then what is left across classes (wrong SKU); a detection that lies on a product already
    matched is a double, any other one is background.
    """
    found, truth = evaluated.found, evaluated.truth
    truth_D = np.full(len(found), -1, np.int64)
    kind_D = np.full(len(found), BACKGROUND, "<U10")
    free_T = np.ones(len(truth), bool)
    found_of, truth_of = (
        _of_each_photo(found.photo_M, evaluated.photos),
        _of_each_photo(truth.photo_M, evaluated.photos),
    )
    found_boxes, truth_boxes = found.xyxy_M4, truth.xyxy_M4
    for detections, products in zip(found_of, truth_of, strict=True):
        if not detections.size or not products.size:
            continue
        order = detections[np.argsort(-found.score_M[detections], kind="stable")]
        iou_DT = iou_matrix(found_boxes[order], truth_boxes[products])
        same_DT = found.class_M[order][:, None] == truth.class_M[products][None]
        for kind, allowed_DT in ((RIGHT, same_DT), (WRONG_SKU, ~same_DT)):
            for row, column in _greedy(
                np.where(allowed_DT, iou_DT, 0.0), free_T=free_T[products], busy_D=truth_D[order] >= 0
            ):
                truth_D[order[row]], kind_D[order[row]] = products[column], kind
                free_T[products[column]] = False
        double_D = (truth_D[order] < 0) & (iou_DT.max(axis=1) >= _MATCHING_IOU)
        truth_D[order[double_D]] = products[iou_DT[double_D].argmax(axis=1)]
        kind_D[order[double_D]] = DOUBLE
    return Matches(truth_D=truth_D, kind_D=kind_D, missed=np.flatnonzero(free_T))


def _of_each_photo(photo_M: Ints, photos: int) -> list[Ints]:
    order = np.argsort(photo_M, kind="stable")
    return np.split(order, np.searchsorted(photo_M[order], np.arange(1, photos)))


def _greedy(iou_DT: Floats, *, free_T: NDArray[np.bool_], busy_D: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(detection, product) pairs: each detection in turn takes the free product it overlaps most."""
    pairs, free_T = [], free_T.copy()
    for row in np.flatnonzero(~busy_D & (iou_DT.max(axis=1) >= _MATCHING_IOU)):
        column = int(np.argmax(np.where(free_T, iou_DT[row], -1.0)))
        if free_T[column] and iou_DT[row, column] >= _MATCHING_IOU:
            free_T[column] = False
            pairs.append((int(row), column))
    return pairs


def error_kinds(matches: Matches) -> dict[str, int]:
    """How many detections and products are of each kind."""
    counted = Counter(matches.kind_D.tolist())
    return {kind: counted[kind] for kind in (RIGHT, WRONG_SKU, DOUBLE, BACKGROUND)} | {MISSED: len(matches.missed)}


def sku_table(evaluated: EvaluationSet, *, matches: Matches) -> dict[str, list[object]]:
    """One entry a SKU: products in the photos, found, right, precision, recall, mean count error a photo with it."""
    size = evaluated.classes
    right_K = np.bincount(evaluated.found.class_M[matches.kind_D == RIGHT], minlength=size)
    found_NK, true_NK = counts_at(evaluated, threshold=-np.inf)
    found_K, true_K = found_NK.sum(axis=0), true_NK.sum(axis=0)
    involved_K = ((found_NK > 0) | (true_NK > 0)).sum(axis=0)
    return {
        "category": list(evaluated.category_ids),
        "sku": list(evaluated.skus),
        "products": true_K.tolist(),
        "found": found_K.tolist(),
        "right": right_K.tolist(),
        "precision": _ratio(right_K, found_K),
        "recall": _ratio(right_K, true_K),
        "count_error": _ratio(np.abs(found_NK - true_NK).sum(axis=0), involved_K),
        "photos_miscounted": (found_NK != true_NK).sum(axis=0).tolist(),
    }


def _ratio(over: Ints, under: Ints) -> list[object]:
    return [None if not below else float(above / below) for above, below in zip(over, under, strict=True)]


def confusions(evaluated: EvaluationSet, *, matches: Matches) -> list[tuple[str, str, int]]:
    """(true SKU, found SKU, times), most frequent first, of products found under another SKU."""
    wrong_D = np.flatnonzero(matches.kind_D == WRONG_SKU)
    true_classes = evaluated.truth.class_M[matches.truth_D[wrong_D]]
    pairs = Counter(zip(true_classes.tolist(), evaluated.found.class_M[wrong_D].tolist(), strict=True))
    ordered = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))
    return [(evaluated.skus[true], evaluated.skus[found], times) for (true, found), times in ordered]


def mistakes(evaluated: EvaluationSet, *, matches: Matches) -> list[dict[str, object]]:
    """Every single mistake with its photo, kind, SKUs, score and box (xyxy): what to look at."""
    found, truth, skus = evaluated.found, evaluated.truth, evaluated.skus
    found_boxes, truth_boxes = found.xyxy_M4.tolist(), truth.xyxy_M4.tolist()
    listed: list[dict[str, object]] = []
    for index in np.flatnonzero(matches.kind_D != RIGHT):
        lies_on = int(matches.truth_D[index])
        listed.append(
            {
                "photo": evaluated.photo_ids[found.photo_M[index]],
                "kind": str(matches.kind_D[index]),
                "true_sku": skus[truth.class_M[lies_on]] if lies_on >= 0 else None,
                "found_sku": skus[found.class_M[index]],
                "score": float(found.score_M[index]),
                "box": found_boxes[index],
            }
        )
    for index in matches.missed:
        listed.append(
            {
                "photo": evaluated.photo_ids[truth.photo_M[index]],
                "kind": MISSED,
                "true_sku": skus[truth.class_M[index]],
                "found_sku": None,
                "score": None,
                "box": truth_boxes[index],
            }
        )
    return sorted(listed, key=lambda one: (str(one["photo"]), str(one["kind"]), str(one["box"])))


def accuracy_by_items(evaluated: EvaluationSet, *, threshold: float) -> list[tuple[int, int, float]]:
    """(number of products in the photo, photos with that number, their cAcc), ascending."""
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    items_N, right_N = true_NK.sum(axis=1), (found_NK == true_NK).all(axis=1)
    return [
        (int(items), int((items_N == items).sum()), float(right_N[items_N == items].mean()))
        for items in np.unique(items_N)
    ]


def reliability(evaluated: EvaluationSet, *, matches: Matches, bins: int = 10) -> list[dict[str, float]]:
    """Score bins of equal width with the mean score, the share of right detections and the number in each."""
    score_D, right_D = evaluated.found.score_M, matches.kind_D == RIGHT
    bin_D = np.minimum((score_D * bins).astype(np.int64), bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "detections": int((bin_D == index).sum()),
            "mean_score": float(score_D[bin_D == index].mean()),
            "precision": float(right_D[bin_D == index].mean()),
        }
        for index in np.unique(bin_D).tolist()
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015): mean gap of score and precision over the detections."""
    total = sum(one["detections"] for one in bins)
    gaps = sum(one["detections"] * abs(one["mean_score"] - one["precision"]) for one in bins)
    return gaps / total if total else 0.0


def curve_on_grid(evaluated: EvaluationSet, *, points: int = 101) -> dict[str, list[float]]:
    """cAcc, ACD, mCCD and mCIoU at `points` thresholds from 0 to 1, every photo counted."""
    grid = np.linspace(0, 1, points)
    rows = []
    for threshold in grid:
        found_NK, true_NK = counts_at(evaluated, threshold=float(threshold))
        rows.append(checkout_metrics(found_NK, true_NK=true_NK))
    return {"threshold": grid.tolist(), **{name: [row[name] for row in rows] for name in rows[0]}}
