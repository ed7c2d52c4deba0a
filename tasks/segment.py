"""Fine masks: the saliency network's forward pass inside the product's window, edge-aware refinement, a quality score.

Each mask depends on its own exemplar, its coarse mask and the network only; the quality score also looks at the
neighbouring turntable views of the same product. So a new product changes no other product's masks.

Shapes: H×W pixels of the photo, h×w of the window, N masks. Alpha is in [0, 1].
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
from tasks.coarse import (
    MAYBE_PRODUCT,
    SURE_PRODUCT,
    Box,
    CoarseMask,
    Window,
    box_fit,
    cut_where_doubtful,
    inside_box,
    largest_pieces,
    product_window,
    shrink_to,
)
from tasks.params import SegmentParams
from tasks.saliency import predict_saliency, read_network
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext


_SURE = 0.75


@dataclass(frozen=True, slots=True)
class FineMask:
    """A product's soft mask inside `window`, its tight box in the photo (None if empty), what its quality rests on."""

    alpha_hw: NDArray[np.float32]
    window: Window
    box: Box | None
    area: int
    signs: dict[str, float]


def guided_filter(
    plane_hw: NDArray[np.float32], guide_hw3: NDArray[np.float32], *, radius: int, epsilon: float
) -> NDArray[np.float32]:
    """The guided filter with a colour guide (He et al., TPAMI 2013, eq. 14), by box sums: any radius costs the same.

    In every window of side 2·radius + 1 the result is a linear function of the guide's colour.

    Args:
        plane_hw: what is filtered.
        guide_hw3: RGB in [0, 1].
        epsilon: regulariser, squared colour: variance below it counts as flat.
    """

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(
            cv2.boxFilter(values, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT_101), np.float32
        )

    guide_mean_hw3, plane_mean_hw = mean(guide_hw3), mean(plane_hw)
    c_r, c_g, c_b = cv2.split(mean(guide_hw3 * plane_hw[..., None]) - guide_mean_hw3 * plane_mean_hw[..., None])
    rr, gg, bb = cv2.split(mean(guide_hw3 * guide_hw3) - guide_mean_hw3**2 + epsilon)
    mixed_hw3 = guide_hw3 * np.roll(guide_hw3, -1, axis=-1)
    rg, gb, br = cv2.split(mean(mixed_hw3) - guide_mean_hw3 * np.roll(guide_mean_hw3, -1, axis=-1))
    # The inverse of the symmetric 3×3 covariance by its cofactors, applied to the covariance with the plane.
    i_rr, i_gg, i_bb = gg * bb - gb * gb, rr * bb - br * br, rr * gg - rg * rg
    i_rg, i_gb, i_br = br * gb - rg * bb, rg * br - gb * rr, rg * gb - gg * br
    determinant = rr * i_rr + rg * i_rg + br * i_br
    slope_hw3 = (
        np.dstack(
            [
                i_rr * c_r + i_rg * c_g + i_br * c_b,
                i_rg * c_r + i_gg * c_g + i_gb * c_b,
                i_br * c_r + i_gb * c_g + i_bb * c_b,
            ]
        )
        / determinant[..., None]
    )
    offset_hw = plane_mean_hw - (slope_hw3 * guide_mean_hw3).sum(axis=-1)
    return (mean(slope_hw3) * guide_hw3).sum(axis=-1) + mean(offset_hw)


def cut_to_edges(
    probability_hw: NDArray[np.float32], photo_hw3: NDArray[np.uint8], *, doubt: float, most: int
) -> NDArray[np.float32]:
    """Moves the outline to the colour edges nearby: one round of GrabCut where the network is in doubt.

    Args:
        doubt: pixels with a probability in (doubt, 1 - doubt) are open, the others fixed.
        most: longer side at which this is done; larger windows are shrunk, so time and memory are bounded.

    Returns:
        float32 in [0, 1], hard but for the scaling.
    """
    size = probability_hw.shape[1], probability_hw.shape[0]
    small_hw3 = shrink_to(photo_hw3, most)
    inner = (small_hw3.shape[1], small_hw3.shape[0])
    small_hw = np.asarray(cv2.resize(probability_hw, inner, interpolation=cv2.INTER_AREA), np.float32)
    cut_hw = cut_where_doubtful(small_hw3, small_hw, doubt=doubt).astype(np.float32)
    return np.asarray(cv2.resize(cut_hw, size, interpolation=cv2.INTER_LINEAR), np.float32)


