"""The quality score of a mask, from what can be known without truth.

Shapes: h×w pixels, N masks. Every sign is in [0, 1], 1 being the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def expected_iou(probability_hw: NDArray[np.float32], mask_hw: NDArray[np.bool_]) -> float:
    """IoU that a mask would have on average if each pixel were product with its own probability; 0 if it is empty."""
    inside = float(probability_hw[mask_hw].sum())
    union = float(mask_hw.sum() + probability_hw[~mask_hw].sum())
    return inside / union if union > 0 else 0.0


def boundary_contrast(photo_hw3: NDArray[np.uint8], mask_hw: NDArray[np.bool_], *, width: int = 3) -> float:
    """Share of the outline with a visible step in colour between the strips inside and outside of it, in [0, 1]."""
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    mask_u8 = mask_hw.astype(np.uint8)
    rim_hw = (cv2.dilate(mask_u8, np.ones((3, 3), np.uint8)) - mask_u8).astype(bool)
    if not rim_hw.any():
        return 0.0
    lab_hw3 = cv2.cvtColor(photo_hw3, cv2.COLOR_RGB2LAB).astype(np.float32)
    spread_hw3 = cv2.dilate(lab_hw3, kernel) - cv2.erode(lab_hw3, kernel)
    return float((spread_hw3.max(axis=-1)[rim_hw] > 12).mean())


def mask_agreement(mask_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 when both are empty."""
    union = (mask_hw | other_hw).sum()
    return float((mask_hw & other_hw).sum() / union) if union else 0.0


def neighbour_consistency(areas_N: Sequence[float], views_N: Sequence[int], *, turn: int = 40) -> list[float]:
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


def quality_of(signs: dict[str, float]) -> float:
    """The quality score in [0, 1]: the product of the signs, each raised to how much it says."""
    return float(
        signs["expected_iou"]
        * signs["box_iou"]
        * signs["agreement"] ** 0.5
        * (0.5 + 0.5 * signs["neighbours"]) ** 0.5
        * (0.7 + 0.3 * signs["contrast"]) ** 0.5
    )
