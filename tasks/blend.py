"""Sprites laid into a photo: colours under soft edges, warping, edge blending, and the camera's blur and noise.

Boundary: uint8 crops in, uint8 crops out; knows no layout and no labels. Legend: h x w crop, H x W photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.pixels import PLACE_ONE, SOLID, Packed, warp

Photo = NDArray[np.uint8]
Matrix = tuple[tuple[float, float], tuple[float, float]]

NOISE_UNIT = 24
_NOISE_MARGIN = 64
# Bilinear sampling looks one pixel beyond, and a soft edge needs room.
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


def turn_matrix(*, angle: float, scale: float, tilt: float, tilt_axis: float) -> Matrix:
    """2 x 2 map of a flat product turned by `angle` in its plane and slightly out of it, seen from far above.

    Under weak perspective a turn out of the plane shortens the direction across its axis by the factor 1 - tilt.
    Angles in radians, x right, y down, positive from x to y.
    """
    across_x, across_y = -sin(tilt_axis), cos(tilt_axis)
    cosine, sine = scale * cos(angle), scale * sin(angle)
    xx, xy, yy = 1 - tilt * across_x * across_x, -tilt * across_x * across_y, 1 - tilt * across_y * across_y
    return (
        (cosine * xx - sine * xy, cosine * xy - sine * yy),
        (sine * xx + cosine * xy, sine * xy + cosine * yy),
    )


def packed(rgba_hw4: Photo) -> Packed:
    """A view of an RGBA picture with one uint32 a pixel (`tasks.pixels`)."""
    return rgba_hw4.view(np.uint32)[..., 0]


def warped_size(rgba_hw4: Photo, *, matrix: Matrix) -> tuple[int, int]:
    """(height, width) of the smallest crop that holds the sprite under a 2 x 2 map."""
    height, width = rgba_hw4.shape[:2]
    (xx, xy), (yx, yy) = matrix
    return ceil(abs(yx) * width + abs(yy) * height - 1e-6), ceil(abs(xx) * width + abs(xy) * height - 1e-6)


def warp_sprite(rgba_hw4: Photo, *, matrix: Matrix, colours: bool = False) -> Photo:
    """The sprite under a 2 x 2 map about its centre, on the smallest crop that holds it.

    `colours`: keep the colours of transparent pixels.
    """
    height, width = rgba_hw4.shape[:2]
    rows, columns = warped_size(rgba_hw4, matrix=matrix)
    (a, b), (d, e) = _inverse(matrix)
    c = (width - 1) / 2 - a * (columns - 1) / 2 - b * (rows - 1) / 2
    f = (height - 1) / 2 - d * (columns - 1) / 2 - e * (rows - 1) / 2
    warped_hw4 = np.empty((rows, columns, 4), np.uint8)
    warp(packed(rgba_hw4), _places(a, b, c, d, e, f), colours, packed(warped_hw4))
    return warped_hw4


def thumbnail(rgba_hw4: Photo, *, cell: int) -> Photo:
    """The sprite for `warped_cover`: two pixels a cell, in a transparent frame of one pixel."""
    height, width = rgba_hw4.shape[:2]
    size = max(1, round(2 * width / cell)), max(1, round(2 * height / cell))
    return np.pad(cv2.resize(rgba_hw4, size, interpolation=cv2.INTER_AREA), ((1, 1), (1, 1), (0, 0)))


def warped_cover(thumb_hw4: Photo, rgba_hw4: Photo, *, matrix: Matrix, cell: int) -> Photo:
    """How much the sprite under a 2 x 2 map covers each cell of `warp_sprite`'s crop, 0..255, from its thumbnail."""
    height, width = rgba_hw4.shape[:2]
    rows, columns = warped_size(rgba_hw4, matrix=matrix)
    (a, b), (d, e) = _inverse(matrix)
    # From the middle of a cell to the crop's pixels, to the sprite's, to the thumbnail's, all about their middles.
    across, down = (cell - columns) / 2, (cell - rows) / 2
    wide, high = (thumb_hw4.shape[1] - 2) / width, (thumb_hw4.shape[0] - 2) / height
    c = wide * (a * across + b * down) + (thumb_hw4.shape[1] - 1) / 2
    f = high * (d * across + e * down) + (thumb_hw4.shape[0] - 1) / 2
    cover_hw = np.empty((-(-rows // cell), -(-columns // cell)), np.uint32)
    steps = _places(wide * a * cell, wide * b * cell, c, high * d * cell, high * e * cell, f)
    warp(packed(thumb_hw4), steps, False, cover_hw)
    return np.asarray(cover_hw >> 24, np.uint8)


def _inverse(matrix: Matrix) -> Matrix:
    (xx, xy), (yx, yy) = matrix
    determinant = xx * yy - xy * yx
    return (yy / determinant, -xy / determinant), (-yx / determinant, xx / determinant)


def _places(*affine: float) -> tuple[int, ...]:
    return tuple(round(PLACE_ONE * value) for value in affine)


def lit_crop(rgba_hw4: Photo, *, gains: Sequence[float]) -> Photo:
    """A crop whose colours are multiplied by one gain a channel."""
    return np.asarray(cv2.multiply(rgba_hw4, np.asarray((*gains, 1.0))), np.uint8)


def poisson_crop(window_hw3: Photo, rgba_hw4: Photo) -> Photo:
    """A crop in colours whose gradients are the product's and whose edge is the window's, half and half with its own.

    Perez et al., "Poisson image editing", SIGGRAPH 2003. Full seamless cloning would let the board's colour flow into
    the product; half of it keeps the print readable.
    """
    colours_hw3 = np.asarray(cv2.cvtColor(rgba_hw4, cv2.COLOR_RGBA2RGB), np.uint8)
    mask_hw = cv2.threshold(cv2.extractChannel(rgba_hw4, 3), SOLID - 1, 255, cv2.THRESH_BINARY)[1]
    x, y, width, height = cv2.boundingRect(mask_hw)
    middle = x + width // 2, y + height // 2
    cloned_hw3 = cv2.seamlessClone(colours_hw3, window_hw3, mask_hw, middle, cv2.NORMAL_CLONE)
    mixed_hw3 = cv2.addWeighted(cloned_hw3, 0.5, colours_hw3, 0.5, 0)
    return np.dstack([mixed_hw3, rgba_hw4[..., 3]]).astype(np.uint8)


def feathered(rgba_hw4: Photo) -> Photo:
    """A crop with a wider soft edge, both ways."""
    soft_hw4 = rgba_hw4.copy()
    cv2.insertChannel(cv2.GaussianBlur(cv2.extractChannel(rgba_hw4, 3), (5, 5), 1.0), soft_hw4, 3)
    return soft_hw4


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
