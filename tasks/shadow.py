"""Shadows that products throw on a board and on what lies beneath them: a lamp, and what it does around a cell.

Two darkenings are multiplied: a contact shadow (the part of the sky that the product hides around its foot) and a cast
shadow (the lamp's, swept along one direction over a length that grows with the product's height). Shadows are soft, so
both are made on the layout's grid of about 100 cells a side, at the same cost for every size of photo.

Boundary: numbers in, small kernels out; `tasks.pixels.throw_shadow` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# A kernel, where its corner lies relative to the cell that throws it (row, column), and the most darkening.
Part = tuple[Floats, int, int, float]

_ANGLES = 36
_LONGEST = 12
# With the mean over four cells that `throw_shadow` takes, a blur of 0.9 cells.
_CONTACT_BLUR = 0.75
_NEGLIGIBLE = 2e-3
_STRAIGHT = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class LampStrength:
    """A pool photo's shadows: `tasks.look.PhotoLook` says how they are measured."""

    ambient: float
    directed: float
    angle: float


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
    """A lamp whose shadows are as dark as a pool photo's and fall the same way; any way where that photo has none.

    Factors and ranges were fitted so that composed photos, measured as the pool is, have its darkening near products.
    """
    cast = float(np.clip(strength.directed / 0.085, 0.1, 0.8))
    spread = 0.2 if strength.directed >= _STRAIGHT else 2 * pi
    return Lamp(
        angle=strength.angle + spread * generator.uniform(-0.5, 0.5),
        slope=generator.uniform(0.25, 0.65),
        softness=generator.uniform(0.15, 0.4),
        cast=cast,
        contact=float(np.clip((strength.ambient - 0.2 * cast) / 0.2, 0.05, 0.5)),
    )


@lru_cache(maxsize=2048)
def sweep_kernel(length: int, angle_step: int, blur_tenths: int) -> tuple[Floats, int, int]:
    """What a cell throws over `length` cells in direction angle_step x 10 degrees, blurred; float32, sums to about 1.

    With it, where its corner lies relative to the cell (row, column).
    """
    radius = int(np.ceil(length + 0.25 * blur_tenths)) + 1
    kernel_KK = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    steps_S = np.linspace(0, length, 2 * length + 1)
    angle = 2 * pi * angle_step / _ANGLES
    columns_S = np.rint(radius + steps_S * np.cos(angle)).astype(int)
    rows_S = np.rint(radius + steps_S * np.sin(angle)).astype(int)
    np.add.at(kernel_KK, (rows_S, columns_S), np.linspace(1.0, 0.3, len(steps_S)))
    soft_KK = np.asarray(cv2.GaussianBlur(kernel_KK, (0, 0), blur_tenths / 10), np.float32)
    return _trimmed(soft_KK / soft_KK.sum())


@lru_cache(maxsize=1)
def _contact_kernel() -> tuple[Floats, int, int]:
    row_K = cv2.getGaussianKernel(5, _CONTACT_BLUR, cv2.CV_32F)
    return _trimmed(np.asarray(row_K @ row_K.T, np.float32))


def _trimmed(kernel_KK: Floats) -> tuple[Floats, int, int]:
    """The kernel without negligible rows and columns, and where its corner lies from its middle."""
    rows, columns = np.nonzero(kernel_KK > _NEGLIGIBLE * kernel_KK.max())
    top, left = int(rows.min()), int(columns.min())
    part_KL = np.ascontiguousarray(kernel_KK[top : rows.max() + 1, left : columns.max() + 1])
    return part_KL, top - kernel_KK.shape[0] // 2, left - kernel_KK.shape[1] // 2


def shadow_parts(lamp: Lamp, *, height: float, cell: int) -> tuple[Part, Part]:
    """What a covered cell of a product that stands up by `height` pixels does to the light around it."""
    length = min(max(1, round(height * lamp.slope / cell)), _LONGEST)
    step = round(lamp.angle / (2 * pi) * _ANGLES) % _ANGLES
    blur_tenths = min(max(8, round(10 * lamp.softness * length)), 40)
    return (*sweep_kernel(length, step, blur_tenths), lamp.cast), (*_contact_kernel(), lamp.contact)
