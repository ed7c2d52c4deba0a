"""The counting view's say in which detections a photo keeps: scores moved by rank against count. Pure numpy.

A detection that the count still has room for gains, one beyond the count loses: with the detections of a photo ranked
by score (0 = best) and c products counted,

    logit(score) + clip(c - rank - 1/2, -1, 1)

The order of detections within a photo stays; a threshold on the moved scores then keeps about c of them, unless the
scores are clear. Counts are first scaled to what val says a count is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from storage.manifest import ManifestObject
from tasks.evaluation_set import EvaluationSet

Floats = NDArray[np.float64]

_EDGE = 1e-6


def count_scale(counts_N: ArrayLike, *, products_N: ArrayLike) -> float:
    """What to multiply counts by so that over N photos they add up to the true numbers of products; 1 where nothing
    was counted."""
    counted = float(np.sum(np.asarray(counts_N, np.float64)))
    return float(np.sum(np.asarray(products_N))) / counted if counted > 0 else 1.0


def fused_scores(scores_M: ArrayLike, *, count: float) -> Floats:
    """The M scores (in [0, 1], any order) of one photo's detections after the counting view's say, float64 in (0, 1).

    >>> fused_scores([0.9, 0.5, 0.5], count=2.0).round(2).tolist()
    [0.96, 0.62, 0.38]
    """
    scores_M = np.asarray(scores_M, np.float64)
    rank_M = np.empty(len(scores_M), np.int64)
    rank_M[np.argsort(-scores_M, kind="stable")] = np.arange(len(scores_M))
    inner_M = np.clip(scores_M, _EDGE, 1 - _EDGE)
    moved_M = np.log(inner_M / (1 - inner_M)) + np.clip(count - rank_M - 0.5, -1, 1)
    return 1 / (1 + np.exp(-moved_M))


def fused_objects(objects: Sequence[ManifestObject], *, count: float) -> tuple[ManifestObject, ...]:
    """One photo's detections with their scores after the counting view's say; `count` is the scaled count."""
    scores = fused_scores([item.score or 0.0 for item in objects], count=count).tolist()
    return tuple(replace(item, score=score) for item, score in zip(objects, scores, strict=True))


def fused(evaluated: EvaluationSet, *, counts_N: Sequence[float]) -> EvaluationSet:
    """The same photos with every detection's score after the counting view's say; `counts_N` are scaled counts."""
    found = evaluated.found
    score_M = found.score_M.copy()
    order = np.argsort(found.photo_M, kind="stable")
    starts = np.searchsorted(found.photo_M[order], np.arange(1, evaluated.photos))
    for count, detections in zip(counts_N, np.split(order, starts), strict=True):
        score_M[detections] = fused_scores(found.score_M[detections], count=float(count))
    return replace(evaluated, found=replace(found, score_M=score_M))
