"""Items laid down, compiled: the search for a place, the turned sprite, and who hides whom. Threads run side by side.

Pixels are integer arithmetic, so the same on every processor. Nothing here calls compiled code of another file.

Boundary: arrays in, arrays changed in place. Legend: H x W photo pixels, R x C cells of the grid, N items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.compiled import compiled
from tasks.items import Counts, Doubles, Gathering, Ground, Item, Items, Packed, Photo, Pictures, Top

Wide = NDArray[np.uint64]
Affine = tuple[int, int, int, int, int, int]
Shape = tuple[int, int, int]
Place = tuple[float, float]
Generator = np.random.Generator

# Plain unsigned positions in flat arrays: compilers make vectors of such loops, and of few others.
_U = np.uint64
MOST_ITEMS = 255
# A place that touches nothing is taken this often; a place beside a product always: people put things together.
LONELY = 1 / 7
# So many proposals for a place beside the item before, where products gather, and in all.
BESIDE, GATHERED, PROPOSALS = 16, 64, 112
PLACE_ONE = 1 << 16
# A cell counts as covered from an alpha of one half on.
_COVERED = np.uint32(128 << 24)
_REJECTIONS = 3
# The four bytes of a pixel, 16 bits apart: one multiplication weighs all four.
_RED_BLUE, _GREEN_ALPHA = _U(0x00FF00FF), _U(0xFF00FF00)
_LANES, _HALVES, _ALPHA = _U(0x00FF00FF00FF00FF), _U(0x0080008000800080), _U(0x00FF000000000000)


@compiled
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


@compiled
def _spread(source: Packed, at: np.uint64, count: np.uint64, wide: Wide) -> None:
    for k in range(count):
        pixel = _U(source[at + k])
        wide[k] = (pixel & _RED_BLUE) | ((pixel & _GREEN_ALPHA) << _U(24))


@compiled
def _sample_row(
    wide: Wide,
    stride: np.uint64,
    x: np.uint64,
    y: np.uint64,
    dx: np.uint64,
    dy: np.uint64,
    colours: bool,
    out: Packed,
    to: np.uint64,
    count: np.uint64,
) -> None:
    """Pixels along a line through the source; weights are sixteenths both ways."""
    for c in range(count):
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


@compiled
def warp(source: Pictures, number: int, affine: Affine, colours: bool, out: Packed, shape_3: Shape, wide: Wide) -> None:
    """Fill a crop with a picture under an affine map, bilinearly; 0 where it would show what is outside the picture.

    Args:
        source: pictures.
        number: which one.
        affine: (a, b, c, d, e, f) in units of 1 / PLACE_ONE pixel: the crop's pixel (x, y) shows the picture at
            (a x + b y + c, d x + e y + f).
        colours: keep the colours of pixels whose alpha is 0.
        out: crops.
        shape_3: where the crop begins, its rows and columns.
        wide: working memory, at least a row and a pixel more than the picture.
    """
    begin, height, width = source.shapes_M3[number]
    _spread(source.pixels, _U(begin), _U(height * width), wide)
    # The last row and column are looked beyond, with weight 0.
    wide[height * width : height * width + width + 1] = 0
    a, b, c, d, e, f = affine
    start, rows, columns = shape_3
    for r in range(rows):
        x, y, at = b * r + c, e * r + f, start + r * columns
        from_x, to_x = _inside(x, a, (width - 1) * PLACE_ONE + 1, columns)
        from_y, to_y = _inside(y, d, (height - 1) * PLACE_ONE + 1, columns)
        first = max(from_x, from_y)
        past = max(min(to_x, to_y), first)
        _clear(out, _U(at), _U(at + first))
        _clear(out, _U(at + past), _U(at + columns))
        x, y = x + a * first, y + d * first
        _sample_row(wide, _U(width), _U(x), _U(y), _U(a), _U(d), colours, out, _U(at + first), _U(past - first))


@compiled
def _clear(out: Packed, at: np.uint64, past: np.uint64) -> None:
    for k in range(at, past):
        out[k] = np.uint32(0)


@compiled
def _unit(value: float) -> int:
    return int(np.floor(value * PLACE_ONE + 0.5))


@compiled
def _affine(item: Item, high: float, wide: float, rows: int, columns: int, step: int) -> Affine:
    """The map of `warp` from every `step`-th pixel of an item's crop to a picture of its sprite, middle to middle.

    The picture has rows x columns pixels and shows the sprite `high` and `wide` times as large.
    """
    determinant = item.xx * item.yy - item.xy * item.yx
    a, b = wide * item.yy / determinant, -wide * item.xy / determinant
    d, e = -high * item.yx / determinant, high * item.xx / determinant
    across, down = (step - item.columns) / 2, (step - item.rows) / 2
    c, f = a * across + b * down + (columns - 1) / 2, d * across + e * down + (rows - 1) / 2
    return _unit(step * a), _unit(step * b), _unit(c), _unit(step * d), _unit(step * e), _unit(f)


@compiled
def warp_item(item: Item, pictures: Pictures, crops: Packed, wide: Wide) -> None:
    """Fill an item's crop with its turned sprite."""
    _, rows, columns = pictures.shapes_M3[item.sprite]
    affine = _affine(item, 1.0, 1.0, rows, columns, 1)
    warp(pictures, item.sprite, affine, item.feather, crops, (item.crop, item.rows, item.columns), wide)