def refine(
    probability_hw: NDArray[np.float32], photo_hw3: NDArray[np.uint8], *, params: SegmentParams
) -> NDArray[np.float32]:
    """Snaps the network's soft mask to the photo's edges at full size: float32 [h, w], 1/2 at the outline."""
    cut_hw = cut_to_edges(probability_hw, photo_hw3, doubt=params.doubt, most=params.cut_size)
    radius = max(2, round(params.radius * max(probability_hw.shape)))
    mixed_hw = np.asarray((1 - params.trust) * cut_hw + params.trust * probability_hw, np.float32)
    alpha_hw = guided_filter(
        mixed_hw, photo_hw3.astype(np.float32) / np.float32(255), radius=radius, epsilon=params.epsilon
    )
    return sharpen(alpha_hw)


def sharpen(alpha_hw: NDArray[np.float32], *, gain: float = 3.0) -> NDArray[np.float32]:
    """Steeper edge around one half, so that the soft rim is one or two pixels wide; stays in [0, 1]."""
    return np.clip((alpha_hw - 0.5) * gain + 0.5, 0, 1)


def expected_iou(probability_hw: NDArray[np.float32], mask_hw: NDArray[np.bool_]) -> float:
    """IoU that a mask would have on average if each pixel were product with its own probability; 0 if it is empty."""
    inside = float(probability_hw[mask_hw].sum())
    union = float(mask_hw.sum() + probability_hw[~mask_hw].sum())
    return inside / union if union > 0 else 0.0


def boundary_contrast(photo_hw3: NDArray[np.uint8], mask_hw: NDArray[np.bool_], *, width: int = 3) -> float:
    """Share of the outline with a visible step in colour between the strips inside and outside of it, in [0, 1]."""
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    mask_u8 = mask_hw.astype(np.uint8)
    rim_hw = (cv2.dilate(mask_u8, np.ones((3, 3), np.uint8)) - mask_u8).astype(bool)
    if not rim_hw.any():
        return 0.0
    lab_hw3 = cv2.cvtColor(photo_hw3, cv2.COLOR_RGB2LAB).astype(np.float32)
    spread_hw3 = cv2.dilate(lab_hw3, kernel) - cv2.erode(lab_hw3, kernel)
    return float((spread_hw3.max(axis=-1)[rim_hw] > 12).mean())


