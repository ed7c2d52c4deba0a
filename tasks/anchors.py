"""Anchors fitted to the boxes that a detector will learn: a size for each level of its pyramid, shapes for all.

Sizes lie at equal ratios between the smallest and the largest items; shapes are those of narrow, common and wide ones.
Pure numpy. Shapes: N boxes, L levels, R ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.manifest import Manifest

Floats = NDArray[np.float64]

# Beyond these quantiles sizes and shapes are accidents of the crop and of what hides an item.
_SIZES, _LONG = (0.1, 0.9), 0.75
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


def fitted_anchors(sides_N2: Floats, *, levels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(sizes, ratios): the side in pixels of each level's square anchor, finest first, and height / width of anchors.

    Items turn freely on a board, so a shape is as common as its turned one: ratios are 1 / r, 1 and r.
    """
    size_N = np.sqrt(sides_N2.prod(axis=1))
    smallest, largest = np.quantile(size_N, _SIZES)
    sizes = np.geomspace(smallest, max(largest, smallest * _LEAST_RATIO), levels)
    longer_N = sides_N2.max(axis=1) / np.maximum(sides_N2.min(axis=1), 1e-6)
    ratio = max(float(np.quantile(longer_N, _LONG)), _LEAST_RATIO)
    return tuple(sizes.round(1).tolist()), (round(1 / ratio, 3), 1.0, round(ratio, 3))


def mean_best_iou(sides_N2: Floats, *, sizes: Sequence[float], ratios: Sequence[float]) -> float:
    """How well anchors fit: the mean over boxes of the IoU with the best anchor on the same centre."""
    anchors_A2 = np.array([(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios])
    shared_NA = np.minimum(sides_N2[:, None], anchors_A2[None]).prod(axis=2)
    return float(
        (shared_NA / (sides_N2.prod(axis=1)[:, None] + anchors_A2.prod(axis=1) - shared_NA)).max(axis=1).mean()
    )