@compiled
def warp_cover(item: Item, pictures: Pictures, thumbs: Pictures, cell: int, covers: Packed, wide: Wide) -> None:
    """Fill an item's cover: its alpha is how much of each cell the item covers. Thumbs: `tasks.blend.thumbnail`."""
    _, height, width = pictures.shapes_M3[item.sprite]
    _, rows, columns = thumbs.shapes_M3[item.sprite]
    affine = _affine(item, (rows - 2) / height, (columns - 2) / width, rows, columns, cell)
    warp(thumbs, item.sprite, affine, False, covers, (item.cover, item.cell_rows, item.cell_columns), wide)


@compiled
def _covered_cells(item: Item, covers: Packed, stride: int) -> Counts:
    """Positions in the grid of the cells that an item at its corner covers."""
    cells, count = np.empty(item.cell_rows * item.cell_columns, np.int64), 0
    for k in range(cells.size):
        if covers[item.cover + k] >= _COVERED:
            cells[count] = k // item.cell_columns * stride + k % item.cell_columns
            count += 1
    return cells[:count]


@compiled
def _fits(ground: Ground, cells: Counts, at: int, most: float, limit: float) -> int:
    """Whether an item may lie there. 0: no; 1: yes, and nothing is near; 2: yes, beside or on another item."""
    labels, near = ground.labels_RC.ravel(), ground.near_RC.ravel()
    touches, on_others = np.uint8(0), 0
    for k in range(cells.size):
        place = _U(at + cells[k])
        touches |= near[place]
        if labels[place]:
            on_others += 1
            if on_others > most:
                return 0
    if on_others:
        lost = np.zeros(MOST_ITEMS + 1, np.int64)
        for k in range(cells.size):
            lost[labels[at + cells[k]]] += 1
        if _hides_too_much(lost, ground.areas, ground.visible, limit):
            return 0
    return 2 if touches else 1


@compiled
def _hides_too_much(lost: Counts, areas: Counts, visible: Counts, limit: float) -> bool:
    """Whether an item keeps less than a share `limit` of its area visible when it loses so many pixels more."""
    worst = 0.0
    for label in range(1, areas[0] + 1):
        if lost[label]:
            worst = max(worst, limit * areas[label] - visible[label] + lost[label])
    return worst > 0


