import contextlib
import io
import math

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.coco_map import coco_map
from tests.tasks.evaluation_cases import evaluation_set, random_set


def map_by_pycocotools(evaluated):
    def records(objects):
        rows = zip(objects.photo_M, objects.class_M, objects.score_M, objects.xywh_M4, strict=True)
        return [
            {
                "id": place,
                "image_id": int(photo),
                "category_id": int(index),
                "score": float(score),
                "bbox": [float(value) for value in box],
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
            }
            for place, (photo, index, score, box) in enumerate(rows, start=1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": index} for index in range(evaluated.photos)],
            "categories": [{"id": index, "name": str(index)} for index in range(evaluated.classes)],
            "annotations": records(evaluated.truth),
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(records(evaluated.found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"mmAP": evaluation.stats[0], "mAP50": evaluation.stats[1]}


@pytest.mark.parametrize("seed", range(6))
def test_coco_map__equals_pycocotools(seed):
    evaluated = random_set(seed, photos=8, classes=5, truth=60, found=90)
    assert coco_map(evaluated) == pytest.approx(map_by_pycocotools(evaluated), abs=1e-9)


def test_coco_map__nothing_found():
    assert coco_map(evaluation_set([(0, 0)], [], photos=1, classes=1)) == {"mAP50": 0.0, "mmAP": 0.0}


def test_coco_map__nothing_there():
    figures = coco_map(evaluation_set([], [(0, 0, 0.9)], photos=1, classes=1))
    assert math.isnan(figures["mAP50"])
