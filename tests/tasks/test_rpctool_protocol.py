import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from tasks.rpctool_protocol import compat_metrics
from tests.tasks.evaluation_cases import evaluation_set, random_set


def lists_at(evaluated, threshold):
    """Photo -> products found, only the photos in which something is found: that is how rpctool sees them."""
    found = defaultdict(Counter)
    for photo, index, score in zip(
        evaluated.found.photo_M, evaluated.found.class_M, evaluated.found.score_M, strict=True
    ):
        if score >= threshold:
            found[int(photo)][int(index)] += 1
    return found


def true_lists(evaluated):
    true = defaultdict(Counter)
    for photo, index in zip(evaluated.truth.photo_M, evaluated.truth.class_M, strict=True):
        true[int(photo)][int(index)] += 1
    return true


def compat_by_loop(evaluated):
    """The habits that the module's docstring names, in plain Python."""
    true, low, high = true_lists(evaluated), 0.01, 0.99

    def accuracy(threshold):
        found = lists_at(evaluated, threshold)
        return sum(found[photo] == true[photo] for photo in list(found)) / len(found)

    for _ in range(4):
        points = np.linspace(low, high, 10)
        tried = [accuracy(point) for point in points]
        best = sorted(range(10), key=lambda place: -tried[place])[:3]
        low, high = min(points[best]), max(points[best])
    threshold = points[int(np.argmax(tried))]
    found = lists_at(evaluated, threshold)
    wrong = np.array([[abs(found[n][k] - true[n][k]) for k in range(evaluated.classes)] for n in found])
    given = np.array([[true[n][k] for k in range(evaluated.classes)] for n in found])
    least = np.array([[min(found[n][k], true[n][k]) for k in range(evaluated.classes)] for n in found])
    most = np.array([[max(found[n][k], true[n][k]) for k in range(evaluated.classes)] for n in found])
    with np.errstate(all="ignore"):
        ccd, ciou = wrong.sum(0) / given.sum(0), least.sum(0) / most.sum(0)
    return {
        "cAcc": max(tried),
        "ACD": wrong.sum() / len(found),
        "mCCD": ccd.sum() / evaluated.classes,
        "mCIoU": ciou.sum() / evaluated.classes,
        "threshold": threshold,
        "photos": len(found),
    }


@pytest.mark.parametrize("seed", range(12))
def test_compat_metrics__equals_its_description_in_plain_python(seed):
    evaluated = random_set(seed, photos=10, classes=3, truth=30)
    # rpctool needs a detection at each threshold it tries.
    evaluated.found.score_M[0] = 1.0
    assert compat_metrics(evaluated) == pytest.approx(compat_by_loop(evaluated), rel=1e-6, nan_ok=True)


def test_compat_metrics__photos_without_detections_leave_the_figures():
    evaluated = evaluation_set([(0, 0), (1, 0)], [(0, 0, 0.995)], photos=2, classes=1)
    figures = compat_metrics(evaluated)
    assert (figures["cAcc"], figures["photos"]) == (1.0, 1)


def test_compat_metrics__absent_class_gives_no_number():
    found_right = compat_metrics(evaluation_set([(0, 0)], [(0, 0, 1.0)], photos=1, classes=2))
    assert math.isnan(found_right["mCCD"])
    found_wrong = compat_metrics(evaluation_set([(0, 0)], [(0, 1, 1.0)], photos=1, classes=2))
    assert math.isinf(found_wrong["mCCD"])


def test_compat_metrics__no_detection_at_all():
    figures = compat_metrics(evaluation_set([(0, 0)], [], photos=1, classes=1))
    assert figures["photos"] == 0
    assert math.isnan(figures["cAcc"])
