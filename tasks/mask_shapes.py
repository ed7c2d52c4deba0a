"""Masks as shapes: their holes, their hull, their pieces.

Shapes: H×W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def fill_holes(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with every hole closed (background that does not reach the border)."""
    padded_HW = cv2.copyMakeBorder(mask_HW.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded_HW, None, (0, 0), 2)
    return padded_HW[1:-1, 1:-1] != 2


def convex_hull(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's convex hull; the mask itself when it has fewer than three corners."""
    outlines, _ = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if sum(map(len, outlines)) < 3:
        return mask_HW
    hull_HW = np.zeros(mask_HW.shape, np.uint8)
    cv2.fillConvexPoly(hull_HW, cv2.convexHull(np.concatenate(outlines)), 1)
    return hull_HW.astype(bool)


def largest_pieces(mask_HW: NDArray[np.bool_], *, share: float = 0.1) -> NDArray[np.bool_]:
    """Keeps the largest connected piece and those with at least `share` of its area; specks go."""
    count, pieces_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask_HW
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= share * areas.max())[pieces_HW] & mask_HW


def piece_with_most(mask_HW: NDArray[np.bool_], other_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected piece of a mask that shares most pixels with another; empty when none shares any."""
    _, pieces_HW = cv2.connectedComponents(mask_HW.astype(np.uint8), connectivity=8)
    shared = np.bincount(pieces_HW[other_HW & mask_HW], minlength=1)
    return (pieces_HW == int(shared.argmax())) & mask_HW
