"""Stage `compose`: synthetic checkout photos out of sprites, with exact labels.

A photo is drawn in four steps: what lies there (`tasks.wishes`), where it lies (`tasks.laying`), paint (light and
shadows, then items, from the lowest up; `tasks.painting`), and the camera (blur, noise). Its content depends on the
kit, the parameters and (seed, index) only, whatever the number of workers; `tasks.photo_source` composes the same
photos on the fly.

Rows: "synthetic/000012", JPEG at board size, parents = sprites, one object per item: tight box of the visible part,
amodal box, centre of the visible part's box, visible fraction, visible mask.
Boundary: pixels and manifests; no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from storage.images import encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.words import some_of
from tasks.blend import add_noise, blur, lit_crop, poisson_crop
from tasks.feedback import learnt_from
from tasks.items import Floats, Ground, Items, Packed, Photo, Top
from tasks.kit import build_kit
from tasks.laying import MOST_ITEMS, lay_out
from tasks.layout import Kind, cell_side, draw_gathering, draw_name
from tasks.mask_runs import encode_labels
from tasks.painting import blend_items, cast_shadows, set_gains, shade_board
from tasks.params import ComposeParams
from tasks.shadow import Lamp, draw_lamp, kernels_of
from tasks.sprites import Kit, LitBoard
from tasks.stage import stage
from tasks.wishes import draw_items

if TYPE_CHECKING:
    from tasks.context import StageContext

_EXPOSURE_SPREAD = 0.05
_TINT_SPREAD = 0.015
_GAINS = ("red", "green", "blue")
_PLAIN_GAINS = np.ones((1, 1, 3), np.float32)
# An item that is hidden altogether could not be labelled: some of it always stays visible.
_SOMETHING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The items of a photo in the order they were laid down, records of `tasks.items` with label 1, 2, …

    crops: their pictures. covers: on the layout's grid. top: who is on top, in the photo's pixels.
    """

    items: Items
    crops: Packed
    covers: Packed
    top: Top


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
    board_HW3 = scene.board.canvas_HW3
    cell = cell_side(*board_HW3.shape[:2])
    items = draw_items(kit, level=params.levels[level], params=params, index=index, cell=cell, generator=generator)
    layout = laid_out(items, kit=kit, board_HW3=board_HW3, params=params, generator=generator)
    canvas_HW3 = paint(layout, scene=scene, kit=kit, params=params)
    photo_HW3 = photograph(canvas_HW3, kit=kit, scene=scene, params=params, generator=generator)
    objects = label_items(layout, kit=kit, amodal=params.recipe == "paper")
    return Composed(photo_HW3=photo_HW3, labels_HW=layout.top.labels_HW, objects=objects, level=level)


def draw_scene(kit: Kit, *, generator: np.random.Generator) -> Scene:
    """A lit board, shadows as in that photo, and a little variation of the items' exposure and tint."""
    return scene_on(kit.boards[int(generator.integers(len(kit.boards)))], generator=generator)


def scene_on(board: LitBoard, *, generator: np.random.Generator) -> Scene:
    """The same on a given board."""
    exposure_3 = _EXPOSURE_SPREAD * generator.standard_normal() + _TINT_SPREAD * generator.standard_normal(3)
    gains_hw3 = board.shade_hw3 * np.exp(exposure_3).astype(np.float32)
    return Scene(board=board, lamp=draw_lamp(board.shadows, generator=generator), gains_hw3=gains_hw3)


def laid_out(
    items: Items, *, kit: Kit, board_HW3: Photo, params: ComposeParams, generator: np.random.Generator
) -> Layout:
    """Places for the drawn items on an empty board, in their order; an item without a place is left out."""
    height, width = board_HW3.shape[:2]
    top, ground = empty_top(height, width), empty_ground(height, width)
    return laid_on(items, kit=kit, top=top, ground=ground, params=params, generator=generator)


