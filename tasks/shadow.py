"""Shadows that products throw on a board and on what lies beneath them, from their alpha alone.

Two darkenings are multiplied: a contact shadow (the part of the sky that the product hides around its foot) and a cast
shadow (the lamp's, swept along one direction over a length that grows with the product's height). Shadows are soft, so
both are made on the layout's grid of about 100 cells a side, at the same cost for every size of photo.

Boundary: one alpha and one lamp in, a darkened canvas out (in place).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
Floats = NDArray[np.float32]

_ANGLES = 36
_LONGEST = 12
_CONTACT_BLUR = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class LampStrength:
    """How dark a pool photo's shadows are: `tasks.look.PhotoLook` says how they are measured."""

    ambient: float
    directed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp:
    """How one photo's shadows look.

    angle: direction in which shadows fall, radians, x right, y down. slope: length of the cast shadow for each pixel of
    height. softness: blur of the cast shadow as a share of its length. cast, contact: most darkening, in 0..1.
    """

    angle: float
    slope: float
    softness: float
    cast: float
    contact: float


def draw_lamp(strength: LampStrength, *, generator: np.random.Generator) -> Lamp:
    """A lamp whose shadows are as dark as a pool photo's, from any side.

    Factors and ranges were fitted so that composed photos, measured as the pool is, have its darkening near products.
    """
    cast = float(np.clip(strength.directed / 0.085, 0.1, 0.8))
    return Lamp(
        angle=float(generator.uniform(0, 2 * np.pi)),
        slope=float(generator.uniform(0.25, 0.65)),
        softness=float(generator.uniform(0.15, 0.4)),
        cast=cast,
        contact=float(np.clip((strength.ambient - 0.2 * cast) / 0.2, 0.05, 0.5)),
    )


@lru_cache(maxsize=2048)
def sweep_kernel(length: int, angle_step: int, blur_tenths: int) -> Floats:
    """Smears a mask over `length` cells in direction angle_step x 10 degrees, then blurs it; float32, sums to 1."""
    radius = int(np.ceil(length + 0.25 * blur_tenths)) + 1
    kernel_kk = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    steps_S = np.linspace(0, length, 2 * length + 1)
    angle = 2 * np.pi * angle_step / _ANGLES
    # filter2D correlates: a shadow that falls towards +x reads its source from -x.
    columns_S = np.rint(radius - steps_S * np.cos(angle)).astype(int)
    rows_S = np.rint(radius - steps_S * np.sin(angle)).astype(int)
    np.add.at(kernel_kk, (rows_S, columns_S), np.linspace(1.0, 0.3, len(steps_S)))
    soft_kk = np.asarray(cv2.GaussianBlur(kernel_kk, (0, 0), blur_tenths / 10), np.float32)
    return soft_kk / soft_kk.sum()


def darken(canvas_HW3: Photo, cover_hw: Photo, *, cell: int, x: int, y: int, height: float, lamp: Lamp) -> None:
    """Darken the canvas around a product, in place.

    Args:
        canvas_HW3: uint8 RGB.
        cover_hw: how much of each cell the product covers, 0..255.
        cell: side of a cell in pixels.
        x, y: corner of cover_hw in pixels.
        height: how far the product stands up, in pixels.
        lamp: what the photo's shadows look like.
    """
    length = min(max(1, round(height * lamp.slope / cell)), _LONGEST)
    step = round(lamp.angle / (2 * np.pi) * _ANGLES) % _ANGLES
    kernel_kk = sweep_kernel(length, step, min(max(8, round(10 * lamp.softness * length)), 40))
    pad = kernel_kk.shape[0] // 2 + 1
    framed_hw = cv2.copyMakeBorder(cover_hw, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0) * np.float32(1 / 255)
    cast_hw = cv2.filter2D(framed_hw, -1, kernel_kk, borderType=cv2.BORDER_CONSTANT)
    contact_hw = cv2.GaussianBlur(framed_hw, (5, 5), _CONTACT_BLUR)
    gain_hw = 255.5 * (1 - lamp.cast * cast_hw) * (1 - lamp.contact * contact_hw)
    _multiply(canvas_HW3, gain_hw.astype(np.uint8), cell=cell, x=x - pad * cell, y=y - pad * cell)


def _multiply(canvas_HW3: Photo, gain_hw: Photo, *, cell: int, x: int, y: int) -> None:
    """Multiply the canvas by a gain map in cells (255 = 1) whose corner lies at (x, y), clipped to the canvas."""
    size = gain_hw.shape[1] * cell, gain_hw.shape[0] * cell
    x0, y0 = max(0, -x), max(0, -y)
    x1, y1 = min(size[0], canvas_HW3.shape[1] - x), min(size[1], canvas_HW3.shape[0] - y)
    gain_hw3 = cv2.cvtColor(cv2.resize(gain_hw, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)
    window_hw3 = canvas_HW3[y + y0 : y + y1, x + x0 : x + x1]
    cv2.multiply(window_hw3, gain_hw3[y0:y1, x0:x1], dst=window_hw3, scale=1 / 255)
