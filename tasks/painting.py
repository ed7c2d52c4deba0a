"""Items painted, compiled: shadows, light, blending, and the camera's blur and noise. Threads run side by side.

Pixels are integer arithmetic, so the same on every processor. Nothing here calls compiled code of another file.

Boundary: arrays in, arrays changed in place. Legend: H x W photo pixels, R x C corners of the grid's cells, N items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.compiled import compiled
from tasks.items import Counts, Doubles, Floats, Item, Items, Packed, Photo, Shadows

Shorts = NDArray[np.uint16]
Signed = NDArray[np.int8]
Weights = tuple[np.uint16, np.uint16, np.uint16]
Gains = tuple[np.uint32, np.uint32, np.uint32]

# Plain unsigned positions in flat arrays: compilers make vectors of such loops, and of few others.
_U = np.uint64
_SOLID = np.uint8(128)
_RIM = 3
_GAIN_ONE = 1024
_LIGHT_ONE = 256


@compiled
def _darken(dark: Floats, to: int, source: Floats, stride: int, shadows: Shadows, number: int, strength: float) -> None:
    """Add a kernel applied to a map to `dark`, where the map begins at `to`; both are in rows of `stride` cells."""
    begin, rows, columns, row, column = shadows.table_L5[number]
    for i in range(rows):
        for j in range(columns):
            share = np.float32(strength * shadows.values[begin + i * columns + j])
            if share > 0:
                _add(dark, _U(to + (row + i) * stride + column + j), source, _U(source.size), share)


@compiled
def _add(line: Floats, to: np.uint64, values: Floats, count: np.uint64, share: np.float32) -> None:
    for k in range(count):
        line[to + k] += share * values[k]


@compiled
def _cover_in_rows(item: Item, covers: Packed, stride: int) -> Floats:
    """How much of each cell an item covers, in 0..1, in rows of `stride` cells; the last row ends with the item."""
    cover = np.zeros((item.cell_rows - 1) * stride + item.cell_columns, np.float32)
    for r in range(item.cell_rows):
        for c in range(item.cell_columns):
            alpha = covers[item.cover + r * item.cell_columns + c] >> np.uint32(24)
            cover[r * stride + c] = np.float32(alpha) * np.float32(1 / 255)
    return cover


@compiled
def throw_shadow(
    light_RC: Floats, item: Item, covers: Packed, cell: int, shadows: Shadows, number: int, cast: float, contact: float
) -> None:
    """Darken the light at the corners of the cells by an item's shadows: those at its foot and shadow `number`."""
    reach = 0
    for one in (0, 1, number):
        _, rows, columns, row, column = shadows.table_L5[one]
        reach = max(reach, -row, -column, row + rows - 1, column + columns - 1)
    reach += 1
    height, width = item.cell_rows + 2 * reach, item.cell_columns + 2 * reach
    cover, corner = _cover_in_rows(item, covers, width), reach * width + reach
    across, foot = np.zeros(height * width, np.float32), np.zeros(height * width, np.float32)
    far = np.zeros(height * width, np.float32)
    _darken(across, corner, cover, width, shadows, 0, 1.0)
    _darken(foot, reach * width, across[reach * width : -reach * width], width, shadows, 1, contact)
    _darken(far, corner, cover, width, shadows, number, cast)
    for k in range(foot.size):
        foot[k] = np.float32(0.25) * (np.float32(1) - foot[k]) * (np.float32(1) - far[k])
    upper, left = item.y // cell - reach, item.x // cell - reach
    for r in range(max(1, -upper), min(height, light_RC.shape[0] - upper)):
        for c in range(max(1, -left), min(width, light_RC.shape[1] - left)):
            k = r * width + c
            light_RC[upper + r, left + c] *= foot[k] + foot[k - 1] + foot[k - width] + foot[k - width - 1]


@compiled
def set_gains(items: Items, height: int, width: int, gains_hw3: Floats) -> None:
    """How bright items are in a photo of height x width: the gains, on a coarse grid, at the middles of their boxes."""
    rows, columns = gains_hw3.shape[:2]
    for n in range(items.size):
        item = items[n]
        row = (item.top + item.bottom) * rows // (2 * height)
        column = (item.left + item.right) * columns // (2 * width)
        item.red, item.green, item.blue = gains_hw3[row, column]


