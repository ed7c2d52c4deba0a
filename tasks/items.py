"""What the compiled parts of composing share: an item's record, bundles of arrays, and names for their types.

An item travels through all steps, from a wish to a labelled product, as one record of ITEM. Pictures are flat arrays of
packed pixels: uint32, red in the lowest byte, alpha in the highest.

Boundary: types only. Compiled code keeps the values of constants, so there are none here.
Legend: R x C cells of the layout's grid, N items, M pictures, S products, L kernels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]
Packed = NDArray[np.uint32]
Items = Any
Item = Any

_INTEGERS = (
    # Number of its sprite; 0, or its own number from the lowest item up.
    *("sprite", "label"),
    # The crop: where it begins among the crops, its size, its corner in the photo; and its size in cells.
    *("crop", "rows", "columns", "x", "y", "cover", "cell_rows", "cell_columns"),
    # Box (xyxy, in the photo) of its solid pixels: those with an alpha of one half or more.
    *("left", "top", "right", "bottom"),
)
_REALS = (
    # Its turn, radians; the 2 x 2 map from its sprite about the centre, xx xy / yx yy.
    *("angle", "xx", "xy", "yx", "yy"),
    # Most share of it that may lie on others; if it lies beside the item before, how far away in cells.
    *("overlap", "step"),
    # Gains of its colours.
    *("red", "green", "blue"),
)
# Lies beside the item before; its edge is cut hard, widened, or blended by its gradients.
_FLAGS = ("beside", "hard", "feather", "poisson")
ITEM = np.dtype(
    [
        *((name, np.int64) for name in _INTEGERS),
        *((name, np.float64) for name in _REALS),
        *((name, np.bool_) for name in _FLAGS),
    ],
    align=True,
)


class Pictures(NamedTuple):
    """Pictures one after the other. shapes_M3: where each begins, its rows and columns."""

    pixels: Packed
    shapes_M3: Counts


class Top(NamedTuple):
    """Who is on top: 0 the board, i the i-th item. By label: all pixels and the visible ones; areas[0] counts items."""

    labels_HW: Photo
    areas: Counts
    visible: Counts


class Ground(NamedTuple):
    """The same on the layout's grid, of cells of `cell` x `cell` pixels. near_RC: 1 on items and right beside them."""

    labels_RC: Photo
    near_RC: Photo
    areas: Counts
    visible: Counts
    cell: int


class Sprites(NamedTuple):
    """What is known of sprites, product by product: their cumulated shares in each product, from 0 to 1, where each
    product begins, sides (long, short) and heights in pixels, directions of the long sides in radians."""

    shares_M: Doubles
    starts_S: Counts
    sides_M2: Doubles
    axes_M: Doubles
    heights_M: Doubles


class Habits(NamedTuple):
    """How people lay products down, and how they are drawn; see `tasks.params.ComposeParams` for the shares.

    free_sizes: any size in a range, about the same mean. free_places: any, half hidden or not, and no rows. feather,
    hard, poisson: cumulated shares of blendings, soft first.
    """

    row_share: float
    overlap_share: float
    size_jitter: float
    tilt: float
    free_sizes: bool
    free_places: bool
    feather: float
    hard: float
    poisson: float


class Gathering(NamedTuple):
    """Where the products of one photo gather.

    pile: around (x, y), as far as `spread`, in shares of the photo; else by `places`, cumulated shares of square tiles.
    """

    pile: bool
    x: float
    y: float
    spread: float
    places: Doubles


class Shadows(NamedTuple):
    """What one covered cell does to the cells around it: kernels that sum to 1, one after the other.

    table_L5: of each kernel where it begins, its rows and columns, and its corner (row, column) relative to the cell.
    Kernels 0 and 1, one after the other, are the shadow at the item's foot; kernel i + 1 falls over i cells.
    """

    values: Floats
    table_L5: Counts
