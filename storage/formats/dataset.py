"""What every reader of a data-set format returns: the photos of one split, their labels and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.catalog import Category
from storage.digest import JSON
from storage.manifest import Box, ManifestObject

BOARDS = "boards"
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPhoto:
    """One photo a data set lists: where it should be, its labels, and why it can't be used (empty: it can)."""

    item_id: str
    path: Path
    width: int | None = None
    height: int | None = None
    sku: str | None = None
    level: str | None = None
    objects: tuple[ManifestObject, ...] = ()
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSplit:
    """One split of a data set. A split the data set does not have has no photos."""

    categories: tuple[Category, ...]
    photos: tuple[ListedPhoto, ...]


def box_problem(box: Box, *, width: int, height: int) -> str:
    """Why an xyxy box in pixels can't be a label in a photo of this size; empty when it can.

    Half a pixel outside is rounding; more is a wrong box.
    """
    x0, y0, x1, y1 = box
    if not all(math.isfinite(value) for value in box):
        return f"box: expected finite numbers, got {list(box)}"
    if x1 <= x0 or y1 <= y0:
        return f"box: expected a positive width and height, got {x1 - x0:g} x {y1 - y0:g}"
    if x0 < -0.5 or y0 < -0.5 or x1 > width + 0.5 or y1 > height + 0.5:
        return f"box: expected inside the photo of {width} x {height}, got {[round(value, 1) for value in box]}"
    return ""


def pictures_in(folder: Path) -> list[Path]:
    """The files directly in `folder` that are named like pictures, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES)


def own_boards(root: Path) -> list[ListedPhoto]:
    """Photos of the empty board that came with a data set: `boards/`, whatever its layout; often there are none."""
    return [ListedPhoto(item_id=f"{BOARDS}/{path.stem}", path=path) for path in pictures_in(root / BOARDS)]


def unique_ids(photos: list[ListedPhoto]) -> tuple[ListedPhoto, ...]:
    """The photos with each item_id once: a second photo of the same name gets a problem and a name of its own."""
    seen: dict[str, int] = {}
    result = []
    for photo in photos:
        count = seen.get(photo.item_id, 0)
        seen[photo.item_id] = count + 1
        if count:
            problem = f"name: expected unique file names, got {photo.path.name!r} {count + 1} times"
            photo = replace(photo, item_id=f"{photo.item_id}#{count + 1}", problem=problem)
        result.append(photo)
    return tuple(result)
