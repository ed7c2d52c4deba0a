"""What a DPSNet reaches on val, and what val decides for it: NMS, threshold, the counts' scale, confidence.

Shapes: N photos, M detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import mean
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from storage.digest import JSON
from storage.images import Picture
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.confidence import ListConfidence, fit_confidence
from tasks.detection import AS_IT_IS, Detector, PhotoDetections, detect
from tasks.evaluation_set import EvaluationSet, from_manifests
from tasks.fusion import count_scale, fused
from tasks.metrics import best_threshold, checkout_metrics, clearly_more, counts_at
from tasks.params import View

Nms = Literal["agnostic", "product"]
Bools = NDArray[np.bool_]
_EVALUATION_BATCH = 8
_UNTUNED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ValResult:
    """What both views reach on val at the best threshold there.

    `count_scale`: what the counting view's numbers are multiplied by so that they add up on val. `confidence`: how far
    lists can be trusted. `plain_accuracy`: cAcc of the detection view alone at the threshold that is best for it.
    `count_error` and `count_right`: mean absolute error of the unscaled counts, and the share that is right, rounded.
    """

    nms: Nms
    threshold: float
    count_scale: float
    confidence: ListConfidence
    metrics: dict[str, float]
    plain_accuracy: float
    count_error: float
    count_right: float

    def to_json(self) -> dict[str, JSON]:
        """All figures by name."""
        return {
            **self.metrics,
            "nms": self.nms,
            "threshold": self.threshold,
            "count_scale": self.count_scale,
            "plain_accuracy": self.plain_accuracy,
            "count_error": self.count_error,
            "count_right": self.count_right,
            "confidence": self.confidence.to_json(),
        }

    def rank(self, *, best_by: Literal["cAcc", "ACD"]) -> tuple[float, float]:
        """Better is larger: right lists and fewer wrong items, whichever of them comes first."""
        accuracy, wrong = self.metrics["cAcc"], -self.metrics["ACD"]
        return (accuracy, wrong) if best_by == "cAcc" else (wrong, accuracy)


def turned_views(count: Literal[1, 2, 4]) -> list[View]:
    """`count` views of a photo, evenly turned; the first is the photo as it is."""
    return [View(), View(turns=1), View(turns=2), View(turns=3)][:: 4 // count]


def mean_rank(results: Sequence[ValResult], *, best_by: Literal["cAcc", "ACD"]) -> tuple[float, float]:
    """The mean of the ranks of the same checkpoint in several views of val."""
    first, second = zip(*(one.rank(best_by=best_by) for one in results), strict=True)
    return mean(first), mean(second)


def evaluate_on_val(
    detector: Detector,
    *,
    photos: Iterable[Picture],
    val: Manifest,
    nms_choice: Literal["val", "agnostic", "product"],
    views: Sequence[View] = (AS_IT_IS,),
) -> list[ValResult]:
    """RPC metrics of a detector on the decoded photos of `val.ok`, in their order, a result for each view of them.

    Photos are taken a batch at a time and not kept: val may be larger than memory. With the choice "val" the detector
    must work with NMS a product; NMS across products is tried on what it found. One place hardly ever holds two
    products, so it wins unless the other reads clearly more photos right.
    """
    found: list[list[PhotoDetections]] = [[] for _ in views]
    coming = iter(photos)
    while batch := list(islice(coming, _EVALUATION_BATCH)):
        for one, view in zip(found, views, strict=True):
            one += detect(detector, batch, view=view)
    return [_chosen(one, val=val, detector=detector, nms_choice=nms_choice) for one in found]


def _chosen(
    found: Sequence[PhotoDetections],
    *,
    val: Manifest,
    detector: Detector,
    nms_choice: Literal["val", "agnostic", "product"],
) -> ValResult:
    if nms_choice != "val":
        return _judged(found, val=val, detector=detector, nms_used=nms_choice)[0]
    overlap = detector.network.config.nms_iou
    apart = [replace(one, objects=across_products(one.objects, overlap=overlap)) for one in found]
    (agnostic, right_N), (product, product_right_N) = (
        _judged(apart, val=val, detector=detector, nms_used="agnostic"),
        _judged(found, val=val, detector=detector, nms_used="product"),
    )
    return product if clearly_more(product_right_N, than_N=right_N) else agnostic


def across_products(objects: Sequence[ManifestObject], *, overlap: float) -> tuple[ManifestObject, ...]:
    """What NMS across products leaves of detections, best score first: one product can't be two SKUs."""
    if not objects:
        return ()
    boxes = torch.tensor([item.box for item in objects])
    kept = nms(boxes, torch.tensor([item.score or 0.0 for item in objects]), overlap)
    return tuple(objects[index] for index in kept.tolist())


def _judged(
    found: Sequence[PhotoDetections], *, val: Manifest, detector: Detector, nms_used: Nms
) -> tuple[ValResult, Bools]:
    """What is reached with one kind of NMS, and of each photo whether its whole list is right."""
    rows = [ManifestRow(item_id=row.item_id, objects=one.objects) for row, one in zip(val.ok, found, strict=True)]
    predictions = Manifest(stage="predict", key="", url="", content_digest="", rows=tuple(rows))
    plain = from_manifests(val, predictions=predictions, categories=detector.categories, role="val")
    counts_N, products_N = [one.count for one in found], [len(row.objects) for row in val.ok]
    scale = count_scale(counts_N, products_N=products_N)
    scaled_N = [scale * count for count in counts_N]
    both = fused(plain, counts_N=scaled_N)
    threshold = _best_threshold(both)
    result = ValResult(
        nms=nms_used,
        threshold=threshold,
        count_scale=scale,
        confidence=fit_confidence(both, counts_N=scaled_N, threshold=threshold),
        metrics=_metrics_at(both, threshold=threshold),
        plain_accuracy=_metrics_at(plain, threshold=_best_threshold(plain))["cAcc"],
        count_error=float(np.abs(np.subtract(counts_N, products_N)).mean()),
        count_right=float((np.rint(counts_N) == np.asarray(products_N)).mean()),
    )
    found_NK, true_NK = counts_at(both, threshold=threshold)
    return result, (found_NK == true_NK).all(axis=1)


def _best_threshold(evaluated: EvaluationSet) -> float:
    return float(best_threshold(evaluated)) if len(evaluated.found) else _UNTUNED_THRESHOLD


def _metrics_at(evaluated: EvaluationSet, *, threshold: float) -> dict[str, float]:
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    return checkout_metrics(found_NK, true_NK=true_NK)
