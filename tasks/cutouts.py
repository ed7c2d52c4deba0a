"""Single products in photos as small normal pictures: of one area, centred, in neutral light, with their mask.

The light: a product's colours are divided by those of the ground around it, so that catalog and pool, whose white
balance and exposure differ, are compared on equal terms. The statistics are those of each photo's own ground; no label
is needed for them.

Shapes: H×W pixels, S side of a patch, R rotations.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import mask_box
from tasks.mask_shapes import convex_hull, largest_pieces

PATCH_SIDE = 96
_FILLED = 0.52
_LEVELS = ((0.5, 0.0), (0.9, 0.0), (0.9, 0.006), (0.9, 0.012))
_LEAST_SHARE, _MOST_SHARE, _SOLIDITY = 0.002, 0.15, 0.55


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


def product_mask(alpha_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The hard mask of an alpha plane: at least half opaque, without specks."""
    return largest_pieces(alpha_HW > 127)


def mask_in_box(
    probability_HW: NDArray[np.float32], box: tuple[float, float, float, float]
) -> NDArray[np.bool_] | None:
    """The salient piece inside a detection's box (xyxy); None where the box holds hardly any."""
    height, width = probability_HW.shape
    x0, y0 = max(0, int(box[0])), max(0, int(box[1]))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    mask_HW = np.zeros((height, width), np.bool_)
    mask_HW[y0:y1, x0:x1] = probability_HW[y0:y1, x0:x1] > 0.5
    mask_HW = largest_pieces(mask_HW) if mask_HW.any() else mask_HW
    return mask_HW if mask_HW.sum() >= 0.25 * max(1, (x1 - x0) * (y1 - y0)) else None


def neutral_patch(photo_HW3: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A cut-out in neutral light, scaled to a fixed area and centred: float32 [S, S, 4], RGB in [0, 1.25] and mask.

    Raises:
        ValueError: the mask is empty.
    """
    box = mask_box(mask_HW)
    if box is None:
        raise ValueError("mask: expected some product pixels, got none")
    x0, y0, x1, y1 = box
    ring = max(3, max(x1 - x0, y1 - y0) // 12)
    part = np.s_[max(0, y0 - ring - 1) : y1 + ring + 1, max(0, x0 - ring - 1) : x1 + ring + 1]
    mask_hw = mask_HW[part]
    light_hw3 = neutralised(photo_HW3[part], mask_hw, ring=ring)
    planes_hw4 = np.dstack([light_hw3, mask_hw.astype(np.float32)])
    rows, columns = np.nonzero(mask_hw)
    scale = _FILLED * PATCH_SIDE / np.sqrt(len(rows))
    if scale < 1:
        planes_hw4 = cv2.GaussianBlur(planes_hw4, (0, 0), 0.4 / scale)
    matrix_23 = np.array(
        [[scale, 0, PATCH_SIDE / 2 - scale * columns.mean()], [0, scale, PATCH_SIDE / 2 - scale * rows.mean()]]
    )
    size = PATCH_SIDE, PATCH_SIDE
    patch_SS4 = cv2.warpAffine(planes_hw4, matrix_23, size, borderMode=cv2.BORDER_REPLICATE)
    # Ground may go on beyond the photo's border; a product that the border cuts ends there.
    within_SS = cv2.warpAffine(np.ones(mask_hw.shape, np.uint8), matrix_23, size, flags=cv2.INTER_NEAREST)
    patch_SS4[within_SS == 0, 3] = 0
    return np.clip(patch_SS4, 0, (1.25, 1.25, 1.25, 1)).astype(np.float32)


def turned(patch_SS4: NDArray[np.float32], *, rotations: int) -> NDArray[np.float32]:
    """A patch at evenly spaced rotations, float32 [R, S, S, 4]; what is not product fades to mid grey."""
    mask_SS1 = patch_SS4[..., 3:]
    planes_SS4 = np.dstack([(patch_SS4[..., :3] - 0.5) * mask_SS1, mask_SS1])
    middle = (PATCH_SIDE - 1) / 2
    matrices = [cv2.getRotationMatrix2D((middle, middle), 360 * turn / rotations, 1.0) for turn in range(rotations)]
    made = np.stack([cv2.warpAffine(planes_SS4, matrix_23, (PATCH_SIDE, PATCH_SIDE)) for matrix_23 in matrices])
    return np.asarray(made + np.array([0.5, 0.5, 0.5, 0]), np.float32)
