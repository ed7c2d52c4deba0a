"""Stage `compose`: synthetic checkout photos out of sprites, with exact labels.

A photo is drawn in four steps: what lies there (level, products, views), where it lies (`tasks.layout`), paint (shadow,
then item, from the lowest up), and the camera (blur, noise). Its content depends on the kit, the parameters and
(seed, index) only, whatever the number of workers; `tasks.synthesis_stream` composes the same photos on the fly.

Rows: "synthetic/000012", JPEG at board size, parents = sprites, one object per item: tight box of the visible part,
amodal box, centre of the visible part's box, visible fraction, visible mask.
Boundary: pixels and manifests; no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.blend import add_noise, blur, edge_alpha, paste, paste_poisson, turn_matrix, warp_sprite
from tasks.kit import build_kit
from tasks.layout import (
    Floats,
    Ground,
    bump,
    cell_side,
    cover_of,
    draw_counts,
    draw_skus,
    empty_ground,
    find_place,
    first_sku,
    gathering,
    put,
)
from tasks.mask_runs import encode_crop
from tasks.params import ComposeParams, LevelParams
from tasks.shadow import Lamp, darken, draw_lamp
from tasks.sprites import Kit, LitBoard, Sprite
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

Photo = NDArray[np.uint8]

_EXPOSURE_SPREAD = 0.05
_TINT_SPREAD = 0.015
_FREE_SIZES = (0.4, 0.7)
_CLOSE_OVERLAPS = (0.02, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An item that a photo shall show. beside: next to the one before, as people lay out several of one product."""

    sprite: Sprite
    angle: float
    matrix_22: NDArray[np.float64]
    beside: bool
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item with its place: turned and scaled, its corner at (x, y) in photo pixels.

    cover_hw: its alpha on the layout's grid. solid_hw: 255 where the alpha is at least one half, else 0.
    """

    sprite: Sprite
    colours_hw3: Photo
    alpha_hw: Photo
    solid_hw: Photo
    cover_hw: Photo
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A synthetic photo. labels_HW: 0 board, i the i-th object on top; objects are in the order they were laid down."""

    photo_HW3: Photo
    labels_HW: NDArray[np.uint8]
    objects: tuple[ManifestObject, ...]
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one photo's items share: the lit board, the lamp, and how bright items are there, a gain a channel."""

    board: LitBoard
    lamp: Lamp
    gains_3: NDArray[np.float64]


def compose_photo(kit: Kit, *, params: ComposeParams, index: int) -> Composed:
    """Compose photo number `index`; the same kit, parameters and index give the same pixels and labels."""
    generator = np.random.default_rng((params.seed, index))
    level = _draw(generator, {name: one.share for name, one in params.levels.items()})
    scene = draw_scene(kit, params=params, generator=generator)
    wishes = draw_wishes(kit, level=params.levels[level], params=params, index=index, generator=generator)
    items = lay_out(wishes, kit=kit, size=scene.board.canvas_HW3.shape[:2], params=params, generator=generator)
    canvas_HW3, labels_HW, kept = paint(items, scene=scene, params=params, generator=generator)
    photo_HW3 = photograph(canvas_HW3, kit=kit, scene=scene, params=params, generator=generator)
    objects = label_items(kept, labels_HW=labels_HW, amodal=params.recipe == "paper")
    return Composed(photo_HW3=photo_HW3, labels_HW=labels_HW, objects=objects, level=level)


