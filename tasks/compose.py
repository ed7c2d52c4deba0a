"""Stage `compose`: synthetic checkout photos out of sprites, with exact labels.

A photo is drawn in four steps: what lies there (level, products, views), where it lies (`tasks.layout`), paint (shadow,
then item, from the lowest up), and the camera (blur, noise). Its content depends on the kit, the parameters and
(seed, index) only, whatever the number of workers; `tasks.synthesis_stream` composes the same photos on the fly.

Rows: "synthetic/000012", JPEG at board size, parents = sprites, one object per item: tight box of the visible part,
amodal box, centre of the visible part's box, visible fraction, visible mask.
Boundary: pixels and manifests; no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import exp, pi
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.images import encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.blend import (
    Matrix,
    add_noise,
    blur,
    feathered,
    lit_crop,
    packed,
    poisson_crop,
    turn_matrix,
    warp_sprite,
    warped_cover,
)
from tasks.kit import build_kit
from tasks.layout import (
    Gathering,
    Kind,
    Places,
    draw_counts,
    draw_gathering,
    draw_name,
    draw_skus,
    first_sku,
    first_view,
    propose,
    propose_beside,
)
from tasks.mask_runs import encode_label
from tasks.params import ComposeParams, LevelParams
from tasks.pixels import GAIN_ONE, MOST_ITEMS, blend, claim, shade_board, throw_shadow
from tasks.places import Ground, cell_side, empty_ground, find_place, put
from tasks.shadow import Lamp, draw_lamp, shadow_parts
from tasks.sprites import Kit, LitBoard, Sprite
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

Photo = NDArray[np.uint8]
Floats = NDArray[np.float32]
Window = tuple[int, int, int, int]

_EXPOSURE_SPREAD = 0.05
_TINT_SPREAD = 0.015
_FREE_SIZES = (0.4, 0.7)
_CLOSE_OVERLAPS = (0.02, 0.2)
_BESIDE, _GATHERED, _ANYWHERE = 16, 64, 32
_TRIES = 3
_FULL_LIGHT = np.empty((0, 0), np.float32)
# An item that is hidden altogether could not be labelled: some of it always stays visible.
_SOMETHING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An item that a photo shall show. beside: next to the one before, as people lay out several of one product."""

    sprite: Sprite
    angle: float
    matrix: Matrix
    beside: bool
    overlap: float
    blend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item with its place: turned and scaled, its corner at (x, y) in photo pixels.

    cover_hw: its alpha on the layout's grid. solid: box (xyxy, in the photo) of what has an alpha of one half or more.
    """

    sprite: Sprite
    rgba_hw4: Photo
    cover_hw: Photo
    x: int
    y: int
    solid: Window
    blend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The items in the order they were laid down, and who is on top.

    labels_HW: 0 board, i the i-th item. areas, visible: pixels of each item, by label.
    """

    items: list[Item]
    labels_HW: Photo
    areas: NDArray[np.int64]
    visible: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A synthetic photo. labels_HW: 0 board, i the i-th object on top; objects are in the order they were laid down."""

    photo_HW3: Photo
    labels_HW: Photo
    objects: tuple[ManifestObject, ...]
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one photo's items share: the lit board, the lamp, and how bright items are at a coarse grid of places."""

    board: LitBoard
    lamp: Lamp
    gains_hw3: Floats


def compose_photo(kit: Kit, *, params: ComposeParams, index: int) -> Composed:
    """Compose photo number `index`; the same kit, parameters and index give the same pixels and labels."""
    generator = np.random.default_rng((params.seed, index))
    level = draw_name({name: one.share for name, one in params.levels.items()}, generator=generator)
    scene = draw_scene(kit, generator=generator)
    wishes = draw_wishes(kit, level=params.levels[level], params=params, index=index, generator=generator)
    height, width = scene.board.canvas_HW3.shape[:2]
    layout = lay_out(wishes, kit=kit, height=height, width=width, params=params, generator=generator)
    canvas_HW3 = paint(layout.items, scene=scene, params=params)
    photo_HW3 = photograph(canvas_HW3, kit=kit, scene=scene, params=params, generator=generator)
    objects = label_items(layout, amodal=params.recipe == "paper")
    return Composed(photo_HW3=photo_HW3, labels_HW=layout.labels_HW, objects=objects, level=level)


