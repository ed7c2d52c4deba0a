"""Boxes as numpy arrays: xyxy in pixels, float32, right and lower edge exclusive (width = x1 - x0)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def area(boxes_N4: Boxes) -> NDArray[np.float32]:
    """Areas in square pixels, float32 [N]; a box turned inside out has area 0."""
    sides_N2 = np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None)
    return np.asarray(sides_N2[:, 0] * sides_N2[:, 1], np.float32)


def intersection_matrix(boxes_N4: Boxes, others_M4: Boxes) -> NDArray[np.float32]:
    """Shared area of every pair, float32 [N, M]."""
    low_NM2 = np.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
    high_NM2 = np.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
    sides_NM2 = np.clip(high_NM2 - low_NM2, 0, None)
    return np.asarray(sides_NM2[..., 0] * sides_NM2[..., 1], np.float32)


def iou_matrix(boxes_N4: Boxes, others_M4: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every pair, float32 [N, M] in [0, 1]; two empty boxes have 0."""
    shared_NM = intersection_matrix(boxes_N4, others_M4)
    union_NM = area(boxes_N4)[:, None] + area(others_M4)[None, :] - shared_NM
    return np.divide(shared_NM, union_NM, out=np.zeros_like(shared_NM), where=union_NM > 0)


def mask_box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Tight box (x0, y0, x1, y1) of the true pixels, x1 and y1 exclusive; None for an empty mask."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask_HW[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
