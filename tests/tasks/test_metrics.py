import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from tasks.metrics import (
    absent_classes,
    best_threshold,
    bootstrap_intervals,
    checkout_metrics,
    clearly_more,
    count_matrix,
    counts_at,
    ranks_in_cell,
    right_range,
    threshold_curve,
)
from tests.tasks.evaluation_cases import counts_by_loop, evaluation_set, objects, random_set

COUNTS = st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*(arrays(np.int64, shape, elements=st.integers(0, 3)) for _ in range(2)))
)


def metrics_by_loop(found, true):
    """The paper's four sums, written out."""
    photos, classes = len(true), len(true[0])
    wrong = [[abs(f - t) for f, t in zip(row, other, strict=True)] for row, other in zip(found, true, strict=True)]
    present = [k for k in range(classes) if any(row[k] for row in true)]
    ccd = [sum(row[k] for row in wrong) / sum(row[k] for row in true) for k in present]
    ciou = [
        sum(min(f[k], t[k]) for f, t in zip(found, true, strict=True))
        / sum(max(f[k], t[k]) for f, t in zip(found, true, strict=True))
        for k in present
    ]
    return {
        "cAcc": sum(sum(row) == 0 for row in wrong) / photos,
        "ACD": sum(map(sum, wrong)) / photos,
        "mCCD": sum(ccd) / len(ccd) if ccd else math.nan,
        "mCIoU": sum(ciou) / len(ciou) if ciou else math.nan,
    }


def test_checkout_metrics__hand_computed():
    # Photo 1 right; photo 2 misses one of two teas and has a cola too many.
    found = np.array([[1, 1], [1, 1]])
    true = np.array([[1, 1], [2, 0]])
    assert checkout_metrics(found, true_NK=true) == {
        "cAcc": 0.5,
        "ACD": 1.0,
        "mCCD": (1 / 3 + 1 / 1) / 2,
        "mCIoU": (2 / 3 + 1 / 2) / 2,
    }


def test_checkout_metrics__a_class_that_does_not_occur_is_left_out():
    found, true = np.array([[1, 5]]), np.array([[1, 0]])
    assert checkout_metrics(found, true_NK=true) == {"cAcc": 0.0, "ACD": 5.0, "mCCD": 0.0, "mCIoU": 1.0}


def test_checkout_metrics__photos_without_products_only():
    figures = checkout_metrics(np.array([[0], [1]]), true_NK=np.array([[0], [0]]))
    assert figures["cAcc"] == 0.5
    assert figures["ACD"] == 0.5
    assert math.isnan(figures["mCCD"])
    assert math.isnan(figures["mCIoU"])


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_checkout_metrics__equals_written_out_sums(counts):
    found, true = counts
    expected = metrics_by_loop(found.tolist(), true.tolist())
    assert checkout_metrics(found, true_NK=true) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.randoms(use_true_random=False))
def test_checkout_metrics__order_of_photos_and_classes_does_not_matter(counts, random):
    found, true = counts
    photos, classes = list(range(len(true))), list(range(true.shape[1]))
    random.shuffle(photos)
    random.shuffle(classes)
    moved = checkout_metrics(found[photos][:, classes], true_NK=true[photos][:, classes])
    assert moved == pytest.approx(checkout_metrics(found, true_NK=true), abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(0, 3))
def test_checkout_metrics__a_perfect_photo_never_lowers_cacc(counts, products):
    found, true = counts
    perfect = np.full((1, true.shape[1]), products)
    more = checkout_metrics(np.vstack([found, perfect]), true_NK=np.vstack([true, perfect]))
    assert more["cAcc"] >= checkout_metrics(found, true_NK=true)["cAcc"]
    assert more["ACD"] <= checkout_metrics(found, true_NK=true)["ACD"]


def test_count_matrix__counts_and_empty_photos():
    counts = count_matrix(objects([(0, 1, 0.5), (0, 1, 0.2), (2, 0, 0.9)]), photos=3, classes=2)
    assert counts.tolist() == [[0, 2], [0, 0], [1, 0]]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.31, 1.0])
def test_counts_at__score_equal_to_the_threshold_counts(threshold):
    evaluated = random_set(1)
    found, true = counts_at(evaluated, threshold=threshold)
    assert (found.tolist(), true.tolist()) == counts_by_loop(evaluated, threshold)


def test_ranks_in_cell__best_first():
    evaluated = evaluation_set([], [(0, 0, 0.2), (0, 1, 0.9), (0, 0, 0.8), (1, 0, 0.1)], photos=2, classes=2)
    assert ranks_in_cell(evaluated).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("seed", range(8))
