"""Stage `paste`: accepted pool photos with further items on them, by what their pseudo-labels say lies there already.

Copy-paste (Ghiasi et al., "Simple Copy-Paste Is a Strong Data Augmentation Method for Instance Segmentation", CVPR
2021) with the physics of `compose`: a further item finds a place beside or on what lies there, in the light of that
photo, and throws its shadow the way the photo's shadows fall. It is a sprite, or an item cut out of a pool photo in
which it stands clear. Nothing is laid on places that teach nothing, and no item below loses more than its share; the
box of one that loses some is moved to what is left of it.

Rows: "pasted/<stem>_0", JPEG, split "pseudo" (the photo is the pool's, so training sees it as such), parents = the
pseudo-label, then the sprites and pseudo-labels that items come from; objects = what lay there, then what was added.
Boundary: pixels and manifests; the saliency network is imported where it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from storage.boxes import Boxes, mask_box
from storage.images import encode_jpeg
from storage.manifest import Box, Manifest, ManifestObject, ManifestRow
from storage.rle import decode_mask
from tasks.board import photo_look
from tasks.compose import Layout, empty_ground, empty_top, label_items, laid_on, paint, photograph, scene_on
from tasks.empty_board import shrink
from tasks.items import Floats, Ground, Item, Photo, Top
from tasks.kit import build_kit, with_cutouts
from tasks.laying import MOST_ITEMS
from tasks.layout import cell_side
from tasks.look import PLACES, is_board, product_mask
from tasks.mask_runs import encode_labels
from tasks.params import ComposeParams, LevelParams, PasteParams
from tasks.pool_items import item_labels, soft_alpha, stand_clear
from tasks.prune import sprite
from tasks.repaint import box_mask, closest_board, grown
from tasks.selection import boxes_of
from tasks.sprites import Cutout, Kit, LitBoard, light_board
from tasks.stage import stage
from tasks.wishes import draw_items

if TYPE_CHECKING:
    from tasks.context import StageContext

_LEVEL, _PSEUDO = "added", "pseudo/"
_BOX_SLACK = 0.06
_RIM = 3
# What teaches nothing bears the lowest label; what lay there has those after it.
_UNKNOWN = 1
_AROUND = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An accepted pool photo that items can be added to.

    objects: its items, each with its mask. unknown_M4: places that teach nothing. lit: the board as this photo lights
    it; its canvas is the photo itself, which is read when it is needed. cutouts: those of its items that stand clear.
    """

    row: ManifestRow
    objects: tuple[ManifestObject, ...]
    unknown_M4: Boxes
    lit: LitBoard
    cutouts: tuple[Cutout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """A photo with further items: labels_HW is 0 where board is, 1 where nothing is known, 2, 3, … on the objects."""

    photo_HW3: Photo
    labels_HW: Photo
    objects: tuple[ManifestObject, ...]


def composition(params: PasteParams) -> ComposeParams:
    """How the further items of a photo are drawn: as in composed photos, at the size of the pool's, but fewer."""
    added = {_LEVEL: LevelParams(share=1, skus=params.skus, items=params.items)}
    return params.synthesis.model_copy(update={"levels": added, "scale": 1.0, "seed": params.seed})


def accepted(
    row: ManifestRow,
    *,
    photo_HW3: Photo,
    probability_HW: Floats,
    boards: Sequence[Photo],
    kit: Kit,
    least_score: float,
) -> Accepted | None:
    """What a pseudo-label and a saliency map say of a photo; None where too little board is bare to tell its light."""
    known = [item for item in row.objects if item.status == "ok"]
    known_N4 = boxes_of(known)
    unknown_M4 = boxes_of(item for item in row.objects if item.status != "ok")
    around_N4 = grown(np.concatenate([known_N4, unknown_M4]), margin=_BOX_SLACK)
    bare = closest_board(photo_HW3, boards=list(boards), boxes_N4=around_N4)
    if bare is None:
        return None
    products_hw = product_mask(shrink(np.rint(255 * probability_HW).astype(np.uint8)) / np.float32(255))
    look = photo_look(photo_HW3, light_C6=bare.light_C6, departure_hw3=bare.departure_hw3, products_hw=products_hw)
    lit = light_board(
        bare.board_HW3,
        look=look,
        places_hw=np.diff(kit.places, prepend=0).reshape(PLACES, PLACES).astype(np.float32),
        tallness=float(np.median(kit.table.heights_M)) / max(photo_HW3.shape[:2]),
        noise=kit.boards[0].noise,
        blur=float(np.median([one.blur for one in kit.boards])),
    )
    labels_HW = item_labels(probability_HW, boxes_N4=known_N4)
    masks, _ = encode_labels(labels_HW, windows_N4=_windows(known_N4, shape=labels_HW.shape))
    clear_N = stand_clear(labels_HW, boxes_N4=known_N4, others_M4=unknown_M4)
    cutouts = [
        cut_out(
            known[index],
            label=index + 1,
            row=row,
            photo_HW3=photo_HW3,
            probability_HW=probability_HW,
            labels_HW=labels_HW,
            shade_hw3=lit.shade_hw3,
        )
        for index in np.flatnonzero(clear_N).tolist()
        if (known[index].score or 0.0) >= least_score
    ]
    return Accepted(
        row=row,
        objects=tuple(replace(item, mask_rle=mask) for item, mask in zip(known, masks, strict=True)),
        unknown_M4=unknown_M4,
        lit=replace(lit, canvas_HW3=np.empty((0, 0, 3), np.uint8)),
        cutouts=tuple(cutouts),
    )


def _windows(boxes_N4: Boxes, *, shape: tuple[int, ...]) -> np.ndarray:
    """Whole pixels around boxes, inside a photo; int64 [N, 4]."""
    low_N2, high_N2 = np.floor(boxes_N4[:, :2]), np.ceil(boxes_N4[:, 2:])
    return np.concatenate([low_N2.clip(0), high_N2.clip(0, (shape[1], shape[0]))], axis=1).astype(np.int64)


def cut_out(
    item: ManifestObject,
    *,
    label: int,
    row: ManifestRow,
    photo_HW3: Photo,
    probability_HW: Floats,
    labels_HW: Photo,
    shade_hw3: Floats,
) -> Cutout:
    """An item of a pool photo as it would look in the board's own light, where products usually lie."""
    height, width = labels_HW.shape
    x0, y0, x1, y1 = (round(value) for value in item.box)
    window = np.s_[max(0, y0 - _RIM) : y1 + _RIM, max(0, x0 - _RIM) : x1 + _RIM]
    rows, columns = shade_hw3.shape[:2]
    middle = min(rows - 1, (y0 + y1) * rows // (2 * height)), min(columns - 1, (x0 + x1) * columns // (2 * width))
    levelled_hw3 = np.clip(np.rint(photo_HW3[window] / shade_hw3[middle]), 0, 255).astype(np.uint8)
    alpha_hw = soft_alpha(probability_HW[window], labels_HW=labels_HW[window], label=label)
    rgba_hw4, _ = sprite(levelled_hw3, alpha_hw)
    return Cutout(
        item_id=row.item_id,
        sku=item.sku,
        category=item.category,
        picture=partial(np.asarray, rgba_hw4),
        weight=float(item.score or 0.0),
        factor=1.0,
    )


def occupied(one: Accepted, *, height: int, width: int) -> tuple[Top, Ground]:
    """Who is on top of an accepted photo, and the same on the layout's grid.

    Nothing can be laid on what has the label 1: it has no pixels that it could spare.
    """
    top, ground = empty_top(height, width), empty_ground(height, width)
    top.labels_HW[box_mask(one.unknown_M4, height=height, width=width)] = _UNKNOWN
    for label, item in enumerate(one.objects, start=_UNKNOWN + 1):
        top.labels_HW[decode_mask(str(item.mask_rle), height=height, width=width)] = label
    half, (rows, columns) = ground.cell // 2, ground.labels_RC.shape
    ground.labels_RC[:] = top.labels_HW[half :: ground.cell, half :: ground.cell][:rows, :columns]
    ground.near_RC[:] = cv2.dilate((ground.labels_RC > 0).astype(np.uint8), _AROUND)
    for labels, areas, visible in ((top.labels_HW, top.areas, top.visible), ground[:1] + ground[2:4]):
        areas[:] = visible[:] = np.bincount(labels.ravel(), minlength=MOST_ITEMS + 1)
        areas[0] = _UNKNOWN + len(one.objects)
        areas[_UNKNOWN] = visible[_UNKNOWN] = 0
    return top, ground


def add_items(one: Accepted, *, photo_HW3: Photo, kit: Kit, params: PasteParams, index: int) -> Pasted:
    """The photo with further items on it; the same kit, parameters and index give the same pixels and labels."""
    how, generator = composition(params), np.random.default_rng((params.seed, index))
    height, width = photo_HW3.shape[:2]
    items = draw_items(
        kit, level=how.levels[_LEVEL], params=how, index=index, cell=cell_side(height, width), generator=generator
    )
    top, ground = occupied(one, height=height, width=width)
    layout = laid_on(items, kit=kit, top=top, ground=ground, params=how, generator=generator)
    scene = scene_on(replace(one.lit, canvas_HW3=photo_HW3), generator=generator)
    canvas_HW3 = paint(layout, scene=scene, kit=kit, params=how)
    taken_HW3 = photograph(canvas_HW3.copy(), kit=kit, scene=scene, params=how, generator=generator)
    # The camera has taken the photo and what was cut out of photos already.
    fresh_HW = np.isin(top.labels_HW, [item["label"] for item in layout.items if not _from_pool(kit, item)])
    fresh_HW = cv2.dilate(fresh_HW.astype(np.uint8), _AROUND)[..., None] > 0
    return Pasted(
        photo_HW3=np.where(fresh_HW, taken_HW3, canvas_HW3),
        labels_HW=top.labels_HW,
        objects=(*what_is_left(one, top=top), *_added(layout, kit=kit, below=_UNKNOWN + len(one.objects))),
    )


def _from_pool(kit: Kit, item: Item) -> bool:
    return kit.sprites[int(item["sprite"])].item_id.startswith(_PSEUDO)


def what_is_left(one: Accepted, *, top: Top) -> list[ManifestObject]:
    """The items of an accepted photo after others were laid on them; one that is hidden altogether is left out."""
    boxes_N4 = boxes_of(one.objects)
    unknown_14 = np.zeros((1, 4), np.int64)
    windows_N4 = np.concatenate([unknown_14, _windows(boxes_N4, shape=top.labels_HW.shape)])
    masks, tight_N4 = encode_labels(top.labels_HW, windows_N4=windows_N4)
    left = []
    for label, item in enumerate(one.objects, start=_UNKNOWN + 1):
        whole, visible = int(top.areas[label]), int(top.visible[label])
        if visible == whole:
            left.append(item)
        elif visible:
            box = _moved(item, tight_4=tight_N4[label - 1], shape=top.labels_HW.shape)
            left.append(replace(item, box=box, mask_rle=masks[label - 1], visible_fraction=visible / whole))
    return left


def _moved(item: ManifestObject, *, tight_4: np.ndarray, shape: tuple[int, ...]) -> Box:
    """The box of an item, its sides moved as far as those of its mask were: masks and boxes are not of one mind."""
    before = mask_box(decode_mask(str(item.mask_rle), height=shape[0], width=shape[1]))
    assert before is not None, "what has lost some pixels had some"
    x0, y0, x1, y1 = (float(side + now - then) for side, now, then in zip(item.box, tight_4, before, strict=True))
    return x0, y0, x1, y1


def _added(layout: Layout, *, kit: Kit, below: int) -> tuple[ManifestObject, ...]:
    """The objects of the items that were laid on those with the labels up to `below`."""
    labels_HW, areas, visible = layout.top
    above_HW = np.where(labels_HW > below, labels_HW - below, 0).astype(np.uint8)
    top = Top(labels_HW=above_HW, areas=areas[below:], visible=visible[below:])
    return label_items(replace(layout, top=top), kit=kit, amodal=False)


def pasted_row(pasted: Pasted, *, row: ManifestRow, version: int) -> ManifestRow:
    """The manifest row of version `version` of an accepted photo, without its file."""
    sources = dict.fromkeys(one.source for one in pasted.objects if one.source)
    added = sum(one.source is not None for one in pasted.objects)
    height, width = pasted.labels_HW.shape
    ignored = tuple(item for item in row.objects if item.status != "ok")
    return ManifestRow(
        item_id=f"pasted/{row.item_id.removeprefix(_PSEUDO)}_{version}",
        media_type="image/jpeg",
        width=width,
        height=height,
        split="pseudo",
        parents=(row.item_id, *(source for source in sources if source != row.item_id)),
        objects=(*pasted.objects, *ignored),
        quality=row.quality,
        reason=f"{added} items added",
        attributes={"added": added},
    )


def usable_rows(pseudo: Manifest, *, size: tuple[int, int], most: int) -> list[ManifestRow]:
    """At most `most` accepted photos with items, spread over all of this size (height, width): sprites fit no other."""
    rows = [
        row for row in pseudo.ok if (row.height, row.width) == size and any(item.status == "ok" for item in row.objects)
    ]
    return [rows[index * len(rows) // most] for index in range(most)] if len(rows) > most else rows


def _looked_at(
    context: StageContext,
    rows: Sequence[ManifestRow],
    *,
    kit: Kit,
    boards: Sequence[Photo],
    network: Manifest,
    params: PasteParams,
) -> list[Accepted]:
    """What is known of each photo; those whose light can't be told are left out."""
    import torch

    from tasks.saliency import predict_saliency, read_network

    # Photos go to the workers one by one: a row must not depend on how many there are.
    torch.set_num_threads(1)
    net = read_network(context, network)

    def look(row: ManifestRow) -> Accepted | None:
        photo_HW3 = context.read_rgb(row)
        probability_HW = predict_saliency(net, photo_HW3, working_size=params.working_size)
        return accepted(
            row,
            photo_HW3=photo_HW3,
            probability_HW=probability_HW,
            boards=boards,
            kit=kit,
            least_score=params.confident_score,
        )

    return [one for one in context.map(look, rows, what="accepted photos") if one is not None]


@stage(PasteParams)
def paste(
    context: StageContext,
    *,
    params: PasteParams,
    pseudo: Manifest,
    catalog: Manifest,
    poses: Manifest,
    boards: Manifest,
    pool: Manifest,
    network: Manifest,
) -> None:
    """Photos with further items, `params.versions` of each accepted one; see the module's docstring."""
    context.content["categories"] = catalog.content["categories"]
    if not any(item.status == "ok" for row in pseudo.ok for item in row.objects):
        context.log("no pool photo was accepted: there is nothing to paste on")
        return
    kit = build_kit(context, params=composition(params), catalog=catalog, poses=poses, boards=boards, pool=pool)
    pictures = [context.read_rgb(row) for row in boards.ok if is_board(row)]
    most = max(1, params.photos // params.versions)
    height, width = pictures[0].shape[:2]
    rows = usable_rows(pseudo, size=(height, width), most=most)
    bases = _looked_at(context, rows, kit=kit, boards=pictures, network=network, params=params)
    cutouts = [cutout for one in bases for cutout in one.cutouts]
    kit = with_cutouts(kit, cutouts, share=params.pool_share, most=params.cutouts)

    def make(index: int) -> list[ManifestObject]:
        one, version = bases[index // params.versions], index % params.versions
        pasted = add_items(one, photo_HW3=context.read_rgb(one.row), kit=kit, params=params, index=index)
        row = pasted_row(pasted, row=one.row, version=version)
        data = encode_jpeg(pasted.photo_HW3, quality=params.quality)
        context.put(data, path=f"{row.item_id.removeprefix('pasted/')}.jpg", row=row)
        return [item for item in row.objects if item.source]

    made = [
        item for added in context.spread(make, range(len(bases) * params.versions), what="photos") for item in added
    ]
    shown = Counter(item.sku for item in made)
    context.report(
        accepted=len(bases),
        cutouts=len(cutouts),
        items_added=len(made),
        items_from_pool=sum(str(item.source).startswith(_PSEUDO) for item in made),
        least_of_a_product=min(shown[sku] for sku in kit.skus),
    )
