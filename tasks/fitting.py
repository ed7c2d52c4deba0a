"""A photo as the network sees it: scaled into a square. OpenCV only, so that readers without torch can do it too."""

from __future__ import annotations

import cv2
import numpy as np

from storage.images import Picture


def fit_photo(photo_HW3: Picture, *, size: int, side: int) -> tuple[Picture, float]:
    """The photo scaled so that its longer side is `size` pixels, in a square of `side`, and the factor.

    The rest of the square repeats the photo's last row and column.
    """
    height, width = photo_HW3.shape[:2]
    factor = size / max(height, width)
    scaled = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    small_HW3 = cv2.resize(photo_HW3, scaled, interpolation=method)
    below, right = side - scaled[1], side - scaled[0]
    framed_HW3 = cv2.copyMakeBorder(small_HW3, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(framed_HW3, np.uint8), factor
