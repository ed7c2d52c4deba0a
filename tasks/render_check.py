"""Does a rendered photo still show the items its labels speak of? Scores per item, and a verdict per photo.

Pure functions on grey pictures; nothing here knows how a photo was rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
Grey = NDArray[np.float32]

_WINDOW = 11
_WINDOW_SIGMA = 1.5
# SSIM's constant for 8-bit pictures, (0.03 * 255)^2 / 2: flat areas agree whatever their noise.
_CONTRAST_FLOOR = (0.03 * 255) ** 2 / 2
_SMALLEST_SIDE = 8
_CONTEXT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScores:
    """How well one item survived: structure and edges in [-1, 1] (1 is unchanged), shift in pixels."""

    structure: float
    edges: float
    shift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLimits:
    """What an item has to reach: least structure, least edge agreement, largest shift in pixels."""

    structure: float
    edges: float
    shift: float


def structure_map(before_HW: Grey, after_HW: Grey) -> Grey:
    """The structure term of SSIM (Wang et al., 2004, eq. 10) per pixel, float32 [H, W] in [-1, 1].

    Local correlation in a Gaussian window of 11 pixels: blind to changes of light and contrast, not to lost or moved
    detail. Inputs are float32 [H, W], 0..255.
    """
    mean_before, mean_after = _blur(before_HW), _blur(after_HW)
    variance_before = np.maximum(_blur(before_HW * before_HW) - mean_before**2, 0)
    variance_after = np.maximum(_blur(after_HW * after_HW) - mean_after**2, 0)
    covariance = _blur(before_HW * after_HW) - mean_before * mean_after
    deviations = np.sqrt(variance_before * variance_after)
    return np.asarray((covariance + _CONTRAST_FLOOR) / (deviations + _CONTRAST_FLOOR), np.float32)


def _agreement(before_2HW: Grey, after_2HW: Grey) -> float:
    """Cosine of the angle between both gradient fields, in [-1, 1]; 1 for two flat pictures.

    Every pixel counts by its gradient's strength, so the strongest edges decide; a gain or an offset changes nothing.
    """
    norms = float(np.linalg.norm(before_2HW) * np.linalg.norm(after_2HW))
    return 1.0 if norms < 1e-6 else float((before_2HW * after_2HW).sum()) / norms


def _displacement(before_2HW: Grey, after_2HW: Grey) -> float:
    """Length in pixels of the displacement between two pictures, by phase correlation of their gradient strength.

    Returns 0 for pictures without detail to measure it on.
    """
    before, after = np.hypot(*before_2HW), np.hypot(*after_2HW)
    if before.std() < 1.0 or after.std() < 1.0:
        return 0.0
    window = cv2.createHanningWindow((before.shape[1], before.shape[0]), cv2.CV_32F)
    (right, down), _ = cv2.phaseCorrelate(_padded(before * window), _padded(after * window))
    return float(np.hypot(right, down))


def item_scores(before_HW3: Photo, after_HW3: Photo, *, boxes_N4: NDArray[np.float32]) -> list[ItemScores]:
    """The scores of every item: compares both uint8 RGB photos of one size inside each box (xyxy pixels)."""
    before_HW, after_HW = (
        np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.float32) for photo in (before_HW3, after_HW3)
    )
    structure_HW = structure_map(before_HW, after_HW)
    scores = []
    for box in boxes_N4:
        inside = _window(box, height=before_HW.shape[0], width=before_HW.shape[1])
        before_2HW, after_2HW = _gradient(before_HW[inside]), _gradient(after_HW[inside])
        scores.append(
            ItemScores(
                structure=float(structure_HW[inside].mean()),
                edges=_agreement(before_2HW, after_2HW),
                shift=_displacement(before_2HW, after_2HW),
            )
        )
    return scores


def drift_reason(scores: Sequence[ItemScores], *, limits: CheckLimits) -> str:
    """Why the photo is rejected, naming the first item beyond the limits and how many there are; "" if none is."""
    drifted = [(index, _complaint(item, limits=limits)) for index, item in enumerate(scores)]
    drifted = [(index, complaint) for index, complaint in drifted if complaint]
    if not drifted:
        return ""
    index, complaint = drifted[0]
    return f"{len(drifted)} of {len(scores)} items drifted; item {index}: {complaint}"


def _complaint(item: ItemScores, *, limits: CheckLimits) -> str:
    if item.structure < limits.structure:
        return f"structure {item.structure:.2f} < {limits.structure:.2f}"
    if item.edges < limits.edges:
        return f"edge agreement {item.edges:.2f} < {limits.edges:.2f}"
    if item.shift > limits.shift:
        return f"edges moved by {item.shift:.1f} > {limits.shift:.1f} pixels"
    return ""


def _window(box: NDArray[np.float32], *, height: int, width: int) -> tuple[slice, slice]:
    """The box's pixels with a little context (an outline lies on the box's border), never smaller than 8 x 8."""
    (left, right), (top, bottom) = (
        _interval(float(box[axis]), float(box[axis + 2]), length=length) for axis, length in ((0, width), (1, height))
    )
    return slice(top, bottom), slice(left, right)


def _interval(low: float, high: float, *, length: int) -> tuple[int, int]:
    start = max(0, min(int(low) - _CONTEXT, length - _SMALLEST_SIDE))
    return start, min(length, max(int(np.ceil(high)) + _CONTEXT, start + _SMALLEST_SIDE))


def _gradient(picture_HW: Grey) -> Grey:
    """Derivatives to the right and down, float32 [2, H, W]."""
    # A light blur first: the sensor's noise is no edge.
    smooth = cv2.GaussianBlur(picture_HW, (0, 0), 1.0)
    return np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)])


def _padded(picture_HW: Grey) -> Grey:
    # OpenCV pads to a fast length and is half a pixel off where that is odd: powers of two are even.
    height, width = picture_HW.shape
    below, beside = (2 ** (side - 1).bit_length() - side for side in (height, width))
    return np.pad(picture_HW, ((0, below), (0, beside)))


def _blur(picture_HW: Grey) -> Grey:
    return np.asarray(cv2.GaussianBlur(picture_HW, (_WINDOW, _WINDOW), _WINDOW_SIGMA), np.float32)
