"""COCO run-length encoding of a mask that is given as a crop: no picture of the photo's size is ever filled."""

from __future__ import annotations

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray


def encode_crop(mask_hw: NDArray[np.bool_], *, x: int, y: int, height: int, width: int) -> str:
    """Compressed counts of the photo-sized mask that is `mask_hw` with its corner at (x, y) and false elsewhere.

    The photo has height x width pixels and holds the crop. Equal to `storage.rle.encode_mask` of the whole mask.
    """
    framed_wh = np.zeros((mask_hw.shape[1], mask_hw.shape[0] + 1), np.bool_)
    framed_wh[:, :-1] = mask_hw.T
    flat = framed_wh.ravel()
    starts_and_ends_E = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts_and_ends_E = np.concatenate([[0], starts_and_ends_E]) if flat[0] else starts_and_ends_E
    columns_E, rows_E = np.divmod(starts_and_ends_E, framed_wh.shape[1])
    edges_E = (columns_E + x) * height + rows_E + y
    # A run that ends at the foot of one column and goes on at the top of the next is one run.
    meeting = np.flatnonzero(edges_E[1:-1:2] == edges_E[2::2]) * 2 + 1
    edges_E = np.delete(edges_E, np.concatenate([meeting, meeting + 1]))
    ends = [0, *edges_E.tolist(), height * width]
    counts = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    # A mask that covers the photo's last pixel has no zeros after it.
    counts = counts[:-1] if counts[-1] == 0 else counts
    encoded = coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)["counts"]
    return encoded.decode("ascii") if isinstance(encoded, bytes) else str(encoded)
