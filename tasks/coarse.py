"""Coarse masks of exemplars: a backdrop model of colours and edges, refined by GrabCut at a bounded working size.

One exemplar at a time, classical computer vision, nothing learnt. What comes out is a map of four levels over a window
around the product (sure and doubtful backdrop, doubtful and sure product), which teaches the saliency network. The
annotated box is used where there is one; otherwise the backdrop model proposes a box.

Shapes: H×W pixels, N pixels or boxes, K colour layers. Boxes are xyxy in pixels. Colours are CIE Lab in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import iou_matrix, mask_box
from storage.images import encode_png
from storage.manifest import Manifest, ManifestRow
from tasks.params import CoarseParams
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

SURE_BACKDROP, MAYBE_BACKDROP, MAYBE_PRODUCT, SURE_PRODUCT = 0, 85, 170, 255
_TIGHT = 0.92
_CORE_PX = 9

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Layer:
    """One smooth surface of the backdrop (table, wall, turntable): a quadratic in x and y for each Lab channel.

    Attributes:
        coefficients_63: weights of (1, x, y, x², xy, y²), x and y in [-1, 1] over the window.
        low_3, high_3: the colours that were seen on it; the surface is clipped to them where it extrapolates.
        scale: robust standard deviation of the pixels around the surface, in Lab units.
    """

    coefficients_63: NDArray[np.float32]
    low_3: NDArray[np.float32]
    high_3: NDArray[np.float32]
    scale: float


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


def shrink_to(photo_HW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The photo with its longer side at most `size`; never enlarged."""
    ratio = size / max(photo_HW3.shape[:2])
    if ratio >= 1:
        return photo_HW3
    return np.asarray(cv2.resize(photo_HW3, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA), np.uint8)


def to_lab(photo_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB bytes to CIE Lab: L in [0, 100], a and b around zero."""
    return np.asarray(cv2.cvtColor(photo_HW3.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def inside_box(box: Box, *, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of the pixels that a box touches."""
    mask_HW = np.zeros((height, width), bool)
    y0, x0 = max(0, int(np.floor(box[1]))), max(0, int(np.floor(box[0])))
    mask_HW[y0 : int(np.ceil(box[3])), x0 : int(np.ceil(box[2]))] = True
    return mask_HW


def _basis(height: int, width: int) -> NDArray[np.float32]:
    y_HW, x_HW = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x_HW), x_HW, y_HW, x_HW * x_HW, x_HW * y_HW, y_HW * y_HW], axis=-1)


def _fit_layer(basis_N6: NDArray[np.float32], lab_N3: NDArray[np.float32]) -> tuple[Layer, NDArray[np.bool_]]:
    """The largest smooth surface among some pixels, and which of them lie on it.

    Starts from the fullest Lab cell, then alternates least squares (a ridge tames curvature) and choice of inliers.
    """
    cells_N = (np.round(lab_N3 / 4).astype(np.int64) + 128) @ np.array([1 << 16, 1 << 8, 1])
    cells, counts = np.unique(cells_N, return_counts=True)
    centre_3 = lab_N3[cells_N == cells[counts.argmax()]].mean(axis=0)
    inlier_N = np.linalg.norm(lab_N3 - centre_3, axis=1) < 8
    scale, ridge_66 = 2.0, np.diag([0, 0.002, 0.002, 0.02, 0.02, 0.02]).astype(np.float32)
    coefficients_63 = np.zeros((6, 3), np.float32)
    for _ in range(4):
        used_N6, colours_N3 = basis_N6[inlier_N], lab_N3[inlier_N]
        gram_66 = used_N6.T @ used_N6 + ridge_66 * len(used_N6) + 1e-6 * np.eye(6, dtype=np.float32)
        coefficients_63 = np.linalg.solve(gram_66, used_N6.T @ colours_N3)
        distance_N = np.linalg.norm(lab_N3 - basis_N6 @ coefficients_63, axis=1)
        scale = float(np.clip(1.2 * np.median(distance_N[inlier_N]), 0.8, 4.0))
        inlier_N = distance_N < 4 * scale
    colours_N3 = lab_N3[inlier_N] if inlier_N.any() else centre_3[None]
    layer = Layer(coefficients_63.astype(np.float32), colours_N3.min(axis=0), colours_N3.max(axis=0), scale)
    return layer, inlier_N


