"""The inner loops of composing, compiled: warp, claim, shade, blend. They hold no lock, so threads run side by side.

Pixels are integer arithmetic, so the same on every processor. Compiled code is kept beside the source: only the first
run ever waits for it.

A crop is an array of packed pixels: uint32, red in the lowest byte, alpha in the highest.

Boundary: arrays in, arrays changed in place; no objects of the project.
Legend: H x W photo pixels, h x w crop pixels, R x C cells of the layout's grid, K x L a kernel.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
Packed = NDArray[np.uint32]

# Plain unsigned positions in flat arrays: compilers make vectors of such loops, and of no others.
_U = np.uint64
MOST_ITEMS = 255
SOLID = 128
GAIN_ONE = 1024
PLACE_ONE = 1 << 16
_LIGHT_ONE = 256
# The four bytes of a pixel, 16 bits apart: one multiplication weighs all four.
_RED_BLUE, _GREEN_ALPHA = _U(0x00FF00FF), _U(0xFF00FF00)
_LANES, _HALVES, _ALPHA = _U(0x00FF00FF00FF00FF), _U(0x0080008000800080), _U(0x00FF000000000000)


@njit(cache=True, nogil=True)
def _inside(start: int, step: int, size: int, count: int) -> tuple[int, int]:
    """The range of k in [0, count) for which 0 <= start + k * step < size."""
    if step == 0:
        return (0, count) if 0 <= start < size else (0, 0)
    if step < 0:
        # The same places, looked at from the other end of the source.
        start, step = size - 1 - start, -step
    first = 0 if start >= 0 else (-start + step - 1) // step
    past = 0 if start >= size else (size - start + step - 1) // step
    return min(first, count), min(max(past, first), count)


@njit(cache=True, nogil=True)
def _spread(source: Packed, wide: NDArray[np.uint64]) -> None:
    for at in range(_U(source.size)):
        pixel = _U(source[at])
        wide[at] = (pixel & _RED_BLUE) | ((pixel & _GREEN_ALPHA) << _U(24))


@njit(cache=True, nogil=True)
def _sample_row(
    wide: NDArray[np.uint64],
    stride: np.uint64,
    x: np.uint64,
    y: np.uint64,
    dx: np.uint64,
    dy: np.uint64,
    colours: bool,
    out: Packed,
    to: np.uint64,
    n: np.uint64,
) -> None:
    """n pixels along a line through the source; weights are sixteenths both ways."""
    for c in range(n):
        at = (y >> _U(16)) * stride + (x >> _U(16))
        one, two, three, four = wide[at], wide[at + _U(1)], wide[at + stride], wide[at + stride + _U(1)]
        if colours or ((one | two | three | four) & _ALPHA) != 0:
            right, down = (x >> _U(12)) & _U(15), (y >> _U(12)) & _U(15)
            # A difference may borrow from the next byte; the sum gives it back.
            upper = (one << _U(4)) + (two - one) * right
            lower = (three << _U(4)) + (four - three) * right
            mixed = (((upper << _U(4)) + (lower - upper) * down + _HALVES) >> _U(8)) & _LANES
            out[to + c] = np.uint32((mixed & _RED_BLUE) | ((mixed >> _U(24)) & _GREEN_ALPHA))
        else:
            out[to + c] = np.uint32(0)
        x += dx
        y += dy


@njit(cache=True, nogil=True)
def warp(source_hw: Packed, affine: tuple, colours: bool, out_hw: Packed) -> None:
    """Fill a crop with the source under an affine map, bilinearly; 0 where it would show what is outside the source.

    Args:
        source_hw: packed pixels.
        affine: integers (a, b, c, d, e, f) in units of 1 / PLACE_ONE pixel: the crop's pixel (x, y) shows the source at
            (a x + b y + c, d x + e y + f).
        colours: keep the colours of pixels whose alpha is 0.
        out_hw: the crop.
    """
    height, width = source_hw.shape
    # The last row and column are looked beyond, with weight 0.
    wide = np.zeros(source_hw.size + width + 1, np.uint64)
    _spread(source_hw.ravel(), wide)
    a, b, c, d, e, f = affine
    rows, columns = out_hw.shape
    out = out_hw.ravel()
    for r in range(rows):
        x, y, at = b * r + c, e * r + f, r * columns
        from_x, to_x = _inside(x, a, (width - 1) * PLACE_ONE + 1, columns)
        from_y, to_y = _inside(y, d, (height - 1) * PLACE_ONE + 1, columns)
        first = max(from_x, from_y)
        past = max(min(to_x, to_y), first)
        for k in range(_U(at), _U(at + first)):
            out[k] = np.uint32(0)
        for k in range(_U(at + past), _U(at + columns)):
            out[k] = np.uint32(0)
        x, y = _U(x + a * first), _U(y + d * first)
        _sample_row(wide, _U(width), x, y, _U(a), _U(d), colours, out, _U(at + first), _U(past - first))


@njit(cache=True, nogil=True)
def _find_solid(
    crop: Packed, at: np.uint64, labels: Photo, below: np.uint64, width: int, solid: Photo, columns: Photo
) -> tuple[np.uint32, np.bool_]:
    """Fill `solid` with 1 where a row of a crop is, and note the columns; how many are, whether some lie on an item."""
    count, covers = np.uint32(0), np.uint8(0)
    for c in range(_U(width)):
        one = np.uint8(crop[at + c] >> np.uint32(31))
        solid[c] = one
        columns[c] = np.uint8(columns[c] | one)
        count = np.uint32(count + np.uint32(one))
        covers = np.uint8(covers | np.uint8(one * labels[below + c]))
    return count, covers > 0


@njit(cache=True, nogil=True)
def _write_label(labels: Photo, below: np.uint64, width: int, solid: Photo, label: np.uint8) -> None:
    # Labels grow, so the larger one is the one on top.
    for c in range(_U(width)):
        labels[below + c] = max(labels[below + c], np.uint8(solid[c] * label))


@njit(cache=True, nogil=True)
def claim(
    labels_HW: Photo, crop_hw: Packed, x: int, y: int, limit: float, areas: Counts, visible: Counts, bounds_4: Counts
) -> int:
    """Lay a crop's solid pixels on top of a map of labels, if every item below keeps enough of its area visible.

    Returns the item's label, or 0 if it has no solid pixel or would hide too much; then nothing is changed.

    Args:
        labels_HW: 0 the board, i the i-th item; in place.
        crop_hw: the item as packed pixels; solid is what has an alpha of SOLID or more.
        x: left column of the crop in the photo.
        y: top row of the crop in the photo.
        limit: least visible share of every item's area.
        areas: [MOST_ITEMS + 1] pixels of every item; areas[0] is the number of items; in place.
        visible: [MOST_ITEMS + 1] visible pixels of every item; in place.
        bounds_4: gets the box (xyxy, in the photo) of the solid pixels.
    """
    lost = np.zeros(MOST_ITEMS + 1, np.int64)
    height, width = crop_hw.shape
    crop, labels, stride = crop_hw.ravel(), labels_HW.ravel(), labels_HW.shape[1]
    solid, columns = np.empty(width, np.uint8), np.zeros(width, np.uint8)
    area, left, right, top, bottom = 0, 0, width, height, 0
    for r in range(height):
        below = _U((y + r) * stride + x)
        count, covers = _find_solid(crop, _U(r * width), labels, below, width, solid, columns)
        if count:
            area, top, bottom = area + int(count), min(top, r), r + 1
        if covers:
            for c in range(_U(width)):
                lost[labels[below + c]] += solid[c]
    label = areas[0] + 1
    for one in range(1, label):
        if lost[one] and visible[one] - lost[one] < limit * areas[one]:
            return 0
    if area == 0:
        return 0
    while not columns[left]:
        left += 1
    while not columns[right - 1]:
        right -= 1
    for one in range(1, label):
        visible[one] -= lost[one]
    areas[0], areas[label], visible[label] = label, area, area
    for r in range(top, bottom):
        below = _U((y + r) * stride + x)
        _find_solid(crop, _U(r * width), labels, below, width, solid, columns)
        _write_label(labels, below, width, solid, np.uint8(label))
    bounds_4[0], bounds_4[1], bounds_4[2], bounds_4[3] = x + left, y + top, x + right, y + bottom
    return label


@njit(cache=True, nogil=True)
def _add_darkness(dark: Floats, cover_hw: Photo, kernel_KL: Floats, row: int, column: int, strength: float) -> None:
    """Add the kernel times the cover of each cell, its corner at (row, column) from the cell."""
    for r in range(cover_hw.shape[0]):
        for c in range(cover_hw.shape[1]):
            if cover_hw[r, c]:
                share = np.float32(cover_hw[r, c]) * np.float32(strength / 255)
                for i in range(kernel_KL.shape[0]):
                    line = dark[row + r + i, column + c :]
                    for j in range(kernel_KL.shape[1]):
                        line[j] += share * kernel_KL[i, j]


@njit(cache=True, nogil=True)
def throw_shadow(light_RC: Floats, cover_hw: Photo, x: int, y: int, parts: tuple) -> None:
    """Darken the light at the corners of the layout's cells by one item's shadows, in place.

    Args:
        light_RC: light at the cells' corners, one more than cells both ways; 1 is full light.
        cover_hw: how much of each cell the item covers, 0..255.
        x: the item's left column of cells.
        y: the item's top row of cells.
        parts: shadows (kernel_KL, row, column, strength): what one covered cell does to the cells around it, sums to 1;
            the place of the kernel's corner relative to that cell; and the most darkening, in 0..1.
    """
    reach = 0
    for kernel_KL, row, column, _ in parts:
        reach = max(reach, -row, -column, row + kernel_KL.shape[0] - 1, column + kernel_KL.shape[1] - 1)
    gains = np.ones((cover_hw.shape[0] + 2 * reach + 2, cover_hw.shape[1] + 2 * reach + 2), np.float32)
    dark = np.empty_like(gains)
    for kernel_KL, row, column, strength in parts:
        dark[:] = 0
        _add_darkness(dark, cover_hw, kernel_KL, reach + 1 + row, reach + 1 + column, strength)
        for r in range(gains.shape[0]):
            for c in range(gains.shape[1]):
                gains[r, c] *= np.float32(1) - dark[r, c]
    top, left = y - reach - 1, x - reach - 1
    for r in range(max(1, -top), min(gains.shape[0], light_RC.shape[0] - top)):
        for c in range(max(1, -left), min(gains.shape[1], light_RC.shape[1] - left)):
            mean = gains[r - 1, c - 1] + gains[r - 1, c] + gains[r, c - 1] + gains[r, c]
            light_RC[top + r, left + c] *= np.float32(0.25) * mean


@njit(cache=True, nogil=True)
def _widen(light_C: Floats, cell: int, copies: int, out: NDArray[np.uint16]) -> None:
    """Light along a row of pixels from that at the corners of cells, in units of 1 / _LIGHT_ONE, `copies` a pixel."""
    at = 0
    for c in range(light_C.size - 1):
        left, right = np.float32(_LIGHT_ONE) * light_C[c], np.float32(_LIGHT_ONE) * light_C[c + 1]
        step = (right - left) / np.float32(cell)
        value = left + np.float32(0.5) * step + np.float32(0.5)
        stop = min(at + cell * copies, out.size)
        if step == 0:
            out[at:stop] = np.uint16(value)
            at = stop
        while at < stop:
            for _ in range(copies):
                out[at] = np.uint16(value)
                at += 1
            value += step


@njit(cache=True, nogil=True)
def _share(row: int, cell: int) -> int:
    """How far down its cell a row of pixels lies, of 128."""
    return (128 * (2 * row + 1) + cell) // (2 * cell)


@njit(cache=True, nogil=True)
def _multiply(board: Photo, upper: NDArray[np.uint16], lower: NDArray[np.uint16], share: int, out: Photo) -> None:
    """One row of the board under the light between two rows of corners; steps of 16 bits, which become vectors."""
    above, below = np.uint16(128 - share), np.uint16(share)
    for i in range(board.size):
        light = np.uint16(np.uint16(np.uint16(upper[i]) * above) + np.uint16(np.uint16(lower[i]) * below))
        light = np.uint16(light >> np.uint16(7))
        out[i] = np.uint8(np.uint16(np.uint16(np.uint16(board[i]) * light) + np.uint16(128)) >> np.uint16(8))


@njit(cache=True, nogil=True)
def shade_board(board_HW3: Photo, light_RC: Floats, cell: int, canvas_HW3: Photo) -> None:
    """Fill the canvas with the board under the light of `throw_shadow`."""
    height, width = board_HW3.shape[:2]
    upper, lower = np.empty(3 * width, np.uint16), np.empty(3 * width, np.uint16)
    board, canvas = board_HW3.reshape(height, 3 * width), canvas_HW3.reshape(height, 3 * width)
    _widen(light_RC[0], cell, 3, lower)
    for band in range(light_RC.shape[0] - 1):
        upper, lower = lower, upper
        _widen(light_RC[band + 1], cell, 3, lower)
        for i in range(min(cell, height - band * cell)):
            row = band * cell + i
            _multiply(board[row], upper, lower, _share(i, cell), canvas[row])


@njit(cache=True, nogil=True)
def blend(
    canvas_HW3: Photo,
    crop_hw: Packed,
    x: int,
    y: int,
    window_4: tuple,
    gains: tuple,
    hard: bool,
    light_rc: Floats,
    cell: int,
) -> None:
    """Paint a crop on the canvas, in place: canvas x (1 - alpha) + colours x gain x light x alpha.

    Args:
        canvas_HW3: RGB.
        crop_hw: the item as packed pixels.
        x: left column of the crop in the photo.
        y: top row of the crop in the photo.
        window_4: the part of the crop (xyxy) outside which alpha is 0.
        gains: three integers, one a channel, in units of 1 / GAIN_ONE.
        hard: cut the alpha at SOLID.
        light_rc: light at the corners of the cells that the crop covers; empty for full light.
        cell: side of a cell.
    """
    left, top, right, bottom = window_4
    width, stride = crop_hw.shape[1], canvas_HW3.shape[1]
    crop, canvas = crop_hw.ravel(), canvas_HW3.ravel()
    table = np.empty(3 * 256, np.uint32)
    for at in range(table.size):
        table[at] = min((at % 256 * gains[at // 256] + GAIN_ONE // 2) // GAIN_ONE, 255)
    light = np.full(width, _LIGHT_ONE, np.uint32)
    upper, lower = np.full(width, _LIGHT_ONE, np.uint16), np.full(width, _LIGHT_ONE, np.uint16)
    for r in range(top, bottom):
        if light_rc.size:
            if r == top or r % cell == 0:
                _widen(light_rc[r // cell], cell, 1, upper)
                _widen(light_rc[r // cell + 1], cell, 1, lower)
            _between(upper, lower, _share(r % cell, cell), light)
        _blend_row(canvas, _U(3 * ((y + r) * stride + x)), crop, _U(r * width), left, right, hard, light, table)


@njit(cache=True, nogil=True)
def _between(upper: NDArray[np.uint16], lower: NDArray[np.uint16], share: int, light: Packed) -> None:
    for c in range(light.size):
        light[c] = (np.uint32(upper[c]) * np.uint32(128 - share) + np.uint32(lower[c]) * np.uint32(share)) >> np.uint32(
            7
        )


@njit(cache=True, nogil=True)
def _blend_row(
    canvas: Photo,
    to: np.uint64,
    crop: Packed,
    at: np.uint64,
    left: int,
    right: int,
    hard: bool,
    light: Packed,
    table: Packed,
) -> None:
    for c in range(_U(left), _U(right)):
        pixel = crop[at + c]
        alpha = np.uint32(pixel >> np.uint32(24))
        if hard:
            alpha = np.uint32(255) if alpha >= SOLID else np.uint32(0)
        if alpha == 0:
            continue
        one = table[pixel & np.uint32(255)]
        two = table[np.uint32(256) + (pixel >> np.uint32(8) & np.uint32(255))]
        three = table[np.uint32(512) + (pixel >> np.uint32(16) & np.uint32(255))]
        shine = light[c]
        if shine != _LIGHT_ONE:
            one, two, three = (one * shine) >> _U(8), (two * shine) >> _U(8), (three * shine) >> _U(8)
        put = to + _U(3) * c
        if alpha != 255:
            rest = np.uint32(255) - alpha
            one = (one * alpha + canvas[put] * rest + np.uint32(127)) // np.uint32(255)
            two = (two * alpha + canvas[put + _U(1)] * rest + np.uint32(127)) // np.uint32(255)
            three = (three * alpha + canvas[put + _U(2)] * rest + np.uint32(127)) // np.uint32(255)
        canvas[put], canvas[put + _U(1)], canvas[put + _U(2)] = np.uint8(one), np.uint8(two), np.uint8(three)
