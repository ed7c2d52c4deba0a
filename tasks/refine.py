"""Edge-aware refinement of a soft mask: its outline moves to the photo's colour edges and gets a soft rim.

Everything but the last step happens at a bounded working size, so that time and memory do not grow with the photo.

Shapes: h×w pixels of the photo at the working size, H×W at full size. Masks are float32 in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.coarse import cut_where_doubtful
from tasks.contact_shadow import without_contact_shadow
from tasks.params import RefineParams


def refine(
    probability_hw: NDArray[np.float32],
    small_hw3: NDArray[np.uint8],
    photo_HW3: NDArray[np.uint8],
    *,
    params: RefineParams,
) -> NDArray[np.float32]:
    """Snaps a soft mask to the photo's edges: one round of GrabCut where it is in doubt, then the guided filter.

    Args:
        probability_hw: the soft mask at the working size.
        small_hw3: the photo at the working size, uint8 RGB.
        photo_HW3: the photo at the size of the result, uint8 RGB.

    Returns:
        float32 [H, W] in [0, 1], 1/2 at the outline.
    """
    cut_hw = cut_where_doubtful(small_hw3, probability_hw, doubt=params.doubt).astype(np.float32)
    mixed_hw = np.asarray((1 - params.trust) * cut_hw + params.trust * probability_hw, np.float32)
    radius = max(2, round(params.radius * max(probability_hw.shape)))
    return sharpen(guided_filter(mixed_hw, small_hw3, photo_HW3, radius=radius, epsilon=params.epsilon))


def refine_twice(
    probability_hw: NDArray[np.float32],
    small_hw3: NDArray[np.uint8],
    photo_HW3: NDArray[np.uint8],
    *,
    rim: float,
    params: RefineParams,
) -> NDArray[np.float32]:
    """`refine` at the working size, what is contact shadow taken off, and the guided filter in a narrower window.

    The first window is wide enough to find the edge, and so wide that other colours pull the outline about; once the
    outline is at the edge, a window as wide as the rim places it more exactly.

    Args:
        probability_hw, small_hw3, photo_HW3: as `refine` takes them.
        rim: radius of the narrower window, share of the longer side.

    Returns:
        float32 [H, W] in [0, 1], 1/2 at the outline.
    """
    alpha_hw = refine(probability_hw, small_hw3, small_hw3, params=params)
    alpha_hw = without_contact_shadow(alpha_hw, small_hw3)
    radius = max(1, round(rim * max(probability_hw.shape)))
    return sharpen(guided_filter(alpha_hw, small_hw3, photo_HW3, radius=radius, epsilon=params.epsilon))


def sharpen(alpha_hw: NDArray[np.float32], *, gain: float = 3.0) -> NDArray[np.float32]:
    """Steeper edge around one half, so that the soft rim is one or two pixels wide; stays in [0, 1]."""
    return np.clip((alpha_hw - 0.5) * gain + 0.5, 0, 1)


def guided_filter(
    plane_hw: NDArray[np.float32],
    small_hw3: NDArray[np.uint8],
    photo_HW3: NDArray[np.uint8],
    *,
    radius: int,
    epsilon: float,
) -> NDArray[np.float32]:
    """The guided filter with a colour guide (He et al., TPAMI 2013, eq. 14), by box sums: any radius costs the same.

    In every window of side 2·radius + 1 the result is a linear function of the guide's colour. That function is fitted
    at the small size and evaluated at the full one (He and Sun, "Fast guided filter", 2015).

    Args:
        plane_hw: what is filtered, at the small size.
        small_hw3: the guide at the small size, uint8 RGB.
        photo_HW3: the guide at the size of the result, uint8 RGB.
        epsilon: regulariser, squared colour in [0, 1]: variance below it counts as flat.
    """
    guide_hw3 = small_hw3.astype(np.float32) / np.float32(255)
    slopes, offset_hw = guided_model(plane_hw, guide_hw3, radius=radius, epsilon=epsilon)
    size = photo_HW3.shape[1], photo_HW3.shape[0]

    def enlarged(values_hw: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(values_hw, size, interpolation=cv2.INTER_LINEAR), np.float32)

    # One channel after the other: three planes of the full size are in memory at once, whatever the size.
    result_HW = enlarged(offset_hw)
    for channel, slope_hw in enumerate(slopes):
        slope_HW = enlarged(slope_hw / np.float32(255))
        result_HW += cv2.multiply(slope_HW, cv2.extractChannel(photo_HW3, channel), dtype=cv2.CV_32F)
    return result_HW


def guided_model(
    plane_hw: NDArray[np.float32], guide_hw3: NDArray[np.float32], *, radius: int, epsilon: float
) -> tuple[tuple[NDArray[np.float32], ...], NDArray[np.float32]]:
    """The guided filter's model, plane ≈ slope · guide + offset: slope [h, w] of each channel, offset [h, w]."""

    def mean(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        sides = (2 * radius + 1,) * 2
        return np.asarray(cv2.boxFilter(plane, -1, sides, borderType=cv2.BORDER_REFLECT_101), np.float32)

    # Plane by plane: NumPy is slow where the innermost axis is as short as three.
    r, g, b = (np.asarray(one, np.float32) for one in cv2.split(guide_hw3))
    m_r, m_g, m_b, m_plane = mean(r), mean(g), mean(b), mean(plane_hw)
    c_r, c_g, c_b = (mean(x * plane_hw) - m_x * m_plane for x, m_x in ((r, m_r), (g, m_g), (b, m_b)))
    rr, gg, bb = (mean(x * x) - m_x * m_x + epsilon for x, m_x in ((r, m_r), (g, m_g), (b, m_b)))
    rg, gb, br = mean(r * g) - m_r * m_g, mean(g * b) - m_g * m_b, mean(b * r) - m_b * m_r
    # The inverse of the symmetric 3×3 covariance by its cofactors, applied to the covariance with the plane.
    i_rr, i_gg, i_bb = gg * bb - gb * gb, rr * bb - br * br, rr * gg - rg * rg
    i_rg, i_gb, i_br = br * gb - rg * bb, rg * br - gb * rr, rg * gb - gg * br
    determinant = rr * i_rr + rg * i_rg + br * i_br
    s_r = (i_rr * c_r + i_rg * c_g + i_br * c_b) / determinant
    s_g = (i_rg * c_r + i_gg * c_g + i_gb * c_b) / determinant
    s_b = (i_br * c_r + i_gb * c_g + i_bb * c_b) / determinant
    offset_hw = m_plane - (s_r * m_r + s_g * m_g + s_b * m_b)
    return (mean(s_r), mean(s_g), mean(s_b)), mean(offset_hw)