def test_right_range__equals_trying_every_threshold(seed):
    evaluated = random_set(seed, truth=14, found=16, photos=8, classes=3)
    thresholds = np.linspace(0, 1.01, 203)
    tried = [accuracy_at(evaluated, threshold) for threshold in thresholds]
    assert (right_range(evaluated).right_at(thresholds) / evaluated.photos).tolist() == pytest.approx(tried)


@pytest.mark.parametrize("seed", range(4))
def test_threshold_curve__equals_metrics_at_its_thresholds(seed):
    evaluated = random_set(seed)
    curve = threshold_curve(evaluated)
    for threshold, accuracy, distance in zip(curve.thresholds_T, curve.cAcc_T, curve.ACD_T, strict=True):
        found, true = counts_at(evaluated, threshold=threshold)
        figures = checkout_metrics(found, true_NK=true)
        assert (accuracy, distance) == pytest.approx((figures["cAcc"], figures["ACD"]), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_best_threshold__on_many_photos_next_to_nothing_is_better(seed):
    evaluated = random_set(seed, photos=300, truth=900, found=1200)
    grid = [worth_at(evaluated, threshold) for threshold in np.linspace(0, 1, 201)]
    assert worth_at(evaluated, best_threshold(evaluated)) >= max(grid) - 0.05


def worth_at(evaluated, threshold):
    found, true = counts_at(evaluated, threshold=threshold)
    figures = checkout_metrics(found, true_NK=true)
    return figures["cAcc"] - 0.15 * figures["ACD"]


def accuracy_at(evaluated, threshold):
    found, true = counts_at(evaluated, threshold=threshold)
    return checkout_metrics(found, true_NK=true)["cAcc"]


def test_best_threshold__well_inside_the_range_that_separates():
    evaluated = evaluation_set([(0, 0)], [(0, 0, 0.9), (0, 1, 0.3)], photos=1, classes=2)
    assert 0.5 < best_threshold(evaluated) < 0.75


def test_best_threshold__middle_where_everything_is_right():
    evaluated = evaluation_set([(0, 0)], [(0, 0, 0.9999)], photos=1, classes=1)
    assert 0.4 < best_threshold(evaluated) < 0.6


def test_best_threshold__fewest_errors_where_no_photo_can_be_right():
    truth = [(0, 0), (0, 1), (0, 2)]
    evaluated = evaluation_set(truth, [(0, 0, 0.99), (0, 1, 0.97), (0, 3, 0.03)], photos=1, classes=4)
    assert 0.1 < best_threshold(evaluated) < 0.95


def test_best_threshold__no_detections():
    with pytest.raises(ValueError, match="expected detections on val"):
        best_threshold(evaluation_set([(0, 0)], [], photos=1, classes=1))


def test_absent_classes__with_how_often_they_were_found():
    evaluated = evaluation_set([(0, 0)], [(0, 1, 0.9), (0, 1, 0.8), (0, 1, 0.1)], photos=1, classes=3)
    assert absent_classes(evaluated, threshold=0.5) == {"sku-1": 2, "sku-2": 0}


def test_bootstrap_intervals__cover_what_resampling_by_hand_gives():
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, (40, 3))
    found = np.clip(true + (rng.random((40, 3)) < 0.2), 0, None)
    intervals = bootstrap_intervals(found, true_NK=true, rng=np.random.default_rng(0), resamplings=1000)
    drawn = [rng.integers(40, size=40) for _ in range(1000)]
    for name in ("cAcc", "ACD", "mCCD", "mCIoU"):
        values = [checkout_metrics(found[one], true_NK=true[one])[name] for one in drawn]
        assert intervals[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.04)


def test_bootstrap_intervals__same_seed_same_intervals():
    true = np.eye(5, dtype=np.int64)
    runs = [
        bootstrap_intervals(true * 0, true_NK=true, rng=np.random.default_rng(1), resamplings=100) for _ in range(2)
    ]
    assert runs[0] == runs[1]


@given(arrays(np.bool_, (2, 30)))
def test_clearly_more__two_standard_deviations_of_a_coin(right_2N):
    one_N, other_N = right_2N
    differ = int((one_N != other_N).sum())
    heads = int((one_N & (one_N != other_N)).sum())
    coin = binom(max(differ, 1), 0.5)
    assert clearly_more(one_N, than_N=other_N) == (differ > 0 and heads > coin.mean() + 2 * coin.std() + 1e-9)
    assert not (clearly_more(one_N, than_N=other_N) and clearly_more(other_N, than_N=one_N))