def _draw(generator: np.random.Generator, shares: Mapping[Any, float]) -> str:
    """One of the names, with probabilities proportional to their shares (names in sorted order, for determinism)."""
    names = sorted(shares)
    cumulated = np.cumsum([shares[name] for name in names])
    return names[min(int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right")), len(names) - 1)]


def draw_scene(kit: Kit, *, params: ComposeParams, generator: np.random.Generator) -> Scene:
    """A lit board, shadows as dark as that photo's, and a little variation of the items' exposure and tint."""
    board = kit.boards[int(generator.integers(len(kit.boards)))]
    exposure = generator.normal(0, _EXPOSURE_SPREAD) + generator.normal(0, _TINT_SPREAD, 3)
    return Scene(board=board, lamp=draw_lamp(board.shadows, generator=generator), gains_3=np.exp(exposure))


def draw_wishes(
    kit: Kit, *, level: LevelParams, params: ComposeParams, index: int, generator: np.random.Generator
) -> list[Wish]:
    """The items of one photo, product by product, the large ones mostly first (they end up below)."""
    skus = sorted(kit.sprites)
    count = min(int(generator.integers(level.skus[0], level.skus[1] + 1)), len(skus))
    items = max(count, int(generator.integers(level.items[0], level.items[1] + 1)))
    first = first_sku(skus, seed=params.seed, index=index)
    chosen = draw_skus(
        count, first=first, skus=skus, mates=kit.mates, mate_share=params.mate_share, generator=generator
    )
    counts = draw_counts(count, items, generator=generator)
    groups = [_draw_group(kit, sku, number, params, generator) for sku, number in zip(chosen, counts, strict=True)]
    sizes = [group[0].sprite.sides[0] * group[0].sprite.sides[1] * generator.lognormal(0, 0.7) for group in groups]
    return [wish for position in np.argsort(sizes)[::-1] for wish in groups[int(position)]]


def _draw_group(kit: Kit, sku: str, number: int, params: ComposeParams, generator: np.random.Generator) -> list[Wish]:
    """`number` items of one product: side by side in one view and direction, or each as it fell."""
    row = number > 1 and generator.random() < params.row_share and not params.left_out("layout")
    wishes: list[Wish] = []
    for position in range(number):
        beside = row and position > 0
        sprite = wishes[-1].sprite if beside else _draw_sprite(kit, sku, generator)
        angle = wishes[-1].angle + generator.normal(0, 0.05) if beside else generator.uniform(0, 2 * np.pi)
        matrix_22 = turn_matrix(
            angle=angle,
            scale=_draw_size(params, generator),
            tilt=generator.uniform(0, params.tilt),
            tilt_axis=generator.uniform(0, np.pi),
        )
        overlap = generator.uniform(*_CLOSE_OVERLAPS) if generator.random() < params.overlap_share else 0.0
        wishes.append(Wish(sprite=sprite, angle=angle, matrix_22=matrix_22, beside=beside, overlap=overlap))
    return wishes


def _draw_sprite(kit: Kit, sku: str, generator: np.random.Generator) -> Sprite:
    position = int(np.searchsorted(kit.shares[sku], generator.random(), side="right"))
    return kit.sprites[sku][min(position, len(kit.sprites[sku]) - 1)]


def _draw_size(params: ComposeParams, generator: np.random.Generator) -> float:
    """A small jitter; or, where sizes are left out, the paper's free scale about the same mean."""
    if params.left_out("size"):
        return float(generator.uniform(*_FREE_SIZES) / np.mean(_FREE_SIZES))
    return float(np.exp(generator.normal(0, params.size_jitter)))


def lay_out(
    wishes: list[Wish], *, kit: Kit, size: tuple[int, int], params: ComposeParams, generator: np.random.Generator
) -> list[Item]:
    """Places for the wishes, in their order; a wish without a place is left out."""
    ground = empty_ground(*size)
    height, width = ground.labels_HW.shape
    kind = "uniform" if params.left_out("layout") else _draw(generator, params.arrangements)
    density_HW = gathering(kind, places_hw=kit.places_hw, height=height, width=width, generator=generator)
    items: list[Item] = []
    last: Item | None = None
    for wish in wishes:
        last = _place(wish, ground=ground, density_HW=density_HW, last=last, params=params, generator=generator)
        if last is not None:
            items.append(last)
    return items


def _place(
    wish: Wish,
    *,
    ground: Ground,
    density_HW: Floats,
    last: Item | None,
    params: ComposeParams,
    generator: np.random.Generator,
) -> Item | None:
    """The item at a place beside the last one, else at a place of the photo's arrangement, else anywhere."""
    rgba_hw4 = warp_sprite(wish.sprite.rgba_hw4, matrix_22=wish.matrix_22)
    alpha_hw = np.asarray(cv2.extractChannel(rgba_hw4, 3), np.uint8)
    cover_hw = cover_of(alpha_hw, cell=ground.cell)
    mask_hw = cover_hw > 127
    if not mask_hw.any():
        # Thinner than half a cell at this scale: nothing that a detector could see.
        return None
    limit, overlap = (0.0, 0.5) if params.left_out("layout") else (params.min_visible, wish.overlap)
    welcome = [density_HW, np.ones_like(density_HW)]
    if wish.beside and last is not None:
        welcome.insert(0, _beside(wish, last, ground=ground, generator=generator))
    for welcome_HW in welcome:
        place = find_place(ground, mask_hw, density_HW=welcome_HW, overlap=overlap, limit=limit, generator=generator)
        if place is not None:
            put(ground, mask_hw, x=place[0], y=place[1])
            return Item(
                sprite=wish.sprite,
                colours_hw3=np.asarray(cv2.cvtColor(rgba_hw4, cv2.COLOR_RGBA2RGB), np.uint8),
                alpha_hw=alpha_hw,
                solid_hw=np.asarray(cv2.threshold(alpha_hw, 127, 255, cv2.THRESH_BINARY)[1], np.uint8),
                cover_hw=cover_hw,
                x=place[0] * ground.cell,
                y=place[1] * ground.cell,
            )
    return None


def _beside(wish: Wish, last: Item, *, ground: Ground, generator: np.random.Generator) -> Floats:
    """Welcome at both long sides of the last item."""
    height, width = ground.labels_HW.shape
    across = wish.sprite.axis + wish.angle + np.pi / 2
    step = wish.sprite.sides[1] * generator.uniform(1.0, 1.15) / ground.cell
    x = (last.x + last.alpha_hw.shape[1] / 2) / ground.cell
    y = (last.y + last.alpha_hw.shape[0] / 2) / ground.cell
    offsets = (step * np.cos(across), step * np.sin(across))
    hills = [bump(height, width, x=x + sign * offsets[0], y=y + sign * offsets[1], spread=1.0) for sign in (1, -1)]
    welcome_HW = hills[0] + hills[1]
    welcome_HW[welcome_HW < 0.05] = 0
    return welcome_HW


def paint(
    items: list[Item], *, scene: Scene, params: ComposeParams, generator: np.random.Generator
) -> tuple[Photo, NDArray[np.uint8], list[Item]]:
    """The canvas with all items on it, the map of who is on top, and the items; one that hides too much is left out."""
    canvas_HW3 = _board_canvas(scene, params=params)
    labels_HW = np.zeros(canvas_HW3.shape[:2], np.uint8)
    cell = cell_side(*canvas_HW3.shape[:2])
    areas, visible = [0], [0]
    limit = 0.0 if params.left_out("layout") else params.min_visible
    kept: list[Item] = []
    for item in items:
        blend = "hard" if params.recipe == "paper" else _draw(generator, params.blends)
        window = window_of(item)
        hidden = hidden_pixels(labels_HW[window], item.solid_hw, labels=len(areas))
        if any(visible[label] - lost < limit * areas[label] for label, lost in hidden.items()):
            continue
        for label, lost in hidden.items():
            visible[label] -= lost
        if not params.left_out("shadow"):
            darken(canvas_HW3, item.cover_hw, cell=cell, x=item.x, y=item.y, height=item.sprite.height, lamp=scene.lamp)
        lay = paste_poisson if blend == "poisson" else paste
        gains = (1.0, 1.0, 1.0) if params.left_out("light") else gains_at(item, scene=scene, size=labels_HW.shape)
        lay(canvas_HW3[window], item.colours_hw3, alpha_hw=edge_alpha(item.alpha_hw, blend=blend), gains=gains)
        kept.append(item)
        # Labels grow, so the larger one is the one on top.
        np.maximum(labels_HW[window], np.minimum(item.solid_hw, len(kept)), out=labels_HW[window])
        areas.append(cv2.countNonZero(item.solid_hw))
        visible.append(areas[-1])
    return canvas_HW3, labels_HW, kept


def window_of(item: Item) -> tuple[slice, slice]:
    """The pixels of the photo that an item's crop covers."""
    height, width = item.alpha_hw.shape
    return slice(item.y, item.y + height), slice(item.x, item.x + width)


def _board_canvas(scene: Scene, *, params: ComposeParams) -> Photo:
    canvas_HW3 = scene.board.canvas_HW3.copy()
    if params.left_out("board"):
        canvas_HW3[:] = np.rint(canvas_HW3.mean((0, 1))).astype(np.uint8)
    return canvas_HW3


def hidden_pixels(labels_hw: NDArray[np.uint8], solid_hw: Photo, *, labels: int) -> dict[int, int]:
    """How many visible pixels of each earlier item a mask (255 or 0) hides; items that lose none are left out."""
    if not cv2.countNonZero(cv2.bitwise_and(labels_hw, solid_hw)):
        return {}
    counts = cv2.calcHist([labels_hw], [0], solid_hw, [labels], [0, labels]).ravel()
    return {label: int(counts[label]) for label in range(1, labels) if counts[label]}


def gains_at(item: Item, *, scene: Scene, size: tuple[int, ...]) -> tuple[float, float, float]:
    """How bright an item is at its place: the photo's exposure and the board's shading there, a gain a channel."""
    height, width = item.alpha_hw.shape
    rows, columns = scene.board.shade_hw3.shape[:2]
    row = min(int((item.y + height / 2) / size[0] * rows), rows - 1)
    column = min(int((item.x + width / 2) / size[1] * columns), columns - 1)
    red, green, blue = (scene.gains_3 * scene.board.shade_hw3[row, column]).tolist()
    return red, green, blue


def photograph(
    canvas_HW3: Photo, *, kit: Kit, scene: Scene, params: ComposeParams, generator: np.random.Generator
) -> Photo:
    """The painted scene as the pool's camera takes it: blurred and noisy."""
    if params.left_out("light"):
        return canvas_HW3
    soft_HW3 = blur(canvas_HW3, sigma=scene.board.blur)
    return add_noise(soft_HW3, field_HW3=kit.noise_HW3, sigma=scene.board.noise, generator=generator)


def label_items(items: list[Item], *, labels_HW: NDArray[np.uint8], amodal: bool) -> tuple[ManifestObject, ...]:
    """The objects of the painted items; `amodal`: boxes of whole items, hidden or not, as the paper's script labels."""
    return tuple(
        _label_item(item, label, labels_HW=labels_HW, amodal=amodal) for label, item in enumerate(items, start=1)
    )


def _label_item(item: Item, label: int, *, labels_HW: NDArray[np.uint8], amodal: bool) -> ManifestObject:
    visible_hw = np.asarray(cv2.inRange(labels_HW[window_of(item)], label, label), np.uint8)
    whole = _box(item.solid_hw, item)
    height, width = labels_HW.shape
    box = whole if amodal or not visible_hw.any() else _box(visible_hw, item)
    return ManifestObject(
        category=item.sprite.category,
        sku=item.sprite.sku,
        box=box,
        amodal_box=whole,
        centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
        visible_fraction=cv2.countNonZero(visible_hw) / cv2.countNonZero(item.solid_hw),
        mask_rle=encode_crop(visible_hw > 0, x=item.x, y=item.y, height=height, width=width),
        source=item.sprite.item_id,
    )


def _box(mask_hw: Photo, item: Item) -> tuple[float, float, float, float]:
    x, y, width, height = cv2.boundingRect(mask_hw)
    return float(item.x + x), float(item.y + y), float(item.x + x + width), float(item.y + y + height)


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
