"""The quality score's signs by hand, and that it falls when any of them does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mask_quality import (
    SIGNS,
    mask_agreement,
    neighbour_consistency,
    quality_of,
)


def test_mask_agreement__by_hand():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], other[1:3] = True, True
    assert mask_agreement(one, other) == pytest.approx(1 / 3)
    assert mask_agreement(one & False, one & False) == 0.0


def test_neighbour_consistency__odd_one_out():
    scores = neighbour_consistency([100, 104, 50, 102], [1, 11, 21, 31])
    assert scores[2] == pytest.approx(50 / 102)
    assert scores[0] == pytest.approx(100 / 102)
    assert scores[1] == pytest.approx(100 / 104)


def test_neighbour_consistency__too_few_to_compare():
    assert neighbour_consistency([5, 500], [1, 2]) == [1.0, 1.0]


@given(
    st.lists(st.floats(0, 1), min_size=len(SIGNS), max_size=len(SIGNS)), st.integers(0, len(SIGNS) - 1), st.floats(0, 1)
)
def test_quality_of__in_range_and_never_better_when_a_sign_is_worse(values, place, share):
    signs = dict(zip(SIGNS, values, strict=True))
    worse = {**signs, SIGNS[place]: signs[SIGNS[place]] * share}
    assert 0 <= quality_of(worse) <= quality_of(signs) <= 1
