"""Shadows that products throw on a board and on what lies beneath them, from their alpha alone.

Two darkenings are multiplied: a contact shadow (the part of the sky that the product hides around its foot) and a cast
shadow (the lamp's, swept along one direction over a length that grows with the product's height). Both are made at a
quarter of the photo's size: shadows are soft.

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

REDUCTION = 4
_ANGLES = 36


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
    """A lamp whose shadows are as dark as a pool photo's, from any side."""
    return Lamp(
        angle=float(generator.uniform(0, 2 * np.pi)),
        slope=float(generator.uniform(0.2, 0.6)),
        softness=float(generator.uniform(0.25, 0.6)),
        cast=float(np.clip(3.0 * strength.directed * generator.uniform(0.8, 1.2), 0.05, 0.7)),
        contact=float(np.clip(2.0 * strength.ambient * generator.uniform(0.8, 1.2), 0.1, 0.8)),
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
    kernel_kk = cv2.GaussianBlur(kernel_kk, (0, 0), blur_tenths / 10)
    return np.asarray(kernel_kk / kernel_kk.sum(), np.float32)


def darken(canvas_HW3: Photo, alpha_hw: Photo, *, x: int, y: int, height: float, lamp: Lamp) -> None:
    """Darken the canvas around a product whose alpha crop has its corner at (x, y) and which is `height` pixels tall."""
    length = int(np.clip(round(height * lamp.slope / REDUCTION), 1, 40))
    step = round(lamp.angle / (2 * np.pi) * _ANGLES) % _ANGLES
    kernel_kk = sweep_kernel(length, step, int(np.clip(round(10 * lamp.softness * length), 8, 80)))
    pad = kernel_kk.shape[0] // 2 + 1
    small_hw = _reduced(alpha_hw, pad=pad)
    cast_hw = cv2.filter2D(small_hw, -1, kernel_kk, borderType=cv2.BORDER_CONSTANT)
    contact_hw = cv2.GaussianBlur(small_hw, (0, 0), 2.0)
    gain_hw = 255 * (1 - lamp.cast * cast_hw) * (1 - lamp.contact * contact_hw)
    _multiply(canvas_HW3, np.rint(gain_hw).astype(np.uint8), x=x - pad * REDUCTION, y=y - pad * REDUCTION)


def _reduced(alpha_hw: Photo, *, pad: int) -> Floats:
    """An alpha at 1/REDUCTION, in 0..1, with `pad` cells of nothing around it."""
    height, width = alpha_hw.shape
    size = -(-width // REDUCTION), -(-height // REDUCTION)
    small_hw = cv2.resize(alpha_hw, size, interpolation=cv2.INTER_AREA)
    framed_hw = cv2.copyMakeBorder(small_hw, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(framed_hw * np.float32(1 / 255), np.float32)


def _multiply(canvas_HW3: Photo, gain_hw: Photo, *, x: int, y: int) -> None:
    """Multiply the canvas by a reduced gain map (255 = 1) whose corner lies at (x, y), clipped to the canvas."""
    size = gain_hw.shape[1] * REDUCTION, gain_hw.shape[0] * REDUCTION
    x0, y0 = max(0, -x), max(0, -y)
    x1, y1 = min(size[0], canvas_HW3.shape[1] - x), min(size[1], canvas_HW3.shape[0] - y)
    if x1 <= x0 or y1 <= y0:
        return
    gain_hw3 = cv2.cvtColor(cv2.resize(gain_hw, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)
    window_hw3 = canvas_HW3[y + y0 : y + y1, x + x0 : x + x1]
    cv2.multiply(window_hw3, gain_hw3[y0:y1, x0:x1], dst=window_hw3, scale=1 / 255)
