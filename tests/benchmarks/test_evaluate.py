import math

import numpy as np
import pytest

from benchmarks.evaluate import compared, made_case, odd_cases, ours


def test_made_case__sizes_and_levels():
    case = made_case(np.random.default_rng(0), photos=9, classes=3, items=(2, 4))
    images, truth = case["annotations"]["images"], case["annotations"]["annotations"]
    assert [image["level"] for image in images[:3]] == ["medium", "hard", "easy"]
    assert 18 <= len(truth) <= 36
    assert {one["category_id"] for one in truth} <= {1, 2, 3}
    assert all(0 <= one["score"] <= 1 for one in case["results"])


@pytest.mark.parametrize("name", odd_cases(np.random.default_rng(0)))
def test_odd_cases__each_can_be_evaluated(name):
    case = odd_cases(np.random.default_rng(0))[name]
    assert set(ours(case, maps=False)) >= {"easy", "averaged"}


def test_compared__differences_and_stops():
    mine = {"easy": {"cAcc": 0.5, "ACD": 1.0, "mCCD": math.nan, "mCIoU": 0.25, "mAP50": 0.75}, "hard": {"cAcc": 0.1}}
    theirs = {
        "cAcc": 0.5,
        "ACD": 1.25,
        "mCCD": math.nan,
        "printed": {"cAcc": "50.0%", "ACD": 1.25},
        "map": {"mAP50": 0.75},
    }
    comparison = compared(mine, {"levels": {"easy": theirs, "hard": {"error": "IndexError"}}})
    assert (comparison.largest_difference, comparison.figures) == (0.25, 4)
    assert (comparison.rpctool_stops, comparison.same_text) == (1, False)


def test_compared__no_number_against_a_number():
    assert compared({"easy": {"mCCD": 1.0}}, {"levels": {"easy": {"mCCD": math.inf}}}).largest_difference == 1.0
