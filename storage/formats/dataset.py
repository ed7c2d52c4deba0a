"""What every reader of a data-set format returns: the photos of one split, their labels and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.catalog import Category
from storage.digest import JSON, digest_bytes
from storage.manifest import Box, ManifestObject

BOARDS = "boards"
MAX_NAME_BYTES = 200
_READ_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
# What cameras and phones write besides: listed too, so that a photo that can't be read is told and not passed over.
_OTHER_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".dng"})


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
    """The files directly in `folder` that are named like pictures, in the order of their names.

    Those of formats that can't be read come last: a JPEG made of one of them keeps the name that both have.
    """
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for kind in (_READ_SUFFIXES, _OTHER_SUFFIXES) for path in files if path.suffix.lower() in kind]


def own_boards(root: Path) -> list[ListedPhoto]:
    """Photos of the empty board that came with a data set: `boards/`, whatever its layout; often there are none."""
    return [ListedPhoto(item_id=f"{BOARDS}/{path.stem}", path=path) for path in pictures_in(root / BOARDS)]


def readable_text(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file name, or halves of characters in JSON, that are none are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _with_readable_name(photo: ListedPhoto) -> ListedPhoto:
    """The photo as it is, or without its labels and with the problem that no artifact can be named after it."""
    name = readable_text(photo.item_id)
    if name == photo.item_id and readable_text(photo.sku or "") == (photo.sku or ""):
        if len(name.encode()) <= MAX_NAME_BYTES:
            return photo
        problem = f"name: expected at most {MAX_NAME_BYTES} bytes, got {len(name.encode())}"
        name = f"{name[: MAX_NAME_BYTES // 4]}…{digest_bytes(name.encode())[:12]}"
    else:
        problem = f"name: expected UTF-8, got {readable_text(photo.path.name)}"
    return replace(photo, item_id=name, sku=None, level=None, objects=(), attributes={}, problem=problem)


def unique_ids(listed: list[ListedPhoto]) -> tuple[ListedPhoto, ...]:
    """The photos with each item_id once, and such as artifacts can be named after.

    A second photo of the same name gets a problem and a name of its own, and so does one whose name is no text.
    """
    seen: dict[str, int] = {}
    result = []
    for photo in map(_with_readable_name, listed):
        count = seen.get(photo.item_id, 0)
        seen[photo.item_id] = count + 1
        if count:
            problem = f"name: expected unique file names, got {photo.path.name!r} {count + 1} times"
            photo = replace(photo, item_id=f"{photo.item_id}#{count + 1}", problem=problem)
        result.append(photo)
    return tuple(result)
