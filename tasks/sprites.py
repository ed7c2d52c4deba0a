"""The kit that synthetic photos are composed of: sprites at board scale, lit boards, look-alikes, colours.

Boundary: turns pictures and the numbers of the `prune` and `board` stages into what `tasks.compose` draws from; reads
no files and draws nothing at random but the noise field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import decode_rgb, encode_jpeg
from tasks.ahead import Mapped
from tasks.blend import Lines, add_noise, picture_at, room_for, scale_sprite, turned_sprite
from tasks.empty_board import WORKING_SIDE
from tasks.items import Doubles, Habits, Pictures, Sprites
from tasks.light import Floats, light_gain
from tasks.look import TONE_LEVELS, PhotoLook, detail_share, noise_level, rectangle_sides
from tasks.shadow import LampStrength, shadow_length
from tasks.sizes import edges_of, height_of_view

Photo = NDArray[np.uint8]

_BLURS = (0.0, 0.4, 0.55, 0.7, 0.9, 1.2, 1.6)
_NOISES = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0, 6.0)
_THUMBNAIL = 12
# Products that are compared at once: their views' likeness stays in a processor's cache.
_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """A product cut out of one exemplar. picture: reads it, RGBA uint8 [H, W, 4] in catalog pixels, of which a catalog
    has more than memory. factor: makes its pixels comparable with the others'."""

    item_id: str
    sku: str
    category: int
    picture: Callable[[], Photo]
    weight: float
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprite:
    """A cutout at board scale: rgba_hw4 has a transparent margin and its colours reach into it.

    axis: direction of the long side, radians, x right, y down. sides: (long, short) in board pixels. height: how far
    the product stands up from the board, in board pixels.
    """

    item_id: str
    sku: str
    category: int
    rgba_hw4: Photo
    weight: float
    axis: float
    sides: tuple[float, float]
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LitBoard:
    """A board as one pool photo was lit, and how that photo was taken.

    canvas_HW3: the empty board. shade_hw3: light at a coarse grid of places relative to the products' average place;
    it multiplies the colours of an item there. noise, blur: standard deviations in grey levels and pixels.
    """

    canvas_HW3: Photo
    shade_hw3: Floats
    noise: float
    blur: float
    shadows: LampStrength


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Everything photos are composed of.

    skus: the products in order; weights_S: how often they are seen; mates_S: number of each one's look-alike, or -1.
    sprites: product by product. pictures, thumbs, table: of the sprites, and habits, for compiled code. places: where
    products lie, cumulated shares of PLACES x PLACES tiles. noise_LW3: lines of noise (`tasks.blend.noise_lines`).
    """

    skus: Sequence[str]
    weights_S: Doubles
    mates_S: Sequence[int]
    sprites: Sequence[Sprite]
    pictures: Pictures
    thumbs: Pictures
    table: Sprites
    habits: Habits
    boards: Sequence[LitBoard]
    places: Doubles
    noise_LW3: Lines
    jpeg_quality: int


def table_of(sprites: Sequence[Sprite], *, equal: bool) -> Sprites:
    """What compiled code needs to know of sprites sorted by their products; `equal`: whatever their weights."""
    groups: dict[str, list[Sprite]] = {}
    for sprite in sprites:
        groups.setdefault(sprite.sku, []).append(sprite)
    return Sprites(
        shares_M=np.concatenate([cumulated_shares(group, equal=equal) for group in groups.values()]),
        starts_S=np.cumsum([0, *map(len, groups.values())]),
        sides_M2=np.asarray([one.sides for one in sprites], np.float64),
        axes_M=np.asarray([one.axis for one in sprites], np.float64),
        heights_M=np.asarray([one.height for one in sprites], np.float64),
    )


def outline_of(alpha_hw: Photo) -> tuple[float, tuple[float, float]]:
    """(axis, (long, short)) of the smallest rotated rectangle around the solid pixels of an alpha."""
    points = cv2.findNonZero((alpha_hw > 127).astype(np.uint8))
    if points is None:
        return 0.0, (1.0, 1.0)
    _, (first, second), degrees = cv2.minAreaRect(points)
    # minAreaRect's angle is that of its first side.
    axis = np.deg2rad(degrees) if first >= second else np.deg2rad(degrees + 90)
    return float(axis), rectangle_sides(points)


def scale_cutouts(
    cutouts: Iterable[Cutout], *, scale: float, least_solid: int = 0, mapped: Mapped = map
) -> list[Sprite]:
    """The cutouts at board scale, with heights guessed from all views of the same product.

    Those with fewer solid pixels than `least_solid` are left out. Cutouts are read one by one and not kept.
    """
    scaled = mapped(partial(_scaled, scale=scale, least_solid=least_solid), cutouts)
    flat = [sprite for sprite in scaled if sprite is not None]
    views: dict[str, list[tuple[float, float]]] = {}
    for sprite in flat:
        views.setdefault(sprite.sku, []).append(sprite.sides)
    edges = {sku: edges_of(sides) for sku, sides in views.items()}
    return [replace(sprite, height=height_of_view(sprite.sides, edges=edges[sprite.sku])) for sprite in flat]


def _scaled(cutout: Cutout, *, scale: float, least_solid: int) -> Sprite | None:
    rgba_HW4 = cutout.picture()
    if solid_pixels(rgba_HW4) < least_solid:
        return None
    rgba_hw4 = scale_sprite(rgba_HW4, factor=scale * cutout.factor)
    axis, sides = outline_of(rgba_hw4[..., 3])
    return Sprite(
        item_id=cutout.item_id,
        sku=cutout.sku,
        category=cutout.category,
        rgba_hw4=rgba_hw4,
        weight=cutout.weight,
        axis=axis,
        sides=sides,
        height=0.0,
    )


def solid_pixels(rgba_HW4: Photo) -> int:
    """How many pixels of a cutout show more of the product than of what is behind it."""
    return int(np.count_nonzero(rgba_HW4[..., 3] > 127))


def light_board(
    board_HW3: Photo, *, look: PhotoLook, places_hw: Floats, tallness: float, noise: float, blur: float
) -> LitBoard:
    """The board under a pool photo's light, taken with this noise (grey levels) and blur (pixels).

    tallness: usual height of the products as a share of the board's longer side.
    """
    height, width = board_HW3.shape[:2]
    light_C6 = np.asarray(look.light_C6, np.float32)
    canvas_HW3 = np.clip(np.rint(board_HW3 * light_gain(light_C6, height=height, width=width)), 0, 255)
    rows, columns = places_hw.shape
    vignette_hw3 = cv2.resize(board_HW3, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    vignette_hw3 /= np.maximum((vignette_hw3 * places_hw[..., None]).sum((0, 1)), 1.0)
    height_px = tallness * WORKING_SIDE
    length = shadow_length(look.reach, height=height_px)
    return LitBoard(
        canvas_HW3=canvas_HW3.astype(np.uint8),
        shade_hw3=(vignette_hw3 * light_gain(light_C6, height=rows, width=columns)).astype(np.float32),
        noise=noise,
        blur=blur,
        shadows=LampStrength(
            ambient=look.ambient,
            directed=look.directed,
            angle=look.angle,
            slope=length / max(height_px, 1e-6),
            length=length,
        ),
    )


def blur_of_detail(sprites: Sequence[Sprite], *, details: Sequence[float]) -> list[float]:
    """The Gaussian blur (pixels) that makes sprites as sharp as pool photos of these `detail_share`s; at least 0."""
    some = sprites[:: max(1, len(sprites) // 40)]
    curve = [float(np.median([_detail_at(sprite.rgba_hw4, sigma=sigma) for sprite in some])) for sigma in _BLURS]
    falling = np.minimum.accumulate(curve)
    return [float(np.interp(-detail, -falling, _BLURS)) for detail in details]


def _detail_at(rgba_hw4: Photo, *, sigma: float) -> float:
    """Detail of a sprite after the interpolation of a turn by 30 degrees and a blur."""
    turned_hw4 = turned_sprite(rgba_hw4, angle=np.pi / 6)
    grey_hw = cv2.cvtColor(turned_hw4, cv2.COLOR_RGBA2GRAY).astype(np.float32)
    blurred_hw = np.asarray(cv2.GaussianBlur(grey_hw, (0, 0), sigma) if sigma > 0 else grey_hw, np.float32)
    inside_hw = cv2.erode((turned_hw4[..., 3] > 250).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return detail_share(blurred_hw, mask_HW=inside_hw)


def noise_of_file(level: float, *, board_HW3: Photo, quality: int, lines_LW3: Lines) -> float:
    """The sensor noise (grey levels) that leaves noise of `level` on a bare board in a JPEG file of this quality.

    Compression takes faint noise away altogether; then half of the most that it takes away is a fair guess.
    """
    side = min(192, *board_HW3.shape[:2])
    patch_HW3 = board_HW3[:side, :side]
    bare_HW = np.ones((side, side), np.bool_)
    left = []
    for sigma in _NOISES:
        noisy_HW3 = patch_HW3.copy()
        add_noise(noisy_HW3, lines_LW3=lines_LW3, sigma=sigma, generator=np.random.default_rng(0))
        left.append(noise_level(decode_rgb(encode_jpeg(noisy_HW3, quality=quality)), bare_HW=bare_HW))
    gone = [sigma for sigma, rest in zip(_NOISES, left, strict=True) if rest <= max(1.3 * level, 0.05)]
    rising = np.maximum.accumulate(left)
    return 0.5 * max(gone, default=0.0) if level <= 0.15 else float(np.interp(level, rising, _NOISES))


def sprite_pixels(sprites: Sequence[Sprite], *, most: int = 40000) -> Photo:
    """Colours as photos will show them: each product equally often, its views by weight and area; uint8 [M, 3]."""
    totals: dict[str, float] = {}
    for sprite in sprites:
        totals[sprite.sku] = totals.get(sprite.sku, 0.0) + sprite.weight
    areas = [sprite.sides[0] * sprite.sides[1] for sprite in sprites]
    shares = np.asarray(
        [sprite.weight / totals[sprite.sku] * area for sprite, area in zip(sprites, areas, strict=True)]
    )
    counts = np.ceil(most * shares / shares.sum()).astype(int)
    picked = []
    for sprite, count in zip(sprites, counts, strict=True):
        solid_M3 = sprite.rgba_hw4[sprite.rgba_hw4[..., 3] > 250][:, :3]
        if len(solid_M3):
            picked.append(solid_M3[np.linspace(0, len(solid_M3) - 1, count).astype(int)])
    return np.concatenate(picked)


def percentiles_of(pixels_M3: Photo) -> Floats:
    """Percentiles TONE_LEVELS of each channel, float32 [3, levels]."""
    return np.asarray(np.percentile(pixels_M3, TONE_LEVELS, axis=0).T, np.float32)


def fit_tone(source_3L: Floats, target_3L: Floats) -> Floats:
    """(log gain, exponent) of each channel, float32 [3, 2], with target = 255 exp(gain) (source / 255) ** exponent.

    Fitted to percentiles in logarithms; the darkest ones carry little light and little weight.
    """
    fits = []
    for source_L, target_L in zip(source_3L, target_3L, strict=True):
        x_L, y_L = np.log(np.maximum(source_L, 4.0) / 255), np.log(np.maximum(target_L, 4.0) / 255)
        exponent, _ = np.polyfit(x_L, y_L, 1, w=np.sqrt(target_L))
        exponent = float(np.clip(exponent, 0.6, 1.6))
        fits.append((float(np.average(y_L - exponent * x_L, weights=target_L)), exponent))
    return np.asarray(fits, np.float32)


def tone_table(tone_32: Floats) -> Photo:
    """Table of all grey levels under a tone of `fit_tone`, uint8 [256, 3]."""
    steps_L1 = np.arange(256, dtype=np.float32)[:, None] / 255
    gains, exponents = np.asarray(tone_32, np.float32).T
    return np.clip(np.rint(255 * np.exp(gains) * steps_L1**exponents), 0, 255).astype(np.uint8)


def toned(rgba_hw4: Photo, *, table_L3: Photo) -> Photo:
    """A sprite in the pool's colours."""
    colours_hw3 = cv2.LUT(np.ascontiguousarray(rgba_hw4[..., :3]), table_L3[None])
    return np.dstack([colours_hw3, rgba_hw4[..., 3]]).astype(np.uint8)