def draw_scene(kit: Kit, *, generator: np.random.Generator) -> Scene:
    """A lit board, shadows as in that photo, and a little variation of the items' exposure and tint."""
    board = kit.boards[int(generator.integers(len(kit.boards)))]
    exposure_3 = _EXPOSURE_SPREAD * generator.standard_normal() + _TINT_SPREAD * generator.standard_normal(3)
    gains_hw3 = board.shade_hw3 * np.exp(exposure_3).astype(np.float32)
    return Scene(board=board, lamp=draw_lamp(board.shadows, generator=generator), gains_hw3=gains_hw3)


def draw_wishes(
    kit: Kit, *, level: LevelParams, params: ComposeParams, index: int, generator: np.random.Generator
) -> list[Wish]:
    """The items of one photo, product by product.

    First comes the product that this photo must show, while there is room for certain; then mostly the large ones first
    (they end up below).
    """
    count = min(int(generator.integers(level.skus[0], level.skus[1] + 1)), len(kit.skus))
    items = max(count, int(generator.integers(level.items[0], level.items[1] + 1)))
    first = first_sku(kit.skus, seed=params.seed, index=index)
    chosen = draw_skus(
        count, first=first, skus=kit.skus, mates=kit.mates, mate_share=params.mate_share, generator=generator
    )
    counts = draw_counts(count, items, generator=generator)
    views = [first_view(kit.skus, seed=params.seed, index=index), *generator.random(count - 1).tolist()]
    groups = [
        _draw_group(kit.sprite_at(sku, view), kit=kit, number=number, params=params, generator=generator)
        for sku, number, view in zip(chosen, counts, views, strict=True)
    ]
    sizes = [group[0].sprite.sides[0] * group[0].sprite.sides[1] for group in groups]
    order = np.argsort(np.asarray(sizes[1:]) * np.exp(0.7 * generator.standard_normal(count - 1)))[::-1]
    return groups[0] + [wish for position in order for wish in groups[1 + int(position)]]


def _draw_group(
    first: Sprite, *, kit: Kit, number: int, params: ComposeParams, generator: np.random.Generator
) -> list[Wish]:
    """`number` items of one product: side by side in one view and direction, or each as it fell."""
    row = number > 1 and generator.random() < params.row_share and not params.left_out("layout")
    wishes: list[Wish] = []
    for position in range(number):
        beside = row and position > 0
        sprite = first if row or position == 0 else kit.sprite_at(first.sku, generator.random())
        angle = wishes[-1].angle + 0.05 * generator.standard_normal() if beside else 2 * pi * generator.random()
        matrix = turn_matrix(
            angle=angle,
            scale=_draw_size(params, generator),
            tilt=params.tilt * generator.random(),
            tilt_axis=pi * generator.random(),
        )
        overlap = generator.uniform(*_CLOSE_OVERLAPS) if generator.random() < params.overlap_share else 0.0
        blending = "hard" if params.recipe == "paper" else draw_name(params.blends, generator=generator)
        wishes.append(Wish(sprite=sprite, angle=angle, matrix=matrix, beside=beside, overlap=overlap, blend=blending))
    return wishes


def _draw_size(params: ComposeParams, generator: np.random.Generator) -> float:
    """A small jitter; or, where sizes are left out, the paper's free scale about the same mean."""
    if params.left_out("size"):
        return 2 * generator.uniform(*_FREE_SIZES) / sum(_FREE_SIZES)
    return exp(params.size_jitter * generator.standard_normal())


def lay_out(
    wishes: list[Wish], *, kit: Kit, height: int, width: int, params: ComposeParams, generator: np.random.Generator
) -> Layout:
    """Places for the wishes, in their order, on a photo of height x width; a wish without a place is left out."""
    kind: Kind = "uniform" if params.left_out("layout") else draw_name(params.arrangements, generator=generator)
    gathering = draw_gathering(kind, places=kit.places, generator=generator)
    ground = empty_ground(height, width)
    areas = np.zeros(MOST_ITEMS + 1, np.int64)
    layout = Layout(items=[], labels_HW=np.zeros((height, width), np.uint8), areas=areas, visible=areas.copy())
    for wish in wishes:
        _place(wish, layout, ground=ground, gathering=gathering, params=params, generator=generator)
    return layout


