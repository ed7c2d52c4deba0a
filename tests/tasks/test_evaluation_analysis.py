import numpy as np
import pytest

from tasks.evaluation_analysis import (
    accuracy_by_items,
    calibration_error,
    confusions,
    curve_on_grid,
    error_kinds,
    match,
    mistakes,
    reliability,
    sku_table,
)
from tests.tasks.evaluation_cases import evaluation_set, random_set

LEFT, RIGHT, FAR = (0, 0, 100, 100), (200, 0, 100, 100), (0, 300, 100, 100)


def one_of_each():
    """One photo: sku-0 found right and once too often, sku-1 taken for sku-2, sku-0 missed, something in the corner."""
    truth = [(0, 0, LEFT), (0, 1, RIGHT), (0, 0, FAR)]
    found = [(0, 0, 0.9, LEFT), (0, 0, 0.6, (5, 0, 100, 100)), (0, 2, 0.8, RIGHT), (0, 1, 0.7, (500, 500, 50, 50))]
    return evaluation_set(truth, found, photos=1, classes=3)


def test_match__every_kind():
    matches = match(one_of_each())
    assert matches.kind_D.tolist() == ["right", "double", "wrong SKU", "background"]
    assert matches.truth_D.tolist() == [0, 0, 1, -1]
    assert matches.missed.tolist() == [2]


def test_match__the_right_class_comes_before_the_better_score():
    evaluated = evaluation_set([(0, 0, LEFT)], [(0, 1, 0.99, LEFT), (0, 0, 0.2, LEFT)], photos=1, classes=2)
    assert match(evaluated).kind_D.tolist() == ["double", "right"]


def test_match__objects_of_other_photos_do_not_count():
    evaluated = evaluation_set([(0, 0, LEFT)], [(1, 0, 0.9, LEFT)], photos=2, classes=1)
    assert error_kinds(match(evaluated)) == {"right": 0, "wrong SKU": 0, "double": 0, "background": 1, "missed": 1}


@pytest.mark.parametrize("seed", range(5))
def test_match__every_product_is_matched_once_or_missed(seed):
    evaluated = random_set(seed)
    matches = match(evaluated)
    first = np.isin(matches.kind_D, ["right", "wrong SKU"])
    assert sorted([*matches.truth_D[first], *matches.missed]) == list(range(len(evaluated.truth)))


@pytest.mark.parametrize("seed", range(3))
def test_match__order_of_detections_does_not_matter(seed):
    evaluated = random_set(seed)
    order = np.random.default_rng(seed).permutation(len(evaluated.found))
    # Equal scores are matched in the given order, so give each detection a score of its own.
    evaluated.found.score_M[:] = np.linspace(0.1, 0.9, len(evaluated.found))
    kinds = error_kinds(match(evaluated))
    mixed = evaluation_set([], [], photos=evaluated.photos, classes=evaluated.classes)
    mixed = type(mixed)(
        photo_ids=evaluated.photo_ids,
        levels=evaluated.levels,
        category_ids=evaluated.category_ids,
        skus=evaluated.skus,
        truth=evaluated.truth,
        found=evaluated.found.take(order),
    )
    assert error_kinds(match(mixed)) == kinds


def test_sku_table__hand_computed():
    evaluated = one_of_each()
    table = sku_table(evaluated, matches=match(evaluated))
    assert table["products"] == [2, 1, 0]
    assert table["found"] == [2, 1, 1]
    assert table["right"] == [1, 0, 0]
    assert table["precision"] == [0.5, 0.0, 0.0]
    assert table["recall"] == [0.5, 0.0, None]
    assert table["photos_miscounted"] == [0, 0, 1]


def test_confusions__most_frequent_first():
    truth = [(0, 0, LEFT), (0, 1, RIGHT), (1, 1, RIGHT)]
    found = [(0, 1, 0.9, LEFT), (0, 0, 0.9, RIGHT), (1, 0, 0.9, RIGHT)]
    evaluated = evaluation_set(truth, found, photos=2, classes=2)
    assert confusions(evaluated, matches=match(evaluated)) == [("sku-1", "sku-0", 2), ("sku-0", "sku-1", 1)]


def test_mistakes__each_with_what_it_is():
    evaluated = one_of_each()
    listed = mistakes(evaluated, matches=match(evaluated))
    assert [(one["kind"], one["true_sku"], one["found_sku"]) for one in listed] == [
        ("background", None, "sku-1"),
        ("double", "sku-0", "sku-0"),
        ("missed", "sku-0", None),
        ("wrong SKU", "sku-1", "sku-2"),
    ]
    assert listed[2]["box"] == [0, 300, 100, 400]


def test_accuracy_by_items__hand_computed():
    truth = [(0, 0), (1, 0), (2, 0), (2, 0)]
    found = [(0, 0, 0.9), (2, 0, 0.9), (2, 0, 0.9)]
    evaluated = evaluation_set(truth, found, photos=3, classes=1)
    assert accuracy_by_items(evaluated, threshold=0.5) == [(1, 2, 0.5), (2, 1, 1.0)]


def test_reliability__bins_and_calibration_error():
    truth = [(0, 0, LEFT), (0, 0, RIGHT)]
    found = [(0, 0, 0.95, LEFT), (0, 0, 1.0, RIGHT), (0, 0, 0.25, FAR)]
    evaluated = evaluation_set(truth, found, photos=1, classes=1)
    bins = reliability(evaluated, matches=match(evaluated))
    assert [(one["low"], one["detections"], one["precision"]) for one in bins] == [(0.2, 1, 0.0), (0.9, 2, 1.0)]
    assert calibration_error(bins) == pytest.approx((1 * 0.25 + 2 * 0.025) / 3)


def test_calibration_error__no_detections():
    assert calibration_error([]) == 0.0


def test_curve_on_grid__from_everything_to_nothing():
    evaluated = evaluation_set([(0, 0)], [(0, 0, 0.5)], photos=1, classes=1)
    curve = curve_on_grid(evaluated, points=3)
    assert curve["threshold"] == [0.0, 0.5, 1.0]
    assert curve["cAcc"] == [1.0, 1.0, 0.0]
