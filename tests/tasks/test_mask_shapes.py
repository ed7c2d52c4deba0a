"""Masks as shapes: the hull beside that of all pixels, one by one."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.mask_shapes import convex_hull


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.5]), st.integers(3, 24))
def test_convex_hull__of_the_outlines_is_that_of_all_pixels(seed, share, side):
    mask = np.random.default_rng(seed).random((side, side + 3)) < share
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    expected = np.zeros(mask.shape, np.uint8)
    if len(points) > 2:
        cv2.fillConvexPoly(expected, cv2.convexHull(points), 1)
    assert (convex_hull(mask) == (expected.astype(bool) if len(points) > 2 else mask)).all()
