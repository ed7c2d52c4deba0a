"""COCO compressed run-length encoding of masks, as one string per mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray


def encode_mask(mask_HW: NDArray[np.bool_]) -> str:
    """Compressed counts of a boolean mask [H, W]; its size is that of the photo and is not part of the string."""
    encoded = coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    counts = encoded["counts"]
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)


def decode_mask(rle: str, *, height: int, width: int) -> NDArray[np.bool_]:
    """The boolean mask [height, width] of compressed counts."""
    decoded = coco_mask.decode({"size": [height, width], "counts": rle.encode("ascii")})
    return np.asarray(decoded, dtype=np.bool_).reshape(height, width)


def decode_union(rles: Sequence[str], *, height: int, width: int) -> NDArray[np.bool_]:
    """The boolean mask [height, width] of all that any of several compressed counts covers; of none, nothing.

    Runs are merged before they become pixels: a photo with ten masks costs as much as one with one.
    """
    size = [height, width]
    merged = coco_mask.merge([{"size": size, "counts": rle.encode("ascii")} for rle in rles]) if rles else None
    if merged is None:
        return np.zeros((height, width), np.bool_)
    return np.asarray(coco_mask.decode(merged), dtype=np.bool_).reshape(height, width)
