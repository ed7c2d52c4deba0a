"""The quality score's signs by hand."""

import numpy as np
import pytest

from tasks.mask_quality import expected_iou, mask_agreement, neighbour_consistency


def test_expected_iou__by_hand():
    probability = np.array([[0.9, 0.8], [0.2, 0.0]], np.float32)
    assert expected_iou(probability, probability > 0.5) == pytest.approx(1.7 / 2.2)
    assert expected_iou(probability, probability > 1) == 0.0


def test_neighbour_consistency__odd_one_out():
    scores = neighbour_consistency([100, 104, 50, 102], [1, 11, 21, 31])
    assert scores[2] == pytest.approx(50 / 102)
    assert scores[0] == pytest.approx(100 / 102)
    assert scores[1] == pytest.approx(100 / 104)


def test_neighbour_consistency__too_few_to_compare():
    assert neighbour_consistency([5, 500], [1, 2]) == [1.0, 1.0]


def test_mask_agreement__by_hand():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], other[1:3] = True, True
    assert mask_agreement(one, other) == pytest.approx(1 / 3)
    assert mask_agreement(one & False, one & False) == 0.0
