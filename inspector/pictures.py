"""Pictures for pages: thumbnails, boxes, masks and heat, as JPEG bytes or data URIs.

Everything takes and gives uint8 RGB arrays; nothing here knows the store or HTML.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import Picture, encode_jpeg
from storage.manifest import ManifestObject

_JPEG_QUALITY = 80
_CHECKER = 12
_HEAT_SHARE = 0.55
# Colour-blind safe (Okabe and Ito, 2008), legible on light and dark; one per category in turn.
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_IGNORED = (128, 128, 128)
# A film over a photo: no product's colour, seen on light and dark.
_FILM, _FILM_SHARE, _INSIDE = (214, 0, 147), 0.45, 128
_HEAT_OPACITY = 0.85


def thumbnail(picture_HW3: Picture, *, side: int) -> Picture:
    """The picture with its longer side at most `side` pixels."""
    height, width = picture_HW3.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return picture_HW3
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA), np.uint8)


def data_uri(picture_HW3: Picture) -> str:
    """The picture as a `data:image/jpeg` URI."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(picture_HW3, quality=_JPEG_QUALITY)).decode()


def with_boxes(photo_HW3: Picture, *, objects: Sequence[ManifestObject], side: int) -> Picture:
    """A thumbnail with a box per object in its category's colour; grey for regions that are to be ignored."""
    small_HW3 = thumbnail(photo_HW3, side=side).copy()
    factor = small_HW3.shape[1] / photo_HW3.shape[1]
    for item in objects:
        colour = _IGNORED if item.status == "ignore" else colour_of(item.category)
        left, top, right, bottom = (round(float(value) * factor) for value in item.box)
        cv2.rectangle(small_HW3, (left, top), (right - 1, bottom - 1), colour, 2)
    return small_HW3


def on_checkers(picture_HW3: Picture, *, alpha_HW: Picture) -> Picture:
    """The picture on a checkerboard, which shows through where `alpha_HW` (0..255) lets it."""
    height, width = alpha_HW.shape
    rows, columns = np.arange(height)[:, None] // _CHECKER, np.arange(width)[None] // _CHECKER
    checkers_HW1 = np.where((rows + columns) % 2, 204, 255)[..., None]
    share_HW1 = alpha_HW[..., None].astype(np.float32) / 255
    return np.asarray(np.rint(picture_HW3 * share_HW1 + checkers_HW1 * (1 - share_HW1)), np.uint8)


