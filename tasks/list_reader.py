"""What reads photos, whatever form its model has; and that of an exported ONNX file, which needs no torch.

torch and what comes with it take seconds to import and most of a gigabyte: the reader of a checkpoint lies in
`tasks.checkpoint_reader`, so that who serves an exported file pays for neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.confidence import ListConfidence
from tasks.photo_reader import OnnxReader

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
