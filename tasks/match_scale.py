"""The catalog's scale in the pool, measured by finding catalog sprites in pool photos.

SIFT features (Lowe, IJCV 2004) of sprites are matched with those of photos; a similarity transform that enough matches
agree on says how large the sprite is drawn there. The median over all such finds is the scale. It needs no masks and no
labels, and touching products don't disturb it; products without print are never found, and need not be.

Boundary: pictures in, one number (or None) out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.ahead import Mapped

Photo = NDArray[np.uint8]

_LONGER_SIDE = 800
_RATIO = 0.75
_LEAST_INLIERS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """SIFT features of one picture: points_N2 in its pixels, descriptors_ND float32."""

    points_N2: NDArray[np.float32]
    descriptors_ND: NDArray[np.float32]


def features_of(grey_HW: Photo, *, mask_HW: Photo | None = None, most: int = 1500) -> Features:
    """Features of a picture, found at no more than 800 pixels a side; points are in the picture's own pixels."""
    shrink = min(1.0, _LONGER_SIDE / max(grey_HW.shape))
    small_hw = cv2.resize(grey_HW, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    size = small_hw.shape[1], small_hw.shape[0]
    mask_hw = None if mask_HW is None else cv2.resize(mask_HW, size, interpolation=cv2.INTER_NEAREST)
    keypoints, descriptors_ND = cv2.SIFT.create(nfeatures=most).detectAndCompute(small_hw, mask_hw)
    points_N2 = np.asarray([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2) / shrink
    return Features(
        points_N2=points_N2,
        descriptors_ND=np.asarray([] if descriptors_ND is None else descriptors_ND, np.float32).reshape(-1, 128),
    )


def sprite_features(rgba_HW4: Photo) -> Features:
    """Features on the solid part of a sprite."""
    grey_HW = np.asarray(cv2.cvtColor(rgba_HW4, cv2.COLOR_RGBA2GRAY), np.uint8)
    solid_HW = np.asarray(cv2.erode((rgba_HW4[..., 3] > 200).astype(np.uint8), np.ones((5, 5), np.uint8)), np.uint8)
    return features_of(grey_HW, mask_HW=solid_HW, most=300)


def found_scale(sprite: Features, photo: Features) -> float | None:
    """Size of a sprite in a photo relative to its own pixels, or None if it isn't clearly there."""
    if len(sprite.points_N2) < _LEAST_INLIERS or len(photo.points_N2) < _LEAST_INLIERS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(sprite.descriptors_ND, photo.descriptors_ND, k=2)
    good = [best for best, second in pairs if best.distance < _RATIO * second.distance]
    if len(good) < _LEAST_INLIERS:
        return None
    source_N2 = sprite.points_N2[[match.queryIdx for match in good]]
    target_N2 = photo.points_N2[[match.trainIdx for match in good]]
    # The seed makes RANSAC's draws the same in every run.
    cv2.setRNGSeed(0)
    transform_23, inliers = cv2.estimateAffinePartial2D(source_N2, target_N2, ransacReprojThreshold=4.0)
    if transform_23 is None or int(inliers.sum()) < _LEAST_INLIERS:
        return None
    return float(np.hypot(transform_23[0, 0], transform_23[1, 0]))


def matched_scale(
    sprites: Sequence[Features],
    *,
    factors: Sequence[float],
    photos: Sequence[Features],
    least: int = 8,
    mapped: Mapped = map,
) -> float | None:
    """Median size of the sprites in the photos, in photo pixels for each comparable catalog pixel.

    Args:
        sprites: features in catalog pixels.
        factors: per sprite, what makes its pixels comparable with the others'.
        photos: features in photo pixels.
        least: fewer finds than that are not trusted: None.
        mapped: looks for the sprites.
    """

    def scales_of(sprite: Features) -> list[float | None]:
        return [found_scale(sprite, photo) for photo in photos]

    finds = []
    for scales, factor in zip(mapped(scales_of, sprites), factors, strict=True):
        finds += [scale / factor for scale in scales if scale is not None and 0.05 < scale < 20]
    return float(np.median(finds)) if len(finds) >= least else None
