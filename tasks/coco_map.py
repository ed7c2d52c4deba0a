"""mAP50 and mmAP as COCO defines them (mean over IoU 0.50:0.05:0.95), computed by faster-coco-eval."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from tasks.evaluation_set import EvaluationSet, Floats, Ints, Objects

_EVERY_AREA = [0, 1e10]
_MOST_DETECTIONS = 100


def coco_map(evaluated: EvaluationSet) -> dict[str, float]:
    """mAP50 and mmAP in [0, 1] over the classes that occur; NaN where none does.

    At most 100 detections a photo and class count, as everywhere in COCO. Detections of one photo and class with the
    very same score stand in the order in which they came, as there.
    """
    occurring = np.unique(evaluated.truth.class_M)
    if not occurring.size:
        return {"mAP50": float("nan"), "mmAP": float("nan")}
    precision_KTR = np.stack([_class_precision(evaluated, index=int(index)) for index in occurring])
    return {"mAP50": float(precision_KTR[:, 0].mean()), "mmAP": float(precision_KTR.mean())}


def _class_precision(evaluated: EvaluationSet, *, index: int) -> Floats:
    """Precision of one class at 10 IoU thresholds and 101 recalls, [10, 101].

    Only the photos that show the class are evaluated: of 24,000 photos with 200 classes that is one pair in twenty.
    """
    truth = evaluated.truth.take(evaluated.truth.class_M == index)
    found = evaluated.found.take(evaluated.found.class_M == index)
    photos = np.union1d(truth.photo_M, found.photo_M)
    evaluation = COCOeval_faster(COCO(_coco_json(truth, photos=photos)), COCO(_coco_json(found, photos=photos)), "bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [_EVERY_AREA], ["all"]
    evaluation.params.maxDets = [_MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][:, :, 0, 0, 0], np.float64)


def _coco_json(objects: Objects, *, photos: Ints) -> dict[str, Any]:
    area_M = objects.xywh_M4[:, 2] * objects.xywh_M4[:, 3]
    columns = (objects.photo_M, objects.score_M, objects.xywh_M4, area_M)
    records = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "images": [{"id": photo} for photo in photos.tolist()],
        "categories": [{"id": 1, "name": "product"}],
        "annotations": [
            {"id": place, "image_id": photo, "category_id": 1, "score": score, "bbox": xywh, "area": area, "iscrowd": 0}
            for place, (photo, score, xywh, area) in enumerate(records, start=1)
        ],
    }
