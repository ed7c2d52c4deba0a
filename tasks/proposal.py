"""Where the product is in exemplars that come without an annotated box.

A turntable turns under a camera that stands still, so what changes from one photo of a product to the next is the
product. Photos that have no such company are looked at alone: smooth surfaces that reach across them are backdrop, and
what those don't explain is the product. A proposed region is loose: it holds the product and some backdrop around it.

Shapes: P photos, h×w pixels of a photo made small.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.backdrop import Layer, backdrop_distance, edge_strength, fit_backdrop, shrink_to, to_lab
from tasks.mask_shapes import convex_hull, largest_pieces

THUMBNAIL = 240
_COMPANY = 3
_STILL, _CHANGED, _FAR_MORE = 3.0, 3.5, 1.7
_MARGIN = 0.06

Photo = NDArray[np.uint8]
Region = NDArray[np.bool_]


def propose_regions(photos: Sequence[Photo]) -> list[Region | None]:
    """The region around the product in each photo of one product, None where nothing stands out.

    Args:
        photos: uint8 RGB, may be small (`THUMBNAIL`).

    Returns:
        bool masks over the whole photo, of its shape at `THUMBNAIL` pixels.
    """
    small = [to_lab(shrink_to(photo_HW3, THUMBNAIL)) for photo_HW3 in photos]
    found: list[Region | None] = [None] * len(small)
    for group in still_groups(small):
        changing = changing_regions(np.stack([small[index] for index in group])) if len(group) >= _COMPANY else []
        for index, changing_hw in zip(group, changing or [None] * len(group), strict=True):
            found[index] = _united(changing_hw, standing_out_region(small[index]))
    return [None if found_hw is None else _loose(found_hw) for found_hw in found]


def _united(changing_hw: Region | None, alone_hw: Region | None) -> Region | None:
    """What changes, with what stands out beside it (a cap looks the same from all sides) unless that is far more."""
    if changing_hw is None or alone_hw is None:
        return alone_hw if changing_hw is None else changing_hw
    shared = (changing_hw & alone_hw).sum()
    fits = shared > 0.5 * changing_hw.sum() and alone_hw.sum() < _FAR_MORE * changing_hw.sum()
    return changing_hw | alone_hw if fits else changing_hw


def still_groups(photos_lab: Sequence[NDArray[np.float32]]) -> list[list[int]]:
    """Indices of the photos whose rims look the same: those a camera took from one place."""
    groups: list[list[int]] = []
    rims = [_rim(lab_hw3) for lab_hw3 in photos_lab]
    for index, rim_N3 in enumerate(rims):
        for group in groups:
            other_N3 = rims[group[0]]
            if other_N3.shape == rim_N3.shape and _differ(rim_N3, other_N3) < _STILL:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _rim(lab_hw3: NDArray[np.float32]) -> NDArray[np.float32]:
    blurred_hw3 = np.asarray(cv2.GaussianBlur(lab_hw3, (0, 0), 1.5), np.float32)
    return blurred_hw3[_rim_mask(*lab_hw3.shape[:2])]


def _rim_mask(height: int, width: int) -> NDArray[np.bool_]:
    rim_hw = np.ones((height, width), bool)
    rim_hw[height // 8 : -(height // 8), width // 8 : -(width // 8)] = False
    return rim_hw


def _differ(one_N3: NDArray[np.float32], other_N3: NDArray[np.float32]) -> float:
    # Nine of ten rim pixels: the product may reach into the rim of a photo.
    return float(np.percentile(np.linalg.norm(one_N3 - other_N3, axis=1), 90))


def changing_regions(photos_Phw3: NDArray[np.float32]) -> list[Region | None]:
    """Around what differs in each photo from the others that were taken from the same place (Lab).

    None for a photo in which that is nothing, or too much to be a product.
    """
    blurred_Phw3 = np.stack([cv2.GaussianBlur(lab_hw3, (0, 0), 0.8) for lab_hw3 in photos_Phw3])
    change_Phw = np.linalg.norm(blurred_Phw3 - np.median(blurred_Phw3, axis=0), axis=-1)
    noise = float(np.median(change_Phw.max(axis=0)[_rim_mask(*change_Phw.shape[1:])]))
    changed_Phw = change_Phw > max(_CHANGED, 5 * noise)
    # Where most photos differ from each other, all show product; the median is nobody's colour there.
    core_hw = changed_Phw.mean(axis=0) > 0.5
    return [_changing_region(changed_hw | core_hw) for changed_hw in changed_Phw]


def _changing_region(changed_hw: NDArray[np.bool_]) -> Region | None:
    opened_hw = cv2.morphologyEx(changed_hw.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed_hw = np.asarray(cv2.morphologyEx(opened_hw, cv2.MORPH_CLOSE, _disc(4)), bool)
    found_hw = convex_hull(largest_pieces(closed_hw, share=0.1))
    return found_hw if 0.001 < found_hw.mean() < 0.6 else None


def standing_out_region(lab_hw3: NDArray[np.float32]) -> Region | None:
    """Around the product in one photo (Lab), from the backdrop alone; None if nothing stands out.

    Smooth surfaces that reach across a good part of the photo (table, wall, turntable) are backdrop, wherever they are;
    of the pieces they don't explain, the one with the most contrast near the middle is the product.
    """
    edge_hw = cv2.GaussianBlur(edge_strength(lab_hw3), (0, 0), 1.0)
    smooth_hw = edge_hw < max(1.0, 2 * float(np.median(edge_hw)))
    backdrop = [layer for layer in fit_backdrop(lab_hw3, smooth_hw, layers=6) if _reaches_across(layer, lab_hw3)]
    if not backdrop:
        return None
    distance_hw = backdrop_distance(lab_hw3, backdrop)
    interest_hw = np.clip(distance_hw - 4, 0, 12) + np.clip(edge_hw, 0, 12)
    opened_hw = cv2.morphologyEx((distance_hw > 4).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed_hw = np.asarray(cv2.morphologyEx(opened_hw, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), np.uint8)
    return _best_piece(closed_hw, interest_hw)


def _loose(found_hw: NDArray[np.bool_]) -> Region:
    """What was found and a margin around it, that grows with it."""
    radius = 2 + round(_MARGIN * float(np.sqrt(found_hw.sum())))
    return cv2.dilate(found_hw.astype(np.uint8), _disc(radius)) > 0


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _reaches_across(layer: Layer, lab_hw3: NDArray[np.float32]) -> bool:
    explained_hw = backdrop_distance(lab_hw3, [layer], shadow_discount=1.0, tint=0.0) < 4
    columns = np.flatnonzero(explained_hw.mean(axis=0) > 0.04)
    return len(columns) > 0 and bool(np.ptp(columns) > 0.35 * lab_hw3.shape[1]) and bool(explained_hw.mean() > 0.04)


def _best_piece(mask_hw: NDArray[np.uint8], interest_hw: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The connected piece with the largest sum of interest, weighted by a Gaussian around the photo's middle."""
    count, pieces_hw = cv2.connectedComponents(mask_hw, connectivity=8)
    if count < 2:
        return None
    height, width = mask_hw.shape
    y_hw, x_hw = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    weight_hw = interest_hw * np.exp(-(x_hw**2 + y_hw**2) / (2 * 0.4**2))
    sums = np.bincount(pieces_hw.ravel(), weights=weight_hw.ravel(), minlength=count)
    sums[0] = 0
    return pieces_hw == int(sums.argmax())