@compiled
def cast_shadows(
    items: Items,
    covers: Packed,
    cell: int,
    shadows: Shadows,
    heights_M: Doubles,
    darkness: tuple[float, float, float],
    light_RC: Floats,
    lights: Floats,
) -> None:
    """All items' shadows, from the highest item down. light_RC: what is left of the light on the board, 1 at first.

    darkness: cells that shadows reach for each pixel of an item's height, most darkening by them, and at the foot.
    Lights gets what those above it leave of the light on each item, at the corners of its cells, one after the other.
    """
    slope, cast, contact = darkness
    at = lights.size
    for n in range(items.size - 1, -1, -1):
        item = items[n]
        rows, columns = item.cell_rows + 1, item.cell_columns + 1
        at -= rows * columns
        if item.label:
            row, column = item.y // cell, item.x // cell
            lights[at : at + rows * columns] = light_RC[row : row + rows, column : column + columns].copy().ravel()
            length = min(max(int(heights_M[item.sprite] * slope + 0.5), 1), shadows.table_L5.shape[0] - 2)
            throw_shadow(light_RC, item, covers, cell, shadows, length + 1, cast, contact)


@compiled
def _ramp(out: Shorts, at: np.uint64, count: np.uint64, first: np.float32, step: np.float32) -> None:
    for i in range(count):
        out[at + i] = np.uint16(first + np.float32(i) * step)


@compiled
def _widen(light_C: Floats, cell: int, out: Shorts) -> None:
    """Light along a row of pixels from that at the corners of cells, in units of 1 / _LIGHT_ONE."""
    for c in range(light_C.size - 1):
        left, right = np.float32(_LIGHT_ONE) * light_C[c], np.float32(_LIGHT_ONE) * light_C[c + 1]
        step = (right - left) / np.float32(cell)
        first = left + np.float32(0.5) * step + np.float32(0.5)
        _ramp(out, _U(c * cell), _U(min(cell, max(out.size - c * cell, 0))), first, step)


@compiled
def _triple(values: Shorts, out: Shorts) -> None:
    for c in range(_U(values.size)):
        out[_U(3) * c] = values[c]
        out[_U(3) * c + _U(1)] = values[c]
        out[_U(3) * c + _U(2)] = values[c]


@compiled
def _share(row: int, cell: int) -> int:
    """How far down its cell a row of pixels lies, of 128."""
    return (128 * (2 * row + 1) + cell) // (2 * cell)


@compiled
def _multiply(
    board: Photo, at: np.uint64, count: np.uint64, upper: Shorts, lower: Shorts, share: int, out: Photo
) -> None:
    """One row of the board under the light between two rows of corners; steps of 16 bits, which become vectors."""
    above, below = np.uint16(128 - share), np.uint16(share)
    for i in range(count):
        light = np.uint16(np.uint16(np.uint16(upper[i]) * above) + np.uint16(np.uint16(lower[i]) * below))
        light = np.uint16(light >> np.uint16(7))
        lit = np.uint16(np.uint16(np.uint16(board[at + i]) * light) + np.uint16(128))
        out[at + i] = np.uint8(lit >> np.uint16(8))


@compiled
def shade_board(board_HW3: Photo, light_RC: Floats, cell: int, canvas_HW3: Photo) -> None:
    """Fill the canvas with the board under the light at the corners of the cells."""
    height, width = board_HW3.shape[0], 3 * board_HW3.shape[1]
    narrow = np.empty(board_HW3.shape[1], np.uint16)
    upper, lower = np.empty(width, np.uint16), np.empty(width, np.uint16)
    board, canvas = board_HW3.ravel(), canvas_HW3.ravel()
    for band in range(light_RC.shape[0]):
        upper, lower = lower, upper
        _widen(light_RC[band], cell, narrow)
        _triple(narrow, lower)
        for i in range(min(cell, height - (band - 1) * cell) if band else 0):
            row = _U(((band - 1) * cell + i) * width)
            _multiply(board, row, _U(width), upper, lower, _share(i, cell), canvas)


@compiled
def _between(upper: Shorts, lower: Shorts, share: int, light: Shorts) -> None:
    above, below = np.uint16(128 - share), np.uint16(share)
    for c in range(_U(light.size)):
        both = np.uint16(np.uint16(upper[c] * above) + np.uint16(lower[c] * below))
        light[c] = np.uint16(both >> np.uint16(7))


