"""The quality score of a mask: the IoU with the truth that is to be expected, from what can be known without truth.

Signs speak for a mask; each is in [0, 1], 1 being the best. `tasks/mask_outline.py` has those of its outline.
How much each says is fitted by `python -m benchmarks.quality_weights` on several catalogs with truth.

Shapes: h×w pixels, N masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SIGNS = ("second_look", "agreement", "contrast", "surroundings", "closing", "convexity", "box", "neighbours")
LEAST_DEFECT = 0.005
_WEIGHTS = {
    "second_look": 0.29,
    "agreement": 0.09,
    "contrast": 0.28,
    "surroundings": 0.36,
    "closing": 0.69,
    "convexity": 0.16,
    "box": 0.1,
    "neighbours": 0.01,
}
_CONSTANT = 4.74


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
