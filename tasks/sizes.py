"""Sizes as in life: how large each sprite is drawn, relative to the others and to the pool.

Photos of one exemplar camera share a distance, so their pixels are comparable between products. Cameras are compared by
the widest view of the same product on the turntable: it is the horizontal diameter, whatever the camera's height. One
global scale then maps catalog pixels to board pixels.

Boundary: numbers in, numbers out; knows no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewExtent:
    """Extent of one exemplar view in its own pixels. `turn` names one turntable series: (sku, placement)."""

    turn: str
    camera: int
    width: float


def camera_factors(views: Iterable[ViewExtent]) -> dict[int, float]:
    """Factor per camera that makes its pixels comparable with those of the lowest-numbered camera.

    The factor is the median over turntable series seen by both cameras of the ratio of the widest views. Cameras that
    share no series with the reference get 1.
    """
    widest: dict[int, dict[str, float]] = defaultdict(dict)
    for view in views:
        turns = widest[view.camera]
        turns[view.turn] = max(view.width, turns.get(view.turn, 0.0))
    if not widest:
        return {}
    reference = widest[min(widest)]
    factors = {}
    for camera, turns in widest.items():
        ratios = [reference[turn] / width for turn, width in turns.items() if turn in reference and width > 0]
        factors[camera] = float(np.median(ratios)) if ratios else 1.0
    return factors


def sku_factors(longest: Mapping[str, float], *, millimetres: Mapping[str, float]) -> dict[str, float]:
    """Factor per product that makes pixels agree with the catalog's millimetres; products without them are left out.

    Args:
        longest: longest side of each product in catalog pixels, comparable between cameras.
        millimetres: longest edge of the products that the catalog knows it of.
    """
    known = sorted(sku for sku in millimetres if longest.get(sku, 0.0) > 0)
    if not known:
        return {}
    pixels_a_millimetre = float(np.median([longest[sku] / millimetres[sku] for sku in known]))
    return {sku: millimetres[sku] * pixels_a_millimetre / longest[sku] for sku in known}


def global_scale(
    blobs_N2: NDArray[np.float32], sprites_M2: NDArray[np.float32], *, weights_M: NDArray[np.float32] | None = None
) -> float:
    """The scale at which the sprites explain the pool's single-product blobs best (maximum likelihood on a grid).

    Args:
        blobs_N2: long and short side of each blob's smallest rotated rectangle, in board pixels.
        sprites_M2: the same of each sprite, in catalog pixels made comparable between cameras.
        weights_M: how often each sprite occurs.

    Raises:
        ValueError: no blobs or no sprites.
    """
    if len(blobs_N2) == 0 or len(sprites_M2) == 0:
        raise ValueError(f"global scale: expected blobs and sprites, got {len(blobs_N2)} and {len(sprites_M2)}")
    blobs_N12, sprites_1M2 = np.log(blobs_N2)[:, None], np.log(sprites_M2)[None]
    weights = np.ones(len(sprites_M2)) if weights_M is None else np.asarray(weights_M, np.float64)
    weights = weights / weights.sum()
    middle = float(np.median(blobs_N12) - np.median(sprites_1M2))
    grid = middle + np.linspace(-1.2, 1.2, 241)
    return float(np.exp(max(grid, key=lambda shift: _log_likelihood(blobs_N12 - shift - sprites_1M2, weights))))


def _log_likelihood(gaps_NM2: NDArray[np.float32], weights_M: NDArray[np.float64], *, spread: float = 0.06) -> float:
    """Mixture of one Gaussian a sprite (log sides, 6 %) and a flat share for blobs of several products."""
    density_NM = np.exp(-0.5 * np.square(gaps_NM2 / spread).sum(-1)) / (2 * np.pi * spread**2)
    return float(np.log(density_NM @ weights_M + 0.2).sum())


def edges_of(sides_K2: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Rough edge lengths a >= b >= c of a product from the (long, short) sides of its views, as if it were a box."""
    longs = [long for long, _ in sides_K2]
    shorts = [short for _, short in sides_K2]
    return max(longs), max(shorts), min(shorts)


def height_of_view(sides: tuple[float, float], *, edges: tuple[float, float, float]) -> float:
    """Height of a product above the board when a view of (long, short) sides is up: volume over footprint, bounded."""
    a, b, c = edges
    return float(np.clip(a * b * c / max(sides[0] * sides[1], 1.0), 0.5 * c, a))
