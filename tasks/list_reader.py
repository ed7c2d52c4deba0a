"""Photos to decided products through a model of either form: a checkpoint's folder (torch) or an exported ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.confidence import ListConfidence
from tasks.detection import Detector, detect
from tasks.fusion import fused_objects
from tasks.photo_reader import OnnxReader

_BATCH = 8
_MARGIN = 2
Found = tuple[tuple[ManifestObject, ...], float]


@dataclass(frozen=True, kw_only=True)
class ListReader:
    """A model ready to read photos. `read(photos)` gives each photo's detections, scored by both views, and its count
    by the counting view.

    `image_size`: longer side of a photo in the network, pixels. It reads fastest when `batch` photos are given together
    and `parallel` threads do so at once.
    """

    categories: tuple[Category, ...]
    threshold: float
    confidence: ListConfidence
    image_size: int
    batch: int
    parallel: int
    read: Callable[[Sequence[Picture]], list[Found]]

    @property
    def least_side(self) -> int:
        """How small a photo may be decoded: shrinking it to the network's size must still average pixels."""
        return _MARGIN * self.image_size


def detector_reader(detector: Detector) -> ListReader:
    """A checkpoint as a reader: the photos go through the network as one batch."""

    def read(photos: Sequence[Picture]) -> list[Found]:
        counted = [(found.objects, detector.count_scale * found.count) for found in detect(detector, photos)]
        return [(fused_objects(objects, count=count), count) for objects, count in counted]

    return ListReader(
        categories=detector.categories,
        threshold=detector.threshold,
        confidence=detector.confidence,
        image_size=detector.image_size,
        batch=_BATCH,
        parallel=1,
        read=read,
    )


def onnx_reader(path: Path, *, workers: int) -> ListReader:
    """An exported file as a reader: `workers` photos at a time, each on one core."""
    reader, pool = OnnxReader(path.read_bytes()), ThreadPoolExecutor(workers)

    def read(photos: Sequence[Picture]) -> list[Found]:
        return [(reader.objects_of(one), one.count) for one in pool.map(reader.read_photo, photos)]

    return ListReader(
        categories=reader.categories,
        threshold=reader.threshold,
        confidence=reader.confidence,
        image_size=reader.image_size,
        batch=1,
        parallel=workers,
        read=read,
    )
