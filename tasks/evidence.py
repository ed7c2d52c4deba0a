"""What the pool says about views: single products cut out of checkout photos, compared with every exemplar's cut-out.

A product in a checkout photo may be turned by any angle about the camera's axis and stands in another light. So a
cut-out becomes a small picture of fixed area, its colours divided by those of the ground around it, and pool crops are
compared at many rotations. No label of any checkout photo is used.

Shapes: H×W pixels, N exemplars, M crops, R rotations, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import area, intersection_matrix
from tasks.coarse import convex_hull, largest_pieces

Window = tuple[int, int, int, int]

GRID = 16
_LEVELS = ((0.5, 0.0), (0.9, 0.0), (0.9, 0.006), (0.9, 0.012))
_LEAST_SHARE, _MOST_SHARE, _SOLIDITY = 0.002, 0.15, 0.55


@dataclass(frozen=True, slots=True)
class PoolCrop:
    """What may be one product of a pool photo: where, and its descriptors at every rotation, float32 [R, D]."""

    photo: str
    box: Window
    descriptors_RD: NDArray[np.float32]


def product_candidates(probability_HW: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """Masks of pieces of a saliency map that may be one product: right size and not cut by the border.

    Products that touch come apart at a higher threshold, or when the map is eroded; all versions of a piece that differ
    are candidates, and which of them is a product shows when they are compared with the catalog.
    """
    low_HW = probability_HW > 0.5
    found: list[NDArray[np.bool_]] = []
    for threshold, erosion in _LEVELS:
        radius = round(erosion * max(probability_HW.shape))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        eroded_HW = cv2.erode((probability_HW > threshold).astype(np.uint8), kernel)
        count, pieces_HW, stats, _ = cv2.connectedComponentsWithStats(eroded_HW, connectivity=4)
        for index in range(1, count):
            if stats[index, cv2.CC_STAT_AREA] < 0.5 * _LEAST_SHARE * probability_HW.size:
                continue
            # A pixel more than was eroded: the higher threshold took the rim.
            grown_HW = cv2.dilate((pieces_HW == index).astype(np.uint8), kernel)
            mask_HW = low_HW & (cv2.dilate(grown_HW, np.ones((3, 3), np.uint8)) > 0)
            if _may_be_product(mask_HW) and not any(_iou(mask_HW, other_HW) > 0.8 for other_HW in found):
                found.append(mask_HW)
    return found


def _may_be_product(mask_HW: NDArray[np.bool_]) -> bool:
    x, y, across, down = cv2.boundingRect(mask_HW.astype(np.uint8))
    height, width = mask_HW.shape
    filled = float(mask_HW.sum())
    if x == 0 or y == 0 or x + across == width or y + down == height:
        return False
    return _LEAST_SHARE <= filled / mask_HW.size <= _MOST_SHARE and filled >= _SOLIDITY * convex_hull(mask_HW).sum()


def _iou(mask_HW: NDArray[np.bool_], other_HW: NDArray[np.bool_]) -> float:
    return float((mask_HW & other_HW).sum() / (mask_HW | other_HW).sum())


def neutralised(photo_HW3: NDArray[np.uint8], mask_HW: NDArray[np.bool_], *, ring: int) -> NDArray[np.float32]:
    """The photo as if the ground around the mask were light grey: float32 RGB, the ground's brightest half at 0.8."""
    near_HW = cv2.dilate(mask_HW.astype(np.uint8), np.ones((2 * ring + 1,) * 2, np.uint8)).astype(bool)
    ground_N3 = photo_HW3[near_HW & ~mask_HW].astype(np.float32)
    if not len(ground_N3):
        return photo_HW3.astype(np.float32) / np.float32(255)
    # The darker half is shadow, or another product.
    bright_N3 = ground_N3[ground_N3.sum(axis=1) >= np.median(ground_N3.sum(axis=1))]
    gain_3 = 0.8 / np.maximum(np.median(bright_N3, axis=0), 20)
    return np.asarray(photo_HW3 * gain_3, np.float32)


