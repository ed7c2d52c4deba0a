"""Sprites laid into a photo: colours under soft edges, warping, edge blending, and the camera's blur and noise.

Boundary: uint8 crops in, uint8 crops out; knows no layout and no labels. Legend: h x w crop, H x W photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]

NOISE_UNIT = 24
_NOISE_MARGIN = 64
# OpenCV's remaps take the pixel's corner as its position when a border colour is blended in: a margin keeps it out.
MARGIN = 2


def bleed_colours(rgba_HW4: Photo) -> Photo:
    """Replace the colours of soft and empty pixels by those of the solid ones near by: no backdrop shows through.

    Normalised blurs of growing width carry the solid colours outwards. Alpha is unchanged.
    """
    solid_HW1 = (rgba_HW4[..., 3:] >= 250).astype(np.float32)
    solid_HW3 = rgba_HW4[..., :3] * solid_HW1
    filled_HW3, known_HW = solid_HW3.copy(), solid_HW1[..., 0] > 0
    for sigma in (1.0, 3.0, 9.0):
        weight_HW = cv2.GaussianBlur(solid_HW1, (0, 0), sigma)
        use_HW = ~known_HW & (weight_HW > 1e-3)
        filled_HW3[use_HW] = cv2.GaussianBlur(solid_HW3, (0, 0), sigma)[use_HW] / weight_HW[use_HW][:, None]
        known_HW |= use_HW
    return np.dstack([np.clip(np.rint(filled_HW3), 0, 255).astype(np.uint8), rgba_HW4[..., 3]])


def scale_sprite(rgba_HW4: Photo, *, factor: float) -> Photo:
    """The sprite scaled by `factor` with a transparent margin of MARGIN pixels, colours bled into soft pixels."""
    height, width = rgba_HW4.shape[:2]
    size = max(3, round(width * factor)), max(3, round(height * factor))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled_hw4 = cv2.resize(bleed_colours(rgba_HW4), size, interpolation=way)
    framed_hw4 = cv2.copyMakeBorder(scaled_hw4, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
    framed_hw4[..., 3] = np.pad(scaled_hw4[..., 3], MARGIN)
    return np.asarray(framed_hw4)


def turn_matrix(*, angle: float, scale: float, tilt: float, tilt_axis: float) -> NDArray[np.float64]:
    """2 x 2 map of a flat product turned by `angle` in its plane and slightly out of it, seen from far above.

    Under weak perspective a turn out of the plane shortens the direction across its axis by the factor 1 - tilt.
    Angles in radians, x right, y down, positive from x to y.
    """
    across = np.asarray([-np.sin(tilt_axis), np.cos(tilt_axis)])
    shorten_22 = np.eye(2) - tilt * np.outer(across, across)
    cosine, sine = np.cos(angle), np.sin(angle)
    return scale * np.asarray([[cosine, -sine], [sine, cosine]]) @ shorten_22


def warp_sprite(rgba_hw4: Photo, *, matrix_22: NDArray[np.float64]) -> Photo:
    """The sprite under a 2 x 2 map about its centre, on the smallest crop that holds it."""
    height, width = rgba_hw4.shape[:2]
    out_width, out_height = np.ceil(np.abs(matrix_22) @ [width, height]).astype(int)
    offset_2 = np.asarray([(out_width - 1) / 2, (out_height - 1) / 2]) - matrix_22 @ [(width - 1) / 2, (height - 1) / 2]
    affine_23 = np.column_stack([matrix_22, offset_2])
    return np.asarray(cv2.warpAffine(rgba_hw4, affine_23, (int(out_width), int(out_height)), flags=cv2.INTER_LINEAR))


def paste(window_hw3: Photo, colours_hw3: Photo, *, alpha_hw: Photo, gains: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
    """window = window x (1 - alpha) + colours x gain x alpha, in place; one gain a channel.

    The gains go into the alpha, which has one channel, because that is cheaper than lighting three.
    """
    rest_hw3 = cv2.cvtColor(cv2.bitwise_not(alpha_hw), cv2.COLOR_GRAY2RGB)
    below_hw3 = cv2.multiply(window_hw3, rest_hw3, scale=1 / 255)
    most = max(gains)
    shares_hw3 = cv2.merge([cv2.convertScaleAbs(alpha_hw, alpha=gain / most) for gain in gains])
    above_hw3 = cv2.multiply(colours_hw3, shares_hw3, scale=most / 255)
    cv2.add(below_hw3, above_hw3, dst=window_hw3)


def paste_poisson(window_hw3: Photo, colours_hw3: Photo, *, alpha_hw: Photo, gains: Sequence[float]) -> None:
    """Paste the gradients of a product, in place; arguments as in `paste`.

    Perez et al., "Poisson image editing", SIGGRAPH 2003. Full seamless cloning would let the board's colour flow into
    the product; half of it keeps the print readable.
    """
    mask_hw = cv2.threshold(alpha_hw, 127, 255, cv2.THRESH_BINARY)[1]
    x, y, width, height = cv2.boundingRect(mask_hw)
    middle = x + width // 2, y + height // 2
    lit_hw3 = np.clip(np.rint(colours_hw3 * np.asarray(gains)), 0, 255).astype(np.uint8)
    cloned_hw3 = cv2.seamlessClone(lit_hw3, window_hw3, mask_hw, middle, cv2.NORMAL_CLONE)
    mixed_hw3 = np.asarray(cv2.addWeighted(cloned_hw3, 0.5, lit_hw3, 0.5, 0), np.uint8)
    paste(window_hw3, mixed_hw3, alpha_hw=alpha_hw)


def edge_alpha(alpha_hw: Photo, *, blend: str) -> Photo:
    """The alpha of an edge blending: "hard" cuts at one half, "feather" widens the soft edge, others leave it."""
    if blend == "hard":
        return np.asarray(cv2.threshold(alpha_hw, 127, 255, cv2.THRESH_BINARY)[1])
    if blend == "feather":
        return np.asarray(cv2.GaussianBlur(alpha_hw, (5, 5), 1.0))
    return alpha_hw


def noise_field(height: int, width: int, *, generator: np.random.Generator) -> Photo:
    """Sensor noise to cut windows from: uint8, 128 + NOISE_UNIT x standard normal, mostly common to the channels."""
    shape = height + _NOISE_MARGIN, width + _NOISE_MARGIN
    grey_HW1 = generator.standard_normal((*shape, 1), dtype=np.float32)
    colour_HW3 = generator.standard_normal((*shape, 3), dtype=np.float32)
    field_HW3 = 128 + NOISE_UNIT * (0.9 * grey_HW1 + 0.45 * colour_HW3)
    return np.clip(np.rint(field_HW3), 0, 255).astype(np.uint8)


def add_noise(photo_HW3: Photo, *, field_HW3: Photo, sigma: float, generator: np.random.Generator) -> Photo:
    """The photo with noise of standard deviation `sigma` grey levels, from a random window of the field."""
    height, width = photo_HW3.shape[:2]
    y, x = generator.integers(0, _NOISE_MARGIN, 2)
    window_HW3 = field_HW3[y : y + height, x : x + width]
    share = sigma / NOISE_UNIT
    return np.asarray(cv2.addWeighted(photo_HW3, 1.0, window_HW3, share, -128 * share))


def blur(photo_HW3: Photo, *, sigma: float) -> Photo:
    """The photo under a Gaussian blur of `sigma` pixels; below 0.3 it is as good as none."""
    if sigma < 0.3:
        return photo_HW3
    side = 3 if sigma < 0.8 else 5
    return np.asarray(cv2.GaussianBlur(photo_HW3, (side, side), sigma))
