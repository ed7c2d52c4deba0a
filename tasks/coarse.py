"""Coarse masks of exemplars: a backdrop model of colours and edges, refined by GrabCut at a bounded working size.

One exemplar at a time, classical computer vision, nothing learnt. What comes out is a map of four levels over a window
around the product (sure and doubtful backdrop, doubtful and sure product), which teaches the saliency network. The
annotated box is used where there is one; otherwise the backdrop model proposes a box.

Shapes: H×W pixels. Boxes are xyxy in pixels. Colours are CIE Lab in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import iou_matrix, mask_box
from storage.images import encode_png
from storage.manifest import Manifest, ManifestRow
from tasks.backdrop import backdrop_distance, edge_strength, fit_backdrop, shrink_to, to_lab
from tasks.mask_shapes import convex_hull, fill_holes, largest_pieces
from tasks.params import CoarseParams
from tasks.proposal import THUMBNAIL, propose_regions
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

SURE_BACKDROP, MAYBE_BACKDROP, MAYBE_PRODUCT, SURE_PRODUCT = 0, 85, 170, 255
_TIGHT = 0.92
_CORE_PX = 9
# GrabCut's colours are first looked at in a picture of about this side, if it has at least so many pixels of each kind.
_MIXTURE_SIDE, _LEAST_COLOURS = 110, 100

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]


def product_window(box: Box, *, height: int, width: int, margin: float) -> Window:
    """Integer window around a box, `margin` times its longer side wider on every side, cut at the photo's border."""
    pad = margin * max(box[2] - box[0], box[3] - box[1]) + 4
    return (
        max(0, int(np.floor(box[0] - pad))),
        max(0, int(np.floor(box[1] - pad))),
        min(width, int(np.ceil(box[2] + pad))),
        min(height, int(np.ceil(box[3] + pad))),
    )


def box_in_window(box: Box, window: Window, *, size: tuple[int, int]) -> Box:
    """A box of the photo in the pixels of one of its windows, shown at a size (height, width)."""
    x0, y0, x1, y1 = window
    across, down = size[1] / (x1 - x0), size[0] / (y1 - y0)
    return (box[0] - x0) * across, (box[1] - y0) * down, (box[2] - x0) * across, (box[3] - y0) * down