def describe(
    photo_HW3: NDArray[np.float32], mask_HW: NDArray[np.bool_], *, rotations: int, grid: int = GRID
) -> NDArray[np.float32]:
    """Descriptors of a cut-out at evenly spaced rotations, float32 [rotations, D].

    The cut-out is scaled to a fixed area, centred, turned; what counts is its outline and, inside, its Lab colours.
    The squared distance of two descriptors is about the mean squared difference over the cut-out's pixels.
    """
    pixels = max(1, int(mask_HW.sum()))
    rows, columns = np.nonzero(mask_HW)
    centre = (float(columns.mean()), float(rows.mean()))
    fine = 4 * grid
    scale = 0.52 * fine / np.sqrt(pixels)
    lab_HW3 = cv2.cvtColor(np.clip(photo_HW3, 0, 1), cv2.COLOR_RGB2LAB)
    planes_HW4 = np.dstack([lab_HW3 / 100, np.ones_like(lab_HW3[..., :1])]) * mask_HW[..., None]
    planes_HW4 = planes_HW4.astype(np.float32)
    if scale < 1:
        planes_HW4 = cv2.GaussianBlur(planes_HW4, (0, 0), 0.4 / scale)
    made = []
    for turn in range(rotations):
        matrix_23 = cv2.getRotationMatrix2D(centre, 360 * turn / rotations, scale)
        matrix_23 = matrix_23 + np.array([[0, 0, fine / 2 - centre[0]], [0, 0, fine / 2 - centre[1]]])
        turned_HW4 = cv2.resize(
            cv2.warpAffine(planes_HW4, matrix_23, (fine, fine)), (grid, grid), interpolation=cv2.INTER_AREA
        )
        made.append(_weigh(np.asarray(turned_HW4, np.float32)))
    return np.stack(made)


def _weigh(planes_HW4: NDArray[np.float32]) -> NDArray[np.float32]:
    lightness, a, b, mask = np.moveaxis(planes_HW4, -1, 0)
    mean = lightness.sum() / max(1e-6, float(mask.sum()))
    # The light's strength differs within and between photos: the mean lightness counts less than its pattern.
    vector = np.stack([lightness - 0.7 * mean * mask, 1.5 * a, 1.5 * b, 0.35 * mask])
    return (vector / np.sqrt(max(1e-6, float(mask.sum())))).ravel()


def distances(descriptors_ND: NDArray[np.float32], crops: Sequence[PoolCrop]) -> NDArray[np.float32]:
    """Distance of every exemplar to every crop at the best rotation, float32 [N, M]."""
    out_NM = np.empty((len(descriptors_ND), len(crops)), np.float32)
    squares_N = (descriptors_ND**2).sum(axis=1)
    for index, crop in enumerate(crops):
        squared_NR = (
            squares_N[:, None] + (crop.descriptors_RD**2).sum(axis=1) - 2 * descriptors_ND @ crop.descriptors_RD.T
        )
        out_NM[:, index] = np.sqrt(np.maximum(squared_NR.min(axis=1), 0))
    return out_NM


def best_apart(distance_NM: NDArray[np.float32], crops: Sequence[PoolCrop], *, overlap: float = 0.5) -> list[int]:
    """Which candidates are kept where several of a photo overlap: those that resemble some view most, in their order.

    Args:
        overlap: most shared area of two that are kept, as a share of the smaller box.
    """
    nearest_M = distance_NM.min(axis=0)
    boxes_M4 = np.array([crop.box for crop in crops], np.float32)
    sizes_M = area(boxes_M4)
    by_photo: dict[str, list[int]] = {}
    for index in np.argsort(nearest_M, kind="stable"):
        kept = by_photo.setdefault(crops[index].photo, [])
        shared_1K = intersection_matrix(boxes_M4[index : index + 1], boxes_M4[kept])
        if not kept or (shared_1K[0] <= overlap * np.minimum(sizes_M[index], sizes_M[kept])).all():
            kept.append(int(index))
    return sorted(index for kept in by_photo.values() for index in kept)


def evidence(
    distance_NM: NDArray[np.float32], skus_N: NDArray[np.int64], *, sharpness: float = 30.0, distrust: float = 16.0
) -> NDArray[np.float32]:
    """How often the pool shows each view, float32 [N] >= 0: crops that look like it and like no other product.

    Every crop is shared among the products by how near their best view is (so look-alikes share it), and within the
    product goes to the views that are about as near as the best one.

    Args:
        distance_NM: as `distances` returns it, M > 0.
        skus_N: index of each exemplar's product, 0..K-1, each at least once.
        sharpness: how fast a view's share falls, per relative excess over the crop's best distance.
        distrust: how fast a crop's say falls, per relative excess over the median crop's best distance: a crop that
            resembles nothing is two products, or half of one.
    """
    products = int(skus_N.max()) + 1
    best_KM = np.maximum(np.stack([distance_NM[skus_N == sku].min(axis=0) for sku in range(products)]), 1e-6)
    nearest_M = best_KM.min(axis=0)
    share_KM = np.exp(-sharpness * (best_KM / nearest_M - 1))
    share_KM /= share_KM.sum(axis=0)
    trust_M = np.exp(-distrust * np.maximum(0, nearest_M / np.median(nearest_M) - 1))
    near_NM = np.exp(-sharpness * (distance_NM / best_KM[skus_N] - 1))
    return np.asarray((near_NM * share_KM[skus_N] * trust_M).sum(axis=1), np.float32)


def product_mask(alpha_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The hard mask of an alpha plane: at least half opaque, without specks."""
    return largest_pieces(alpha_HW > 127)
