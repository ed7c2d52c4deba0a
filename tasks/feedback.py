"""What accepted pseudo-labels tell `compose`: sizes of products, light, places and layout, in place of first guesses.

Sizes and layout are found by comparison: the same figure is taken of pseudo-labels and of photos that were composed
before, at the same level of clutter, and what is composed is changed by how much they differ. So what both have in
common (turns, occlusion, how a box lies around an item) cancels. Light, colours and places are measured anew: with
boxes around the products, all other board is known to be bare.

Boundary: manifests, boards and photos in, parameters and numbers out. Legend: H x W pixels, N items, boxes xyxy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from storage.boxes import Boxes, area, intersection_matrix
from storage.images import Picture
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.board import levelled_colours, photo_look, saliency_predictor
from tasks.light import Floats
from tasks.look import PLACES, Mask, PhotoLook, is_board, places_of, product_mask, tone_levels
from tasks.params import BoardParams, ComposeParams, LevelParams
from tasks.repaint import box_mask, grown, lit_board
from tasks.selection import boxes_of

# Fewer photos tell less than what was measured without labels.
LEAST_PHOTOS = 8
# So many items of a product count as much as all products together do.
_PRIOR_ITEMS = 20
_MOST_FACTOR = 1.5
_QUANTILES = (0.25, 0.5, 0.75, 0.9)
_BOX_SLACK = 0.06
_OVERLAP, _BESIDE = 0.05, 1.3
_COLOURED_ITEMS = 8
_LEAST_TONES = 100
_SHARE_LIMITS = (0.02, 0.98)
_PLACES_SIDE = 10 * PLACES

if TYPE_CHECKING:
    from tasks.context import StageContext

Share = Callable[[Sequence[ManifestObject]], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What photos are composed of and by: the parameters, the boards, and how much larger each product is."""

    params: ComposeParams
    boards: Manifest
    sizes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoLight:
    """One accepted photo: which board it shows, its look, and colours of its items under the board's own light."""

    board: int
    look: PhotoLook
    colours: tuple[tuple[str, Floats], ...]


def taught(row: ManifestRow) -> list[ManifestObject]:
    """The objects that teach."""
    return [item for item in row.objects if item.status == "ok"]


def size_factors(seen: Manifest, *, composed: Manifest) -> dict[str, float]:
    """How much larger each product is in pseudo-labelled photos than in composed ones.

    Logarithms of width + height, relative to the photo's width, are compared product by product; products with few
    items are drawn towards the median of all. Empty where no product is in both.
    """
    there, here = _log_sizes(seen), _log_sizes(composed)
    shifts = {sku: common_shift(there[sku], here[sku]) for sku in sorted(there) if sku in here}
    if not shifts:
        return {}
    common, factors = float(np.median(list(shifts.values()))), {}
    for sku in here:
        trust = len(there[sku]) / (len(there[sku]) + _PRIOR_ITEMS) if sku in shifts else 0.0
        factor = float(np.exp(common + trust * (shifts.get(sku, common) - common)))
        factors[sku] = min(max(factor, 1 / _MOST_FACTOR), _MOST_FACTOR)
    return factors


def common_shift(values: Sequence[float], others: Sequence[float]) -> float:
    """The least shift that the quantiles of two samples agree on, 0 where they differ in sign.

    Another size moves all quantiles alike; another mixture of views, which is for `prune` to weigh, moves some of them.
    """
    shifts = np.quantile(values, _QUANTILES) - np.quantile(others, _QUANTILES)
    return float(max(shifts.min(), 0.0) + min(shifts.max(), 0.0))


def _log_sizes(photos: Manifest) -> dict[str, list[float]]:
    sizes: dict[str, list[float]] = defaultdict(list)
    for row in photos.ok:
        for item in taught(row):
            x0, y0, x1, y1 = item.box
            sizes[item.sku].append(float(np.log((x1 - x0 + y1 - y0) / float(row.width or 1))))
    return dict(sizes)


def overlapping(objects: Sequence[ManifestObject]) -> tuple[int, int]:
    """How many items share more than a twentieth of their box with another's, and how many items there are."""
    boxes_N4 = boxes_of(objects)
    shared_NN = intersection_matrix(boxes_N4, boxes_N4)
    np.fill_diagonal(shared_NN, 0)
    return int((shared_NN.max(axis=1, initial=0) > _OVERLAP * area(boxes_N4)).sum()), len(objects)


def beside_its_like(objects: Sequence[ManifestObject]) -> tuple[int, int]:
    """How many items lie right beside another one of their product, and how many have one in the photo."""
    groups: dict[str, list[ManifestObject]] = defaultdict(list)
    for item in objects:
        groups[item.sku].append(item)
    several = [boxes_of(group) for group in groups.values() if len(group) > 1]
    return sum(map(_beside, several)), sum(map(len, several))


