"""What a synthetic photo shall show: its items as records (`tasks.items`), drawn but not yet placed. Compiled in part.

Boundary: a kit, parameters and a generator in, records out; `tasks.laying` finds their places.
Legend: N items, G products of one photo, M sprites, S products.
"""

from __future__ import annotations

import numpy as np

from tasks.compiled import compiled
from tasks.items import ITEM, Counts, Habits, Item, Items, Pictures, Sprites
from tasks.layout import draw_counts, draw_skus, first_sku, first_view
from tasks.params import ComposeParams, LevelParams
from tasks.sprites import Kit

Generator = np.random.Generator
Matrix = tuple[float, float, float, float]

_ROW_TURN = 0.05
_SIZE_SPREAD = 0.7
_CLOSE = (0.02, 0.2)
_GAP = (1.0, 1.15)
# As in the paper's script: any size, and half of an item may lie on others.
_FREE_SIZES = (0.4, 0.7)
_FREE_OVERLAP = 0.5


def draw_items(
    kit: Kit, *, level: LevelParams, params: ComposeParams, index: int, cell: int, generator: Generator
) -> Items:
    """The items of one photo, records [N], from the lowest up; `cell`: side of the layout's cells.

    First comes the product that this photo must show, while there is room for certain; then the others, mostly the
    large ones first.
    """
    count = min(int(generator.integers(level.skus[0], level.skus[1] + 1)), len(kit.weights_S))
    total = max(count, int(generator.integers(level.items[0], level.items[1] + 1)))
    first = first_sku(kit.weights_S, seed=params.seed, index=index)
    chosen = draw_skus(
        count,
        first=first,
        weights_S=kit.weights_S,
        mates_S=kit.mates_S,
        mate_share=params.mate_share,
        generator=generator,
    )
    counts_G = np.asarray(draw_counts(count, total, generator=generator), np.int64)
    products_G = np.asarray(chosen, np.int64)
    chance = first_view(kit.weights_S, seed=params.seed, index=index)
    items = np.zeros(total, ITEM)
    _draw(items, products_G, counts_G, chance, kit.table, kit.pictures, kit.habits, cell, generator)
    return items


@compiled
def sprite_at(table: Sprites, product: int, chance: float) -> int:
    """The number of a product's sprite that a number in [0, 1) chooses, by the sprites' shares."""
    start, past = table.starts_S[product], table.starts_S[product + 1]
    found = np.searchsorted(table.shares_M[start:past], chance, side="right")
    return start + min(found, past - start - 1)


@compiled
def turn_matrix(angle: float, scale: float, tilt: float, tilt_axis: float) -> Matrix:
    """2 x 2 map of a flat product turned by `angle` in its plane and slightly out of it, seen from far above.

    Under weak perspective a turn out of the plane shortens the direction across its axis by the factor 1 - tilt.
    Angles in radians, x right, y down, positive from x to y. Returns (xx, xy, yx, yy): x becomes xx x + xy y.
    """
    across_x, across_y = -np.sin(tilt_axis), np.cos(tilt_axis)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    xx, xy, yy = 1 - tilt * across_x * across_x, -tilt * across_x * across_y, 1 - tilt * across_y * across_y
    return cosine * xx - sine * xy, cosine * xy - sine * yy, sine * xx + cosine * xy, sine * xy + cosine * yy


@compiled
def _between(ends: tuple[float, float], generator: Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * generator.random()


@compiled
def _order(firsts_G: Counts, table: Sprites, generator: Generator) -> Counts:
    """The photo's own product first, then mostly the large ones first."""
    sizes_G = np.empty(firsts_G.size, np.float64)
    for g in range(firsts_G.size):
        long, short = table.sides_M2[firsts_G[g]]
        sizes_G[g] = long * short * np.exp(_SIZE_SPREAD * generator.standard_normal())
    sizes_G[0] = np.inf
    return np.argsort(-sizes_G)


@compiled
def _draw(
    items: Items,
    products_G: Counts,
    counts_G: Counts,
    chance: float,
    table: Sprites,
    pictures: Pictures,
    habits: Habits,
    cell: int,
    generator: Generator,
) -> None:
    """Fill in the items, product by product: in a row, in one view and direction, or each as it fell."""
    firsts_G = np.empty(products_G.size, np.int64)
    for g in range(products_G.size):
        firsts_G[g] = sprite_at(table, products_G[g], generator.random() if g else chance)
    n = crop = cover = 0
    for g in _order(firsts_G, table, generator):
        in_row = generator.random() < habits.row_share and not habits.free_places
        for k in range(counts_G[g]):
            item = items[n]
            item.beside = in_row and k > 0
            item.sprite = firsts_G[g]
            if k and not in_row:
                item.sprite = sprite_at(table, products_G[g], generator.random())
            item.angle = 2 * np.pi * generator.random()
            if item.beside:
                item.angle = items[n - 1].angle + _ROW_TURN * generator.standard_normal()
            _turn(item, pictures, habits, cell, generator)
            _choose_manner(item, table, habits, cell, generator)
            item.crop, item.cover = crop, cover
            crop += item.rows * item.columns
            cover += item.cell_rows * item.cell_columns
            n += 1


@compiled
def _turn(item: Item, pictures: Pictures, habits: Habits, cell: int, generator: Generator) -> None:
    """Draw an item's size and tilt; sets its map and the size of its crop."""
    scale = np.exp(habits.size_jitter * generator.standard_normal())
    if habits.free_sizes:
        scale = 2 * _between(_FREE_SIZES, generator) / (_FREE_SIZES[0] + _FREE_SIZES[1])
    tilt, axis = habits.tilt * generator.random(), np.pi * generator.random()
    item.xx, item.xy, item.yx, item.yy = turn_matrix(item.angle, scale, tilt, axis)
    _, height, width = pictures.shapes_M3[item.sprite]
    item.rows = int(np.ceil(abs(item.yx) * width + abs(item.yy) * height - 1e-6))
    item.columns = int(np.ceil(abs(item.xx) * width + abs(item.xy) * height - 1e-6))
    item.cell_rows, item.cell_columns = (item.rows + cell - 1) // cell, (item.columns + cell - 1) // cell


@compiled
def _choose_manner(item: Item, table: Sprites, habits: Habits, cell: int, generator: Generator) -> None:
    """Draw how an item lies among others, and how it is blended."""
    close = _between(_CLOSE, generator)
    item.overlap = close if generator.random() < habits.overlap_share else 0.0
    if habits.free_places:
        item.overlap = _FREE_OVERLAP
    item.step = table.sides_M2[item.sprite, 1] * _between(_GAP, generator) / cell
    blend = generator.random()
    item.feather = habits.feather <= blend < habits.hard
    item.hard = habits.hard <= blend < habits.poisson
    item.poisson = blend >= habits.poisson
