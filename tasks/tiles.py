"""Overlapping tiles: run a function of limited reach over pictures too large for one pass, without seams.

A function of reach r gives each output pixel from the input pixels at most r away. Each tile is handed over with a
margin of r pixels that is cut off the result, so what is kept equals a single pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One tile along one axis: reads pixels [start, stop), keeps [keep_start, keep_stop)."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def tile_spans(length: int, *, tile: int, margin: int, multiple: int) -> list[Span]:
    """Cover `length` pixels with tiles of at most `tile` pixels, their margins included.

    `length` is a multiple of `multiple`, and every start and stop becomes one. One tile is enough where `length` <=
    `tile`. The kept parts are disjoint and cover everything.

    Raises:
        ValueError: the margins leave no room in a tile.
    """
    assert length % multiple == 0, f"expected a multiple of {multiple}, got {length}"
    if length <= tile:
        return [Span(start=0, stop=length, keep_start=0, keep_stop=length)]
    margin = -(-margin // multiple) * multiple
    core = (tile - 2 * margin) // multiple * multiple
    if core <= 0:
        raise ValueError(f"tile: expected more than twice the margin of {margin} pixels, got {tile}")
    spans = []
    for keep_start in range(0, length, core):
        keep_stop = min(keep_start + core, length)
        start, stop = max(0, keep_start - margin), min(length, keep_stop + margin)
        spans.append(Span(start=start, stop=stop, keep_start=keep_start, keep_stop=keep_stop))
    return spans


def apply_in_tiles(
    function: Callable[[Picture], Picture], picture_HW3: Picture, *, tile: int, margin: int, multiple: int
) -> Picture:
    """`function(picture_HW3)` computed tile by tile; float32 [H, W, 3] of any size in, the same size out.

    `function` sees pictures whose sides are multiples of `multiple`: the picture is extended by reflection for it.
    `margin` is the function's reach in pixels, `tile` the longest side it is given.
    """
    height, width = picture_HW3.shape[:2]
    extra_rows, extra_columns = -height % multiple, -width % multiple
    padded_HW3 = np.pad(picture_HW3, ((0, extra_rows), (0, extra_columns), (0, 0)), mode="symmetric")
    result_HW3 = np.empty_like(padded_HW3)
    for rows in tile_spans(padded_HW3.shape[0], tile=tile, margin=margin, multiple=multiple):
        for columns in tile_spans(padded_HW3.shape[1], tile=tile, margin=margin, multiple=multiple):
            output = function(padded_HW3[rows.start : rows.stop, columns.start : columns.stop])
            result_HW3[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] = output[
                rows.keep_start - rows.start : rows.keep_stop - rows.start,
                columns.keep_start - columns.start : columns.keep_stop - columns.start,
            ]
    return result_HW3[:height, :width]