def _beside(boxes_N4: Boxes) -> int:
    """How many boxes have another one's middle no further away than _BESIDE of the mean of their shorter sides."""
    middles_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    short_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).min(axis=1)
    apart_NN = np.linalg.norm(middles_N2[:, None] - middles_N2[None], axis=-1)
    near_NN = apart_NN <= _BESIDE * (short_N[:, None] + short_N[None]) / 2
    np.fill_diagonal(near_NN, False)
    return int(near_NN.any(axis=1).sum())


def level_of(items: float, *, levels: dict[str, LevelParams]) -> str:
    """The level whose range of items is closest to a number of them; the first in the order of the levels."""

    def gap(name: str) -> float:
        low, high = levels[name].items
        return max(low - items, items - high, 0)

    return min(levels, key=gap)


def corrected_share(
    share: float, *, seen: Manifest, composed: Manifest, levels: dict[str, LevelParams], figure: Share
) -> float:
    """A share of `compose`, its odds changed by those of a figure in pseudo-labels over those in composed photos.

    Composed photos count as often as pseudo-labelled ones of their level. A share without any say stays as it is. The
    step is a damped one: boxes change less than what lies in them.
    """
    there, here = (_counted(photos, levels=levels, figure=figure) for photos in (seen, composed))
    both = [name for name in there if there[name][1] and here.get(name, (0, 0))[1]]
    total = sum(there[name][1] for name in both)
    if not total:
        return share
    found = sum(there[name][0] for name in both) / total
    expected = sum(here[name][0] / here[name][1] * there[name][1] for name in both) / total
    return _probability(_odds(share) * _odds(found) / _odds(expected))


def _counted(photos: Manifest, *, levels: dict[str, LevelParams], figure: Share) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for row in photos.ok:
        objects = taught(row)
        name = level_of(len(objects), levels=levels)
        part, whole = figure(objects)
        sums[name] = (sums.get(name, (0, 0))[0] + part, sums.get(name, (0, 0))[1] + whole)
    return sums


def _odds(share: float) -> float:
    low, high = _SHARE_LIMITS
    share = min(max(share, low), high)
    return share / (1 - share)


def _probability(odds: float) -> float:
    return round(odds / (1 + odds), 4)


def seen_levels(levels: dict[str, LevelParams], *, pseudo: Manifest) -> dict[str, LevelParams]:
    """The levels with shares as in the pool, by what the counting view counts in every photo, taken or not.

    The lowest and the highest level reach as far as the pool does; no level vanishes.
    """
    counts = np.asarray([round(float(row.attributes["count"])) for row in pseudo.rows if "count" in row.attributes])
    if not counts.size:
        return levels
    names = [level_of(float(count), levels=levels) for count in counts]
    few, many = (max(1, round(float(np.percentile(counts, share)))) for share in (2, 98))
    first, last = min(levels, key=lambda name: levels[name].items), max(levels, key=lambda name: levels[name].items)
    made = {}
    for name, level in levels.items():
        low, high = level.items
        low, high = min(low, few) if name == first else low, max(high, many) if name == last else high
        share = (names.count(name) + 1) / (len(names) + len(levels))
        skus = min(level.skus[0], low), level.skus[1]
        made[name] = level.model_copy(update={"share": round(share, 4), "items": (low, high), "skus": skus})
    return made


def seen_layout(params: ComposeParams, *, pseudo: Manifest, composed: Manifest) -> ComposeParams:
    """The parameters with levels and shares as pseudo-labels show them."""
    correct = partial(corrected_share, seen=pseudo, composed=composed, levels=params.levels)
    changes = {
        "levels": seen_levels(params.levels, pseudo=pseudo),
        "overlap_share": correct(params.overlap_share, figure=overlapping),
        "row_share": correct(params.row_share, figure=beside_its_like),
    }
    return params.model_copy(update=changes)


def photo_light(
    photo_HW3: Picture, *, row: ManifestRow, boards: Sequence[Picture], saliency_hw: Floats
) -> PhotoLight | None:
    """The light of an accepted photo; None where too little board is bare. `saliency_hw`: as `tasks.board` has it."""
    around_N4 = grown(boxes_of(row.objects), margin=_BOX_SLACK)
    fitted = [lit_board(photo_HW3, board_HW3=board_HW3, boxes_N4=around_N4) for board_HW3 in boards]
    found = [(number, one) for number, one in enumerate(fitted) if one is not None]
    if not found:
        return None
    board, lit = min(found, key=lambda one: one[1].spread)
    departure_hw3, products_hw = lit.departure_hw3.astype(np.float32), product_mask(saliency_hw)
    look = photo_look(photo_HW3, light_C6=lit.light_C6, departure_hw3=departure_hw3, products_hw=products_hw)
    colours = tuple(
        (
            item.sku,
            levelled_colours(photo_HW3, light_C6=lit.light_C6, products_hw=_inside(item, products_hw, photo_HW3)),
        )
        for item in taught(row)
    )
    return PhotoLight(board=board, look=look, colours=colours)


