"""What a mask's outline says of the mask: whether it parts two colours, and whether it is smooth.

Packages have smooth outlines, and are convex for the most part. A mask that has lost a white panel on a white ground
has a bite, or an edge that wobbles.

Shapes: h×w pixels. Every sign is in [0, 1], 1 being the best; what is missing to 1 is a share of the mask's area, but
for convexity, where it is one of the outline's length.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.backdrop import to_lab
from tasks.local_means import mean_around
from tasks.mask_shapes import convex_hull

_BAND = 4
# As far as the Gaussian that says what lies around a pixel of the band looks.
_REACH = 5 * _BAND
_LEAST_CLOSING, _CLOSED_SHARE = 3, 8

Bools = NDArray[np.bool_]


def outline_signs(photo_hw3: NDArray[np.uint8], mask_hw: Bools) -> dict[str, float]:
    """Every sign by name, of a photo (uint8 RGB) and a mask on it; all 1 where the mask is empty."""
    inside, outside = boundary_contrast(to_lab(photo_hw3), mask_hw)
    return {
        "contrast": inside,
        "surroundings": outside,
        "closing": closing_share(mask_hw),
        "convexity": convexity(mask_hw),
    }


def boundary_contrast(lab_hw3: NDArray[np.float32], mask_hw: Bools) -> tuple[float, float]:
    """1 minus the shares of pixels just inside of the outline that look like ground, just outside of it like product.

    They are compared with what lies further in and further out in the neighbourhood (Lab).
    """
    area = int(mask_hw.sum())
    if not area:
        return 1.0, 1.0
    x, y, across, down = cv2.boundingRect(mask_hw.astype(np.uint8))
    part = np.s_[max(0, y - _REACH) : y + down + _REACH, max(0, x - _REACH) : x + across + _REACH]
    lab_hw3, depth_hw, beyond_hw = lab_hw3[part], _distance(mask_hw)[part], _distance(~mask_hw)[part]
    further_in_hw3, further_out_hw3 = (
        mean_around(lab_hw3, far_hw > _BAND, blurred=_blurred)[0] for far_hw in (depth_hw, beyond_hw)
    )
    band_hw = (depth_hw <= _BAND) & (beyond_hw <= _BAND)
    inside_N, lab_N3 = depth_hw[band_hw] > 0, lab_hw3[band_hw]
    from_inside_N = ((lab_N3 - further_in_hw3[band_hw]) ** 2).sum(axis=1)
    from_outside_N = ((lab_N3 - further_out_hw3[band_hw]) ** 2).sum(axis=1)
    as_ground = int((inside_N & (from_outside_N < from_inside_N)).sum())
    as_product = int((~inside_N & (from_outside_N >= from_inside_N)).sum())
    return max(0.0, 1 - as_ground / area), max(0.0, 1 - as_product / area)


def closing_share(mask_hw: Bools) -> float:
    """The mask's area over that of its closing by a disk; the disk's width is an eighth of the area's square root."""
    width = max(_LEAST_CLOSING, int(np.sqrt(mask_hw.sum()) / _CLOSED_SHARE)) | 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    padded_hw = cv2.copyMakeBorder(mask_hw.astype(np.uint8), width, width, width, width, cv2.BORDER_CONSTANT, value=0)
    closed = int(cv2.morphologyEx(padded_hw, cv2.MORPH_CLOSE, disk).sum())
    return int(mask_hw.sum()) / closed if closed else 1.0


def convexity(mask_hw: Bools) -> float:
    """The perimeter of the mask's hull over its own (outer outlines only)."""
    own = _perimeter(mask_hw)
    return min(1.0, _perimeter(convex_hull(mask_hw)) / own) if own else 1.0


def _perimeter(mask_hw: Bools) -> float:
    outlines, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return float(sum(cv2.arcLength(outline, True) for outline in outlines))


def _distance(mask_hw: Bools) -> NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform(mask_hw.astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def _blurred(values: NDArray[np.float32]) -> object:
    return cv2.GaussianBlur(values, (0, 0), _BAND)
