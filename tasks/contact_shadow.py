"""The strip of shadow under a product where it stands: taken for product by the network and by every edge, found here.

Right under a product the shadow is as dark as print and has an outline of its own. What gives it away is its colour:
that of the backdrop, only darker, next to a product of another colour which has nothing like it anywhere near. The
turntable's camera stands upright, so the strip lies at the lower side of the mask.

Shapes: h×w pixels of the photo at the working size. Lengths are shares of the longer side.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.backdrop import to_lab
from tasks.local_means import Plane, mean_around

# The strip is no wider than this; colours are compared with those around (standard deviation of a Gaussian).
_WIDEST, _AROUND, _SMOOTH = 0.02, 0.04, 0.016
# Product that has such dark, colourless places of its own within this distance keeps its rim.
_NEAR, _OWN_SHARE = 0.12, 0.02
# In Lab: least difference of hue between product and backdrop, and how near a shadow's hue is to the backdrop's: as a
# share of the way to the product's, and beside that way. A shadow is darker than the lit backdrop.
_LEAST_APART, _WAY, _BESIDE, _DARKER = 15.0, 0.3, 5.0, 0.85
# The outline looks down: the vertical part of its normal.
_DOWN = 0.7
_BACKDROP_FROM = 0.015
# So much of the surroundings must be product, and backdrop.
_LEAST_KNOWN = 1e-3


def without_contact_shadow(alpha_hw: Plane, photo_hw3: NDArray[np.uint8]) -> Plane:
    """The soft mask, 0 in the strip of contact shadow along its lower outline.

    Args:
        alpha_hw: float32 in [0, 1], 1/2 at the outline.
        photo_hw3: uint8 RGB.
    """
    side = max(alpha_hw.shape)
    mask_hw = alpha_hw > 0.5
    if not mask_hw.any() or mask_hw.all():
        return alpha_hw
    depth_hw = cv2.distanceTransform(mask_hw.astype(np.uint8), cv2.DIST_L2, 5)
    beyond_hw = cv2.distanceTransform((~mask_hw).astype(np.uint8), cv2.DIST_L2, 5)
    core_hw = depth_hw > max(2.0, _WIDEST * side)
    shadow_hw = _as_shaded_backdrop(photo_hw3, core_hw, backdrop_hw=beyond_hw > _BACKDROP_FROM * side)
    own_hw, _ = mean_around(
        shadow_hw[..., None].astype(np.float32), core_hw, blurred=partial(_blurred, sigma=_NEAR * side)
    )
    strip_hw = shadow_hw & mask_hw & (own_hw[..., 0] < _OWN_SHARE) & _looks_down(mask_hw, side=side)
    strip_hw = _reaching(strip_hw, depth_hw <= 1) & ~_reaching(strip_hw, core_hw)
    # What is half transparent outside of the strip is its rim.
    gone_hw = cv2.dilate(strip_hw.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & (strip_hw | ~mask_hw)
    return np.where(gone_hw, np.float32(0), alpha_hw)


def _as_shaded_backdrop(
    photo_hw3: NDArray[np.uint8], core_hw: NDArray[np.bool_], *, backdrop_hw: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where a pixel is darker than the backdrop around and of its hue, which is not that of the product around."""
    lab_hw3 = to_lab(photo_hw3)
    blurred = partial(_blurred, sigma=_AROUND * max(core_hw.shape))
    product_hw3, inside_hw = mean_around(lab_hw3, core_hw, blurred=blurred)
    empty_hw3, outside_hw = mean_around(lab_hw3, backdrop_hw, blurred=blurred)
    ways = [cv2.extractChannel(product_hw3, k) - cv2.extractChannel(empty_hw3, k) for k in (1, 2)]
    hues = [cv2.extractChannel(lab_hw3, k) - cv2.extractChannel(empty_hw3, k) for k in (1, 2)]
    length_hw = np.maximum(ways[0] ** 2 + ways[1] ** 2, 1e-6)
    share_hw = (hues[0] * ways[0] + hues[1] * ways[1]) / length_hw
    beside_hw = (hues[0] - share_hw * ways[0]) ** 2 + (hues[1] - share_hw * ways[1]) ** 2
    darker_hw = lab_hw3[..., 0] < _DARKER * empty_hw3[..., 0]
    known_hw = (inside_hw > _LEAST_KNOWN) & (outside_hw > _LEAST_KNOWN)
    alike_hw = (length_hw > _LEAST_APART**2) & (share_hw < _WAY) & (beside_hw < _BESIDE**2)
    return np.asarray(known_hw & darker_hw & alike_hw)


def _blurred(values_hw: Plane, *, sigma: float) -> Plane:
    """About a Gaussian: two box filters of its variance, whose cost does not depend on `sigma`."""
    side = max(3, 2 * round(np.sqrt(6 * sigma**2 + 1) / 2) + 1)
    once_hw = cv2.blur(values_hw, (side, side), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.blur(once_hw, (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32)


def _looks_down(mask_hw: NDArray[np.bool_], *, side: int) -> NDArray[np.bool_]:
    """Where the way out of the mask leads down."""
    smooth_hw = cv2.GaussianBlur(mask_hw.astype(np.float32), (0, 0), _SMOOTH * side)
    down_hw, right_hw = -cv2.Sobel(smooth_hw, cv2.CV_32F, 0, 1), cv2.Sobel(smooth_hw, cv2.CV_32F, 1, 0)
    return np.asarray(down_hw > _DOWN * np.maximum(np.hypot(down_hw, right_hw), 1e-6))


def _reaching(pieces_hw: NDArray[np.bool_], there_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces that have a pixel `there`."""
    _, labels_hw = cv2.connectedComponents(pieces_hw.astype(np.uint8), connectivity=4)
    reaching = np.unique(labels_hw[pieces_hw & there_hw])
    return np.isin(labels_hw, reaching) & pieces_hw
