"""Sprites laid into a photo: colours under soft edges, warping, edge blending, and the camera's blur and noise.

Boundary: uint8 crops in, uint8 crops out; knows no layout and no labels. Legend: h x w crop, H x W photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.items import Pictures
from tasks.painting import add_grain, blur_photo

Photo = NDArray[np.uint8]
Lines = NDArray[np.int8]

NOISE_UNIT = 24
_NOISE_LINES, _NOISE_MARGIN = 64, 64
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


def turned_sprite(rgba_hw4: Photo, *, angle: float) -> Photo:
    """The sprite turned about its centre, on the smallest crop that holds it; radians, positive from x to y."""
    height, width = rgba_hw4.shape[:2]
    matrix_22 = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    out_width, out_height = np.ceil(np.abs(matrix_22) @ [width, height]).astype(int)
    offset_2 = np.asarray([(out_width - 1) / 2, (out_height - 1) / 2]) - matrix_22 @ [(width - 1) / 2, (height - 1) / 2]
    affine_23 = np.column_stack([matrix_22, offset_2])
    return np.asarray(cv2.warpAffine(rgba_hw4, affine_23, (int(out_width), int(out_height)), flags=cv2.INTER_LINEAR))


def thumbnail(rgba_hw4: Photo, *, cell: int) -> Photo:
    """The sprite at two pixels for each cell of the layout's grid, in a transparent frame of one pixel."""
    height, width = rgba_hw4.shape[:2]
    size = max(1, round(2 * width / cell)), max(1, round(2 * height / cell))
    return np.pad(cv2.resize(rgba_hw4, size, interpolation=cv2.INTER_AREA), ((1, 1), (1, 1), (0, 0)))


def collected(pictures: Sequence[Photo]) -> Pictures:
    """RGBA pictures, uint8 [h, w, 4] each of its own size, one after the other, for compiled code."""
    made = room_for([rgba_hw4.shape[:2] for rgba_hw4 in pictures])
    for number, rgba_hw4 in enumerate(pictures):
        picture_at(made, number)[:] = rgba_hw4
    return made


def room_for(shapes_M: Sequence[tuple[int, ...]]) -> Pictures:
    """Pictures of these (rows, columns), whose pixels are still to be written."""
    sizes_M = [rows * columns for rows, columns in shapes_M]
    starts_M = np.cumsum([0, *sizes_M[:-1]])
    shapes_M3 = np.column_stack([starts_M, np.asarray(shapes_M, np.int64).reshape(-1, 2)]).astype(np.int64)
    return Pictures(pixels=np.empty(sum(sizes_M), np.uint32), shapes_M3=shapes_M3)


def picture_at(pictures: Pictures, number: int) -> Photo:
    """A view of one of the collected pictures, RGBA uint8 [h, w, 4]."""
    start, rows, columns = pictures.shapes_M3[number].tolist()
    return pictures.pixels[start : start + rows * columns].view(np.uint8).reshape(rows, columns, 4)


def lit_crop(rgba_hw4: Photo, *, gains: Sequence[float]) -> Photo:
    """A crop whose colours are multiplied by one gain a channel."""
    return np.asarray(cv2.multiply(rgba_hw4, np.asarray((*gains, 1.0))), np.uint8)


def poisson_crop(window_hw3: Photo, rgba_hw4: Photo) -> Photo:
    """A crop in colours whose gradients are the product's and whose edge is the window's, half and half with its own.

    Perez et al., "Poisson image editing", SIGGRAPH 2003. Full seamless cloning would let the board's colour flow into
    the product; half of it keeps the print readable.
    """
    colours_hw3 = np.asarray(cv2.cvtColor(rgba_hw4, cv2.COLOR_RGBA2RGB), np.uint8)
    mask_hw = cv2.threshold(cv2.extractChannel(rgba_hw4, 3), 127, 255, cv2.THRESH_BINARY)[1]
    x, y, width, height = cv2.boundingRect(mask_hw)
    middle = x + width // 2, y + height // 2
    cloned_hw3 = cv2.seamlessClone(colours_hw3, window_hw3, mask_hw, middle, cv2.NORMAL_CLONE)
    mixed_hw3 = cv2.addWeighted(cloned_hw3, 0.5, colours_hw3, 0.5, 0)
    return np.dstack([mixed_hw3, rgba_hw4[..., 3]]).astype(np.uint8)


def noise_lines(width: int, *, generator: np.random.Generator) -> Lines:
    """Lines of sensor noise to cut rows from, each a little longer than `width` pixels.

    int8 [lines, length, 3], NOISE_UNIT x standard normal, mostly common to the channels. A few lines do for all rows of
    all photos, cut at random places, and stay in a processor's cache.
    """
    shape = _NOISE_LINES, width + _NOISE_MARGIN
    grey_LW1 = generator.standard_normal((*shape, 1), dtype=np.float32)
    colour_LW3 = generator.standard_normal((*shape, 3), dtype=np.float32)
    lines_LW3 = NOISE_UNIT * (0.9 * grey_LW1 + 0.45 * colour_LW3)
    return np.clip(np.rint(lines_LW3), -127, 127).astype(np.int8)


def add_noise(photo_HW3: Photo, *, lines_LW3: Lines, sigma: float, generator: np.random.Generator) -> None:
    """Add noise of standard deviation `sigma` grey levels (at most half of NOISE_UNIT), in place."""
    share = round(256 * min(sigma / NOISE_UNIT, 0.5))
    places_H = generator.integers(0, _NOISE_LINES * _NOISE_MARGIN, photo_HW3.shape[0])
    add_grain(photo_HW3, lines_LW3, np.asarray(places_H), _NOISE_MARGIN, share)


def blur(photo_HW3: Photo, *, sigma: float) -> Photo:
    """The photo under a Gaussian blur of `sigma` pixels, cut at two pixels; below 0.3 it is as good as none."""
    if sigma < 0.3:
        return photo_HW3
    bell_3 = np.exp(-0.5 * np.square(np.arange(3) / sigma))
    near, far = np.rint(256 * bell_3[1:] / (bell_3[0] + 2 * bell_3[1:].sum())).astype(np.uint16)
    blurred_HW3 = np.empty_like(photo_HW3)
    blur_photo(photo_HW3, (np.uint16(256 - 2 * near - 2 * far), near, far), blurred_HW3)
    return blurred_HW3
