"""Anchors fitted to the boxes that a detector will learn: a size for each level of its pyramid, shapes for all.

A level's size is so many of its strides, as many on every level: a cell then sees items that it can tell apart. How
many is fitted to the items' sizes, shapes to their narrow, common and wide ones. (Sizes spread over all levels whatever
their strides fit the boxes better and teach worse: large items fall to the few cells of the coarsest level.)
Pure numpy. Shapes: N boxes, R ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.manifest import Manifest

Floats = NDArray[np.float64]

# A fourth of all items is longer than the widest anchor: beyond that, shapes are accidents of what hides an item.
_LONG = 0.75
# Strides of a level to the side of its anchor: 4 to 8, as detectors are commonly built.
_STRIDES_A_SIDE = np.geomspace(4, 8, 17)
_LEAST_RATIO = 1.2


def box_sides(photos: Sequence[Manifest], *, image_size: int) -> Floats:
    """Width and height in the network's pixels of every known item of labelled photos, float64 [N, 2]."""
    sides = [
        ((item.box[2] - item.box[0]) * factor, (item.box[3] - item.box[1]) * factor)
        for manifest in photos
        for row in manifest.ok
        for factor in (image_size / max(row.width or 1, row.height or 1),)
        for item in row.objects
        if item.status == "ok"
    ]
    return np.array(sides, np.float64).reshape(-1, 2)


def fitted_anchors(sides_N2: Floats, *, strides: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(sizes, ratios): the side in pixels of each level's square anchor, and height / width of anchors.

    `strides` of the levels in pixels. Items turn freely on a board, so a shape is as common as its turned one: ratios
    are 1 / r, 1 and r.
    """
    longer_N = sides_N2.max(axis=1) / np.maximum(sides_N2.min(axis=1), 1e-6)
    ratio = max(float(np.quantile(longer_N, _LONG)), _LEAST_RATIO)
    ratios = (round(1 / ratio, 3), 1.0, round(ratio, 3))
    candidates = [tuple(round(float(times) * stride, 1) for stride in strides) for times in _STRIDES_A_SIDE]
    return max(candidates, key=lambda sizes: mean_best_iou(sides_N2, sizes=sizes, ratios=ratios)), ratios


def mean_best_iou(sides_N2: Floats, *, sizes: Sequence[float], ratios: Sequence[float]) -> float:
    """How well anchors fit: the mean over boxes of the IoU with the best anchor on the same centre."""
    anchors_A2 = np.array([(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios])
    shared_NA = np.minimum(sides_N2[:, None], anchors_A2[None]).prod(axis=2)
    return float(
        (shared_NA / (sides_N2.prod(axis=1)[:, None] + anchors_A2.prod(axis=1) - shared_NA)).max(axis=1).mean()
    )
