import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.manifest import ManifestObject
from tasks.fusion import count_scale, fused, fused_objects, fused_scores
from tests.tasks.evaluation_cases import evaluation_set

SCORES = st.lists(st.floats(0, 1), max_size=8)


def test_fused_scores__hand_computed():
    # Room for the first (+1), half a product short at the second (+0.5), beyond the count at the third (-0.5).
    logits = np.log(np.array([0.9, 0.5, 0.4]) / np.array([0.1, 0.5, 0.6])) + np.array([1, 0.5, -0.5])
    assert fused_scores([0.9, 0.5, 0.4], count=2.0) == pytest.approx(1 / (1 + np.exp(-logits)))


@settings(max_examples=60, deadline=None)
@given(SCORES, st.floats(0, 20))
def test_fused_scores__order_within_the_photo_stays(scores, count):
    fused = fused_scores(scores, count=count)
    assert ((fused > 0) & (fused < 1)).all()
    order = np.argsort(-np.asarray(scores), kind="stable")
    assert (np.diff(fused[order]) <= 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(SCORES, st.floats(0, 20), st.floats(0, 5))
def test_fused_scores__a_higher_count_never_lowers_a_score(scores, count, more):
    assert (fused_scores(scores, count=count + more) >= fused_scores(scores, count=count) - 1e-12).all()


def test_fused_scores__the_count_decides_between_equally_likely_numbers():
    doubtful = [0.95, 0.95, 0.5, 0.5]
    assert [(fused_scores(doubtful, count=count) >= 0.55).sum() for count in (2.0, 3.0, 4.0)] == [2, 3, 4]


def test_count_scale__sums_agree():
    assert count_scale([2.2, 4.4], products_N=[2, 4]) == pytest.approx(6 / 6.6)
    assert count_scale([0.0], products_N=[3]) == 1.0
    assert count_scale([], products_N=[]) == 1.0


def test_fused__each_photo_by_its_own_count():
    evaluated = evaluation_set([], [(1, 0, 0.5), (0, 0, 0.5), (1, 1, 0.6)], photos=2, classes=2)
    moved = fused(evaluated, counts_N=[0.0, 2.0])
    assert moved.found.score_M[[1]] == pytest.approx(fused_scores([0.5], count=0.0))
    assert moved.found.score_M[[0, 2]] == pytest.approx(fused_scores([0.5, 0.6], count=2.0))
    assert evaluated.found.score_M.tolist() == [0.5, 0.5, 0.6]


def test_fused_objects__only_the_scores_move():
    item = ManifestObject(category=1, sku="tea", box=(0, 0, 9, 9), score=0.5)
    (moved,) = fused_objects([item], count=1.0)
    assert (moved.sku, moved.box) == ("tea", (0, 0, 9, 9))
    assert moved.score == pytest.approx(fused_scores([0.5], count=1.0)[0])