def _place(
    wish: Wish,
    layout: Layout,
    *,
    ground: Ground,
    gathering: Gathering,
    params: ComposeParams,
    generator: np.random.Generator,
) -> None:
    """Add the item beside the last one, else at a place of the photo's arrangement, else anywhere, if there is room.

    The grid proposes, the pixels decide: where an item below would keep too little, another place is looked for.
    """
    sprite = wish.sprite
    cover_hw = warped_cover(sprite.thumb_hw4, sprite.rgba_hw4, matrix=wish.matrix, cell=ground.cell)
    limit, overlap = (0.0, 0.5) if params.left_out("layout") else (max(params.min_visible, _SOMETHING), wish.overlap)
    rgba_hw4 = warp_sprite(sprite.rgba_hw4, matrix=wish.matrix, colours=wish.blend == "feather")
    bounds_4 = np.empty(4, np.int64)
    for _ in range(_TRIES):
        proposals_K2 = _proposals(wish, layout, ground=ground, gathering=gathering, generator=generator)
        place = find_place(
            ground,
            cover_hw,
            proposals_K2=proposals_K2,
            chances_K=generator.random(len(proposals_K2)),
            overlap=overlap,
            limit=limit,
        )
        if place is None:
            return
        x, y = place[0] * ground.cell, place[1] * ground.cell
        if claim(layout.labels_HW, packed(rgba_hw4), x, y, limit, layout.areas, layout.visible, bounds_4):
            put(ground, cover_hw, x=place[0], y=place[1])
            left, top, right, bottom = bounds_4.tolist()
            layout.items.append(
                Item(
                    sprite=sprite,
                    rgba_hw4=rgba_hw4,
                    cover_hw=cover_hw,
                    x=x,
                    y=y,
                    solid=(left, top, right, bottom),
                    blend=wish.blend,
                )
            )
            return


def _proposals(
    wish: Wish, layout: Layout, *, ground: Ground, gathering: Gathering, generator: np.random.Generator
) -> Places:
    """Places in cells for the item's middle, the preferred ones first."""
    height, width = ground.labels_HW.shape
    gathered_K2 = propose(gathering, count=_GATHERED + _ANYWHERE, generator=generator)
    gathered_K2[_GATHERED:] = generator.random((_ANYWHERE, 2))
    gathered_K2 *= (width, height)
    if not (wish.beside and layout.items):
        return gathered_K2
    last = layout.items[-1]
    beside_K2 = propose_beside(
        ((last.x + last.rgba_hw4.shape[1] / 2) / ground.cell, (last.y + last.rgba_hw4.shape[0] / 2) / ground.cell),
        across=wish.sprite.axis + wish.angle + pi / 2,
        step=wish.sprite.sides[1] * generator.uniform(1.0, 1.15) / ground.cell,
        spread=1.0,
        count=_BESIDE,
        generator=generator,
    )
    return np.concatenate([beside_K2, gathered_K2])


def paint(items: list[Item], *, scene: Scene, params: ComposeParams) -> Photo:
    """The board with all items on it, each in the light that those above it leave."""
    board_HW3 = scene.board.canvas_HW3
    if params.left_out("board"):
        board_HW3 = np.broadcast_to(np.rint(board_HW3.mean((0, 1))).astype(np.uint8), board_HW3.shape).copy()
    if params.left_out("shadow"):
        canvas_HW3, lights = board_HW3.copy(), [_FULL_LIGHT] * len(items)
    else:
        canvas_HW3, lights = _shaded(board_HW3, items, lamp=scene.lamp)
    for item, light_rc in zip(items, lights, strict=True):
        _paint_item(canvas_HW3, item, light_rc=light_rc, scene=scene, params=params)
    return canvas_HW3


