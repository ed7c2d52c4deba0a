"""Which products lie in a synthetic photo, and where: levels, arrangements, visible fractions.

Places are searched on a grid of about 100 cells a side, whatever the photo's size. One correlation gives the overlap
that a product would have at every place; a place is then drawn from a density (where people put things) restricted to
places with little enough overlap, and taken only if every product below keeps its visible fraction. Later products
lie on top of earlier ones.

Boundary: masks and generators in, positions out; draws no pixels. Legend: H x W grid of cells, h x w a product's mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_CELLS = 100
_TRIES = 6
_TOUCHING_BONUS = 6.0


@dataclass(slots=True)
class Ground:
    """Who is on top, cell by cell: 0 board, i the i-th placed product. Areas and visible cells are kept up to date."""

    labels_HW: NDArray[np.uint8]
    cell: int
    areas: list[int] = field(default_factory=lambda: [0])
    visible: list[int] = field(default_factory=lambda: [0])


def cell_side(height: int, width: int) -> int:
    """Side in pixels of the grid cells of a photo."""
    return max(2, -(-max(height, width) // _CELLS))


def empty_ground(height: int, width: int) -> Ground:
    """The grid of a photo of height x width pixels."""
    cell = cell_side(height, width)
    return Ground(labels_HW=np.zeros((height // cell, width // cell), np.uint8), cell=cell)


def hidden_by(ground: Ground, mask_hw: Mask, *, x: int, y: int) -> NDArray[np.int64]:
    """How many visible cells of each placed product a mask with its corner at cell (x, y) would hide; 0 is board."""
    window_hw = ground.labels_HW[y : y + mask_hw.shape[0], x : x + mask_hw.shape[1]]
    return np.bincount(window_hw[mask_hw], minlength=len(ground.areas))


def keeps_visible(ground: Ground, hidden: NDArray[np.int64], *, limit: float) -> bool:
    """Whether every placed product keeps at least `limit` of its area visible when `hidden` cells are covered."""
    losing = np.flatnonzero(hidden[1:]) + 1
    return all(ground.visible[label] - hidden[label] >= limit * ground.areas[label] for label in losing)


def put(ground: Ground, mask_hw: Mask, *, x: int, y: int) -> None:
    """Lay a product on top with its corner at cell (x, y); it must lie inside the grid."""
    for label, count in enumerate(hidden_by(ground, mask_hw, x=x, y=y)):
        ground.visible[label] -= int(count)
    ground.labels_HW[y : y + mask_hw.shape[0], x : x + mask_hw.shape[1]][mask_hw] = len(ground.areas)
    area = int(np.count_nonzero(mask_hw))
    ground.areas.append(area)
    ground.visible.append(area)


def find_place(
    ground: Ground, mask_hw: Mask, *, density_HW: Floats, overlap: float, limit: float, generator: np.random.Generator
) -> tuple[int, int] | None:
    """A cell (x, y) for the corner of a product, or None if there is no place.

    Args:
        ground: what lies there already.
        mask_hw: the product's mask in cells.
        density_HW: how welcome a product's middle is in each cell; any scale.
        overlap: most share of the product that may lie on others.
        limit: least visible fraction that every product below must keep.
        generator: draws the place.
    """
    height, width = ground.labels_HW.shape
    rows, columns = height - mask_hw.shape[0] + 1, width - mask_hw.shape[1] + 1
    if rows < 1 or columns < 1:
        return None
    taken_HW = (ground.labels_HW > 0).astype(np.float32)
    covered_hw = cv2.matchTemplate(taken_HW, mask_hw.astype(np.float32), cv2.TM_CCORR)
    blocked_hw = (covered_hw > overlap * np.count_nonzero(mask_hw) + 0.5).astype(np.uint8)
    touching_hw = cv2.dilate(blocked_hw, np.ones((3, 3), np.uint8))
    middle_y, middle_x = mask_hw.shape[0] // 2, mask_hw.shape[1] // 2
    welcome_hw = density_HW[middle_y : middle_y + rows, middle_x : middle_x + columns]
    weights_hw = welcome_hw * (1 - blocked_hw) * (1 + _TOUCHING_BONUS * touching_hw)
    return _draw_place(ground, mask_hw, weights_hw=weights_hw, limit=limit, generator=generator)


def _draw_place(
    ground: Ground, mask_hw: Mask, *, weights_hw: Floats, limit: float, generator: np.random.Generator
) -> tuple[int, int] | None:
    """A few draws from the weights until one leaves every product below visible enough."""
    cumulated = np.cumsum(weights_hw.ravel(), dtype=np.float64)
    if cumulated[-1] <= 1e-9:
        return None
    for draw in generator.random(_TRIES) * cumulated[-1]:
        y, x = divmod(int(np.searchsorted(cumulated, draw, side="right")), weights_hw.shape[1])
        if y < weights_hw.shape[0] and keeps_visible(ground, hidden_by(ground, mask_hw, x=x, y=y), limit=limit):
            return x, y
    return None


def bump(height: int, width: int, *, x: float, y: float, spread: float) -> Floats:
    """A Gaussian hill around cell (x, y), float32 [height, width] with maximum about 1."""
    across_W = np.exp(-0.5 * np.square((np.arange(width, dtype=np.float32) - x) / spread))
    down_H = np.exp(-0.5 * np.square((np.arange(height, dtype=np.float32) - y) / spread))
    return down_H[:, None] * across_W[None, :]


def gathering(kind: str, *, places_hw: Floats, height: int, width: int, generator: np.random.Generator) -> Floats:
    """Where products gather in one photo: as in the pool, in a pile somewhere near the middle, or anywhere."""
    if kind == "pool":
        return np.asarray(cv2.resize(places_hw, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    if kind == "pile":
        x, y = generator.normal(0.5, 0.08, 2)
        spread = generator.uniform(0.12, 0.2) * max(height, width)
        return bump(height, width, x=x * width, y=y * height, spread=spread)
    return np.ones((height, width), np.float32)


def cover_of(alpha_hw: NDArray[np.uint8], *, cell: int) -> NDArray[np.uint8]:
    """How much of each cell an alpha covers, 0..255; the last cells may reach beyond the crop."""
    height, width = alpha_hw.shape
    size = -(-width // cell), -(-height // cell)
    down, right = size[1] * cell - height, size[0] * cell - width
    framed_hw = cv2.copyMakeBorder(alpha_hw, 0, down, 0, right, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.resize(framed_hw, size, interpolation=cv2.INTER_AREA))


def draw_counts(skus: int, items: int, *, generator: np.random.Generator) -> list[int]:
    """How many of each of `skus` products a photo of `items` items has: at least one each, the rest at random."""
    extra = generator.multinomial(max(0, items - skus), generator.dirichlet(np.full(skus, 3.0)))
    return [1 + int(count) for count in extra]


def first_sku(skus: Sequence[str], *, seed: int, index: int) -> str:
    """The product that photo `index` is sure to show: each block of len(skus) photos is a shuffle of all products."""
    block, position = divmod(index, len(skus))
    return skus[int(np.random.default_rng((seed, block)).permutation(len(skus))[position])]


def draw_skus(
    count: int,
    *,
    first: str,
    skus: Sequence[str],
    mates: Mapping[str, str],
    mate_share: float,
    generator: np.random.Generator,
) -> list[str]:
    """`count` different products, `first` among them (fewer if there are not as many).

    With probability `mate_share` the next product is the look-alike of the last one, if it is not there yet.
    """
    chosen = [first]
    others = [skus[position] for position in generator.permutation(len(skus))]
    while len(chosen) < min(count, len(skus)):
        mate = mates.get(chosen[-1])
        brings = generator.random() < mate_share and mate in skus and mate not in chosen
        chosen.append(mate if brings and mate is not None else next(sku for sku in others if sku not in chosen))
    return chosen