def collect_sprites(sprites: list[Sprite], *, table_L3: Photo | None) -> Pictures:
    """The sprites' pictures one after the other, in the colours of the table if there is one.

    The list's sprites become views of them: of all sprites together memory holds one copy.
    """
    pictures = room_for([one.rgba_hw4.shape[:2] for one in sprites])
    for number, one in enumerate(sprites):
        view_hw4 = picture_at(pictures, number)
        view_hw4[:] = one.rgba_hw4 if table_L3 is None else toned(one.rgba_hw4, table_L3=table_L3)
        sprites[number] = replace(one, rgba_hw4=view_hw4)
    return pictures


def look_alikes(sprites: Sequence[Sprite], *, views: int = 6, least: float = 0.3) -> dict[str, str]:
    """Each product's most similar other product in size and print, as grey thumbnails of their likeliest views.

    Colour does not count: varieties of one product differ in it most. Products without a similar one are left out.
    """
    by_sku: dict[str, list[Sprite]] = {}
    for sprite in sprites:
        by_sku.setdefault(sprite.sku, []).append(sprite)
    described = [_described(sorted(group, key=lambda one: -one.weight)[:views]) for group in by_sku.values()]
    mates, skus = {}, list(by_sku)
    for first in range(0, len(described), _BLOCK):
        own = described[first : first + _BLOCK]
        blocks = [_likeness(own, described[other : other + _BLOCK]) for other in range(0, len(described), _BLOCK)]
        likeness_BS = np.concatenate(blocks, axis=1)
        numbers_B = np.arange(len(own))
        likeness_BS[numbers_B, first + numbers_B] = -np.inf
        best_B = likeness_BS.argmax(axis=1)
        alike_B = likeness_BS[numbers_B, best_B] >= least
        mates.update({skus[first + number]: skus[best_B[number]] for number in np.flatnonzero(alike_B)})
    return mates


