"""The quality score of a mask: the IoU with the truth that is to be expected, from what can be known without truth.

Signs speak for a mask; each is in [0, 1], 1 being the best, and what is missing to 1 is a share of the mask's area.
How much each says is fitted by `python -m benchmarks.quality_weights` on several catalogs with truth.

Shapes: h×w pixels, N masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.backdrop import to_lab
from tasks.local_means import mean_around

SIGNS = ("second_look", "agreement", "contrast", "box", "neighbours")
LEAST_DEFECT = 0.005
_WEIGHTS = {"second_look": 0.26, "agreement": 0.26, "contrast": 0.4, "box": 0.21, "neighbours": 0.03}
_CONSTANT = 0.45
_BAND = 3


def boundary_contrast(photo_hw3: NDArray[np.uint8], mask_hw: NDArray[np.bool_]) -> float:
    """1 minus the share of pixels just inside of the outline that look more like what is just outside of it.

    Both sides are compared with what lies further in and further out in the neighbourhood (Lab).
    """
    lab_hw3 = to_lab(photo_hw3)
    depth_hw = cv2.distanceTransform(mask_hw.astype(np.uint8), cv2.DIST_L2, 3)
    beyond_hw = cv2.distanceTransform((~mask_hw).astype(np.uint8), cv2.DIST_L2, 3)
    inner_hw3, _ = mean_around(lab_hw3, depth_hw > _BAND, blurred=_blurred)
    outer_hw3, _ = mean_around(lab_hw3, beyond_hw > _BAND, blurred=_blurred)
    band_hw = (depth_hw > 0) & (depth_hw <= _BAND)
    strange_hw = ((lab_hw3 - outer_hw3) ** 2).sum(axis=-1) < ((lab_hw3 - inner_hw3) ** 2).sum(axis=-1)
    return float(max(0.0, 1 - (band_hw & strange_hw).sum() / max(1, mask_hw.sum())))


def _blurred(values: NDArray[np.float32]) -> object:
    return cv2.GaussianBlur(values, (0, 0), _BAND)


def mask_agreement(mask_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 when both are empty."""
    union = (mask_hw | other_hw).sum()
    return float((mask_hw & other_hw).sum() / union) if union else 0.0


def neighbour_consistency(areas_N: Sequence[float], views_N: Sequence[int]) -> list[float]:
    """How well each area fits the areas of the two nearest turntable positions: ratio in (0, 1], 1 without neighbours.

    The product's outline changes slowly as the table turns, so an area should lie between, or near, its neighbours'.
    """
    order = np.argsort(views_N, kind="stable")
    scores = [1.0] * len(areas_N)
    if len(order) < 3:
        return scores
    for place, index in enumerate(order):
        before, after = areas_N[order[place - 1]], areas_N[order[(place + 1) % len(order)]]
        low, high, own = min(before, after), max(before, after), max(areas_N[index], 1)
        scores[index] = float(min(own / max(low, 1), high / own, 1.0)) if high > 0 else 0.0
    return scores


def defects(signs: Mapping[str, float]) -> NDArray[np.float64]:
    """Logarithms of what is missing to 1 in each of `SIGNS`, never less than that of `LEAST_DEFECT`."""
    return np.log(1 + LEAST_DEFECT - np.array([signs[name] for name in SIGNS]))


def quality_of(signs: Mapping[str, float]) -> float:
    """The quality score in [0, 1]: the IoU to be expected of a mask with these signs."""
    weights = np.array([_WEIGHTS[name] for name in SIGNS])
    return float(np.clip(1 - np.exp(_CONSTANT + weights @ defects(signs)), 0, 1))
