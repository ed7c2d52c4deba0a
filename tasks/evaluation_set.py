"""What is evaluated: labelled photos and their detections as flat arrays, from manifests or from COCO JSON.

This is the border of the evaluation: everything foreign is checked here, once. What can be left out without changing
the meaning of a figure becomes a counted warning; everything else is an error.

Shapes: N photos, K categories, M objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.catalog import Category
from storage.manifest import Manifest, ManifestObject, ManifestRow

LEVELS = ("easy", "medium", "hard")
AVERAGED = "averaged"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """M products in photos. `photo_M` and `class_M` are indices (photo 0..N-1, category 0..K-1), `score_M` in [0, 1]
    (1 for true ones), `xywh_M4` the boxes as COCO writes them (left, top, width, height in pixels)."""

    photo_M: Ints
    class_M: Ints
    score_M: Floats
    xywh_M4: Floats

    def __len__(self) -> int:
        return len(self.photo_M)

    def take(self, chosen: NDArray[Any]) -> Objects:
        """The objects at a boolean mask [M] or at indices [n], in their order."""
        return Objects(
            photo_M=self.photo_M[chosen],
            class_M=self.class_M[chosen],
            score_M=self.score_M[chosen],
            xywh_M4=self.xywh_M4[chosen],
        )

    @property
    def xyxy_M4(self) -> NDArray[np.float32]:
        """The boxes as xyxy, float32."""
        return np.concatenate(
            [self.xywh_M4[:, :2], self.xywh_M4[:, :2] + self.xywh_M4[:, 2:]], axis=1, dtype=np.float32
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """N photos of K categories with what is in them and what was found in them."""

    photo_ids: tuple[str, ...]
    levels: tuple[str, ...]
    category_ids: tuple[int, ...]
    skus: tuple[str, ...]
    truth: Objects
    found: Objects

    @property
    def photos(self) -> int:
        """N."""
        return len(self.photo_ids)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.category_ids)

    def subset(self, photos: Ints) -> EvaluationSet:
        """The photos at `photos` (indices, each once), in that order, with their objects."""
        place_N = np.full(self.photos, -1, np.int64)
        place_N[photos] = np.arange(len(photos))
        return EvaluationSet(
            photo_ids=tuple(self.photo_ids[index] for index in photos),
            levels=tuple(self.levels[index] for index in photos),
            category_ids=self.category_ids,
            skus=self.skus,
            truth=_moved(self.truth, place_N=place_N),
            found=_moved(self.found, place_N=place_N),
        )


def _moved(objects: Objects, *, place_N: Ints) -> Objects:
    kept = objects.take(place_N[objects.photo_M] >= 0)
    return Objects(photo_M=place_N[kept.photo_M], class_M=kept.class_M, score_M=kept.score_M, xywh_M4=kept.xywh_M4)


def by_level(evaluated: EvaluationSet) -> dict[str, EvaluationSet]:
    """One set for each level that occurs (easy, medium, hard), and "averaged": all photos together, as in rpctool."""
    levels_N = np.asarray(evaluated.levels)
    parts = {level: np.flatnonzero(levels_N == level) for level in LEVELS}
    found = {level: evaluated.subset(photos) for level, photos in parts.items() if photos.size}
    return {**found, AVERAGED: evaluated}


def from_manifests(
    photos: Manifest, *, predictions: Manifest, categories: Sequence[Category], role: str = "test"
) -> EvaluationSet:
    """The readable photos of `photos` with the detections that `predictions` has for them.

    Every readable photo is evaluated. A photo without a row in `predictions` is an error, not an empty prediction.

    Raises:
        ValueError: no readable photo, a photo was not predicted, or an object has an unknown category.
    """
    rows = photos.ok
    missing = [row.item_id for row in rows if row.item_id not in predictions.by_id]
    if not rows or missing:
        wanted = "at least one readable photo" if not rows else f"a prediction for each of {len(rows)} {role} photos"
        raise ValueError(f"evaluate: expected {wanted}, got {len(missing)} without: {missing[:3]}")
    place = {category.id: index for index, category in enumerate(categories)}
    return EvaluationSet(
        photo_ids=tuple(row.item_id for row in rows),
        levels=tuple(row.level or "" for row in rows),
        category_ids=tuple(category.id for category in categories),
        skus=tuple(category.sku for category in categories),
        truth=_from_rows(rows, place=place),
        found=_from_rows([predictions.row(row.item_id) for row in rows], place=place),
    )


def with_found(evaluated: EvaluationSet, rows: Sequence[ManifestRow]) -> EvaluationSet:
    """The same photos and truth with other detections: the objects of `rows`, one a photo in their order."""
    assert len(rows) == len(evaluated.photo_ids), "one row a photo"
    place = {category: index for index, category in enumerate(evaluated.category_ids)}
    return replace(evaluated, found=_from_rows(rows, place=place))


def _from_rows(rows: Sequence[ManifestRow], *, place: Mapping[int, int]) -> Objects:
    pairs = [(index, item) for index, row in enumerate(rows) for item in row.objects if item.status == "ok"]
    unknown = sorted({item.category for _, item in pairs if item.category not in place})
    if unknown:
        raise ValueError(f"evaluate: expected the catalog's category ids, got also {unknown[:5]}")
    boxes_M4 = np.asarray([item.box for _, item in pairs], np.float64).reshape(-1, 4)
    return Objects(
        photo_M=np.asarray([index for index, _ in pairs], np.int64),
        class_M=np.asarray([place[item.category] for _, item in pairs], np.int64),
        score_M=np.asarray([_score(item) for _, item in pairs], np.float64),
        xywh_M4=np.concatenate([boxes_M4[:, :2], boxes_M4[:, 2:] - boxes_M4[:, :2]], axis=1),
    )


def _score(item: ManifestObject) -> float:
    return 1.0 if item.score is None else item.score


def from_coco(
    results: Sequence[Mapping[str, Any]], *, annotations: Mapping[str, Any]
) -> tuple[EvaluationSet, list[str]]:
    """COCO detection results against an RPC annotation file, both as parsed JSON, and the warnings.

    Args:
        results: dicts with image_id, category_id, score and bbox [left, top, width, height].
        annotations: RPC's file: images (id, file_name, width, height, level), annotations, categories.

    Raises:
        ValueError: something is missing, not unique, of the wrong form, or cannot be what it says it is.
    """
    _check_objects(results, what="results")
    _check_annotations(annotations)
    # In the order of their ids, as COCO's tools have it: the order of the file then decides nothing.
    images, categories = (sorted(annotations[key], key=_id_order) for key in ("images", "categories"))
    photo_place = {image["id"]: index for index, image in enumerate(images)}
    class_place = {category["id"]: index for index, category in enumerate(categories)}
    truth, warnings = _from_records(
        annotations["annotations"], photo_place=photo_place, class_place=class_place, what="annotations", scored=False
    )
    found, more_warnings = _from_records(
        results, photo_place=photo_place, class_place=class_place, what="results", scored=True
    )
    sizes_N2 = np.array([(image.get("width") or 0, image.get("height") or 0) for image in images], np.float64)
    warnings += more_warnings + _check_boxes(found, sizes_N2=sizes_N2)
    levels = tuple(str(image.get("level") or "") for image in images)
    if not set(levels) & set(LEVELS):
        warnings.append("annotations: no photo has a level (easy, medium, hard): only averaged figures")
    evaluated = EvaluationSet(
        photo_ids=tuple(str(image["file_name"]) for image in images),
        levels=levels,
        category_ids=tuple(category["id"] for category in categories),
        skus=tuple(str(category.get("sku_name") or category.get("name") or category["id"]) for category in categories),
        truth=truth,
        found=found,
    )
    return evaluated, warnings


def _id_order(record: Mapping[str, Any]) -> tuple[bool, Any]:
    return isinstance(record["id"], str), record["id"]


def _check_annotations(annotations: Mapping[str, Any]) -> None:
    if not isinstance(annotations, Mapping):
        raise ValueError(f"annotations: expected an object, got a JSON {type(annotations).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(annotations.get(key), list):
            raise ValueError(f"annotations: expected a list under {key!r}, got keys {sorted(annotations)}")
        _check_objects(annotations[key], what=f"annotations: {key}")
    if not annotations["images"] or not annotations["categories"]:
        raise ValueError("annotations: expected at least one image and one category, got none")
    for what, name in (("images", "id"), ("images", "file_name"), ("categories", "id")):
        values = [one.get(name) for one in annotations[what]]
        if None in values:
            raise ValueError(f"annotations: expected {name!r} in each of {what}, got {values.count(None)} without")
        wrong = [value for value in values if not isinstance(value, int | str)]
        if wrong:
            raise ValueError(f"annotations: expected whole numbers or texts as {name!r} in {what}, got {wrong[0]!r}")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"annotations: expected unique {name!r} in {what}, got {twice!r} more than once")


def _check_objects(records: Any, *, what: str) -> None:  # noqa: ANN401 - parsed JSON, of any type
    if not isinstance(records, list):
        keys = f" with keys {sorted(records)[:5]}" if isinstance(records, dict) else ""
        raise ValueError(f"{what}: expected a list of objects, got a JSON {type(records).__name__}{keys}")
    wrong = [one for one in records if not isinstance(one, Mapping)]
    if wrong:
        raise ValueError(f"{what}: expected a list of objects, got {wrong[0]!r} among {len(records)}")


def _from_records(
    records: Sequence[Mapping[str, Any]],
    *,
    photo_place: Mapping[Any, int],
    class_place: Mapping[Any, int],
    what: str,
    scored: bool,
) -> tuple[Objects, list[str]]:
    try:
        photo_M = np.asarray([photo_place.get(one["image_id"], -1) for one in records], np.int64)
        class_M = np.asarray([class_place.get(one["category_id"], -1) for one in records], np.int64)
        score_M = _scores([one["score"] for one in records], what=what) if scored else np.ones(len(records))
        xywh_M4 = _xywh(records, what=what)
    except KeyError as error:
        raise ValueError(f"{what}: expected {error} in each of {len(records)}, got some without") from error
    except TypeError as error:
        raise ValueError(f"{what}: expected whole numbers or texts as ids, got others ({error})") from error
    _check_categories(
        [one["category_id"] for one, index in zip(records, class_M, strict=True) if index < 0],
        known=class_place,
        what=what,
    )
    usable_M = (photo_M >= 0) & np.isfinite(score_M)
    warnings = _counted(
        {
            f"{what}: image_id that is not among the annotated images, left out": int((photo_M < 0).sum()),
            f"{what}: score is not a finite number, left out": int((~np.isfinite(score_M)).sum()),
        }
    )
    outside_M = usable_M & ((score_M < 0) | (score_M > 1))
    if outside_M.any():
        raise ValueError(
            f"{what}: expected scores in [0, 1], got {score_M[outside_M][0]:g} (and {outside_M.sum() - 1} more); "
            "are these logits or percentages?"
        )
    return Objects(photo_M=photo_M, class_M=class_M, score_M=score_M, xywh_M4=xywh_M4).take(usable_M), warnings


def _scores(values: Sequence[Any], *, what: str) -> Floats:
    wrong = [one for one in values if isinstance(one, bool) or not isinstance(one, int | float | None)]
    if wrong:
        raise ValueError(f"{what}: expected numbers as scores, got {wrong[0]!r} (and {len(wrong) - 1} more)")
    return np.asarray(values, np.float64)


def _xywh(records: Sequence[Mapping[str, Any]], *, what: str) -> Floats:
    if not records:
        return np.empty((0, 4))
    try:
        xywh_M4 = np.asarray([one["bbox"] for one in records], np.float64)
    except (TypeError, ValueError):
        xywh_M4 = np.full((1, 1), np.nan)
    if xywh_M4.shape != (len(records), 4) or not np.isfinite(xywh_M4).all():
        wrong = next(one["bbox"] for one in records if not _is_box(one["bbox"]))
        raise ValueError(f"{what}: expected bbox = 4 finite numbers [left, top, width, height], got {wrong!r}")
    return xywh_M4


def _is_box(value: Any) -> bool:  # noqa: ANN401 - parsed JSON, of any type
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return False
    return all(isinstance(one, (int, float)) and np.isfinite(one) for one in value)


def _check_categories(unknown: Sequence[Any], *, known: Mapping[Any, int], what: str) -> None:
    if not unknown:
        return
    hint = "; ids start at 1 here, are these 0-based?" if 0 in unknown and 0 not in known else ""
    ids = f"{min(known)}..{max(known)}" if len(known) > 5 else sorted(known)
    raise ValueError(f"{what}: expected category ids {ids}, got {unknown[0]!r} (and {len(unknown) - 1} more){hint}")


def _check_boxes(found: Objects, *, sizes_N2: Floats) -> list[str]:
    """Warnings about odd boxes; ValueError where most of them only fit their photos when they are read as xyxy."""
    xywh_M4 = found.xywh_M4
    limit_M2 = sizes_N2[found.photo_M]
    sized_M = (limit_M2 > 0).all(axis=1)
    outside_M = sized_M & np.any(xywh_M4[:, :2] + xywh_M4[:, 2:] > limit_M2 + 2, axis=1)
    as_xyxy_M = np.all((xywh_M4[:, 2:] > xywh_M4[:, :2]) & (xywh_M4[:, 2:] <= limit_M2 + 2), axis=1)
    if outside_M.sum() > 0.25 * max(len(found), 1) and as_xyxy_M[sized_M].mean() > 0.95:
        raise ValueError(
            f"results: expected bbox = [left, top, width, height], got {int(outside_M.sum())} of {len(found)} boxes "
            "reaching out of their photos; they fit as [x0, y0, x1, y1]: convert them first"
        )
    return _counted(
        {
            "results: bbox without area": int((xywh_M4[:, 2:] <= 0).any(axis=1).sum()),
            "results: bbox reaches out of its photo": int(outside_M.sum()),
        }
    )


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{what}: {count}" for what, count in counts.items() if count]
