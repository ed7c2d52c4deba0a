"""A model of what is behind the product: a few smooth surfaces of colour, and how far each pixel is from them.

Shapes: H×W pixels, N pixels. Colours are CIE Lab in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layer:
    """One smooth surface of the backdrop (table, wall, turntable): a quadratic in x and y for each Lab channel.

    Attributes:
        coefficients_63: weights of (1, x, y, x², xy, y²), x and y in [-1, 1] over the window.
        low_3, high_3: the colours that were seen on it; the surface is clipped to them where it extrapolates.
        scale: robust standard deviation of the pixels around the surface, in Lab units.
    """

    coefficients_63: NDArray[np.float32]
    low_3: NDArray[np.float32]
    high_3: NDArray[np.float32]
    scale: float


def shrink_to(photo_HW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The photo with its longer side at most `size`; never enlarged."""
    ratio = size / max(photo_HW3.shape[:2])
    if ratio >= 1:
        return photo_HW3
    return np.asarray(cv2.resize(photo_HW3, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA), np.uint8)


def to_lab(photo_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB bytes to CIE Lab: L in [0, 100], a and b around zero."""
    return np.asarray(cv2.cvtColor(photo_HW3.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _basis(height: int, width: int) -> NDArray[np.float32]:
    y_HW, x_HW = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x_HW), x_HW, y_HW, x_HW * x_HW, x_HW * y_HW, y_HW * y_HW], axis=-1)


def _fit_layer(basis_N6: NDArray[np.float32], lab_N3: NDArray[np.float32]) -> tuple[Layer, NDArray[np.bool_]]:
    """The largest smooth surface among some pixels, and which of them lie on it.

    Starts from the fullest Lab cell, then alternates least squares (a ridge tames curvature) and choice of inliers.
    """
    cells_N = (np.round(lab_N3 / 4).astype(np.int64) + 128) @ np.array([1 << 16, 1 << 8, 1])
    cells, counts = np.unique(cells_N, return_counts=True)
    centre_3 = lab_N3[cells_N == cells[counts.argmax()]].mean(axis=0)
    inlier_N = np.sqrt(channel_sum((lab_N3 - centre_3) ** 2)) < 8
    scale, ridge_66 = 2.0, np.diag([0, 0.002, 0.002, 0.02, 0.02, 0.02]).astype(np.float32)
    coefficients_63 = np.zeros((6, 3), np.float32)
    for _ in range(4):
        used_N6, colours_N3 = basis_N6[inlier_N], lab_N3[inlier_N]
        gram_66 = used_N6.T @ used_N6 + ridge_66 * len(used_N6) + 1e-6 * np.eye(6, dtype=np.float32)
        coefficients_63 = np.linalg.solve(gram_66, used_N6.T @ colours_N3)
        distance_N = np.sqrt(channel_sum((lab_N3 - basis_N6 @ coefficients_63) ** 2))
        scale = float(np.clip(1.2 * np.median(distance_N[inlier_N]), 0.8, 4.0))
        inlier_N = distance_N < 4 * scale
    colours_N3 = lab_N3[inlier_N] if inlier_N.any() else centre_3[None]
    layer = Layer(coefficients_63.astype(np.float32), colours_N3.min(axis=0), colours_N3.max(axis=0), scale)
    return layer, inlier_N


def fit_backdrop(
    lab_HW3: NDArray[np.float32], known_HW: NDArray[np.bool_], *, layers: int = 4, samples: int = 3000
) -> list[Layer]:
    """Explains the known backdrop pixels by a few smooth surfaces, the largest first.

    Args:
        lab_HW3: the window's colours.
        known_HW: pixels that are surely backdrop (outside of the product's box).
        layers: most surfaces to look for; the search stops when less than 3 % of the pixels are unexplained.
        samples: most pixels used; an even subset is taken beyond.
    """
    height, width = known_HW.shape
    basis_N6, lab_N3 = _basis(height, width)[known_HW], lab_HW3[known_HW]
    step = max(1, len(lab_N3) // samples)
    basis_N6, lab_N3 = basis_N6[::step], lab_N3[::step]
    found: list[Layer] = []
    total = len(lab_N3)
    while len(found) < layers and len(lab_N3) > max(12, 0.03 * total):
        layer, inlier_N = _fit_layer(basis_N6, lab_N3)
        found.append(layer)
        if not inlier_N.any():
            break
        basis_N6, lab_N3 = basis_N6[~inlier_N], lab_N3[~inlier_N]
    return found


def backdrop_distance(
    lab_HW3: NDArray[np.float32], backdrop: list[Layer], *, shadow_discount: float = 0.1, tint: float = 0.3
) -> NDArray[np.float32]:
    """How far each pixel is from the nearest backdrop surface, in that surface's standard deviations (float32, >= 0).

    A pixel that is darker than a surface may be the product's shadow on it: there lightness counts only
    `shadow_discount` of its difference, and the product's light on the ground may tint it by `tint` Lab units for each
    unit of darkness.
    """
    basis_HW6 = _basis(*lab_HW3.shape[:2])
    nearest_HW = np.full(lab_HW3.shape[:2], np.inf, np.float32)
    for layer in backdrop:
        surface_HW3 = np.clip(basis_HW6 @ layer.coefficients_63, layer.low_3, layer.high_3)
        light_HW = lab_HW3[..., 0] - surface_HW3[..., 0]
        dark_HW = np.maximum(0, -light_HW)
        shade_HW = np.clip(lab_HW3[..., 0] / np.maximum(surface_HW3[..., 0], 1), 0, 1)[..., None]
        hue_HW = np.sqrt(channel_sum((lab_HW3[..., 1:] - surface_HW3[..., 1:] * shade_HW) ** 2))
        hue_HW = np.maximum(0, hue_HW - tint * dark_HW)
        light_HW = np.where(light_HW < 0, shadow_discount * light_HW, light_HW)
        nearest_HW = np.minimum(nearest_HW, np.sqrt(light_HW**2 + hue_HW**2) / layer.scale)
    return nearest_HW


def channel_sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum over the last axis, which is short: plane by plane, ten times as fast as NumPy's sum and equal to it."""
    total = values[..., 0] + values[..., 1]
    for channel in range(2, values.shape[-1]):
        total += values[..., channel]
    return np.asarray(total, np.float32)


def edge_strength(lab_HW3: NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the Lab gradient (Scharr), in Lab units a pixel; the strongest of the three channels counts."""
    gradients = [
        cv2.magnitude(
            cv2.Scharr(channel_HW, cv2.CV_32F, 1, 0, scale=1 / 32),
            cv2.Scharr(channel_HW, cv2.CV_32F, 0, 1, scale=1 / 32),
        )
        for channel_HW in cv2.split(lab_HW3)
    ]
    return np.maximum.reduce(gradients)
