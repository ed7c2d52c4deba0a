"""Where a product fits among those that lie there already, searched on a coarse grid. Compiled.

Proposed places are tried in their order; a place next to another product is taken at once, a lonely one only sometimes,
because people put things together. If no proposal fits, every place is tried.

Boundary: a grid and proposals in, a place out; all chance is in the proposals. Legend: H x W cells of the grid, h x w a
product's cells, K proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.pixels import MOST_ITEMS, Counts, Photo

_CELLS = 100
_COVERED = 127
# A lonely place is taken this often; a place next to a product always.
LONELY = 1 / 7


@dataclass(slots=True)
class Ground:
    """Who is on top, cell by cell: 0 board, i the i-th placed product. Areas and visible cells are kept up to date.

    near_HW: 1 on products and right beside them. areas, visible: [MOST_ITEMS + 1] cells; areas[0] counts the products.
    """

    labels_HW: Photo
    near_HW: Photo
    cell: int
    areas: Counts
    visible: Counts


def cell_side(height: int, width: int) -> int:
    """Side in pixels of the grid cells of a photo."""
    return max(2, -(-max(height, width) // _CELLS))


def empty_ground(height: int, width: int) -> Ground:
    """The grid of a photo of height x width pixels."""
    cell = cell_side(height, width)
    shape = height // cell, width // cell
    return Ground(
        labels_HW=np.zeros(shape, np.uint8),
        near_HW=np.zeros(shape, np.uint8),
        cell=cell,
        areas=np.zeros(MOST_ITEMS + 1, np.int64),
        visible=np.zeros(MOST_ITEMS + 1, np.int64),
    )


def find_place(
    ground: Ground,
    cover_hw: Photo,
    *,
    proposals_K2: NDArray[np.float64],
    chances_K: NDArray[np.float64],
    overlap: float,
    limit: float,
) -> tuple[int, int] | None:
    """A cell (x, y) for the corner of a product, or None if there is no place.

    Args:
        ground: what lies there already.
        cover_hw: how much of each cell the product covers, 0..255.
        proposals_K2: places (x, y) in cells for the product's middle, the preferred ones first.
        chances_K: uniform in [0, 1): whether a proposal that touches nothing is taken.
        overlap: most share of the product that may lie on others.
        limit: least visible fraction that every product below must keep.
    """
    rows, columns = ground.labels_HW.shape[0] - cover_hw.shape[0], ground.labels_HW.shape[1] - cover_hw.shape[1]
    if rows < 0 or columns < 0:
        return None
    found = _search(
        ground.labels_HW,
        ground.near_HW,
        cover_hw,
        proposals_K2,
        chances_K,
        overlap,
        limit,
        ground.areas,
        ground.visible,
    )
    return None if found < 0 else (found % ground.labels_HW.shape[1], found // ground.labels_HW.shape[1])


def put(ground: Ground, cover_hw: Photo, *, x: int, y: int) -> None:
    """Lay a product on top with its corner at cell (x, y); it must lie inside the grid."""
    _lay(ground.labels_HW, ground.near_HW, cover_hw, x, y, ground.areas, ground.visible)


@njit(cache=True, nogil=True)
def _fits(
    labels: Photo, near: Photo, cells: Counts, at: int, most: float, limit: float, areas: Counts, visible: Counts
) -> int:
    """0: no; 1: yes, and nothing is near; 2: yes, beside or on another product."""
    touches, on_others = np.uint8(0), 0
    for k in range(cells.size):
        place = np.uint64(at + cells[k])
        touches |= near[place]
        if labels[place]:
            on_others += 1
            if on_others > most:
                return 0
    if on_others:
        lost = np.zeros(MOST_ITEMS + 1, np.int64)
        for k in range(cells.size):
            lost[labels[at + cells[k]]] += 1
        for label in range(1, areas[0] + 1):
            if lost[label] and visible[label] - lost[label] < limit * areas[label]:
                return 0
    return 2 if touches else 1


@njit(cache=True, nogil=True)
def _covered(cover_hw: Photo, stride: int) -> Counts:
    """Positions in the grid of the cells that a product at its corner covers."""
    cells, count = np.empty(cover_hw.size, np.int64), 0
    for r in range(cover_hw.shape[0]):
        for c in range(cover_hw.shape[1]):
            if cover_hw[r, c] > _COVERED:
                cells[count] = r * stride + c
                count += 1
    return cells[:count]


@njit(cache=True, nogil=True)
def _search(
    labels_HW: Photo,
    near_HW: Photo,
    cover_hw: Photo,
    proposals_K2: NDArray[np.float64],
    chances_K: NDArray[np.float64],
    overlap: float,
    limit: float,
    areas: Counts,
    visible: Counts,
) -> int:
    stride = labels_HW.shape[1]
    labels, near, cells = labels_HW.ravel(), near_HW.ravel(), _covered(cover_hw, stride)
    rows, columns = labels_HW.shape[0] - cover_hw.shape[0] + 1, stride - cover_hw.shape[1] + 1
    most = overlap * cells.size + 0.5
    for k in range(proposals_K2.shape[0]):
        x = int(np.floor(proposals_K2[k, 0] - cover_hw.shape[1] / 2 + 0.5))
        y = int(np.floor(proposals_K2[k, 1] - cover_hw.shape[0] / 2 + 0.5))
        if 0 <= x < columns and 0 <= y < rows:
            fit = _fits(labels, near, cells, y * stride + x, most, limit, areas, visible)
            if fit == 2 or (fit == 1 and chances_K[k] < LONELY):
                return y * stride + x
    # A step that shares no divisor with their number visits all places, in no visible order.
    number = rows * columns
    step = int(number * 0.618) + 1
    while np.gcd(step, number) > 1:
        step += 1
    place = int(chances_K[0] * number)
    for _ in range(number):
        at = place // columns * stride + place % columns
        if _fits(labels, near, cells, at, most, limit, areas, visible):
            return at
        place = (place + step) % number
    return -1


@njit(cache=True, nogil=True)
def _lay(labels_HW: Photo, near_HW: Photo, cover_hw: Photo, x: int, y: int, areas: Counts, visible: Counts) -> None:
    label = areas[0] + 1
    areas[0] = label
    for r in range(cover_hw.shape[0]):
        for c in range(cover_hw.shape[1]):
            if cover_hw[r, c] > _COVERED:
                visible[labels_HW[y + r, x + c]] -= 1
                labels_HW[y + r, x + c] = label
                areas[label] += 1
                visible[label] += 1
                for i in range(max(0, y + r - 1), min(labels_HW.shape[0], y + r + 2)):
                    for j in range(max(0, x + c - 1), min(labels_HW.shape[1], x + c + 2)):
                        near_HW[i, j] = 1
