"""Small evaluation sets made from plain lists, for the tests of the evaluation."""

import numpy as np

from storage.catalog import Category, category_records
from storage.images import encode_jpeg
from storage.manifest import ManifestObject, ManifestRow
from tasks.evaluation_set import EvaluationSet, Objects

CATEGORIES = [Category(id=index, sku=f"sku-{index}") for index in (1, 2)]


def objects(rows):
    """Objects from (photo, class, score[, xywh]) tuples."""
    rows = [(*row, (0, 0, 10, 10)) if len(row) == 3 else row for row in rows]
    return Objects(
        photo_M=np.array([row[0] for row in rows], np.int64),
        class_M=np.array([row[1] for row in rows], np.int64),
        score_M=np.array([row[2] for row in rows], np.float64),
        xywh_M4=np.array([row[3] for row in rows], np.float64).reshape(-1, 4),
    )


def evaluation_set(truth, found, *, photos, classes, levels=None):
    return EvaluationSet(
        photo_ids=tuple(f"test/{index}" for index in range(photos)),
        levels=tuple(levels or ["easy"] * photos),
        category_ids=tuple(range(1, classes + 1)),
        skus=tuple(f"sku-{index}" for index in range(classes)),
        truth=objects([(photo, index, 1.0, *box) for photo, index, *box in truth]),
        found=objects(found),
    )


def random_set(seed, *, photos=12, classes=4, truth=40, found=45):
    """Random truth, and detections of which most are right; photos and classes may stay empty."""
    rng = np.random.default_rng(seed)
    truth_rows = [
        (int(rng.integers(photos)), int(rng.integers(classes)), (*rng.uniform(0, 300, 2), *rng.uniform(20, 90, 2)))
        for _ in range(truth)
    ]
    found_rows = []
    for _ in range(found):
        photo, index, box = truth_rows[rng.integers(len(truth_rows))]
        index = int(rng.integers(classes)) if rng.random() < 0.2 else index
        found_rows.append((photo, index, float(np.round(rng.random(), 2)), tuple(np.add(box, rng.normal(0, 4, 4)))))
    levels = [("easy", "medium", "hard")[index % 3] for index in range(photos)]
    return evaluation_set(truth_rows, found_rows, photos=photos, classes=classes, levels=levels)


def counts_by_loop(evaluated, threshold):
    """(found, true) counts as nested lists, detection by detection."""
    found = [[0] * evaluated.classes for _ in range(evaluated.photos)]
    true = [[0] * evaluated.classes for _ in range(evaluated.photos)]
    for photo, index, score in zip(
        evaluated.found.photo_M, evaluated.found.class_M, evaluated.found.score_M, strict=True
    ):
        found[photo][index] += score >= threshold
    for photo, index in zip(evaluated.truth.photo_M, evaluated.truth.class_M, strict=True):
        true[photo][index] += 1
    return found, true


def photo_of(seed):
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def labelled(store, split, *, photos=4):
    """A manifest of photos with two products each."""
    publication = store.begin("ingest", key=split)
    objects = tuple(
        ManifestObject(category=index, sku=f"sku-{index}", box=(30.0 * index, 5, 30.0 * index + 20, 40))
        for index in (1, 2)
    )
    for index in range(photos):
        row = ManifestRow(item_id=f"{split}/{index}", objects=objects, level=("easy", "hard")[index % 2])
        publication.put(photo_of(index), path=f"{index}.jpg", row=row)
    publication.add(ManifestRow(item_id=f"{split}/broken", status="quarantined", reason="truncated"))
    return publication.commit(metadata={}, content={"categories": category_records(CATEGORIES)})


def predictions_for(store, photos, *, wrong):
    """Perfect detections, but in the first `wrong` photos the first product has the second's SKU."""
    publication = store.begin("predict", key=photos.key)
    for place, row in enumerate(photos.ok):
        first, second = row.objects
        taken = second if place < wrong else first
        found = [
            ManifestObject(category=taken.category, sku=taken.sku, box=first.box, score=0.9),
            ManifestObject(category=second.category, sku=second.sku, box=second.box, score=0.8),
        ]
        publication.add(ManifestRow(item_id=row.item_id, objects=tuple(found), attributes={"count": 2.0 + place}))
    return publication.commit(metadata={}, content={})
