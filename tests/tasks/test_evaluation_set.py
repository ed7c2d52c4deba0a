import copy

import numpy as np
import pytest

from storage.catalog import Category
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.evaluation_set import by_level, from_coco, from_manifests
from tests.tasks.evaluation_cases import random_set

ANNOTATIONS = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80, "level": "easy"},
        {"id": 9, "file_name": "b.jpg", "width": 100, "height": 80, "level": "hard"},
    ],
    "annotations": [{"id": 1, "image_id": 9, "category_id": 2, "bbox": [10, 20, 30, 40]}],
    "categories": [{"id": 2, "name": "2_tea", "sku_name": "green-tea"}, {"id": 1, "name": "1_tea", "sku_name": "tea"}],
}
RESULT = {"image_id": 9, "category_id": 2, "bbox": [11, 20, 30, 40], "score": 0.5}


def changed(**values):
    return {**RESULT, **values}


def test_from_coco__indices_names_and_boxes():
    evaluated, warnings = from_coco([RESULT], annotations=ANNOTATIONS)
    assert warnings == []
    assert (evaluated.photo_ids, evaluated.levels) == (("a.jpg", "b.jpg"), ("easy", "hard"))
    assert (evaluated.category_ids, evaluated.skus) == ((1, 2), ("tea", "green-tea"))
    assert (evaluated.found.photo_M.tolist(), evaluated.found.class_M.tolist()) == ([1], [1])
    assert evaluated.found.xyxy_M4.tolist() == [[11, 20, 41, 60]]
    assert evaluated.truth.xywh_M4.tolist() == [[10, 20, 30, 40]]


def test_from_coco__no_results():
    evaluated, _ = from_coco([], annotations=ANNOTATIONS)
    assert len(evaluated.found) == 0


@pytest.mark.parametrize(
    ("result", "warning"),
    [
        (changed(image_id=8), "results: image_id that is not among the annotated images, left out: 1"),
        (changed(score=float("nan")), "results: score is not a finite number, left out: 1"),
    ],
)
def test_from_coco__left_out_with_a_counted_warning(result, warning):
    evaluated, warnings = from_coco([RESULT, result], annotations=ANNOTATIONS)
    assert len(evaluated.found) == 1
    assert warnings == [warning]


def test_from_coco__odd_boxes_are_counted_but_stay():
    results = [RESULT, RESULT, RESULT, changed(bbox=[10, 10, 0, 5]), changed(bbox=[90, 10, 30, 5])]
    evaluated, warnings = from_coco(results, annotations=ANNOTATIONS)
    assert len(evaluated.found) == 5
    assert warnings == ["results: bbox without area: 1", "results: bbox reaches out of its photo: 1"]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (changed(category_id=3), r"expected category ids \[1, 2\], got 3"),
        (changed(category_id=0), "0-based"),
        (changed(score=87.0), "expected scores in"),
        (changed(bbox=[1, 2, 3]), r"4 finite numbers \[left, top, width, height\], got \[1, 2, 3\]"),
        (changed(bbox=[1, 2, 3, None]), "expected bbox"),
        (changed(bbox=[1, 2, float("inf"), 4]), "4 finite numbers"),
        ({"image_id": 9, "category_id": 2}, "results: expected 'score' in each of 2"),
    ],
)
def test_from_coco__clear_errors(result, message):
    with pytest.raises(ValueError, match=message):
        from_coco([RESULT, result], annotations=ANNOTATIONS)


def test_from_coco__boxes_that_are_corners():
    corners = [changed(bbox=[60, 50, 95, 78]), changed(bbox=[50, 50, 90, 70]), changed(bbox=[5, 5, 20, 20])]
    with pytest.raises(ValueError, match="they fit as"):
        from_coco(corners, annotations=ANNOTATIONS)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda one: one["images"][0].update(file_name="b.jpg"), "unique 'file_name'.*'b.jpg'"),
        (lambda one: one["images"][0].update(id=9), "unique 'id' in images"),
        (lambda one: one["categories"][0].update(id=1), "unique 'id' in categories"),
        (lambda one: one["images"][0].pop("file_name"), "expected 'file_name' in each"),
        (lambda one: one.pop("categories"), "expected a list under 'categories'"),
        (lambda one: one["images"].clear(), "at least one image"),
        (lambda one: one["annotations"][0].update(category_id=5), "annotations: expected category ids"),
    ],
)
def test_from_coco__broken_annotations(edit, message):
    annotations = copy.deepcopy(ANNOTATIONS)
    edit(annotations)
    with pytest.raises(ValueError, match=message):
        from_coco([RESULT], annotations=annotations)


def test_from_coco__photos_without_levels():
    annotations = copy.deepcopy(ANNOTATIONS)
    for image in annotations["images"]:
        del image["level"]
    evaluated, warnings = from_coco([RESULT], annotations=annotations)
    assert list(by_level(evaluated)) == ["averaged"]
    assert "no photo has a level" in warnings[0]


