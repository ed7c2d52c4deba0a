"""mAP50 and mmAP as COCO defines them (mean over IoU 0.50:0.05:0.95), computed by faster-coco-eval."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from tasks.evaluation_set import EvaluationSet, Objects

_EVERY_AREA = [0, 1e10]
_MOST_DETECTIONS = 100


def coco_map(evaluated: EvaluationSet) -> dict[str, float]:
    """mAP50 and mmAP in [0, 1] over the classes that occur; NaN where none does.

    At most 100 detections a photo and class count, as everywhere in COCO.
    """
    if not len(evaluated.truth):
        return {"mAP50": float("nan"), "mmAP": float("nan")}
    if not len(evaluated.found):
        return {"mAP50": 0.0, "mmAP": 0.0}
    truth = COCO(_coco_json(evaluated, objects=evaluated.truth))
    found = COCO(_coco_json(evaluated, objects=evaluated.found))
    evaluation = COCOeval_faster(truth, found, "bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [_EVERY_AREA], ["all"]
    evaluation.params.maxDets = [_MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision_TRK = evaluation.eval["precision"][:, :, :, 0, 0]
    occurring_TRK = precision_TRK > -1
    return {
        "mAP50": float(precision_TRK[0][occurring_TRK[0]].mean()),
        "mmAP": float(precision_TRK[occurring_TRK].mean()),
    }


def _coco_json(evaluated: EvaluationSet, *, objects: Objects) -> dict[str, Any]:
    area_M = objects.xywh_M4[:, 2] * objects.xywh_M4[:, 3]
    columns = (objects.photo_M, objects.class_M, objects.score_M, objects.xywh_M4, area_M)
    records = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return {
        "images": [{"id": index} for index in range(evaluated.photos)],
        "categories": [{"id": index, "name": str(index)} for index in range(evaluated.classes)],
        "annotations": [
            {
                "id": place,
                "image_id": photo,
                "category_id": index,
                "score": score,
                "bbox": xywh,
                "area": area,
                "iscrowd": 0,
            }
            for place, (photo, index, score, xywh, area) in enumerate(records, start=1)
        ],
    }
