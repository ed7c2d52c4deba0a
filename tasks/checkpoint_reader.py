"""A checkpoint, read by torch, as a reader of photos."""

from __future__ import annotations

from collections.abc import Sequence

from storage.images import Picture
from tasks.detection import Detector, detect
from tasks.fusion import fused_objects
from tasks.list_reader import Found, ListReader

_BATCH = 8


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
