"""Training samples of the saliency network: augmented exemplar crops, and collages of products on invented backgrounds.

Collages teach the network that a product is a product on any ground and in company, so that it also finds products in
checkout photos, of which it has never seen one. Everything is drawn from the generator that is passed in.

Shapes: S size of a stored crop, H×W pixels. A crop is uint8 [S, S, 4]: RGB and the coarse level (`tasks.coarse`), with
`UNKNOWN` where the photo ends. A sample is (photo float32 RGB in [0, 255], target in [0, 1], weight in [0, 1]).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.coarse import MAYBE_BACKDROP, MAYBE_PRODUCT, SURE_BACKDROP, SURE_PRODUCT

UNKNOWN = 128

Crop = NDArray[np.uint8]
Sample = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def square_crop(photo_HW3: NDArray[np.uint8], level_HW: NDArray[np.uint8], *, size: int) -> Crop:
    """A window's photo and level map, both fitted into `size` × `size`; the rest is repeated edge, marked UNKNOWN."""
    height, width = photo_HW3.shape[:2]
    ratio = size / max(height, width)
    inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    crop_SS4 = np.empty((size, size, 4), np.uint8)
    top, left = (size - inner[1]) // 2, (size - inner[0]) // 2
    frame = (top, size - inner[1] - top, left, size - inner[0] - left)
    crop_SS4[..., :3] = cv2.copyMakeBorder(
        cv2.resize(photo_HW3, inner, interpolation=way), *frame, cv2.BORDER_REPLICATE
    )
    level = cv2.resize(level_HW, inner, interpolation=cv2.INTER_NEAREST)
    crop_SS4[..., 3] = cv2.copyMakeBorder(level, *frame, cv2.BORDER_CONSTANT, value=UNKNOWN)
    return crop_SS4


