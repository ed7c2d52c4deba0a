"""The kit of `compose` out of manifests: reads sprites and boards, finds sizes, colours and lights.

Boundary: manifests and a context that reads their files in, a `tasks.sprites.Kit` out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.catalog import Category, categories_of
from storage.manifest import Box, Manifest, ManifestRow
from storage.words import some_of
from tasks.ahead import Mapped
from tasks.blend import Lines, collected, noise_lines, thumbnail
from tasks.items import Doubles, Habits
from tasks.layout import cell_side
from tasks.light import Floats
from tasks.look import PLACES, PhotoLook, is_board
from tasks.match_scale import Features, features_of, matched_scale, sprite_features
from tasks.params import ComposeParams
from tasks.sizes import ViewExtent, camera_factors, global_scale, sku_factors
from tasks.sprites import (
    Cutout,
    Kit,
    LitBoard,
    Sprite,
    blur_of_detail,
    collect_sprites,
    fit_tone,
    light_board,
    look_alikes,
    noise_of_file,
    outline_of,
    percentiles_of,
    scale_cutouts,
    solid_pixels,
    sprite_pixels,
    table_of,
    tone_table,
)

if TYPE_CHECKING:
    from tasks.context import StageContext

Photo = NDArray[np.uint8]

_SEARCHED = 60
_LEAST_SOLID = 64
_PLAIN_QUALITY = 90
_PLAIN_SHARE = 0.2
_PLAIN_LOOK = PhotoLook(
    light_C6=[[0.0] * 6] * 3, noise=1.5, detail=0.0, ambient=0.15, directed=0.06, angle=0.0, reach=0.0
)


def build_kit(
    context: StageContext,
    *,
    params: ComposeParams,
    catalog: Manifest,
    poses: Manifest,
    boards: Manifest,
    pool: Manifest,
    sizes: Mapping[str, float] | None = None,
) -> Kit:
    """Everything that photos are composed of, in memory. `sizes`: how much larger products are drawn than measured.

    Raises:
        ValueError: no sprites, no boards, or a product is asked for that has no sprite.
    """
    rows = chosen_poses(poses, skus=params.skus, most=params.views_per_sku)
    factors = view_factors(catalog, poses=poses, sized=not params.left_out("size"))
    categories = {category.sku: category.id for category in categories_of(catalog)}

    def cutout(row: ManifestRow) -> Cutout:
        sku = str(row.sku)
        return Cutout(
            item_id=row.item_id,
            sku=sku,
            category=categories[sku],
            picture=partial(context.read_rgba, row),
            weight=_weight_of(row),
            factor=factors(sku, _camera_of(row)),
        )

    cutouts = [cutout(row) for row in rows]
    found = [row for row in boards.ok if is_board(row)]
    if not found:
        raise ValueError(f"boards: expected at least one board in {boards.url}, got none")
    pictures = _of_one_size([context.read_rgb(row) for row in found])
    searched = _of_size(pool.ok, size=pictures[0].shape[:2], least=params.scale_photos)
    photos = _read_evenly(context, searched, most=params.scale_photos)
    mapped = partial(context.map, what="sprites")
    side = min(pictures[0].shape[:2])
    scale = catalog_scale(cutouts, boards=found, photos=photos, board_side=side, mapped=mapped)
    context.report(catalog_scale=scale)
    if sizes:
        cutouts = [replace(one, factor=one.factor * sizes.get(one.sku, 1.0)) for one in cutouts]
    return assemble(cutouts, scale=scale, boards=found, pictures=pictures, params=params, mapped=mapped)


def _of_one_size(pictures: Sequence[Photo]) -> list[Photo]:
    """Boards at the size of the first one: without a pool, a user's photos of them may come in several."""
    height, width = pictures[0].shape[:2]
    return [np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA), np.uint8) for one in pictures]


def _of_size(rows: Sequence[ManifestRow], *, size: tuple[int, ...], least: int) -> Sequence[ManifestRow]:
    """The photos of a size (height, width), in whose pixels the boards are; all where fewer than `least` are of it."""
    same = [row for row in rows if (row.height, row.width) == size]
    return same if len(same) >= least else rows


def _read_evenly(context: StageContext, rows: Sequence[ManifestRow], *, most: int) -> list[Photo]:
    """At most `most` photos, spread over all of them."""
    positions = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return list(context.map(context.read_rgb, [rows[position] for position in positions], what="pool photos"))


