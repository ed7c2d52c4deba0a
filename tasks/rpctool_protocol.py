"""The compat protocol: the figures that rpctool 0.1.6 prints, its habits included. Tuned on the evaluated set itself.

Only for comparison with published tables. The habits: the threshold is searched on the evaluated photos, apart for
every level, in 4 rounds of 10 points between the three best of the round before; a photo without a detection at that
threshold leaves every metric; the class means run over all K classes, so that an absent class gives NaN or infinity;
the class means are computed in single precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.evaluation_set import EvaluationSet, Floats
from tasks.metrics import RightRange, counts_at, right_range

_ROUNDS, _POINTS, _KEPT = 4, 10, 3
_FIRST_RANGE = (0.01, 0.99)


def compat_metrics(evaluated: EvaluationSet) -> dict[str, float]:
    """cAcc, ACD, mCCD, mCIoU with the threshold and the number of photos they hold for.

    Where rpctool stops with an error (no detection at some threshold it tries), that threshold is passed over; NaN
    where nothing is left.
    """
    threshold = _searched_threshold(evaluated)
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    seen_N = found_NK.any(axis=1)
    photos = int(seen_N.sum())
    found, true = found_NK[seen_N].astype(np.float32), true_NK[seen_N].astype(np.float32)
    wrong = np.abs(found - true)
    with np.errstate(divide="ignore", invalid="ignore"):
        ccd_K = wrong.sum(axis=0) / true.sum(axis=0)
        ciou_K = np.minimum(found, true).sum(axis=0) / np.maximum(found, true).sum(axis=0)
        return {
            "cAcc": float((~wrong.any(axis=1)).mean()) if photos else float("nan"),
            "ACD": float(wrong.sum() / np.float32(photos)),
            "mCCD": float(ccd_K.sum() / evaluated.classes),
            "mCIoU": float(ciou_K.sum() / evaluated.classes),
            "threshold": threshold,
            "photos": photos,
        }


def _searched_threshold(evaluated: EvaluationSet) -> float:
    low, high = _FIRST_RANGE
    accuracy_at = _AccuracyOfSeen.of(evaluated)
    for _ in range(_ROUNDS):
        thresholds_T = np.linspace(low, high, _POINTS)
        accuracy_T = accuracy_at(thresholds_T)
        best = thresholds_T[np.argsort(-accuracy_T, kind="stable")[:_KEPT]]
        low, high = float(best.min()), float(best.max())
    return float(thresholds_T[np.argmax(accuracy_T)])


@dataclass(frozen=True, slots=True)
class _AccuracyOfSeen:
    """cAcc over the photos that have a detection at each of some thresholds, -1 where none has."""

    right: RightRange
    top_N: Floats  # best score of each photo, ascending; -inf without a detection

    @classmethod
    def of(cls, evaluated: EvaluationSet) -> _AccuracyOfSeen:
        top_N = np.full(evaluated.photos, -np.inf)
        np.maximum.at(top_N, evaluated.found.photo_M, evaluated.found.score_M)
        # A photo without products is right only while nothing is found in it, and then it is not seen.
        occupied = np.unique(evaluated.truth.photo_M)
        right = right_range(evaluated)
        return cls(RightRange(right.low_N[occupied], right.high_N[occupied]), np.sort(top_N))

    def __call__(self, thresholds_T: Floats) -> Floats:
        seen_T = len(self.top_N) - np.searchsorted(self.top_N, thresholds_T, side="left")
        accuracy_T = np.full(len(thresholds_T), -1.0)
        return np.divide(self.right.right_at(thresholds_T), seen_T, out=accuracy_T, where=seen_T > 0)
