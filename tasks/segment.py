"""Fine masks: the saliency network's forward pass inside the product's window, edge-aware refinement, a quality score.

Each mask depends on its own exemplar, its coarse mask and the network only; the quality score also looks at the
neighbouring turntable views of the same product. So a new product changes no other product's masks.

Shapes: h×w pixels of the window, H×W of the photo. Alpha is in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.saliency import SaliencyNet
from storage.boxes import mask_box
from storage.images import encode_png
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.backdrop import shrink_to
from tasks.bays import lost_bays
from tasks.coarse import (
    MAYBE_PRODUCT,
    Box,
    CoarseMask,
    Window,
    box_fit,
    inside_box,
    read_coarse,
)
from tasks.mask_outline import outline_signs
from tasks.mask_quality import mask_agreement, neighbour_consistency, quality_of
from tasks.mask_shapes import largest_pieces
from tasks.params import SegmentParams
from tasks.refine import refine_twice
from tasks.saliency import kept_to_known, looked_at_again, predict_saliency, read_network
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext


@dataclass(frozen=True, slots=True)
class FineMask:
    """A product's soft mask inside `window`, its tight box in the photo (None if empty), what its quality rests on."""

    alpha_hw: NDArray[np.float32]
    window: Window
    box: Box | None
    area: int
    signs: dict[str, float]


