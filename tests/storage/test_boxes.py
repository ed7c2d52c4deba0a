import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_area, box_iou

from storage.boxes import area, intersection_matrix, iou_matrix, mask_box


@st.composite
def boxes(draw, count=5):
    corners = draw(arrays(np.float32, (count, 2, 2), elements=st.integers(0, 60).map(float)))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


@given(boxes(), boxes(count=4))
def test_iou_matrix__equals_torchvision(first, second):
    expected = torch.nan_to_num(box_iou(torch.from_numpy(first), torch.from_numpy(second))).numpy()
    np.testing.assert_allclose(iou_matrix(first, second), expected, atol=1e-6)


@given(boxes())
def test_area__equals_torchvision(some):
    np.testing.assert_allclose(area(some), box_area(torch.from_numpy(some)).numpy())


def test_area__of_a_box_turned_inside_out_is_zero():
    assert area(np.array([[5, 5, 1, 9]], np.float32)).tolist() == [0]


def test_intersection_matrix__counts_shared_pixels():
    shared = intersection_matrix(np.array([[0, 0, 4, 4]], np.float32), np.array([[2, 1, 9, 3]], np.float32))
    assert shared.tolist() == [[4.0]]


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_mask_box__holds_all_true_pixels_and_is_tight(mask):
    box = mask_box(mask)
    ys, xs = np.nonzero(mask)
    expected = None if xs.size == 0 else (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert box == expected