def chosen_poses(poses: Manifest, *, skus: Sequence[str], most: int) -> list[ManifestRow]:
    """The kept views of the wanted products (all if none are named); the `most` likeliest of each if not 0."""
    by_sku: dict[str, list[ManifestRow]] = {}
    for row in poses.ok:
        by_sku.setdefault(str(row.sku), []).append(row)
    missing = sorted(set(skus) - set(by_sku))
    if missing or not by_sku:
        raise ValueError(
            f"skus: expected products with sprites in {poses.url}, got none for {some_of(missing) or 'any product'}"
        )
    wanted = sorted(skus or by_sku)
    ranked = {sku: sorted(by_sku[sku], key=lambda row: -_weight_of(row)) for sku in wanted}
    return [row for sku in wanted for row in (ranked[sku][:most] if most else ranked[sku])]


def _weight_of(row: ManifestRow) -> float:
    return float(row.attributes.get("weight", 1.0))


def _camera_of(row: ManifestRow) -> int:
    camera = row.attributes.get("camera")
    return -1 if camera is None else int(camera)


def view_factors(catalog: Manifest, *, poses: Manifest, sized: bool) -> Callable[[str, int], float]:
    """Function (sku, camera) -> factor that makes an exemplar's pixels comparable with those of all others.

    From the widths of the exemplars' boxes (of their masks, where none is annotated) and from millimetres in the
    catalog; 1 for what neither tells, and always if `sized` is false.
    """
    cut_out = {row.parents[0]: row.objects for row in poses.rows if row.parents}
    boxed = [(row, row.objects or cut_out.get(row.item_id, ())) for row in catalog.ok] if sized else []
    shown = [(row, objects[0].box) for row, objects in boxed if objects]
    cameras = camera_factors([view_extent(row, box=box) for row, box in shown])
    longest: dict[str, float] = {}
    for row, (x0, y0, x1, y1) in shown:
        side = max(x1 - x0, y1 - y0) * cameras.get(_camera_of(row), 1.0)
        longest[str(row.sku)] = max(longest.get(str(row.sku), 0.0), side)
    products = sku_factors(longest, millimetres=_millimetres(categories_of(catalog)))
    return lambda sku, camera: cameras.get(camera, 1.0) * products.get(sku, 1.0)


def view_extent(row: ManifestRow, *, box: Box) -> ViewExtent:
    """The width of an exemplar's box, and which turntable series it belongs to."""
    turn = f"{row.sku}/{row.attributes.get('placement', '')}"
    return ViewExtent(turn=turn, camera=_camera_of(row), width=box[2] - box[0])


def _millimetres(categories: Sequence[Category]) -> dict[str, float]:
    """Longest edge in millimetres of the products whose catalog metadata says `mm` (a list of edge lengths).

    Raises:
        ValueError: it says something else there.
    """
    sizes = {category.sku: category.metadata["mm"] for category in categories if category.metadata.get("mm")}
    for sku, size in sizes.items():
        if not isinstance(size, list) or not all(isinstance(one, int | float) and one > 0 for one in size):
            raise ValueError(f"mm: expected a list of lengths, like [66, 66, 115], of {sku}, got {size!r}")
    return {sku: float(max(size)) for sku, size in sizes.items()}


def catalog_scale(
    cutouts: Sequence[Cutout],
    *,
    boards: Sequence[ManifestRow],
    photos: Sequence[Photo],
    board_side: int,
    mapped: Mapped = map,
) -> float:
    """Board pixels for each comparable catalog pixel.

    Measured on sprites that are found in pool photos; if too few are, from the sizes of single products in the pool; if
    none were seen either, the median product gets _PLAIN_SHARE of the board's side.
    """
    searched = solid_ones(cutouts, most=_SEARCHED, mapped=mapped)
    found = matched_scale(
        list(mapped(_features_of_cutout, searched)),
        factors=[one.factor for one in searched],
        photos=list(mapped(_features_of_photo, photos)),
        mapped=mapped,
    )
    if found is not None:
        return found
    measured = zip(cutouts, mapped(_sides_of_cutout, cutouts), strict=True)
    shown = [(one, sides) for one, sides in measured if sides is not None]
    sides_M2 = np.asarray([sides for _, sides in shown], np.float32)
    sides_M2 *= np.asarray([[one.factor] for one, _ in shown], np.float32)
    blobs_N2 = np.asarray([blob for row in boards for blob in row.attributes.get("blobs", [])], np.float32)
    if len(blobs_N2) == 0:
        return _PLAIN_SHARE * board_side / float(np.median(sides_M2[:, 0]))
    weights_M = np.asarray([one.weight for one, _ in shown], np.float32)
    return global_scale(blobs_N2, sides_M2, weights_M=weights_M)


def _features_of_cutout(cutout: Cutout) -> Features:
    return sprite_features(cutout.picture())


def _sides_of_cutout(cutout: Cutout) -> tuple[float, float] | None:
    rgba_HW4 = cutout.picture()
    return outline_of(rgba_HW4[..., 3])[1] if solid_pixels(rgba_HW4) >= _LEAST_SOLID else None