@compiled
def _light_row(
    crops: Packed, at: np.uint64, light: Shorts, gains: Gains, hard: bool, colours: Photo, alphas: Photo
) -> None:
    """The colours of a row of a crop under its light and gains, and its alpha once a channel."""
    for c in range(_U(light.size)):
        pixel, k, shine = crops[at + c], _U(3) * c, np.uint32(light[c])
        alpha = np.uint8(pixel >> np.uint32(24))
        if hard:
            alpha = np.uint8(255) if alpha >= _SOLID else np.uint8(0)
        red, green, blue = np.uint32(gains[0] * shine), np.uint32(gains[1] * shine), np.uint32(gains[2] * shine)
        one = np.uint32(np.uint32(pixel & np.uint32(255)) * red)
        two = np.uint32(np.uint32(pixel >> np.uint32(8) & np.uint32(255)) * green)
        three = np.uint32(np.uint32(pixel >> np.uint32(16) & np.uint32(255)) * blue)
        colours[k] = np.uint8(min(np.uint32(one >> np.uint32(18)), np.uint32(255)))
        colours[k + _U(1)] = np.uint8(min(np.uint32(two >> np.uint32(18)), np.uint32(255)))
        colours[k + _U(2)] = np.uint8(min(np.uint32(three >> np.uint32(18)), np.uint32(255)))
        alphas[k], alphas[k + _U(1)], alphas[k + _U(2)] = alpha, alpha, alpha


@compiled
def _mix_row(canvas: Photo, to: np.uint64, colours: Photo, alphas: Photo) -> None:
    """canvas x (255 - alpha) + colours x alpha, over 255: x / 255 is (x + 128 + (x + 128) / 256) / 256, rounded."""
    for k in range(_U(colours.size)):
        alpha = np.uint16(alphas[k])
        rest = np.uint16(np.uint16(255) - alpha)
        both = np.uint16(np.uint16(np.uint16(colours[k]) * alpha) + np.uint16(np.uint16(canvas[to + k]) * rest))
        both = np.uint16(both + np.uint16(128))
        canvas[to + k] = np.uint8(np.uint16(both + np.uint16(both >> np.uint16(8))) >> np.uint16(8))