def plane_in_window(mask_HW: NDArray[np.bool_], source: Window, window: Window) -> NDArray[np.bool_]:
    """A mask of the window `source`, at any size, as a mask of another window of the photo in full pixels."""
    x0, y0 = min(source[0], window[0]), min(source[1], window[1])
    x1, y1 = max(source[2], window[2]), max(source[3], window[3])
    size = (source[2] - source[0], source[3] - source[1])
    both = np.zeros((y1 - y0, x1 - x0), bool)
    full_hw = cv2.resize(mask_HW.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    both[source[1] - y0 : source[3] - y0, source[0] - x0 : source[2] - x0] = full_hw
    return both[window[1] - y0 : window[3] - y0, window[0] - x0 : window[2] - x0]


def fine_mask(
    network: SaliencyNet, photo_HW3: NDArray[np.uint8], coarse: CoarseMask, *, tight: bool, params: SegmentParams
) -> FineMask:
    """The fine mask of one exemplar.

    Args:
        network: as `tasks.saliency.load_saliency` returns it.
        photo_HW3: uint8 RGB.
        coarse: its coarse mask; where that is sure of product, the network must be overruled by the cut to say no.
        tight: the box is annotated, so nothing outside of it is product.
    """
    height, width = photo_HW3.shape[:2]
    box, window = coarse.box, product_window(coarse.box, height=height, width=width, margin=params.margin)
    crop_hw3 = np.ascontiguousarray(photo_HW3[window[1] : window[3], window[0] : window[2]])
    probability_hw = predict_saliency(network, crop_hw3, working_size=params.working_size)
    sure_hw = plane_in_window(coarse.levels_HW == SURE_PRODUCT, coarse.window, window)
    probability_hw[sure_hw] = np.maximum(probability_hw[sure_hw], _SURE)
    inner = (box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1])
    if tight:
        probability_hw[~inside_box(inner, height=crop_hw3.shape[0], width=crop_hw3.shape[1])] = 0
    alpha_hw = refine(probability_hw, crop_hw3, params=params)
    kept_hw = largest_pieces(alpha_hw > 0.5)
    alpha_hw[cv2.dilate(kept_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0] = 0
    own, rough_hw = mask_box(kept_hw), plane_in_window(coarse.levels_HW >= MAYBE_PRODUCT, coarse.window, window)
    signs = {
        "expected_iou": expected_iou(probability_hw, kept_hw),
        "contrast": boundary_contrast(crop_hw3, kept_hw),
        "box_iou": box_fit(kept_hw, inner),
        "agreement": mask_agreement(kept_hw, rough_hw),
    }
    tight_box = (
        None if own is None else (own[0] + window[0], own[1] + window[1], own[2] + window[0], own[3] + window[1])
    )
    return FineMask(alpha_hw, window, tight_box, int(kept_hw.sum()), signs)


def mask_agreement(mask_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 when both are empty."""
    union = (mask_hw | other_hw).sum()
    return float((mask_hw & other_hw).sum() / union) if union else 0.0


def neighbour_consistency(areas_N: Sequence[float], views_N: Sequence[int], *, turn: int = 40) -> list[float]:
    """How well each area fits the areas of the two nearest turntable positions: ratio in (0, 1], 1 without neighbours.

    The product's outline changes slowly as the table turns, so an area should lie between, or near, its neighbours'.
    """
    order = np.argsort(views_N, kind="stable")
    scores = [1.0] * len(areas_N)
    if len(order) < 3:
        return scores
    for place, index in enumerate(order):
        before, after = areas_N[order[place - 1]], areas_N[order[(place + 1) % len(order)]]
        low, high, own = min(before, after), max(before, after), max(areas_N[index], 1)
        scores[index] = float(min(own / max(low, 1), high / own, 1.0)) if high > 0 else 0.0
    return scores


def quality_of(signs: dict[str, float]) -> float:
    """The quality score in [0, 1]: the product of the signs, each raised to how much it says."""
    return float(
        signs["expected_iou"]
        * signs["box_iou"]
        * signs["agreement"] ** 0.5
        * (0.5 + 0.5 * signs["neighbours"]) ** 0.5
        * (0.7 + 0.3 * signs["contrast"]) ** 0.5
    )


@stage(SegmentParams)
def segment(
    context: StageContext, *, params: SegmentParams, catalog: Manifest, coarse: Manifest, network: Manifest
) -> None:
    """One row an exemplar, `mask/<stem>`: alpha PNG of the exemplar's size, tight box, quality and its signs."""
    torch.set_num_threads(1)
    net = read_network(context, network)

    def make(turn: list[ManifestRow]) -> None:
        made = []
        for row in turn:
            photo_HW3 = context.read_rgb(catalog.row(row.parents[0]))
            known = read_coarse(row, context.read_grey(row))
            fine = fine_mask(net, photo_HW3, known, tight=not row.attributes["proposed"], params=params)
            made.append(fine)
        views = [int(catalog.row(row.parents[0]).attributes.get("view") or 0) for row in turn]
        for row, fine, score in zip(
            turn, made, neighbour_consistency([fine.area for fine in made], views), strict=True
        ):
            fine.signs["neighbours"] = score
            _publish(context, row, fine, least_quality=params.least_quality)

    turns: dict[tuple[str | None, str], list[ManifestRow]] = {}
    for row in coarse.ok:
        turns.setdefault(_turn_of(catalog.row(row.parents[0])), []).append(row)
    for _ in context.map(make, list(turns.values()), what="turns"):
        pass


def read_coarse(row: ManifestRow, levels_HW: NDArray[np.uint8]) -> CoarseMask:
    """The coarse mask that a row of the coarse stage and its picture stand for."""
    return CoarseMask(levels_HW, tuple(row.attributes["window"]), tuple(row.attributes["box"]), float(row.quality or 0))


def _turn_of(exemplar: ManifestRow) -> tuple[str | None, str]:
    """What one turn of the table shows: product, camera and placement."""
    attributes = exemplar.attributes
    return exemplar.sku, f"{attributes.get('camera')}/{attributes.get('placement')}"


def _publish(context: StageContext, row: ManifestRow, fine: FineMask, *, least_quality: float) -> None:
    quality = quality_of(fine.signs)
    assert row.height is not None and row.width is not None
    alpha_HW = np.zeros((row.height, row.width), np.uint8)
    x0, y0, x1, y1 = fine.window
    alpha_HW[y0:y1, x0:x1] = np.round(255 * fine.alpha_hw)
    stem = row.item_id.removeprefix("coarse/")
    poor = quality < least_quality or fine.box is None
    out = ManifestRow(
        item_id=f"mask/{stem}",
        sku=row.sku,
        split=row.split,
        width=row.width,
        height=row.height,
        parents=(*row.parents, row.item_id),
        media_type="image/png",
        quality=quality,
        objects=_objects(row.objects, fine.box),
        status="review" if poor else "ok",
        reason=f"quality {quality:.2f} below {least_quality}" if poor else "",
        attributes={**{name: round(value, 4) for name, value in fine.signs.items()}, "area": fine.area},
    )
    context.put(encode_png(alpha_HW), path=f"{stem}.png", row=out)


def _objects(known: Sequence[ManifestObject], box: Box | None) -> tuple[ManifestObject, ...]:
    return tuple(replace(one, box=box) for one in known[:1]) if box else ()
