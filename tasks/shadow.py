"""Shadows that products throw on a board and on what lies beneath them: a lamp, and what it does around a cell.

Two darkenings are multiplied: a contact shadow (the part of the sky that the product hides around its foot) and a cast
shadow (the lamp's, swept along one direction over a length that grows with the product's height). Shadows are soft, so
both are made on the layout's grid of about 100 cells a side, at the same cost for every size of photo.

Boundary: numbers in, small kernels out; `tasks.painting` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, pi

import cv2
import numpy as np

from tasks.items import Floats, Shadows

_ANGLES = 36
_LONGEST = 12
_SOFTNESSES = 12
_CONTACT_SIDE, _CONTACT_BLUR = 15, 3.6
_NEGLIGIBLE = 1e-2
_STRAIGHT = 0.03
# Of cast shadows, in working pixels: what is thinner than a pixel throws none that could be measured.
_SHORTEST = 1.0
_LEAST_SLOPE, _USUAL_SLOPE, _MOST_SLOPE = 0.1, 0.35, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class LampStrength:
    """A pool photo's shadows: `tasks.look.PhotoLook` says how they are measured.

    slope: length of its cast shadows for each pixel of a product's height. length: of those of usual products, in the
    working pixels of `tasks.empty_board`.
    """

    ambient: float
    directed: float
    angle: float
    slope: float
    length: float


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

    Factors were fitted to photos composed under known lamps and measured as the pool is, by the saliency network's
    masks: long shadows darken more of what is measured, up to a point.
    """
    length = max(strength.length, _SHORTEST)
    cast = min(max(strength.directed / (0.205 * (1 - exp(-length / 6.2))), 0.05), 0.8)
    ambient = strength.ambient - 0.5 * cast * (1 - exp(-length / 11))
    spread = 0.2 if strength.directed >= _STRAIGHT else 2 * pi
    turn, slope, softness = generator.random(3).tolist()
    return Lamp(
        angle=strength.angle + spread * (turn - 0.5),
        slope=strength.slope * (0.85 + 0.3 * slope),
        softness=0.15 + 0.25 * softness,
        cast=cast,
        contact=min(max(ambient / 0.21, 0.02), 0.8),
    )


def shadow_length(reach: float, *, height: float) -> float:
    """Length of the cast shadows of usual products, in the pixels of the map that they were measured in.

    Args:
        reach: how far they reach on average (`tasks.look.shadow_reach`); 0 where it can't be told.
        height: of usual products, in pixels of that map. Fitted as `draw_lamp` is; a usual slope for a reach of 0.
    """
    if reach <= 0:
        return _USUAL_SLOPE * height
    return float(np.clip((reach - 1) / 0.265, _LEAST_SLOPE * height, _MOST_SLOPE * height))


@lru_cache(maxsize=256)
def shadow_kernels(angle_step: int, softness_step: int) -> Shadows:
    """What a covered cell throws over 1 to _LONGEST cells, for a lamp that stands in one of the steps."""
    angle, softness = 2 * pi * angle_step / _ANGLES, (softness_step + 0.5) / _SOFTNESSES
    sweeps = [sweep_kernel(length, angle=angle, blur=softness * length) for length in range(1, _LONGEST + 1)]
    column_K1 = np.asarray(cv2.getGaussianKernel(_CONTACT_SIDE, _CONTACT_BLUR, cv2.CV_32F), np.float32)
    # Light is a mean of two cells either way, which closes the gaps of a kernel with every second cell left out.
    column_K1[1::2] = 0
    column_K1 /= column_K1.sum()
    middle = _CONTACT_SIDE // 2
    parts = [(column_K1.T, (0, -middle)), (column_K1, (-middle, 0)), *map(_trimmed, sweeps)]
    begins = np.cumsum([0, *(kernel_KL.size for kernel_KL, _ in parts)])
    table = [(begin, *kernel_KL.shape, *corner) for begin, (kernel_KL, corner) in zip(begins, parts, strict=False)]
    values = np.concatenate([kernel_KL.ravel() for kernel_KL, _ in parts])
    return Shadows(values=values, table_L5=np.asarray(table, np.int64))


def kernels_of(lamp: Lamp) -> Shadows:
    """The shadow kernels of a lamp, its direction and softness rounded."""
    return shadow_kernels(round(lamp.angle / (2 * pi) * _ANGLES) % _ANGLES, int(lamp.softness * _SOFTNESSES))


def sweep_kernel(length: int, *, angle: float, blur: float) -> Floats:
    """What a cell throws over `length` cells in a direction, blurred; float32 [K, K] around the cell, sums to 1."""
    sigma = min(max(0.8, blur), 4.0)
    radius = int(np.ceil(length + 2.5 * sigma)) + 1
    kernel_KK = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    # The side that faces the lamp stays bright: the blur must not reach back over it.
    steps_S = np.linspace(0.8 * sigma, length, 2 * length + 1)
    columns_S = np.rint(radius + steps_S * np.cos(angle)).astype(int)
    rows_S = np.rint(radius + steps_S * np.sin(angle)).astype(int)
    np.add.at(kernel_KK, (rows_S, columns_S), np.linspace(1.0, 0.3, len(steps_S)))
    soft_KK = np.asarray(cv2.GaussianBlur(kernel_KK, (0, 0), sigma), np.float32)
    return soft_KK / soft_KK.sum()


def _trimmed(kernel_KK: Floats) -> tuple[Floats, tuple[int, int]]:
    """The kernel without negligible rows and columns, and where its corner (row, column) lies from its middle."""
    rows, columns = np.nonzero(kernel_KK > _NEGLIGIBLE * kernel_KK.max())
    upper, left = int(rows.min()), int(columns.min())
    middle = kernel_KK.shape[0] // 2
    part_KL = kernel_KK[upper : rows.max() + 1, left : columns.max() + 1].copy()
    part_KL[part_KL <= _NEGLIGIBLE * kernel_KK.max()] = 0
    return part_KL * (kernel_KK.sum() / part_KL.sum()), (upper - middle, left - middle)
