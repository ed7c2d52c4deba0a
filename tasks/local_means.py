"""What known pixels look like around every pixel, known or not.

Shapes: h×w pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

# Against division by nothing; where known pixels are as far away as that, the mean is drawn to 0.
_LITTLE = 1e-3


def mean_around(
    values_hwC: Plane, known_hw: NDArray[np.bool_], *, blurred: Callable[[Plane], object]
) -> tuple[Plane, Plane]:
    """The mean of the known pixels around each pixel [h, w, C], and how much of its surroundings is known [h, w].

    `blurred`: the filter that says how much each distance counts, of an array [h, w]; its weights sum to 1.
    """
    weight_hw = known_hw.astype(np.float32)
    near_hw = np.asarray(blurred(weight_hw), np.float32)
    some_hw = near_hw + _LITTLE
    # Plane by plane: NumPy is slow where the innermost axis is as short as three.
    means = [np.asarray(blurred(plane_hw * weight_hw), np.float32) / some_hw for plane_hw in cv2.split(values_hwC)]
    return np.asarray(cv2.merge(means), np.float32).reshape(values_hwC.shape), near_hw