def laid_on(
    items: Items, *, kit: Kit, top: Top, ground: Ground, params: ComposeParams, generator: np.random.Generator
) -> Layout:
    """The same where something may lie already, which counts as an item below; `top` and `ground` are changed."""
    last = items[-1]
    crops = np.empty(int(last["crop"] + last["rows"] * last["columns"]), np.uint32)
    covers = np.empty(int(last["cover"] + last["cell_rows"] * last["cell_columns"]), np.uint32)
    kind: Kind = "uniform" if params.left_out("layout") else draw_name(params.arrangements, generator=generator)
    gathering = draw_gathering(kind, places=kit.places, generator=generator)
    limit = 0.0 if params.left_out("layout") else max(params.min_visible, _SOMETHING)
    pictures = kit.pictures, kit.thumbs
    lay_out(items, *pictures, kit.table.axes_M, crops, covers, top, ground, gathering, limit, generator)
    return Layout(items=items[items["label"] > 0], crops=crops, covers=covers, top=top)


def empty_top(height: int, width: int) -> Top:
    """A photo on which nothing lies yet."""
    areas, visible = np.zeros((2, MOST_ITEMS + 1), np.int64)
    return Top(labels_HW=np.zeros((height, width), np.uint8), areas=areas, visible=visible)


def empty_ground(height: int, width: int) -> Ground:
    """The layout's grid of a photo of height x width pixels, on which nothing lies yet."""
    cell = cell_side(height, width)
    labels_RC, near_RC = np.zeros((2, height // cell, width // cell), np.uint8)
    areas, visible = np.zeros((2, MOST_ITEMS + 1), np.int64)
    return Ground(labels_RC=labels_RC, near_RC=near_RC, areas=areas, visible=visible, cell=cell)


def paint(layout: Layout, *, scene: Scene, kit: Kit, params: ComposeParams) -> Photo:
    """The board with all items on it, each in the light that those above it leave."""
    items, board_HW3 = layout.items, scene.board.canvas_HW3
    if params.left_out("board"):
        board_HW3 = np.broadcast_to(np.rint(board_HW3.mean((0, 1))).astype(np.uint8), board_HW3.shape).copy()
    height, width = board_HW3.shape[:2]
    set_gains(items, height, width, _PLAIN_GAINS if params.left_out("light") else scene.gains_hw3)
    canvas_HW3, lights = _shaded(board_HW3, layout, scene=scene, kit=kit, params=params)
    cell, painted = cell_side(height, width), 0
    for number in np.flatnonzero(items["poisson"]).tolist():
        blend_items(canvas_HW3, items, painted, number, layout.crops, lights, cell)
        _take_gradients(layout, number, canvas_HW3=canvas_HW3)
        painted = number
    blend_items(canvas_HW3, items, painted, len(items), layout.crops, lights, cell)
    return canvas_HW3


def _shaded(board_HW3: Photo, layout: Layout, *, scene: Scene, kit: Kit, params: ComposeParams) -> tuple[Photo, Floats]:
    """The board under all shadows, and the light that is left on each item (`tasks.painting.cast_shadows`)."""
    items, (height, width), lamp = layout.items, board_HW3.shape[:2], scene.lamp
    cell = cell_side(height, width)
    lights = np.ones(int(((items["cell_rows"] + 1) * (items["cell_columns"] + 1)).sum()), np.float32)
    if params.left_out("shadow"):
        return board_HW3.copy(), lights
    light_RC = np.ones((-(-height // cell) + 1, -(-width // cell) + 1), np.float32)
    darkness = (lamp.slope / cell, lamp.cast, lamp.contact)
    cast_shadows(items, layout.covers, cell, kernels_of(lamp), kit.table.heights_M, darkness, light_RC, lights)
    canvas_HW3 = np.empty_like(board_HW3)
    shade_board(board_HW3, light_RC, cell, canvas_HW3)
    return canvas_HW3, lights


def _take_gradients(layout: Layout, number: int, *, canvas_HW3: Photo) -> None:
    """Replace an item's crop by one that blends into the canvas by its gradients."""
    item = layout.items[number]
    rows, columns = int(item["rows"]), int(item["columns"])
    window = np.s_[item["y"] : item["y"] + rows, item["x"] : item["x"] + columns]
    crop = layout.crops[item["crop"] : item["crop"] + rows * columns].view(np.uint8).reshape(rows, columns, 4)
    crop[:] = poisson_crop(canvas_HW3[window], lit_crop(crop, gains=[float(item[name]) for name in _GAINS]))
    for name in _GAINS:
        item[name] = 1.0


def photograph(
    canvas_HW3: Photo, *, kit: Kit, scene: Scene, params: ComposeParams, generator: np.random.Generator
) -> Photo:
    """The painted scene as the pool's camera takes it: blurred and noisy. The canvas may be changed."""
    if params.left_out("light"):
        return canvas_HW3
    photo_HW3 = blur(canvas_HW3, sigma=scene.board.blur)
    add_noise(photo_HW3, lines_LW3=kit.noise_LW3, sigma=scene.board.noise, generator=generator)
    return photo_HW3


def label_items(layout: Layout, *, kit: Kit, amodal: bool) -> tuple[ManifestObject, ...]:
    """The objects of the items; `amodal`: boxes of whole items, hidden or not, as the paper's script labels."""
    items, top = layout.items, layout.top
    wholes_N4 = np.stack([items[name] for name in ("left", "top", "right", "bottom")], axis=-1)
    texts, boxes_N4 = encode_labels(top.labels_HW, windows_N4=wholes_N4)
    visible_N = top.visible[1 : len(items) + 1] / top.areas[1 : len(items) + 1]
    wholes, boxes = wholes_N4.astype(float).tolist(), boxes_N4.astype(float).tolist()
    rows = zip(items["sprite"].tolist(), wholes, wholes if amodal else boxes, visible_N.tolist(), texts, strict=True)
    return tuple(
        ManifestObject(
            category=kit.sprites[sprite].category,
            sku=kit.sprites[sprite].sku,
            box=(left, top_, right, bottom),
            amodal_box=(whole[0], whole[1], whole[2], whole[3]),
            centre=((left + right) / 2, (top_ + bottom) / 2),
            visible_fraction=visible,
            mask_rle=text,
            source=kit.sprites[sprite].item_id,
        )
        for sprite, whole, (left, top_, right, bottom), visible, text in rows
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
    pseudo: Manifest | None = None,
    composed: Manifest | None = None,
    network: Manifest | None = None,
) -> None:
    """Compose `params.photos` synthetic photos; see the module's docstring.

    `pseudo`, a result of `select`, replaces what was estimated of sizes, light and layout without labels
    (`tasks.feedback`), by comparison with the photos `composed` before. The saliency `network` is needed with it.
    """
    sizes: Mapping[str, float] = {}
    if pseudo is not None:
        if composed is None or network is None:
            raise ValueError("pseudo: expected photos composed before and the saliency network beside it, got none")
        lesson = learnt_from(context, pseudo, params=params, boards=boards, composed=composed, network=network)
        params, boards, sizes = lesson.params, lesson.boards, lesson.sizes
    kit = build_kit(context, params=params, catalog=catalog, poses=poses, boards=boards, pool=pool, sizes=sizes)

    def make(index: int) -> list[str]:
        data, row = encoded_photo(index, kit=kit, params=params)
        context.put(data, path=f"{row.item_id.removeprefix('synthetic/')}.jpg", row=row)
        return [item.sku for item in row.objects]

    shown = Counter(dict.fromkeys(kit.skus, 0))
    for skus in context.spread(make, range(params.photos), what="synthetic photos"):
        shown.update(skus)
    context.content["categories"] = catalog.content["categories"]
    counts = shown.values()
    context.report(
        items_per_photo=sum(counts) / params.photos, least_of_a_product=min(counts), most_of_a_product=max(counts)
    )
    missing = sorted(sku for sku, count in shown.items() if count == 0)
    if missing:
        context.log(f"{params.photos} photos do not show {some_of(missing)}: more photos are needed, or other sprites")