def _inside(item: ManifestObject, products_hw: Mask, photo_HW3: Picture) -> Mask:
    height, width = products_hw.shape
    scale = width / photo_HW3.shape[1]
    return products_hw & box_mask(boxes_of([item]) * scale, height=height, width=width)


def seen_tones(lights: Iterable[PhotoLight]) -> list[list[float]]:
    """Percentiles of the colours of all products, of each at most _COLOURED_ITEMS items; [] where few were seen."""
    items: dict[str, int] = defaultdict(int)
    kept = []
    for light in lights:
        for sku, colours_M3 in light.colours:
            if items[sku] < _COLOURED_ITEMS and len(colours_M3):
                items[sku] += 1
                # A pixel for every so many keeps areas in proportion.
                kept.append(colours_M3[::16])
    pixels_M3 = np.concatenate(kept) if kept else np.zeros((0, 3), np.float32)
    return tone_levels(pixels_M3) if len(pixels_M3) >= _LEAST_TONES else []


def seen_places(pseudo: Manifest) -> list[list[float]]:
    """Where the items of accepted photos lie, [PLACES][PLACES] shares."""
    masks = []
    for row in pseudo.ok:
        scale = np.asarray(
            [_PLACES_SIDE / float(row.width or 1), _PLACES_SIDE / float(row.height or 1)] * 2, np.float32
        )
        masks.append(box_mask(boxes_of(taught(row)) * scale, height=_PLACES_SIDE, width=_PLACES_SIDE))
    return [[round(float(value), 6) for value in row] for row in places_of(masks)]


def relit_boards(boards: Manifest, *, lights: Sequence[PhotoLight], places: list[list[float]]) -> Manifest:
    """The boards with the looks of accepted photos, their colours and places; one that none of them shows stays."""
    tones = seen_tones(lights)
    numbers = {row.item_id: number for number, row in enumerate(row for row in boards.ok if is_board(row))}

    def anew(row: ManifestRow) -> ManifestRow:
        looks = [one.look.to_json() for one in lights if one.board == numbers.get(row.item_id, -1)]
        changes = {"looks": looks or row.attributes.get("looks", []), "places": places}
        return replace(row, attributes={**row.attributes, **changes, **({"tones": tones} if tones else {})})

    return replace(boards, rows=tuple(anew(row) if is_board(row) else row for row in boards.rows))


def learnt_from(
    context: StageContext,
    pseudo: Manifest,
    *,
    params: ComposeParams,
    boards: Manifest,
    composed: Manifest,
    network: Manifest,
) -> Lesson:
    """Parameters, boards and sizes as pseudo-labels show them; where few photos were accepted, as they were."""
    rows = [row for row in pseudo.ok if taught(row)]
    if len(rows) < LEAST_PHOTOS:
        context.log(f"{len(rows)} pool photos were accepted, fewer than {LEAST_PHOTOS}: nothing is estimated anew")
        return Lesson(params=params, boards=boards)
    most = min(len(rows), params.lit_boards)
    some = [rows[index * len(rows) // most] for index in range(most)]
    lights = _lights(context, some, boards=boards, network=network)
    lesson = Lesson(
        params=seen_layout(params, pseudo=pseudo, composed=composed),
        boards=relit_boards(boards, lights=lights, places=seen_places(pseudo)),
        sizes=size_factors(pseudo, composed=composed),
    )
    figures = {name: getattr(lesson.params, name) for name in ("overlap_share", "row_share")}
    shares = {name: level.model_dump(mode="json") for name, level in lesson.params.levels.items()}
    context.metadata["feedback"] = {"sizes": dict(lesson.sizes), "levels": shares, "lights": len(lights), **figures}
    return lesson


def _lights(
    context: StageContext, rows: Sequence[ManifestRow], *, boards: Manifest, network: Manifest
) -> list[PhotoLight]:
    import torch

    # Photos go to the workers one by one: a row must not depend on how many there are.
    torch.set_num_threads(1)
    predict = saliency_predictor(context, network, working_size=BoardParams().working_size)
    pictures = [context.read_rgb(row) for row in boards.ok if is_board(row)]

    def light(row: ManifestRow) -> PhotoLight | None:
        photo_HW3 = context.read_rgb(row)
        return photo_light(photo_HW3, row=row, boards=pictures, saliency_hw=predict(photo_HW3))

    return [one for one in context.map(light, rows, what="accepted photos") if one is not None]
