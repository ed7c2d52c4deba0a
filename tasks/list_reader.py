"""Photos to decided products through a model of either form: a checkpoint's folder (torch) or an exported ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.detection import Detector, detect
from tasks.photo_reader import OnnxReader
from tasks.shopping_list import kept

_BATCH = 8
Decided = tuple[tuple[ManifestObject, ...], float]


@dataclass(frozen=True, kw_only=True)
class ListReader:
    """A model ready to read photos. `decide(photos, threshold)` gives each photo's listed products and its count by the
    counting view.

    `image_size`: longer side of a photo in the network, pixels. It reads fastest when `batch` photos are given together
    and `parallel` threads do so at once.
    """

    categories: tuple[Category, ...]
    threshold: float
    image_size: int
    batch: int
    parallel: int
    decide: Callable[[Sequence[Picture], float], list[Decided]]


def detector_reader(detector: Detector) -> ListReader:
    """A checkpoint as a reader: the photos go through the network as one batch."""

    def decide(photos: Sequence[Picture], threshold: float) -> list[Decided]:
        return [
            (detector.decide(found, threshold=threshold), detector.count_scale * found.count)
            for found in detect(detector, photos)
        ]

    return ListReader(
        categories=detector.categories,
        threshold=detector.threshold,
        image_size=detector.image_size,
        batch=_BATCH,
        parallel=1,
        decide=decide,
    )


def onnx_reader(path: Path, *, workers: int) -> ListReader:
    """An exported file as a reader: `workers` photos at a time, each on one core."""
    reader, pool = OnnxReader(path.read_bytes()), ThreadPoolExecutor(workers)

    def decide(photos: Sequence[Picture], threshold: float) -> list[Decided]:
        readings = pool.map(reader.read_photo, photos)
        return [(kept(reader.objects_of(one), threshold=threshold), one.count) for one in readings]

    return ListReader(
        categories=reader.categories,
        threshold=reader.threshold,
        image_size=reader.image_size,
        batch=1,
        parallel=workers,
        decide=decide,
    )