def fine_mask(
    network: SaliencyNet, photo_HW3: NDArray[np.uint8], coarse: CoarseMask, *, tight: bool, params: SegmentParams
) -> FineMask:
    """The fine mask of one exemplar.

    Args:
        network: as `tasks.saliency.load_saliency` returns it.
        photo_HW3: uint8 RGB.
        coarse: its coarse mask; where that is sure of product, the network must be overruled by the cut to say no.
        tight: the box is annotated, so nothing outside of it is product; otherwise the network looks for a better one.
    """
    if not tight:
        coarse = looked_at_again(network, photo_HW3, coarse, working_size=params.working_size)
    crop_hw3 = coarse.crop(photo_HW3)
    small_hw3 = shrink_to(crop_hw3, params.refine.size)
    inner = coarse.box_in(small_hw3.shape[:2])
    known = inner if tight else None
    first_hw = predict_saliency(network, small_hw3, working_size=params.working_size)
    second_hw = second_look(network, small_hw3, working_size=params.second_size)
    mean_hw = np.asarray((first_hw + second_hw) / 2, np.float32)
    probability_hw = kept_to_known(mean_hw, coarse.levels_HW, box=known)
    allowed_hw = None if known is None else inside_box(known, height=small_hw3.shape[0], width=small_hw3.shape[1])
    probability_hw[lost_bays(largest_pieces(probability_hw > 0.5), small_hw3, allowed_hw)] = 1
    alpha_hw = refine_twice(probability_hw, small_hw3, crop_hw3, rim=params.rim, params=params.refine)
    kept_hw = largest_pieces(alpha_hw > 0.5)
    alpha_hw[cv2.dilate(kept_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0] = 0
    seen_hw = second_hw > 0.5 if allowed_hw is None else (second_hw > 0.5) & allowed_hw
    signs = mask_signs(kept_hw, small_hw3, second_hw=seen_hw, coarse=coarse)
    return FineMask(alpha_hw, coarse.window, _box_in_photo(kept_hw, coarse.window), int(kept_hw.sum()), signs)


def second_look(network: SaliencyNet, photo_hw3: NDArray[np.uint8], *, working_size: int) -> NDArray[np.float32]:
    """The network's map of the mirrored window at another size, float32 [h, w] in [0, 1], mirrored back.

    Where the network knows, it says the same again; where it does not, the mean of both looks is the better guess.
    """
    mirrored_hw3 = np.ascontiguousarray(photo_hw3[:, ::-1])
    return predict_saliency(network, mirrored_hw3, working_size=working_size)[:, ::-1]


def mask_signs(
    mask_hw: NDArray[np.bool_],
    small_hw3: NDArray[np.uint8],
    *,
    second_hw: NDArray[np.bool_],
    coarse: CoarseMask,
) -> dict[str, float]:
    """What speaks for a mask, at the working size, but for its neighbours in the turn (`tasks.mask_quality`)."""
    size = small_hw3.shape[1], small_hw3.shape[0]
    small_mask_hw = cv2.resize(mask_hw.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    rough_HW = (coarse.levels_HW >= MAYBE_PRODUCT).astype(np.float32)
    rough_hw = cv2.resize(rough_HW, size, interpolation=cv2.INTER_LINEAR) > 0.5
    return {
        "second_look": mask_agreement(small_mask_hw, second_hw),
        "agreement": mask_agreement(small_mask_hw, rough_hw),
        **outline_signs(small_hw3, small_mask_hw),
        "box": box_fit(mask_hw, coarse.box_in(mask_hw.shape)),
    }


def whole_alpha(fine: FineMask, *, height: int, width: int) -> NDArray[np.uint8]:
    """The soft mask of the whole photo, uint8 [H, W]."""
    alpha_HW = np.zeros((height, width), np.uint8)
    x0, y0, x1, y1 = fine.window
    alpha_HW[y0:y1, x0:x1] = np.round(255 * fine.alpha_hw)
    return alpha_HW


def _box_in_photo(mask_hw: NDArray[np.bool_], window: Window) -> Box | None:
    own = mask_box(mask_hw)
    return None if own is None else (own[0] + window[0], own[1] + window[1], own[2] + window[0], own[3] + window[1])


@stage(SegmentParams)
def segment(
    context: StageContext, *, params: SegmentParams, catalog: Manifest, coarse: Manifest, network: Manifest
) -> None:
    """One row an exemplar, `mask/<stem>`: alpha PNG of the exemplar's size, tight box, quality and its signs."""
    torch.set_num_threads(1)
    net = read_network(context, network)

    def make(turn: list[ManifestRow]) -> None:
        made = [_cut_out(context, net, row, catalog=catalog, params=params) for row in turn]
        views = [int(catalog.row(row.parents[0]).attributes.get("view") or 0) for row in turn]
        scores = neighbour_consistency([cut_out.area for cut_out in made], views)
        for row, cut_out, score in zip(turn, made, scores, strict=True):
            cut_out.signs["neighbours"] = score
            _publish(context, row, cut_out, least_quality=params.least_quality)

    turns: dict[tuple[str | None, str], list[ManifestRow]] = {}
    for row in coarse.ok:
        turns.setdefault(_turn_of(catalog.row(row.parents[0])), []).append(row)
    for _ in context.spread(make, list(turns.values()), what="turns"):
        pass


def _turn_of(exemplar: ManifestRow) -> tuple[str | None, str]:
    """What one turn of the table shows: product, camera and placement."""
    attributes = exemplar.attributes
    return exemplar.sku, f"{attributes.get('camera')}/{attributes.get('placement')}"


@dataclass(frozen=True, slots=True)
class _CutOut:
    """What is kept of a mask until those of its whole turn are known: a picture is small, a mask is not."""

    picture: bytes
    box: Box | None
    area: int
    signs: dict[str, float]


def _cut_out(
    context: StageContext, network: SaliencyNet, row: ManifestRow, *, catalog: Manifest, params: SegmentParams
) -> _CutOut:
    photo_HW3 = context.read_rgb(catalog.row(row.parents[0]))
    known = read_coarse(row, context.read_grey(row))
    fine = fine_mask(network, photo_HW3, known, tight=not row.attributes["proposed"], params=params)
    picture = encode_png(whole_alpha(fine, height=photo_HW3.shape[0], width=photo_HW3.shape[1]))
    return _CutOut(picture, fine.box, fine.area, fine.signs)


def _publish(context: StageContext, row: ManifestRow, made: _CutOut, *, least_quality: float) -> None:
    quality = quality_of(made.signs) if made.box else 0.0
    stem = row.item_id.removeprefix("coarse/")
    poor = quality < least_quality or made.box is None
    out = ManifestRow(
        item_id=f"mask/{stem}",
        sku=row.sku,
        split=row.split,
        width=row.width,
        height=row.height,
        parents=(*row.parents, row.item_id),
        media_type="image/png",
        quality=quality,
        objects=_objects(row.objects, made.box),
        status="review" if poor else "ok",
        reason=f"quality {quality:.2f} below {least_quality}" if poor else "",
        attributes={**{name: round(value, 5) for name, value in made.signs.items()}, "area": made.area},
    )
    context.put(made.picture, path=f"{stem}.png", row=out)


def _objects(known: Sequence[ManifestObject], box: Box | None) -> tuple[ManifestObject, ...]:
    return tuple(replace(one, box=box) for one in known[:1]) if box else ()