def test_by_level__parts_and_all_of_them():
    evaluated = random_set(0)
    parts = by_level(evaluated)
    assert list(parts) == ["easy", "medium", "hard", "averaged"]
    assert sum(parts[level].photos for level in ("easy", "medium", "hard")) == parts["averaged"].photos
    assert sum(len(parts[level].found) for level in ("easy", "medium", "hard")) == len(evaluated.found)


def test_subset__objects_move_with_their_photos():
    evaluated = random_set(0)
    part = evaluated.subset(np.array([5, 2]))
    assert part.photo_ids == ("test/5", "test/2")
    assert (part.truth.photo_M == 0).sum() == (evaluated.truth.photo_M == 5).sum()
    assert (part.found.photo_M == 1).sum() == (evaluated.found.photo_M == 2).sum()


def manifest(*rows):
    return Manifest(stage="made", key="0", url="memory://made", content_digest="", rows=rows)


CATEGORIES = (Category(id=1, sku="tea"), Category(id=4, sku="cola"))
TRUE = ManifestObject(category=4, sku="cola", box=(1, 2, 11, 22))


def test_from_manifests__readable_photos_only():
    photos = manifest(
        ManifestRow(item_id="test/a", objects=(TRUE,), level="easy"),
        ManifestRow(item_id="test/b", status="quarantined"),
    )
    found = ManifestObject(category=1, sku="tea", box=(1, 2, 3, 4), score=0.25)
    predictions = manifest(ManifestRow(item_id="test/a", objects=(found,)))
    evaluated = from_manifests(photos, predictions=predictions, categories=CATEGORIES)
    assert evaluated.photo_ids == ("test/a",)
    assert evaluated.truth.class_M.tolist() == [1]
    assert evaluated.truth.xywh_M4.tolist() == [[1, 2, 10, 20]]
    assert evaluated.found.score_M.tolist() == [0.25]


def test_from_manifests__a_photo_without_prediction_is_an_error():
    photos = manifest(ManifestRow(item_id="test/a"), ManifestRow(item_id="test/b"))
    with pytest.raises(ValueError, match="a prediction for each of 2 test photos, got 1 without"):
        from_manifests(photos, predictions=manifest(ManifestRow(item_id="test/a")), categories=CATEGORIES)


def test_from_manifests__unknown_category():
    wrong = ManifestObject(category=3, sku="?", box=(0, 0, 1, 1), score=0.5)
    predictions = manifest(ManifestRow(item_id="test/a", objects=(wrong,)))
    with pytest.raises(ValueError, match=r"got also \[3\]"):
        from_manifests(manifest(ManifestRow(item_id="test/a")), predictions=predictions, categories=CATEGORIES)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (
            {"annotations": [RESULT]},
            r"results: expected a list of objects, got a JSON dict with keys \['annotations'\]",
        ),
        ([RESULT, 3], "expected a list of objects, got 3 among 2"),
        ([changed(score="0.9")], "expected numbers as scores, got '0.9'"),
        ([changed(score=True)], "expected numbers as scores, got True"),
        ([changed(image_id=[9])], "expected whole numbers or texts as ids"),
        ([changed(category_id={})], "expected whole numbers or texts as ids"),
    ],
)
def test_from_coco__json_of_another_shape(results, message):
    with pytest.raises(ValueError, match=message):
        from_coco(results, annotations=ANNOTATIONS)


def test_from_coco__annotations_of_another_shape():
    with pytest.raises(ValueError, match="annotations: expected an object, got a JSON list"):
        from_coco([], annotations=[ANNOTATIONS])
    with pytest.raises(ValueError, match="whole numbers or texts as 'id' in images"):
        from_coco([], annotations={**ANNOTATIONS, "images": [{"id": [1], "file_name": "a"}]})


def test_from_coco__a_missing_score_is_left_out_and_counted():
    assert from_coco([changed(score=None)], annotations=ANNOTATIONS)[1] == [
        "results: score is not a finite number, left out: 1"
    ]


def test_from_coco__annotations_of_unknown_photos_are_counted():
    annotations = copy.deepcopy(ANNOTATIONS)
    annotations["annotations"].append({**annotations["annotations"][0], "id": 2, "image_id": 70})
    evaluated, warnings = from_coco([RESULT], annotations=annotations)
    assert len(evaluated.truth) == 1
    assert warnings == ["annotations: image_id that is not among the annotated images, left out: 1"]


def test_from_coco__photos_stand_in_the_order_of_their_ids():
    annotations = {**ANNOTATIONS, "images": ANNOTATIONS["images"][::-1]}
    assert from_coco([RESULT], annotations=annotations)[0].photo_ids == ("a.jpg", "b.jpg")