def _likeness(own: Sequence[tuple[Floats, Floats]], theirs: Sequence[tuple[Floats, Floats]]) -> Floats:
    """How alike products B are to products S, [B, S]: the mean over one's views of the best match in the other,
    correlation of the prints less the difference in size."""
    (prints_VD, sizes_V2), (prints_MD, sizes_M2) = (
        [np.concatenate(parts) for parts in zip(*products, strict=True)] for products in (own, theirs)
    )
    starts_B, starts_S = (np.cumsum([0, *(len(prints) for prints, _ in products[:-1])]) for products in (own, theirs))
    match_VM = prints_VD @ prints_MD.T
    for sides_V, sides_M in zip(sizes_V2.T, sizes_M2.T, strict=True):
        match_VM -= 2 * np.abs(sides_V[:, None] - sides_M)
    best_VS = np.maximum.reduceat(match_VM, starts_S, axis=1)
    counts_B1 = np.asarray([[len(prints)] for prints, _ in own], np.float32)
    return np.asarray(np.add.reduceat(best_VS, starts_B, axis=0) / counts_B1, np.float32)


def _described(sprites: Sequence[Sprite]) -> tuple[Floats, Floats]:
    """Unit vectors [V, D] of upright grey thumbnails, both ways up, and logarithms [V, 2] of the sides."""
    prints, sizes = [], []
    for sprite in sprites:
        upright_hw4 = turned_sprite(sprite.rgba_hw4, angle=-sprite.axis)
        x, y, width, height = cv2.boundingRect(cv2.threshold(upright_hw4[..., 3], 127, 255, cv2.THRESH_BINARY)[1])
        grey_hw = cv2.cvtColor(upright_hw4[y : y + height, x : x + width], cv2.COLOR_RGBA2GRAY).astype(np.float32)
        small_hw = cv2.resize(grey_hw, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        for turned_hw in (small_hw, small_hw[::-1, ::-1]):
            print_D = (turned_hw - turned_hw.mean()).ravel()
            prints.append(print_D / max(float(np.linalg.norm(print_D)), 1e-6))
            sizes.append(np.log(np.asarray(sprite.sides, np.float32)))
    return np.stack(prints), np.stack(sizes)


def cumulated_shares(sprites: Sequence[Sprite], *, equal: bool) -> NDArray[np.float64]:
    """Cumulated sampling weights [N] that end at 1; equal ones if asked for, or where all are 0."""
    weights = np.asarray([0.0 if equal else sprite.weight for sprite in sprites], np.float64)
    weights = weights if weights.sum() > 0 else np.ones_like(weights)
    return np.cumsum(weights / weights.sum())