def fit_backdrop(
    lab_HW3: NDArray[np.float32], known_HW: NDArray[np.bool_], *, layers: int = 4, samples: int = 3000
) -> list[Layer]:
    """Explains the known backdrop pixels by a few smooth surfaces, the largest first.

    Args:
        lab_HW3: the window's colours.
        known_HW: pixels that are surely backdrop (outside of the product's box).
        layers: most surfaces to look for; the search stops when less than 3 % of the pixels are unexplained.
        samples: most pixels used; an even subset is taken beyond.
    """
    height, width = known_HW.shape
    basis_N6, lab_N3 = _basis(height, width)[known_HW], lab_HW3[known_HW]
    step = max(1, len(lab_N3) // samples)
    basis_N6, lab_N3 = basis_N6[::step], lab_N3[::step]
    found: list[Layer] = []
    total = len(lab_N3)
    while len(found) < layers and len(lab_N3) > max(12, 0.03 * total):
        layer, inlier_N = _fit_layer(basis_N6, lab_N3)
        found.append(layer)
        if not inlier_N.any():
            break
        basis_N6, lab_N3 = basis_N6[~inlier_N], lab_N3[~inlier_N]
    return found


def backdrop_distance(
    lab_HW3: NDArray[np.float32], backdrop: list[Layer], *, shadow_discount: float = 0.2, tint: float = 0.3
) -> NDArray[np.float32]:
    """How far each pixel is from the nearest backdrop surface, in that surface's standard deviations (float32, >= 0).

    A pixel that is darker than a surface may be the product's shadow on it: there lightness counts only
    `shadow_discount` of its difference, and the product's light on the ground may tint it by `tint` Lab units for each
    unit of darkness.
    """
    basis_HW6 = _basis(*lab_HW3.shape[:2])
    nearest_HW = np.full(lab_HW3.shape[:2], np.inf, np.float32)
    for layer in backdrop:
        surface_HW3 = np.clip(basis_HW6 @ layer.coefficients_63, layer.low_3, layer.high_3)
        light_HW = lab_HW3[..., 0] - surface_HW3[..., 0]
        dark_HW = np.maximum(0, -light_HW)
        shade_HW = np.clip(lab_HW3[..., 0] / np.maximum(surface_HW3[..., 0], 1), 0, 1)[..., None]
        hue_HW = np.linalg.norm(lab_HW3[..., 1:] - surface_HW3[..., 1:] * shade_HW, axis=-1)
        hue_HW = np.maximum(0, hue_HW - tint * dark_HW)
        light_HW = np.where(light_HW < 0, shadow_discount * light_HW, light_HW)
        nearest_HW = np.minimum(nearest_HW, np.sqrt(light_HW**2 + hue_HW**2) / layer.scale)
    return nearest_HW


def edge_strength(lab_HW3: NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the Lab gradient (Scharr), in Lab units a pixel; the strongest of the three channels counts."""
    gradients = [
        cv2.magnitude(
            cv2.Scharr(channel_HW, cv2.CV_32F, 1, 0, scale=1 / 32),
            cv2.Scharr(channel_HW, cv2.CV_32F, 0, 1, scale=1 / 32),
        )
        for channel_HW in cv2.split(lab_HW3)
    ]
    return np.maximum.reduce(gradients)


def fill_holes(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with every hole closed (background that does not reach the border)."""
    padded_HW = cv2.copyMakeBorder(mask_HW.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded_HW, None, (0, 0), 2)
    return padded_HW[1:-1, 1:-1] != 2


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
    if not np.isin(labels_HW, (cv2.GC_FGD, cv2.GC_PR_FGD)).any() or not (labels_HW == cv2.GC_BGD).any():
        return np.isin(labels_HW, (cv2.GC_FGD, cv2.GC_PR_FGD))
    cv2.setRNGSeed(0)  # the colour mixtures start from k-means, which draws from OpenCV's generator
    bgr_HW3, labels_HW = np.ascontiguousarray(photo_HW3[..., ::-1]), labels_HW.copy()
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr_HW3, labels_HW, (0, 0, 1, 1), *models, iterations, cv2.GC_INIT_WITH_MASK)
    return largest_pieces((labels_HW == cv2.GC_FGD) | (labels_HW == cv2.GC_PR_FGD))


def seed_labels(level_HW: NDArray[np.uint8], distance_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """GrabCut's labels from the seed map: only what is very far from every backdrop surface is fixed as foreground."""
    labels_HW = np.full(level_HW.shape, cv2.GC_BGD, np.uint8)
    labels_HW[level_HW == MAYBE_BACKDROP] = cv2.GC_PR_BGD
    labels_HW[level_HW >= MAYBE_PRODUCT] = cv2.GC_PR_FGD
    labels_HW[(level_HW >= MAYBE_PRODUCT) & (distance_HW > 10)] = cv2.GC_FGD
    return labels_HW


def convex_hull(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's convex hull; the mask itself when it has fewer than three pixels."""
    points = np.argwhere(mask_HW)[:, ::-1].astype(np.int32)
    if len(points) < 3:
        return mask_HW
    hull_HW = np.zeros(mask_HW.shape, np.uint8)
    cv2.fillConvexPoly(hull_HW, cv2.convexHull(points), 1)
    return hull_HW.astype(bool)


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


def largest_pieces(mask_HW: NDArray[np.bool_], *, share: float = 0.1) -> NDArray[np.bool_]:
    """Keeps the largest connected piece and those with at least `share` of its area; specks go."""
    count, pieces_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask_HW
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= share * areas.max())[pieces_HW] & mask_HW


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


def coarse_levels(photo_HW3: NDArray[np.uint8], box: Box, *, iterations: int) -> NDArray[np.uint8]:
    """Level map (uint8, 0/85/170/255) of one window whose product lies inside `box` (pixels of this window)."""
    lab_HW3 = to_lab(photo_HW3)
    height, width = lab_HW3.shape[:2]
    allowed_HW = inside_box(box, height=height, width=width)
    backdrop = fit_backdrop(lab_HW3, ~allowed_HW)
    if not backdrop:
        return np.where(allowed_HW, MAYBE_PRODUCT, SURE_BACKDROP).astype(np.uint8)
    distance_HW = backdrop_distance(lab_HW3, backdrop)
    marks_HW = visible_marks(distance_HW, edge_strength(lab_HW3), allowed_HW)
    level_HW = seed_map(marks_HW, distance_HW, allowed_HW)
    mask_HW = cut(photo_HW3, seed_labels(level_HW, distance_HW), iterations=iterations)
    if box_fit(mask_HW, box) < _TIGHT:
        # A tight box is touched on all four sides (Lempitsky et al., ICCV 2009); this mask leaves part of it empty.
        inner_HW = cv2.erode(allowed_HW.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        second_HW = cut(photo_HW3, hull_labels(marks_HW & inner_HW, allowed_HW), iterations=iterations)
        mask_HW = max(mask_HW, second_HW, key=lambda one_HW: box_fit(one_HW, box))
    return trust(mask_HW, distance_HW, allowed_HW)


def box_fit(mask_HW: NDArray[np.bool_], box: Box) -> float:
    """IoU of the mask's own box with the given one; 0 for an empty mask."""
    own = mask_box(mask_HW)
    if own is None:
        return 0.0
    return float(iou_matrix(np.array([own], np.float32), np.array([box], np.float32))[0, 0])


def propose_box(photo_HW3: NDArray[np.uint8], *, working_size: int = 240) -> Box | None:
    """Box of the product in a turntable photo without annotation, from the backdrop alone; None if nothing stands out.

    Smooth surfaces that reach across a good part of the photo (table, wall, turntable) are backdrop, wherever they are;
    of the pieces they don't explain, the one with the most contrast near the middle is the product.
    """
    small_HW3 = shrink_to(photo_HW3, working_size)
    lab_HW3 = to_lab(small_HW3)
    edge_HW = cv2.GaussianBlur(edge_strength(lab_HW3), (0, 0), 1.0)
    smooth_HW = edge_HW < max(1.0, 2 * float(np.median(edge_HW)))
    backdrop = [layer for layer in fit_backdrop(lab_HW3, smooth_HW, layers=6) if _reaches_across(layer, lab_HW3)]
    if not backdrop:
        return None
    interest_HW = np.clip(backdrop_distance(lab_HW3, backdrop) - 4, 0, 12) + np.clip(edge_HW, 0, 12)
    stands_out_HW = (backdrop_distance(lab_HW3, backdrop) > 4).astype(np.uint8)
    opened_HW = cv2.morphologyEx(stands_out_HW, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed_HW = np.asarray(cv2.morphologyEx(opened_HW, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), np.uint8)
    piece_HW = _best_piece(closed_HW, interest_HW)
    if piece_HW is None:
        return None
    rows, columns = np.nonzero(piece_HW)
    across, down = photo_HW3.shape[1] / small_HW3.shape[1], photo_HW3.shape[0] / small_HW3.shape[0]
    return (
        float(max(0, columns.min() - 1) * across),
        float(max(0, rows.min() - 1) * down),
        float(min(small_HW3.shape[1], columns.max() + 2) * across),
        float(min(small_HW3.shape[0], rows.max() + 2) * down),
    )


def _reaches_across(layer: Layer, lab_HW3: NDArray[np.float32]) -> bool:
    explained_HW = backdrop_distance(lab_HW3, [layer], shadow_discount=1.0, tint=0.0) < 4
    columns = np.flatnonzero(explained_HW.mean(axis=0) > 0.04)
    return len(columns) > 0 and bool(np.ptp(columns) > 0.35 * lab_HW3.shape[1]) and bool(explained_HW.mean() > 0.04)


def _best_piece(mask_HW: NDArray[np.uint8], interest_HW: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The connected piece with the largest sum of interest, weighted by a Gaussian around the photo's middle."""
    count, pieces_HW = cv2.connectedComponents(mask_HW, connectivity=8)
    if count < 2:
        return None
    height, width = mask_HW.shape
    y_HW, x_HW = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    weight_HW = interest_HW * np.exp(-(x_HW**2 + y_HW**2) / (2 * 0.4**2))
    sums = np.bincount(pieces_HW.ravel(), weights=weight_HW.ravel(), minlength=count)
    sums[0] = 0
    return pieces_HW == int(sums.argmax())


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


def read_coarse(row: ManifestRow, levels_HW: NDArray[np.uint8]) -> CoarseMask:
    """The coarse mask that a row of the coarse stage and its picture stand for."""
    return CoarseMask(levels_HW, tuple(row.attributes["window"]), tuple(row.attributes["box"]), float(row.quality or 0))


def coarse_mask(
    photo_HW3: NDArray[np.uint8], box: Box | None, *, working_size: int, margin: float, iterations: int
) -> CoarseMask | None:
    """The coarse mask of one exemplar; None when no box is given and the backdrop model finds none."""
    box = box or propose_box(photo_HW3)
    if box is None:
        return None
    window = product_window(box, height=photo_HW3.shape[0], width=photo_HW3.shape[1], margin=margin)
    crop_HW3 = np.ascontiguousarray(photo_HW3[window[1] : window[3], window[0] : window[2]])
    small_HW3 = shrink_to(crop_HW3, working_size)
    inner = box_in_window(box, window, size=small_HW3.shape[:2])
    levels_HW = coarse_levels(small_HW3, inner, iterations=iterations)
    return CoarseMask(levels_HW, window, box, fill_quality(levels_HW, inner))


def fill_quality(levels_HW: NDArray[np.uint8], box: Box) -> float:
    """How well the mask fits its box, down to half of that as the sure pixels in the box get fewer; 0 if empty."""
    inside_HW = inside_box(box, height=levels_HW.shape[0], width=levels_HW.shape[1])
    sure = np.isin(levels_HW[inside_HW], (SURE_BACKDROP, SURE_PRODUCT)).mean()
    return box_fit(levels_HW >= MAYBE_PRODUCT, box) * (0.5 + 0.5 * float(sure))


@stage(CoarseParams)
def coarse(context: StageContext, *, params: CoarseParams, catalog: Manifest) -> None:
    """One row an exemplar, `coarse/<stem>`: the level map's PNG, its window in `attributes`, its box in `objects`."""

    def make(row: ManifestRow) -> None:
        given = row.objects[0].box if row.objects else None
        made = coarse_mask(
            context.read_rgb(row),
            given,
            working_size=params.working_size,
            margin=params.margin,
            iterations=params.iterations,
        )
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
        objects = tuple(replace(known, box=made.box) for known in row.objects[:1])
        out = replace(
            out,
            media_type="image/png",
            quality=made.quality,
            objects=objects,
            attributes={"window": list(made.window), "box": list(made.box), "proposed": given is None},
        )
        context.put(encode_png(made.levels_HW), path=f"{stem}.png", row=out)

    for _ in context.map(make, catalog.ok, what="exemplars"):
        pass