def _shaded(board_HW3: Photo, items: list[Item], *, lamp: Lamp) -> tuple[Photo, list[Floats]]:
    """The board under the shadows of all items, and for each item the light that those above it leave."""
    height, width = board_HW3.shape[:2]
    cell = cell_side(height, width)
    light_RC = np.ones((-(-height // cell) + 1, -(-width // cell) + 1), np.float32)
    lights = []
    for item in reversed(items):
        row, column = item.y // cell, item.x // cell
        rows, columns = item.cover_hw.shape
        light_rc = light_RC[row : row + rows + 1, column : column + columns + 1]
        lights.append(light_rc.copy() if light_rc.min() < 1 else _FULL_LIGHT)
        throw_shadow(light_RC, item.cover_hw, column, row, shadow_parts(lamp, height=item.sprite.height, cell=cell))
    canvas_HW3 = np.empty_like(board_HW3)
    shade_board(board_HW3, light_RC, cell, canvas_HW3)
    return canvas_HW3, lights[::-1]


def _paint_item(canvas_HW3: Photo, item: Item, *, light_rc: Floats, scene: Scene, params: ComposeParams) -> None:
    height, width = canvas_HW3.shape[:2]
    gains = [1.0] * 3 if params.left_out("light") else gains_at(item, scene=scene, height=height, width=width)
    rgba_hw4, rim = item.rgba_hw4, 3
    rows, columns = rgba_hw4.shape[:2]
    if item.blend == "feather":
        rgba_hw4, rim = feathered(rgba_hw4), 5
    elif item.blend == "poisson":
        window_hw3 = canvas_HW3[item.y : item.y + rows, item.x : item.x + columns]
        rgba_hw4, gains = poisson_crop(window_hw3, lit_crop(rgba_hw4, gains=gains)), [1.0] * 3
    left, top, right, bottom = item.solid
    window = (
        max(left - item.x - rim, 0),
        max(top - item.y - rim, 0),
        min(right - item.x + rim, columns),
        min(bottom - item.y + rim, rows),
    )
    red, green, blue = (round(GAIN_ONE * gain) for gain in gains)
    hard, cell = item.blend == "hard", cell_side(height, width)
    blend(canvas_HW3, packed(rgba_hw4), item.x, item.y, window, (red, green, blue), hard, light_rc, cell)


def gains_at(item: Item, *, scene: Scene, height: int, width: int) -> list[float]:
    """How bright an item is at its place: the photo's exposure and the board's shading there, a gain a channel."""
    rows, columns = scene.gains_hw3.shape[:2]
    left, top, right, bottom = item.solid
    row = min((top + bottom) * rows // (2 * height), rows - 1)
    column = min((left + right) * columns // (2 * width), columns - 1)
    return scene.gains_hw3[row, column].tolist()


def photograph(
    canvas_HW3: Photo, *, kit: Kit, scene: Scene, params: ComposeParams, generator: np.random.Generator
) -> Photo:
    """The painted scene as the pool's camera takes it: blurred and noisy."""
    if params.left_out("light"):
        return canvas_HW3
    soft_HW3 = blur(canvas_HW3, sigma=scene.board.blur)
    return add_noise(soft_HW3, field_HW3=kit.noise_HW3, sigma=scene.board.noise, generator=generator)


def label_items(layout: Layout, *, amodal: bool) -> tuple[ManifestObject, ...]:
    """The objects of the items; `amodal`: boxes of whole items, hidden or not, as the paper's script labels."""
    areas, visible = layout.areas.tolist(), layout.visible.tolist()
    return tuple(
        _label_item(item, label, labels_HW=layout.labels_HW, visible=visible[label] / areas[label], amodal=amodal)
        for label, item in enumerate(layout.items, start=1)
    )


def _label_item(item: Item, label: int, *, labels_HW: Photo, visible: float, amodal: bool) -> ManifestObject:
    mask_rle, box = encode_label(labels_HW, label=label, window=item.solid)
    left, top, right, bottom = item.solid
    whole = float(left), float(top), float(right), float(bottom)
    box = whole if amodal else box
    return ManifestObject(
        category=item.sprite.category,
        sku=item.sprite.sku,
        box=box,
        amodal_box=whole,
        centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
        visible_fraction=visible,
        mask_rle=mask_rle,
        source=item.sprite.item_id,
    )


def photo_row(composed: Composed, *, index: int) -> ManifestRow:
    """The manifest row of photo `index`, without its file."""
    height, width = composed.labels_HW.shape
    return ManifestRow(
        item_id=f"synthetic/{index:06d}",
        media_type="image/jpeg",
        width=width,
        height=height,
        split="synthetic",
        level=composed.level,
        parents=tuple(dict.fromkeys(one.source for one in composed.objects if one.source)),
        objects=composed.objects,
    )


def encoded_photo(index: int, *, kit: Kit, params: ComposeParams) -> tuple[bytes, ManifestRow]:
    """Photo `index` as JPEG bytes and its row."""
    composed = compose_photo(kit, params=params, index=index)
    return encode_jpeg(composed.photo_HW3, quality=kit.jpeg_quality), photo_row(composed, index=index)


@stage(ComposeParams)
def compose(
    context: StageContext,
    *,
    params: ComposeParams,
    catalog: Manifest,
    poses: Manifest,
    boards: Manifest,
    pool: Manifest,
) -> None:
    """Compose `params.photos` synthetic photos; see the module's docstring."""
    kit = build_kit(context, params=params, catalog=catalog, poses=poses, boards=boards, pool=pool)
    made: Iterator[tuple[bytes, ManifestRow]] = context.map(
        partial(encoded_photo, kit=kit, params=params), range(params.photos), what="synthetic photos"
    )
    items = 0
    for data, row in made:
        context.put(data, path=f"{row.item_id.removeprefix('synthetic/')}.jpg", row=row)
        items += len(row.objects)
    context.content["categories"] = catalog.content["categories"]
    context.report(items_per_photo=items / params.photos)
