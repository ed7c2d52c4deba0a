"""How one photo is lit, as a quadratic surface of log gains over the photo: shared by board recovery and composing.

Boundary: arrays in, arrays out. Legend: C = 3 channels, H x W pixels, M samples; 6 terms 1, x, y, x^2, xy, y^2.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_COARSE = 32


def surface_terms(height: int, width: int) -> Floats:
    """The terms on a grid with x, y in [-1, 1] from edge to edge; float32 [H, W, 6]."""
    y_HW, x_HW = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = [np.ones_like(x_HW), x_HW, y_HW, x_HW**2, x_HW * y_HW, y_HW**2]
    return np.stack(terms, axis=-1).astype(np.float32)


def light_gain(light_C6: Floats, *, height: int, width: int) -> Floats:
    """Gain exp(terms . light) of every pixel, float32 [H, W, 3]; large sizes are interpolated from a coarse grid."""
    small = height <= _COARSE and width <= _COARSE
    rows, columns = (height, width) if small else (_COARSE, _COARSE)
    gain_hw3 = np.exp(surface_terms(rows, columns) @ np.asarray(light_C6, np.float32).T)
    return gain_hw3 if small else np.asarray(_stretched(gain_hw3, height=height, width=width), np.float32)


def _stretched(values_hw3: Floats, *, height: int, width: int) -> Floats:
    """Bilinear enlargement that maps corner pixels to corner pixels, as the surface's grid does."""
    rows, columns = values_hw3.shape[:2]
    matrix_23 = np.asarray([[(columns - 1) / (width - 1), 0, 0], [0, (rows - 1) / (height - 1), 0]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(values_hw3, matrix_23, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )


def fit_surface(terms_M6: Floats, values_MC: Floats, *, rounds: int = 4) -> Floats:
    """Robust least squares [C, 6]: samples far from the surface drop out, those below it (shadows) sooner."""
    keep_M = np.ones(len(values_MC), np.bool_)
    for _ in range(rounds):
        kept_M6 = terms_M6[keep_M].astype(np.float64)
        solution_6C = np.linalg.solve(kept_M6.T @ kept_M6 + 1e-6 * np.eye(6), kept_M6.T @ values_MC[keep_M])
        residual_M = (values_MC - terms_M6 @ solution_6C).mean(-1)
        spread = max(1.48 * float(np.median(np.abs(residual_M))), 1e-3)
        keep_M = (residual_M > -1.5 * spread) & (residual_M < 2.5 * spread)
    return np.asarray(solution_6C.T, np.float32)
