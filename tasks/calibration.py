"""From a detection's score to the probability that it is right: Platt scaling of the score's logit. Pure numpy.

Platt, "Probabilistic outputs for support vector machines", 1999, on logits as in Guo et al., "On Calibration of Modern
Neural Networks", ICML 2017; with a weak prior on leaving scores as they are, so that a few detections decide little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_EDGE = 1e-6
_PRIOR = 1.0
_ROUNDS = 50
_LEAST_SLOPE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """probability = sigmoid(slope * logit(score) + offset); slope > 0, so that the order of scores stays."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, scores: ArrayLike) -> Floats:
        """Probabilities of scores in [0, 1], float64 of the same shape."""
        return _sigmoid(self.slope * _logit(np.asarray(scores, np.float64)) + self.offset)


def fit_calibration(scores_M: ArrayLike, *, right_M: ArrayLike) -> Calibration:
    """Maximum a posteriori slope and offset for M detections, each right or not (bool), by Newton's method.

    Without detections the scores are left as they are.
    """
    features_M2 = np.stack([_logit(np.asarray(scores_M, np.float64)), np.ones(np.size(scores_M))], axis=1)
    target_M, start = np.asarray(right_M, np.float64), np.array([1.0, 0.0])
    found = start
    for _ in range(_ROUNDS):
        expected_M = _sigmoid(features_M2 @ found)
        slope = features_M2.T @ (target_M - expected_M) - _PRIOR * (found - start)
        bend = (features_M2 * (expected_M * (1 - expected_M))[:, None]).T @ features_M2 + _PRIOR * np.eye(2)
        step = np.linalg.solve(bend, slope)
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(slope=max(float(found[0]), _LEAST_SLOPE), offset=float(found[1]))


def _logit(scores: Floats) -> Floats:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.log(clipped / (1 - clipped))


def _sigmoid(values: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * values))