def inside_box(box: Box, *, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of the pixels that a box touches."""
    mask_HW = np.zeros((height, width), bool)
    y0, x0 = max(0, int(np.floor(box[1]))), max(0, int(np.floor(box[0])))
    mask_HW[y0 : int(np.ceil(box[3])), x0 : int(np.ceil(box[2]))] = True
    return mask_HW


def visible_marks(
    distance_HW: NDArray[np.float32], edge_HW: NDArray[np.float32], allowed_HW: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pixels of the allowed area that no backdrop surface explains, or on an edge well above the ground's noise."""
    noise = float(np.median(edge_HW[~allowed_HW])) if (~allowed_HW).any() else 0.5
    return allowed_HW & ((distance_HW > 3) | (edge_HW > max(2.0, 6 * noise)))


def seed_map(
    marks_HW: NDArray[np.bool_], distance_HW: NDArray[np.float32], allowed_HW: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """First guess of the four levels, before GrabCut.

    Marks far from every backdrop surface are sure product; what all marks enclose is maybe product (white print on a
    white turntable). The rest of the allowed area is maybe backdrop, and all beyond it sure backdrop.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed_HW = np.asarray(cv2.morphologyEx(marks_HW.astype(np.uint8), cv2.MORPH_CLOSE, kernel), bool)
    filled_HW = fill_holes(closed_HW) & allowed_HW
    level_HW = np.where(allowed_HW, MAYBE_BACKDROP, SURE_BACKDROP).astype(np.uint8)
    level_HW[filled_HW] = MAYBE_PRODUCT
    level_HW[filled_HW & (distance_HW > 6)] = SURE_PRODUCT
    return level_HW


def cut(photo_HW3: NDArray[np.uint8], labels_HW: NDArray[np.uint8], *, iterations: int) -> NDArray[np.bool_]:
    """GrabCut (Rother et al., SIGGRAPH 2004) from a map of its labels: the larger pieces of its foreground."""
    product_HW = _is_foreground(labels_HW)
    if not product_HW.any() or not (labels_HW == cv2.GC_BGD).any():
        return product_HW
    bgr_HW3, labels_HW = np.ascontiguousarray(photo_HW3[..., ::-1]), labels_HW.copy()
    models = _colour_mixtures(bgr_HW3, labels_HW)
    cv2.grabCut(bgr_HW3, labels_HW, (0, 0, 1, 1), *models, iterations, cv2.GC_EVAL)
    return largest_pieces(_is_foreground(labels_HW))


def _is_foreground(labels_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (labels_HW == cv2.GC_FGD) | (labels_HW == cv2.GC_PR_FGD)


def _colour_mixtures(
    bgr_HW3: NDArray[np.uint8], labels_HW: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """GrabCut's mixtures of backdrop's and product's colours, as its rounds start from them.

    k-means takes longer than the rounds themselves, which learn the mixtures anew from all pixels: it gets every n-th
    row and column, unless that leaves too little of either side.
    """
    step = max(1, round(max(labels_HW.shape) / _MIXTURE_SIDE))
    some = np.s_[::step, ::step]
    product_hw = _is_foreground(labels_HW[some])
    if min(product_hw.sum(), (~product_hw).sum()) < _LEAST_COLOURS:
        some = np.s_[:, :]
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # k-means draws from OpenCV's generator
    part_hw3, part_hw = np.ascontiguousarray(bgr_HW3[some]), np.ascontiguousarray(labels_HW[some])
    cv2.grabCut(part_hw3, part_hw, (0, 0, 1, 1), *models, 0, cv2.GC_INIT_WITH_MASK)
    return models


def seed_labels(level_HW: NDArray[np.uint8], distance_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """GrabCut's labels from the seed map: only what is very far from every backdrop surface is fixed as foreground."""
    labels_HW = np.full(level_HW.shape, cv2.GC_BGD, np.uint8)
    labels_HW[level_HW == MAYBE_BACKDROP] = cv2.GC_PR_BGD
    labels_HW[level_HW >= MAYBE_PRODUCT] = cv2.GC_PR_FGD
    labels_HW[(level_HW >= MAYBE_PRODUCT) & (distance_HW > 10)] = cv2.GC_FGD
    return labels_HW


def hull_labels(marks_HW: NDArray[np.bool_], allowed_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """GrabCut's labels when colour fails (white on white): the convex hull of all marks is product, its core surely."""
    labels_HW = np.where(allowed_HW, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    hull_HW = convex_hull(marks_HW)
    core_HW = cv2.erode(hull_HW.astype(np.uint8), np.ones((_CORE_PX, _CORE_PX), np.uint8))
    labels_HW[hull_HW & allowed_HW] = cv2.GC_PR_FGD
    labels_HW[(core_HW > 0) & allowed_HW] = cv2.GC_FGD
    return labels_HW


def cut_where_doubtful(
    photo_HW3: NDArray[np.uint8], probability_HW: NDArray[np.float32], *, doubt: float
) -> NDArray[np.bool_]:
    """Moves a soft mask's outline to the colour edges nearby: one round of GrabCut.

    Pixels with a probability in (doubt, 1 - doubt) are open, the others fixed.
    """
    labels_HW = np.where(probability_HW > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels_HW[probability_HW < doubt] = cv2.GC_BGD
    labels_HW[probability_HW > 1 - doubt] = cv2.GC_FGD
    return cut(photo_HW3, labels_HW, iterations=1)


def trust(
    mask_HW: NDArray[np.bool_], distance_HW: NDArray[np.float32], allowed_HW: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The four levels of a cut-out mask: sure where GrabCut and the backdrop distance agree, away from the outline.

    A pixel of the mask is sure when the backdrop does not explain it, or when it is deep inside; one beyond is sure
    when a surface explains it, or outside of the allowed area. Holes become doubtful product: a white label on a white
    ground looks like a hole, and what a true one (a handle) looks like is for the saliency network to learn.
    """
    filled_HW = fill_holes(mask_HW)
    solid_u8 = filled_HW.astype(np.uint8)
    inner_HW = cv2.erode(solid_u8, np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    outer_HW = ~cv2.dilate(solid_u8, np.ones((3, 3), np.uint8)).astype(bool)
    depth_HW = cv2.distanceTransform(solid_u8, cv2.DIST_L2, 3)
    deep_HW = mask_HW & (depth_HW > 0.35 * depth_HW.max())
    level_HW = np.where(filled_HW, MAYBE_PRODUCT, MAYBE_BACKDROP).astype(np.uint8)
    level_HW[inner_HW & ((distance_HW > 4) | deep_HW)] = SURE_PRODUCT
    # Inside the convex hull, what looks like backdrop may be a white panel that GrabCut has lost.
    level_HW[(outer_HW & (distance_HW < 3) & ~convex_hull(filled_HW)) | ~allowed_HW] = SURE_BACKDROP
    return level_HW


def coarse_levels(
    photo_HW3: NDArray[np.uint8], allowed_HW: NDArray[np.bool_], *, box: Box | None, iterations: int
) -> NDArray[np.uint8]:
    """Level map (uint8, 0/85/170/255) of one window.

    Args:
        photo_HW3: the window, uint8 RGB.
        allowed_HW: where the product may be; everything else is backdrop.
        box: the product's annotated box in the window's pixels: its mask touches all four sides. None: not annotated.
    """
    lab_HW3 = to_lab(photo_HW3)
    backdrop = fit_backdrop(lab_HW3, ~allowed_HW)
    if not backdrop:
        return np.where(allowed_HW, MAYBE_PRODUCT, SURE_BACKDROP).astype(np.uint8)
    distance_HW = backdrop_distance(lab_HW3, backdrop)
    marks_HW = visible_marks(distance_HW, edge_strength(lab_HW3), allowed_HW)
    level_HW = seed_map(marks_HW, distance_HW, allowed_HW)
    mask_HW = cut(photo_HW3, seed_labels(level_HW, distance_HW), iterations=iterations)
    if box is not None and box_fit(mask_HW, box) < _TIGHT:
        # A tight box is touched on all four sides (Lempitsky et al., ICCV 2009); this mask leaves part of it empty.
        inner_HW = cv2.erode(allowed_HW.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        second_HW = cut(photo_HW3, hull_labels(marks_HW & inner_HW, allowed_HW), iterations=iterations)
        mask_HW = second_HW if box_fit(second_HW, box) > box_fit(mask_HW, box) else mask_HW
    return trust(mask_HW, distance_HW, allowed_HW)


def box_fit(mask_HW: NDArray[np.bool_], box: Box) -> float:
    """IoU of the mask's own box with the given one; 0 for an empty mask."""
    own = mask_box(mask_HW)
    if own is None:
        return 0.0
    return float(iou_matrix(np.array([own], np.float32), np.array([box], np.float32))[0, 0])


@dataclass(frozen=True, slots=True)
class CoarseMask:
    """The level map (uint8 [h, w], four levels) of the photo's `window` at the working size, and how good it is.

    `box` is the product's box in the photo (annotated or proposed); `quality` in [0, 1] is how well the mask fills the
    box times the share of sure pixels inside it.
    """

    levels_HW: NDArray[np.uint8]
    window: Window
    box: Box
    quality: float

    def crop(self, photo_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window out of its photo."""
        x0, y0, x1, y1 = self.window
        return photo_HW3[y0:y1, x0:x1]

    def box_in(self, size: tuple[int, int]) -> Box:
        """The box in the pixels of the window, shown at a size (height, width)."""
        return box_in_window(self.box, self.window, size=size)

    def moved_to(self, box: Box, *, height: int, width: int) -> CoarseMask:
        """The same levels in a window around another box, as wide as this one's around its own; of the photo's size.

        Beyond the old window is backdrop.
        """
        old = self.window
        margin = max(self.box[0] - old[0], self.box[1] - old[1], old[2] - self.box[2], old[3] - self.box[3])
        share = max(0.0, margin - 4) / max(self.box[2] - self.box[0], self.box[3] - self.box[1])
        new = product_window(box, height=height, width=width, margin=share)
        scale = self.levels_HW.shape[1] / (old[2] - old[0])
        size = round((new[2] - new[0]) * scale), round((new[3] - new[1]) * scale)
        shift_23 = np.array([[1, 0, (old[0] - new[0]) * scale], [0, 1, (old[1] - new[1]) * scale]])
        levels_HW = cv2.warpAffine(self.levels_HW, shift_23, size, flags=cv2.INTER_NEAREST, borderValue=SURE_BACKDROP)
        return replace(self, levels_HW=np.asarray(levels_HW, np.uint8), window=new, box=box)


def read_coarse(row: ManifestRow, levels_HW: NDArray[np.uint8]) -> CoarseMask:
    """The coarse mask that a row of the coarse stage and its picture stand for."""
    return CoarseMask(levels_HW, tuple(row.attributes["window"]), tuple(row.attributes["box"]), float(row.quality or 0))


def coarse_mask(photo_HW3: NDArray[np.uint8], box: Box, *, params: CoarseParams) -> CoarseMask:
    """The coarse mask of one exemplar with an annotated, tight box."""
    height, width = photo_HW3.shape[:2]
    window = product_window(box, height=height, width=width, margin=params.margin)
    small_HW3 = _window_of(photo_HW3, window, working_size=params.working_size)
    size = small_HW3.shape[:2]
    inner = box_in_window(box, window, size=size)
    allowed_HW = inside_box(inner, height=size[0], width=size[1])
    levels_HW = coarse_levels(small_HW3, allowed_HW, box=inner, iterations=params.iterations)
    return CoarseMask(levels_HW, window, box, fill_quality(levels_HW, inner))


def _window_of(photo_HW3: NDArray[np.uint8], window: Window, *, working_size: int) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = window
    return shrink_to(np.ascontiguousarray(photo_HW3[y0:y1, x0:x1]), working_size)


def loose_coarse_mask(
    photo_HW3: NDArray[np.uint8], region_hw: NDArray[np.bool_], *, params: CoarseParams
) -> CoarseMask | None:
    """The coarse mask of one exemplar without annotated box; None if nothing stands out in the region.

    Args:
        photo_HW3: uint8 RGB.
        region_hw: where the product is, loosely: a mask over the whole photo at any size.
    """
    height, width = photo_HW3.shape[:2]
    region_HW = cv2.resize(region_hw.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    box: Box | None = mask_box(region_HW > 0)
    made: CoarseMask | None = None
    # The second time the window is as narrow as around an annotated box.
    for _ in range(2):
        if box is None:
            return None
        window = x0, y0, x1, y1 = product_window(box, height=height, width=width, margin=params.margin)
        small_HW3 = _window_of(photo_HW3, window, working_size=params.working_size)
        size = small_HW3.shape[:2]
        allowed_HW = cv2.resize(region_HW[y0:y1, x0:x1], size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        allowed_HW &= inside_box(box_in_window(box, window, size=size), height=size[0], width=size[1])
        levels_HW = coarse_levels(small_HW3, allowed_HW, box=None, iterations=params.iterations)
        own = mask_box(levels_HW >= MAYBE_PRODUCT)
        if own is None:
            return None
        across, down = (x1 - x0) / size[1], (y1 - y0) / size[0]
        tight = own[0] * across + x0, own[1] * down + y0, own[2] * across + x0, own[3] * down + y0
        made = CoarseMask(levels_HW, window, tight, fill_quality(levels_HW, own))
        box = _padded(tight, by=0.03 * max(x1 - x0, y1 - y0) + 2, height=height, width=width)
    return made


def _padded(box: Box, *, by: float, height: int, width: int) -> Box:
    x0, y0, x1, y1 = box
    return max(0.0, x0 - by), max(0.0, y0 - by), min(float(width), x1 + by), min(float(height), y1 + by)


def fill_quality(levels_HW: NDArray[np.uint8], box: Box) -> float:
    """How well the mask fits its box, down to half of that as the sure pixels in the box get fewer; 0 if empty."""
    inside_HW = inside_box(box, height=levels_HW.shape[0], width=levels_HW.shape[1])
    sure = np.isin(levels_HW[inside_HW], (SURE_BACKDROP, SURE_PRODUCT)).mean()
    return box_fit(levels_HW >= MAYBE_PRODUCT, box) * (0.5 + 0.5 * float(sure))


@stage(CoarseParams)
def coarse(context: StageContext, *, params: CoarseParams, catalog: Manifest) -> None:
    """One row an exemplar, `coarse/<stem>`: the level map's PNG, its window in `attributes`, its box in `objects`.

    Where no box is annotated, the product's region is proposed from all such photos of its SKU.
    """
    regions = _proposed_regions(context, [row for row in catalog.ok if not row.objects])

    def make(row: ManifestRow) -> None:
        photo_HW3 = context.read_rgb(row)
        if row.objects:
            _publish(context, row, coarse_mask(photo_HW3, row.objects[0].box, params=params), proposed=False)
            return
        region_hw = regions[row.item_id]
        made = None if region_hw is None else loose_coarse_mask(photo_HW3, region_hw, params=params)
        _publish(context, row, made, proposed=True)

    for _ in context.map(make, catalog.ok, what="exemplars"):
        pass


def _proposed_regions(context: StageContext, rows: Sequence[ManifestRow]) -> dict[str, NDArray[np.bool_] | None]:
    """The regions of products without annotated box, by item_id."""
    products: dict[str | None, list[ManifestRow]] = {}
    for row in rows:
        products.setdefault(row.sku, []).append(row)

    def propose(known: list[ManifestRow]) -> list[NDArray[np.bool_] | None]:
        return propose_regions([shrink_to(context.read_rgb(row), THUMBNAIL) for row in known])

    found = context.map(propose, list(products.values()), what="products without boxes")
    return {
        row.item_id: region_hw
        for known, regions in zip(products.values(), found, strict=True)
        for row, region_hw in zip(known, regions, strict=True)
    }


def _publish(context: StageContext, row: ManifestRow, made: CoarseMask | None, *, proposed: bool) -> None:
    stem = row.item_id.removeprefix("catalog/")
    out = ManifestRow(
        item_id=f"coarse/{stem}",
        sku=row.sku,
        split=row.split,
        parents=(row.item_id,),
        width=row.width,
        height=row.height,
    )
    if made is None:
        context.add(replace(out, status="dropped", reason="no product stands out from the backdrop"))
        return
    out = replace(
        out,
        media_type="image/png",
        quality=made.quality,
        objects=tuple(replace(known, box=made.box) for known in row.objects[:1]),
        attributes={"window": list(made.window), "box": list(made.box), "proposed": proposed},
    )
    context.put(encode_png(made.levels_HW), path=f"{stem}.png", row=out)