def exemplar_sample(crop_SS4: Crop, *, size: int, doubt: float, generator: np.random.Generator) -> Sample:
    """One exemplar crop, mirrored, turned a little, scaled, moved and relit at random."""
    turn = generator.normal(0, 8) + 90 * generator.integers(4) * (generator.random() < 0.3)
    matrix_23 = _placement(
        crop_SS4,
        scale=size / crop_SS4.shape[0] * generator.uniform(0.8, 1.3),
        turn=turn,
        centre=size / 2 + generator.normal(0, 0.04 * size, 2),
        mirror=generator.random() < 0.5,
    )
    photo_HW3 = cv2.warpAffine(
        crop_SS4[..., :3], matrix_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    level_HW = cv2.warpAffine(crop_SS4[..., 3], matrix_23, (size, size), flags=cv2.INTER_NEAREST, borderValue=UNKNOWN)
    target_HW = _warp_mask(crop_SS4, matrix_23, size=size)
    weight_HW = _trusted(np.asarray(level_HW, np.uint8), doubt=doubt)
    return relight(np.asarray(photo_HW3, np.float32), generator=generator), target_HW, weight_HW


def collage_sample(crops: list[Crop], *, size: int, doubt: float, generator: np.random.Generator) -> Sample:
    """Several products, each with a soft shadow, thrown on an invented background."""
    photo_HW3 = background(size, generator=generator)
    target_HW, weight_HW = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    side = generator.uniform(0.22, 0.5) * size
    for crop_SS4 in crops:
        scale = side * generator.uniform(0.7, 1.4) / max(8.0, product_side(crop_SS4))
        matrix_23 = _placement(
            crop_SS4,
            scale=scale,
            turn=generator.uniform(0, 360),
            centre=generator.uniform(0.1, 0.9, 2) * size,
            mirror=False,
        )
        placed_HW3 = cv2.warpAffine(crop_SS4[..., :3], matrix_23, (size, size), flags=cv2.INTER_LINEAR)
        level_HW = cv2.warpAffine(crop_SS4[..., 3], matrix_23, (size, size), flags=cv2.INTER_NEAREST, borderValue=0)
        mask_HW = _warp_mask(crop_SS4, matrix_23, size=size)
        weight_HW[cv2.dilate(mask_HW, np.ones((3, 3), np.uint8)) > 0] = doubt
        weight_HW[level_HW == SURE_PRODUCT] = 1
        _paste(photo_HW3, np.asarray(placed_HW3, np.float32), mask_HW, generator=generator)
        target_HW = np.maximum(target_HW, mask_HW)
    return relight(photo_HW3, generator=generator), target_HW, weight_HW


def _paste(
    photo_HW3: NDArray[np.float32],
    product_HW3: NDArray[np.float32],
    mask_HW: NDArray[np.float32],
    *,
    generator: np.random.Generator,
) -> None:
    """Draws one product and its soft shadow over a photo, in place."""
    alpha_HW = cv2.GaussianBlur(mask_HW, (0, 0), 0.7)
    drop = generator.normal(0, 0.02 * len(mask_HW), 2).astype(np.float32)
    moved_HW = cv2.warpAffine(mask_HW, np.array([[1, 0, drop[0]], [0, 1, drop[1]]], np.float32), mask_HW.shape[::-1])
    shadow_HW = cv2.GaussianBlur(moved_HW, (0, 0), generator.uniform(1, 8)) * generator.uniform(0, 0.6)
    photo_HW3 *= 1 - (shadow_HW * (1 - alpha_HW))[..., None]
    photo_HW3 += (product_HW3 - photo_HW3) * alpha_HW[..., None]


def background(size: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
    """An invented ground, float32 RGB [size, size, 3]: a two-way gradient, mostly greyish, sometimes with texture."""
    saturation = generator.choice([4.0, 40.0], p=[0.7, 0.3])
    corners_223 = (
        generator.uniform(30, 245) + generator.normal(0, 25, (2, 2, 1)) + generator.normal(0, saturation, (1, 1, 3))
    )
    shape = (size, size)
    ground_HW3 = np.asarray(
        cv2.resize(corners_223.astype(np.float32), shape, interpolation=cv2.INTER_LINEAR), np.float32
    )
    if generator.random() < 0.5:
        cells = int(generator.integers(4, size // 2))
        noise = generator.normal(0, generator.uniform(1, 18), (cells, cells, 1)).astype(np.float32)
        ground_HW3 += np.asarray(cv2.resize(noise, shape, interpolation=cv2.INTER_CUBIC), np.float32)[..., None]
    return np.clip(ground_HW3, 0, 255)


def relight(photo_HW3: NDArray[np.float32], *, generator: np.random.Generator) -> NDArray[np.float32]:
    """Another light: exposure, white balance, contrast, vignette, blur and sensor noise; stays in [0, 255]."""
    size = photo_HW3.shape[0]
    gain_3 = generator.uniform(0.7, 1.25) * generator.normal(1, 0.05, 3)
    photo_HW3 = photo_HW3 * gain_3.astype(np.float32)
    if generator.random() < 0.4:
        shade_33 = generator.uniform(0.6, 1.1, (3, 3)).astype(np.float32)
        photo_HW3 = photo_HW3 * cv2.resize(shade_33, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    if generator.random() < 0.4:
        photo_HW3 = np.asarray(cv2.GaussianBlur(photo_HW3, (0, 0), generator.uniform(0.3, 1.5)), np.float32)
    noise_HW3 = generator.standard_normal(photo_HW3.shape, dtype=np.float32) * np.float32(generator.uniform(0, 5))
    return np.clip(photo_HW3 + noise_HW3, 0, 255)


def product_side(crop_SS4: Crop) -> float:
    """Longer side of the crop's product in pixels, 0 without one."""
    rows, columns = np.nonzero((crop_SS4[..., 3] == MAYBE_PRODUCT) | (crop_SS4[..., 3] == SURE_PRODUCT))
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0


def _placement(
    crop_SS4: Crop, *, scale: float, turn: float, centre: NDArray[np.float64], mirror: bool
) -> NDArray[np.float64]:
    """Affine matrix that takes a crop's pixels to the sample's, the crop's middle to `centre`."""
    middle = crop_SS4.shape[0] / 2
    matrix_23 = cv2.getRotationMatrix2D((middle, middle), turn, scale)
    if mirror:
        matrix_23 = matrix_23 @ np.array([[-1, 0, 2 * middle], [0, 1, 0], [0, 0, 1]])
    return np.asarray(matrix_23 + np.column_stack([np.zeros((2, 2)), centre - middle]), np.float64)


def _warp_mask(crop_SS4: Crop, matrix_23: NDArray[np.float64], *, size: int) -> NDArray[np.float32]:
    """The crop's mask, moved as its photo is: float32 in [0, 1], each pixel the share of product in it."""
    mask_SS = ((crop_SS4[..., 3] == MAYBE_PRODUCT) | (crop_SS4[..., 3] == SURE_PRODUCT)).astype(np.float32)
    return np.asarray(cv2.warpAffine(mask_SS, matrix_23, (size, size), flags=cv2.INTER_LINEAR), np.float32)


def _trusted(level_HW: NDArray[np.uint8], *, doubt: float) -> NDArray[np.float32]:
    weight_HW = np.where((level_HW == SURE_PRODUCT) | (level_HW == SURE_BACKDROP), 1, 0).astype(np.float32)
    weight_HW[(level_HW == MAYBE_PRODUCT) | (level_HW == MAYBE_BACKDROP)] = doubt
    return weight_HW