def _features_of_photo(photo_HW3: Photo) -> Features:
    return features_of(np.asarray(cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2GRAY), np.uint8))


def solid_ones(cutouts: Sequence[Cutout], *, most: int, mapped: Mapped = map) -> list[Cutout]:
    """The `likeliest` cutouts that show something, read and kept: a failed one may be transparent all over.

    Raises:
        ValueError: none does.
    """
    left = list(cutouts)
    while left:
        chosen = likeliest(left, most=most)
        pictures = list(mapped(_read, chosen))
        read = list(zip(chosen, pictures, strict=True))
        empty = {one.item_id for one, rgba_HW4 in read if solid_pixels(rgba_HW4) < _LEAST_SOLID}
        if not empty:
            return [replace(one, picture=partial(np.asarray, rgba_HW4)) for one, rgba_HW4 in read]
        left = [one for one in left if one.item_id not in empty]
    raise ValueError(f"sprites: expected some with solid pixels, got {len(cutouts)} that are transparent")


def _read(cutout: Cutout) -> Photo:
    return cutout.picture()


def likeliest(cutouts: Sequence[Cutout], *, most: int) -> list[Cutout]:
    """About `most` cutouts: the likeliest views of as many products as there is room for."""
    by_sku: dict[str, list[Cutout]] = {}
    for one in cutouts:
        by_sku.setdefault(one.sku, []).append(one)
    each = max(2, most // len(by_sku))
    ranked = [sorted(group, key=lambda one: -one.weight)[:each] for group in by_sku.values()]
    step = max(1, len(ranked) * each // most)
    return [one for group in ranked[::step] for one in group]


def assemble(
    cutouts: Sequence[Cutout],
    *,
    scale: float,
    boards: Sequence[ManifestRow],
    pictures: Sequence[Photo],
    params: ComposeParams,
    mapped: Mapped = map,
) -> Kit:
    """The kit out of cutouts and board pictures (with the boards' attributes, see `tasks.board`).

    `scale`: board pixels for each comparable catalog pixel; `params.scale` shrinks or enlarges the photos after that.
    """
    sharp = scale_cutouts(solid_ones(cutouts, most=_SEARCHED, mapped=mapped), scale=scale, mapped=mapped)
    sprites = scale_cutouts(cutouts, scale=scale * params.scale, least_solid=_LEAST_SOLID, mapped=mapped)
    table_L3 = None if params.left_out("light") else tone_table(_tone_of(sprites, boards=boards))
    places_hw = np.asarray(boards[0].attributes.get("places", np.full((PLACES, PLACES), 1 / PLACES**2)), np.float32)
    width = int(np.ceil(pictures[0].shape[1] * max(params.scale, 1.0)))
    noise_LW3 = noise_lines(width, generator=np.random.default_rng((params.seed, 0, 0)))
    sprites = sorted(sprites, key=lambda one: one.sku)
    collection = collect_sprites(sprites, table_L3=table_L3)
    skus = sorted({one.sku for one in sprites})
    lit = lit_boards(boards, pictures=pictures, places_hw=places_hw, sharp=sharp, noise_LW3=noise_LW3, params=params)
    cell = cell_side(*lit[0].canvas_HW3.shape[:2])
    thumbs = collected([thumbnail(one.rgba_hw4, cell=cell) for one in sprites])
    mates = look_alikes(sprites)
    return Kit(
        skus=skus,
        weights_S=product_weights(skus, weights=params.sku_weights),
        mates_S=[skus.index(mates[sku]) if sku in mates else -1 for sku in skus],
        sprites=sprites,
        pictures=collection,
        thumbs=thumbs,
        table=table_of(sprites, equal=params.view_shares == "equal"),
        habits=habits_of(params),
        boards=lit,
        places=np.cumsum(places_hw, dtype=np.float64),
        noise_LW3=noise_LW3,
        jpeg_quality=int(params.jpeg_quality or boards[0].attributes.get("jpeg_quality") or _PLAIN_QUALITY),
    )


def with_cutouts(kit: Kit, cutouts: Sequence[Cutout], *, share: float, most: int) -> Kit:
    """The kit with further sprites at board scale, in the pool's colours: items cut out of pool photos.

    They get `share` (below 1) of what is drawn of their products, each by its weight; of a product those `most` of the
    highest weight are taken. How high they stand is what its other sprites say.
    """
    ranked: dict[str, list[Cutout]] = {sku: [] for sku in kit.skus}
    for one in sorted(cutouts, key=lambda one: -one.weight):
        if one.sku in ranked and len(ranked[one.sku]) < most:
            ranked[one.sku].append(one)
    own: dict[str, list[Sprite]] = {sku: [] for sku in kit.skus}
    for sprite in kit.sprites:
        own[sprite.sku].append(sprite)
    sprites = [one for sku in kit.skus for one in (*own[sku], *_further(ranked[sku], own=own[sku], share=share))]
    collection = collect_sprites(sprites, table_L3=None)
    cell = cell_side(*kit.boards[0].canvas_HW3.shape[:2])
    return replace(
        kit,
        sprites=sprites,
        pictures=collection,
        thumbs=collected([thumbnail(one.rgba_hw4, cell=cell) for one in sprites]),
        table=table_of(sprites, equal=False),
    )


def _further(cutouts: Sequence[Cutout], *, own: Sequence[Sprite], share: float) -> list[Sprite]:
    """A product's cut-outs as sprites beside its own ones, of which there are some."""
    height = float(np.median([one.height for one in own]))
    total = sum(one.weight for one in cutouts)
    factor = share / (1 - share) * sum(one.weight for one in own) / total if total else 0.0
    made = scale_cutouts(cutouts, scale=1.0)
    return [replace(one, height=height, weight=factor * one.weight) for one in made]


def habits_of(params: ComposeParams) -> Habits:
    """What compiled code needs to know of the parameters."""
    paper = params.recipe == "paper"
    shares = [0.0 if paper else params.blends.get(name, 0.0) for name in ("soft", "feather", "hard", "poisson")]
    soft, feather, hard, _poisson = (float(end) for end in np.cumsum(shares) / max(sum(shares), 1e-9))
    return Habits(
        row_share=params.row_share,
        overlap_share=params.overlap_share,
        size_jitter=params.size_jitter,
        tilt=params.tilt,
        free_sizes=params.left_out("size"),
        free_places=params.left_out("layout"),
        feather=soft,
        hard=0.0 if paper else feather,
        poisson=1.0 if paper else hard,
    )


def product_weights(skus: Sequence[str], *, weights: Mapping[str, float]) -> Doubles:
    """How often each product is seen, float64 [S].

    Raises:
        ValueError: a weight of a product that is not there, or one that is not positive.
    """
    wrong = sorted(sku for sku, weight in weights.items() if sku not in skus or not weight > 0)
    if wrong:
        raise ValueError(f"sku_weights: expected positive weights of products with sprites, got {some_of(wrong)}")
    return np.asarray([weights.get(sku, 1.0) for sku in skus], np.float64)


def _tone_of(sprites: Sequence[Sprite], *, boards: Sequence[ManifestRow]) -> Floats:
    """From the sprites' colours to those of the pool's products; nothing changes if no products were seen there."""
    tones = [row.attributes["tones"] for row in boards if row.attributes.get("tones")]
    if not tones:
        return np.asarray([[0.0, 1.0]] * 3, np.float32)
    return fit_tone(percentiles_of(sprite_pixels(sprites)), np.asarray(tones[0], np.float32))


def lit_boards(
    boards: Sequence[ManifestRow],
    *,
    pictures: Sequence[Photo],
    places_hw: Floats,
    sharp: Sequence[Sprite],
    noise_LW3: Lines,
    params: ComposeParams,
) -> list[LitBoard]:
    """The boards under the lights of pool photos, at most `params.lit_boards`, spread evenly over the photos.

    Blur and noise are found at the pool's size, with sprites `sharp` at that size, and shrink with the photos.
    """
    looks = [(number, look) for number, row in enumerate(boards) for look in _looks_of(row)]
    chosen = np.unique(np.linspace(0, len(looks) - 1, min(params.lit_boards, len(looks))).round().astype(int))
    looks = [looks[index] for index in chosen]
    blurs = blur_of_detail(sharp, details=[look.detail for _, look in looks])
    quality = boards[0].attributes.get("jpeg_quality") or 100
    noise = noise_of_file(
        float(np.median([look.noise for _, look in looks])),
        board_HW3=pictures[0],
        quality=int(quality),
        lines_LW3=noise_LW3,
    )
    tallness = float(np.median([one.height for one in sharp])) / max(pictures[0].shape[:2])
    scaled = [_resized(picture_HW3, scale=params.scale) for picture_HW3 in pictures]
    ratio = min(params.scale, 1.0)
    return [
        light_board(
            scaled[number],
            look=look,
            places_hw=places_hw,
            tallness=tallness,
            noise=noise * ratio,
            blur=blur * params.scale,
        )
        for (number, look), blur in zip(looks, blurs, strict=True)
    ]


def _looks_of(row: ManifestRow) -> list[PhotoLook]:
    return [PhotoLook(**look) for look in row.attributes.get("looks", [])] or [_PLAIN_LOOK]


def _resized(picture_HW3: Photo, *, scale: float) -> Photo:
    if scale == 1:
        return picture_HW3
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture_HW3, None, fx=scale, fy=scale, interpolation=way))
