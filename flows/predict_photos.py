"""`tally predict`: photos of any folder through a champion, to annotated photos and shopping lists.

A photo that can't be read is reported and skipped; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.champion import load_champion
from storage.formats.dataset import pictures_in
from storage.images import Picture, decode_rgb, encode_jpeg
from storage.store import replace_file
from tasks.context import EventSink
from tasks.detection import Detector, PhotoDetections, detect
from tasks.shopping_list import ShoppingList, draw_detections, encode_csv, encode_json, shopping_list

_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class PredictedPhotos:
    """The lists, the photos that were skipped with the reason, and how fast it went (decoding to list)."""

    lists: list[ShoppingList]
    skipped: list[tuple[str, str]]
    photos_per_second: float


def find_photos(photos: str) -> list[Path]:
    """The photo, the photos of the folder, or the files that match the glob, in the order of their names.

    Raises:
        ValueError: there is nothing of that name.
    """
    path = Path(photos).expanduser()
    if path.is_dir():
        found = pictures_in(path)
    else:
        # A glob may be absolute, which Path.glob refuses: it is taken relative to its root.
        found = [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not found:
        raise ValueError(f"photos: expected a photo, a folder of photos or a glob, got nothing for {photos!r}")
    return found


def predict_photos(
    photos: str, *, model: Path, out: Path, threshold: float | None, events: EventSink
) -> PredictedPhotos:
    """Predict all photos, write `out`/photos/, shopping_lists.csv and shopping_lists.json."""
    paths = find_photos(photos)
    detector = load_champion(model)
    level = detector.threshold if threshold is None else threshold
    names = {category.sku: category.title for category in detector.categories}
    lists: list[ShoppingList] = []
    skipped: list[tuple[str, str]] = []
    events({"kind": "start", "stage": "predict", "cached": False})
    started = time.perf_counter()
    for path, photo_HW3, found in _predicted(paths, detector=detector, skipped=skipped):
        objects = detector.decide(found, threshold=level)
        count = detector.count_scale * found.count
        lists.append(shopping_list(path.name, objects=objects, threshold=level, names=names, count=count))
        _write(
            out / "photos" / f"{path.stem}.jpg", encode_jpeg(draw_detections(photo_HW3, objects=objects, names=names))
        )
        done = len(lists) + len(skipped)
        events({"kind": "progress", "stage": "predict", "what": "photos", "done": done, "total": len(paths)})
    seconds = time.perf_counter() - started
    _write(out / "shopping_lists.csv", encode_csv(lists))
    _write(out / "shopping_lists.json", encode_json(lists))
    return PredictedPhotos(lists=lists, skipped=skipped, photos_per_second=len(lists) / seconds)


def _predicted(
    paths: Sequence[Path], *, detector: Detector, skipped: list[tuple[str, str]]
) -> Iterator[tuple[Path, Picture, PhotoDetections]]:
    for first in range(0, len(paths), _BATCH):
        readable = [
            (path, photo) for path in paths[first : first + _BATCH] if (photo := _read(path, skipped)) is not None
        ]
        found = detect(detector, [photo_HW3 for _, photo_HW3 in readable]) if readable else []
        for (path, photo_HW3), one in zip(readable, found, strict=True):
            yield path, photo_HW3, one


def _read(path: Path, skipped: list[tuple[str, str]]) -> Picture | None:
    try:
        return decode_rgb(path.read_bytes())
    except (OSError, ValueError) as error:
        skipped.append((path.name, str(error)))
        return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data, sync=False)