def with_heat(photo_HW3: Picture, *, density_hw: NDArray[np.floating]) -> Picture:
    """The photo in grey under the density map, which covers all of it; yellow is the map's largest value."""
    height, width = photo_HW3.shape[:2]
    strength_hw = np.clip(density_hw, 0, None)
    strength_hw = strength_hw / max(float(strength_hw.max()), 1e-9)
    level_HW = cv2.resize(np.asarray(strength_hw * 255, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    heat_HW3 = cv2.cvtColor(cv2.applyColorMap(level_HW.astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey_HW1 = cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2GRAY)[..., None]
    return np.asarray(_HEAT_SHARE * heat_HW3 + (1 - _HEAT_SHARE) * grey_HW1, np.uint8)


def mask_overlay(alpha_HW: Picture) -> Picture:
    """A mask as a coloured film to lay over its photo, RGBA [H, W, 4]: its inside tinted, its outline strong."""
    inside_HW = (alpha_HW >= _INSIDE).astype(np.uint8)
    outline_HW = cv2.morphologyEx(inside_HW, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    film_HW4 = np.zeros((*alpha_HW.shape, 4), np.uint8)
    film_HW4[..., :3] = _FILM
    film_HW4[..., 3] = np.where(outline_HW > 0, 255, np.rint(alpha_HW.astype(np.float32) * _FILM_SHARE))
    return film_HW4


def in_window(levels_hw: Picture, *, window: Sequence[int], size: tuple[int, int]) -> Picture:
    """A map of a part of a photo (`window`: x0, y0, x1, y1) in the frame of the photo of `size` (width, height)."""
    x0, y0, x1, y1 = (int(value) for value in window)
    whole_HW = np.zeros((size[1], size[0]), np.uint8)
    part_hw = cv2.resize(levels_hw, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    inside = (slice(max(y0, 0), max(min(y1, size[1]), 0)), slice(max(x0, 0), max(min(x1, size[0]), 0)))
    whole_HW[inside] = part_hw[inside[0].start - y0 : inside[0].stop - y0, inside[1].start - x0 : inside[1].stop - x0]
    return whole_HW


def under_mask(photo_HW3: Picture, *, alpha_HW: Picture) -> Picture:
    """The photo dark where the mask is empty, with the mask's outline.

    Raises:
        ValueError: they differ in size.
    """
    if alpha_HW.shape != photo_HW3.shape[:2]:
        raise ValueError(f"mask: expected shape {photo_HW3.shape[:2]}, got {alpha_HW.shape}")
    share_HW1 = 0.3 + 0.7 * alpha_HW[..., None].astype(np.float32) / 255
    shown_HW3 = np.rint(photo_HW3 * share_HW1).astype(np.uint8)
    inside_HW = (alpha_HW >= _INSIDE).astype(np.uint8)
    shown_HW3[cv2.morphologyEx(inside_HW, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0] = _FILM
    return shown_HW3


def instances_overlay(masks: Sequence[NDArray[np.bool_]], *, categories: Sequence[int]) -> Picture:
    """Masks of several objects, each in its category's colour, RGBA [H, W, 4]; later ones lie on top."""
    film_HW4 = np.zeros((*masks[0].shape, 4), np.uint8)
    for mask_HW, category in zip(masks, categories, strict=True):
        inside_HW = mask_HW.astype(np.uint8)
        outline_HW = cv2.morphologyEx(inside_HW, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        film_HW4[mask_HW, :3] = colour_of(category)
        film_HW4[mask_HW, 3] = round(255 * _FILM_SHARE)
        film_HW4[(outline_HW > 0) & mask_HW, 3] = 255
    return film_HW4


def heat_overlay(density_hw: NDArray[np.floating], *, size: tuple[int, int]) -> Picture:
    """A density map as heat to lay over its photo of `size` (width, height), RGBA; its largest value is opaque."""
    strength_hw = np.clip(density_hw, 0, None)
    strength_hw = np.asarray(strength_hw / max(float(strength_hw.max()), 1e-9) * 255, np.float32)
    level_HW = cv2.resize(strength_hw, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    heat_HW3 = cv2.cvtColor(cv2.applyColorMap(level_HW, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.dstack([heat_HW3, np.rint(level_HW * _HEAT_OPACITY).astype(np.uint8)])


def colour_of(category: int) -> tuple[int, int, int]:
    """The colour in which a category's boxes and masks are drawn, RGB."""
    return _PALETTE[category % len(_PALETTE)]


def crop_around(photo_HW3: Picture, *, box: Sequence[float], margin: float, side: int, outlined: bool) -> Picture:
    """A square part of the photo around a box (xyxy, pixels), `side` pixels wide; `outlined`: the box is drawn.

    `margin` is what is seen around the box, as a share of its longer side; beyond the photo there is grey.
    """
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0, 8.0) * (0.5 + margin)
    left, top = round((x0 + x1) / 2 - half), round((y0 + y1) / 2 - half)
    width = max(1, round(2 * half))
    height, across = photo_HW3.shape[:2]
    square_HW3 = np.full((width, width, 3), 127, np.uint8)
    rows, columns = slice(max(top, 0), min(top + width, height)), slice(max(left, 0), min(left + width, across))
    if rows.start < rows.stop and columns.start < columns.stop:
        square_HW3[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = photo_HW3[
            rows, columns
        ]
    small_HW3 = np.asarray(cv2.resize(square_HW3, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    if not outlined:
        return small_HW3
    factor = side / width
    corners = [round((value - start) * factor) for value, start in ((x0, left), (y0, top), (x1, left), (y1, top))]
    cv2.rectangle(small_HW3, corners[:2], corners[2:], (255, 255, 255), 3)
    cv2.rectangle(small_HW3, corners[:2], corners[2:], _FILM, 1)
    return small_HW3


def stretched(levels_HW: Picture) -> Picture:
    """A map of few levels as RGB, its largest level white."""
    scaled_HW = levels_HW.astype(np.float32) * (255 / max(int(levels_HW.max()), 1))
    return np.repeat(scaled_HW.astype(np.uint8)[..., None], 3, axis=2)


def decode_density(data: bytes) -> NDArray[np.float32]:
    """The density map float32 [h, w] of a .npy file of [C, h, w] or [h, w], summed over C.

    Raises:
        ValueError: not such an array.
    """
    density = np.load(io.BytesIO(data), allow_pickle=False)
    if density.ndim not in (2, 3):
        raise ValueError(f"density map: expected 2 or 3 dimensions, got shape {density.shape}")
    return np.asarray(density.sum(axis=0) if density.ndim == 3 else density, np.float32)
