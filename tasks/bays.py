"""Bays of an outline that the photo does not show: a white panel on a white ground that a mask has lost.

Packages are convex for the most part, and what is not (a handle, a banana) shows it: an edge runs along the true
outline. Where a mask is hollow and the straight line across the hollow follows a stronger edge of the photo than the
mask's own outline in it, the hollow is product.

Shapes: h×w pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.backdrop import edge_strength, to_lab
from tasks.mask_shapes import convex_hull

_LEAST_SHARE = 0.002
_WEAKEST = 25
_NEAR = np.ones((3, 3), np.uint8)
_AROUND = np.ones((5, 5), np.uint8)


def lost_bays(
    mask_hw: NDArray[np.bool_], photo_hw3: NDArray[np.uint8], allowed_hw: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """What a mask lacks to its convex hull, where the photo's edges speak for the hull.

    A line is as good as the weakest quarter of its edges: a print on the product makes part of a false outline strong.

    Args:
        mask_hw: the mask.
        photo_hw3: uint8 RGB.
        allowed_hw: nothing beyond is product; None: no such limit.
    """
    hull_hw = convex_hull(mask_hw) if allowed_hw is None else convex_hull(mask_hw) & allowed_hw
    hollow_hw = cv2.morphologyEx((hull_hw & ~mask_hw).astype(np.uint8), cv2.MORPH_OPEN, _NEAR)
    count, bays_hw, stats, _ = cv2.connectedComponentsWithStats(hollow_hw, connectivity=4)
    large = [bay for bay in range(1, count) if stats[bay, cv2.CC_STAT_AREA] >= _LEAST_SHARE * mask_hw.sum()]
    lost_hw = np.zeros(mask_hw.shape, bool)
    if not large:
        return lost_hw
    edges_hw = cv2.dilate(edge_strength(to_lab(photo_hw3)), _NEAR)
    far_hw = ~cv2.dilate(mask_hw.astype(np.uint8), _NEAR).astype(bool)
    across_hw, own_hw = _rim(hull_hw) & far_hw, _rim(mask_hw)
    for bay in large:
        around_hw = cv2.dilate((bays_hw == bay).astype(np.uint8), _AROUND).astype(bool)
        line_N, outline_N = edges_hw[across_hw & around_hw], edges_hw[own_hw & around_hw]
        if len(line_N) > 2 and len(outline_N) > 2 and _weakest(line_N) > _weakest(outline_N):
            lost_hw |= bays_hw == bay
    return lost_hw


def _weakest(edges_N: NDArray[np.float32]) -> float:
    return float(np.percentile(edges_N, _WEAKEST))


def _rim(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask_hw & ~cv2.erode(mask_hw.astype(np.uint8), _NEAR, borderValue=0).astype(bool)