@compiled
def _propose(
    k: int, item: Item, across: float, before: Place, gathering: Gathering, generator: Generator
) -> tuple[float, float]:
    """The k-th place (x, y) proposed for an item's middle, in cells up to BESIDE, then in shares of the photo.

    First at both sides of the item before, then as products gather in this photo, then anywhere.
    """
    if k < BESIDE:
        step = item.step if generator.random() < 0.5 else -item.step
        x, y = generator.standard_normal(), generator.standard_normal()
        return before[0] + step * np.cos(across) + x, before[1] + step * np.sin(across) + y
    if k < BESIDE + GATHERED:
        if gathering.pile:
            x, y = generator.standard_normal(), generator.standard_normal()
            return gathering.x + gathering.spread * x, gathering.y + gathering.spread * y
        side = int(np.sqrt(gathering.places.size))
        tile = np.searchsorted(gathering.places, generator.random() * gathering.places[-1], side="right")
        tile = min(tile, gathering.places.size - 1)
        return (tile % side + generator.random()) / side, (tile // side + generator.random()) / side
    return generator.random(), generator.random()


@compiled
def find_place(
    ground: Ground,
    item: Item,
    cells: Counts,
    first: int,
    across: float,
    before: Place,
    gathering: Gathering,
    limit: float,
    generator: Generator,
) -> tuple[int, int]:
    """Where an item fits: the position of its corner in the flat grid, or -1; and the number of the proposal taken.

    Proposals from number `first` on are tried in their order. If none of them will do, every place is tried.

    Args:
        ground: what lies there already.
        item: what is laid down.
        cells: positions of the cells that it covers with its corner at 0.
        first: number of the first proposal; BESIDE for items that need not lie beside the one before.
        across: direction of the item's short side.
        before: middle (x, y) of the item before, in cells.
        gathering: where products gather in this photo.
        limit: least visible share that every item below must keep.
        generator: draws the proposals.
    """
    height, stride = ground.labels_RC.shape
    rows, columns = height - item.cell_rows + 1, stride - item.cell_columns + 1
    most = item.overlap * cells.size + 0.5
    if rows < 1 or columns < 1:
        return -1, 0
    for k in range(first, PROPOSALS):
        middle = _propose(k, item, across, before, gathering, generator)
        wide, high = (1, 1) if k < BESIDE else (stride, height)
        x = int(np.floor(middle[0] * wide - item.cell_columns / 2 + 0.5))
        y = int(np.floor(middle[1] * high - item.cell_rows / 2 + 0.5))
        if 0 <= x < columns and 0 <= y < rows:
            fit = _fits(ground, cells, y * stride + x, most, limit)
            if fit == 2 or (fit == 1 and generator.random() < LONELY):
                return y * stride + x, k
    # A step that shares no divisor with their number visits all places, in no visible order.
    number = rows * columns
    step = int(number * 0.618) + 1
    while np.gcd(step, number) > 1:
        step += 1
    place = int(generator.random() * number)
    for _ in range(number):
        at = place // columns * stride + place % columns
        if _fits(ground, cells, at, most, limit):
            return at, PROPOSALS
        place = (place + step) % number
    return -1, PROPOSALS


@compiled
def put(ground: Ground, cells: Counts, at: int) -> None:
    """Lay an item's cells on top of the grid, its corner at position `at`."""
    stride, labels = ground.labels_RC.shape[1], ground.labels_RC.ravel()
    label = ground.areas[0] + 1
    ground.areas[0], ground.areas[label], ground.visible[label] = label, cells.size, cells.size
    for k in range(cells.size):
        place = at + cells[k]
        ground.visible[labels[place]] -= 1
        labels[place] = label
        row, column = place // stride, place % stride
        top, left = max(0, row - 1), max(0, column - 1)
        ground.near_RC[top : row + 2, left : column + 2] = 1


@compiled
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


@compiled
def _write_label(labels: Photo, below: np.uint64, width: int, solid: Photo, label: np.uint8) -> None:
    # Labels grow, so the larger one is the one on top.
    for c in range(_U(width)):
        labels[below + c] = max(labels[below + c], np.uint8(solid[c] * label))


@compiled
def claim(top: Top, item: Item, crops: Packed, limit: float) -> bool:
    """Lay an item's solid pixels on top, if every item below keeps at least a share `limit` of its area visible.

    Sets the item's label and its box. False: it has no solid pixel or would hide too much, and nothing is changed.
    """
    lost = np.zeros(MOST_ITEMS + 1, np.int64)
    labels, stride = top.labels_HW.ravel(), top.labels_HW.shape[1]
    height, width = item.rows, item.columns
    solid, seen = np.empty(width, np.uint8), np.zeros(width, np.uint8)
    area, left, right, upper, lower = 0, 0, width, height, 0
    for r in range(height):
        at, below = _U(item.crop + r * width), _U((item.y + r) * stride + item.x)
        count, covers = _find_solid(crops, at, labels, below, width, solid, seen)
        if count:
            area, upper, lower = area + int(count), min(upper, r), r + 1
        if covers:
            for c in range(_U(width)):
                if solid[c]:
                    lost[labels[below + c]] += 1
    if area == 0 or _hides_too_much(lost, top.areas, top.visible, limit):
        return False
    while not seen[left]:
        left += 1
    while not seen[right - 1]:
        right -= 1
    label = top.areas[0] + 1
    for one in range(1, label):
        top.visible[one] -= lost[one]
    top.areas[0], top.areas[label], top.visible[label] = label, area, area
    for r in range(upper, lower):
        at, below = _U(item.crop + r * width), _U((item.y + r) * stride + item.x)
        _find_solid(crops, at, labels, below, width, solid, seen)
        _write_label(labels, below, width, solid, np.uint8(label))
    item.label, item.left, item.right = label, item.x + left, item.x + right
    item.top, item.bottom = item.y + upper, item.y + lower
    return True


@compiled
def lay_out(
    items: Items,
    pictures: Pictures,
    thumbs: Pictures,
    axes_M: Doubles,
    crops: Packed,
    covers: Packed,
    top: Top,
    ground: Ground,
    gathering: Gathering,
    limit: float,
    generator: Generator,
) -> None:
    """Lay the items down in their order; what finds no place keeps the label 0.

    The grid proposes, the pixels decide: where an item below would keep too little of its area, another place is tried.
    """
    wide, cell, stride = _room(items, pictures), ground.cell, ground.labels_RC.shape[1]
    before, placed = (0.0, 0.0), False
    for n in range(items.size):
        item = items[n]
        warp_cover(item, pictures, thumbs, cell, covers, wide)
        cells = _covered_cells(item, covers, stride)
        if cells.size == 0:
            continue
        warp_item(item, pictures, crops, wide)
        across = axes_M[item.sprite] + item.angle + np.pi / 2
        k = 0 if item.beside and placed else BESIDE
        for _ in range(_REJECTIONS):
            at, k = find_place(ground, item, cells, k, across, before, gathering, limit, generator)
            if at < 0:
                break
            item.x, item.y = at % stride * cell, at // stride * cell
            if claim(top, item, crops, limit):
                put(ground, cells, at)
                before, placed = ((item.x + item.columns / 2) / cell, (item.y + item.rows / 2) / cell), True
                break
            k += 1


@compiled
def _room(items: Items, pictures: Pictures) -> Wide:
    """Working memory for the largest of the items' sprites."""
    most = 0
    for n in range(items.size):
        _, rows, columns = pictures.shapes_M3[items[n].sprite]
        most = max(most, (rows + 1) * columns + 1)
    return np.empty(2 * most, np.uint64)