@compiled
def blend_item(canvas_HW3: Photo, item: Item, crops: Packed, light_RC: Floats, cell: int) -> None:
    """Paint an item on the canvas: canvas x (1 - alpha) + colours x gain x light x alpha.

    light_RC: at the corners of the cells that its crop covers.
    """
    if item.feather:
        feather(item, crops)
    gains = (_whole(item.red), _whole(item.green), _whole(item.blue))
    # What is transparent altogether need not be looked at.
    left, right = max(item.left - item.x - _RIM, 0), min(item.right - item.x + _RIM, item.columns)
    first, past = max(item.top - item.y - _RIM, 0), min(item.bottom - item.y + _RIM, item.rows)
    canvas, stride, full = canvas_HW3.ravel(), canvas_HW3.shape[1], light_RC.min() == 1
    upper, lower = np.empty(item.columns, np.uint16), np.empty(item.columns, np.uint16)
    light = np.full(right - left, _LIGHT_ONE, np.uint16)
    colours, alphas = np.empty(3 * light.size, np.uint8), np.empty(3 * light.size, np.uint8)
    for r in range(first, past):
        if not full:
            if r == first or r % cell == 0:
                _widen(light_RC[r // cell], cell, upper)
                _widen(light_RC[r // cell + 1], cell, lower)
            _between(upper[left:right], lower[left:right], _share(r % cell, cell), light)
        _light_row(crops, _U(item.crop + r * item.columns + left), light, gains, item.hard, colours, alphas)
        _mix_row(canvas, _U(3 * ((item.y + r) * stride + item.x + left)), colours, alphas)


@compiled
def _whole(gain: float) -> np.uint32:
    # With full light and a grey level of 255, a gain of 16 just fits in 32 bits.
    return np.uint32(min(gain, 16.0) * _GAIN_ONE + 0.5)


@compiled
def feather(item: Item, crops: Packed) -> None:
    """Widen the soft edge of an item's crop both ways: a binomial blur of its alpha, of a standard deviation of 1."""
    width, height = item.columns, item.rows
    across = np.zeros((height + 4) * width, np.uint32)
    for r in range(height):
        at, to = _U(item.crop + r * width), _U((r + 2) * width)
        _blur_alpha(crops, at, across, to, _U(width))
    for r in range(height):
        at, to = _U(r * width), _U(item.crop + r * width)
        _write_alpha(across, at, _U(width), crops, to)


@compiled
def _blur_alpha(crops: Packed, at: np.uint64, out: Packed, to: np.uint64, width: np.uint64) -> None:
    """Binomial sums (16 times as large) along a row; its two outermost pixels on either side are transparent anyway."""
    for c in range(_U(2), width - _U(2)):
        k = at + c
        far = (crops[k - _U(2)] >> np.uint32(24)) + (crops[k + _U(2)] >> np.uint32(24))
        near = (crops[k - _U(1)] >> np.uint32(24)) + (crops[k + _U(1)] >> np.uint32(24))
        out[to + c] = np.uint32(far + np.uint32(4) * near + np.uint32(6) * (crops[k] >> np.uint32(24)))


@compiled
def _write_alpha(sums: Packed, at: np.uint64, stride: np.uint64, crops: Packed, to: np.uint64) -> None:
    for c in range(stride):
        k = at + c
        far, near = sums[k] + sums[k + _U(4) * stride], sums[k + stride] + sums[k + _U(3) * stride]
        total = np.uint32(far + np.uint32(4) * near + np.uint32(6) * sums[k + _U(2) * stride] + np.uint32(128))
        crops[to + c] = (crops[to + c] & np.uint32(0x00FFFFFF)) | ((total >> np.uint32(8)) << np.uint32(24))


@compiled
def blend_items(
    canvas_HW3: Photo, items: Items, first: int, past: int, crops: Packed, lights: Floats, cell: int
) -> None:
    """Paint the items number `first` to `past` - 1; lights as `cast_shadows` leaves them, or 1 everywhere."""
    at = 0
    for n in range(past):
        item = items[n]
        rows, columns = item.cell_rows + 1, item.cell_columns + 1
        if n >= first and item.label:
            blend_item(canvas_HW3, item, crops, lights[at : at + rows * columns].reshape(rows, columns), cell)
        at += rows * columns


@compiled
def _blur_down(photo: Photo, rows_5: NDArray[np.uint64], weights: Weights, out: Photo) -> None:
    """A row blurred across five rows, given by where they begin; `out` has two pixels more on either side."""
    above, over, here, under, below = rows_5
    for k in range(_U(out.size - 12)):
        far = np.uint16(np.uint16(photo[above + k]) + np.uint16(photo[below + k]))
        near = np.uint16(np.uint16(photo[over + k]) + np.uint16(photo[under + k]))
        total = np.uint16(np.uint16(np.uint16(photo[here + k]) * weights[0]) + np.uint16(near * weights[1]))
        total = np.uint16(total + np.uint16(np.uint16(far * weights[2]) + np.uint16(128)))
        out[k + _U(6)] = np.uint8(total >> np.uint16(8))


@compiled
def _blur_across(row: Photo, weights: Weights, out: Photo) -> None:
    """A row of pixels, with two more on either side, blurred along itself."""
    for k in range(_U(out.size)):
        far = np.uint16(np.uint16(row[k]) + np.uint16(row[k + _U(12)]))
        near = np.uint16(np.uint16(row[k + _U(3)]) + np.uint16(row[k + _U(9)]))
        total = np.uint16(np.uint16(np.uint16(row[k + _U(6)]) * weights[0]) + np.uint16(near * weights[1]))
        total = np.uint16(total + np.uint16(np.uint16(far * weights[2]) + np.uint16(128)))
        out[k] = np.uint8(total >> np.uint16(8))


@compiled
def _grain(photo: Photo, at: np.uint64, count: np.uint64, lines: Signed, begin: np.uint64, share: np.int16) -> None:
    for k in range(count):
        noise = np.int16(np.int16(np.int16(lines[begin + k]) * share) + np.int16(128))
        level = np.int16(np.int16(photo[at + k]) + np.int16(noise >> np.int16(8)))
        photo[at + k] = np.uint8(min(max(level, np.int16(0)), np.int16(255)))


@compiled
def blur_photo(canvas_HW3: Photo, weights: Weights, out_HW3: Photo) -> None:
    """Fill `out` with the canvas under a separable blur: weights of a pixel, its neighbours and theirs, of 256."""
    height, width = canvas_HW3.shape[0], 3 * canvas_HW3.shape[1]
    canvas, rows_5 = canvas_HW3.ravel(), np.empty(5, np.uint64)
    down = np.empty(width + 12, np.uint8)
    for y in range(height):
        for i in range(5):
            rows_5[i] = min(max(y + i - 2, 0), height - 1) * width
        _blur_down(canvas, rows_5, weights, down)
        for k in range(6):
            down[k], down[width + 6 + k] = down[6 + k % 3], down[width + 3 + k % 3]
        _blur_across(down, weights, out_HW3[y].ravel())


@compiled
def add_grain(photo_HW3: Photo, lines_LW3: Signed, places_H: Counts, margin: int, share: int) -> None:
    """Add a share, in 1 / 256, of lines of noise to a photo's rows, in place.

    places_H: line x margin + first pixel, for each row.
    """
    height, width = photo_HW3.shape[0], 3 * photo_HW3.shape[1]
    photo, lines, stride = photo_HW3.ravel(), lines_LW3.ravel(), 3 * lines_LW3.shape[1]
    for y in range(height):
        begin = places_H[y] // margin * stride + 3 * (places_H[y] % margin)
        _grain(photo, _U(y * width), _U(width), lines, _U(begin), np.int16(share))
