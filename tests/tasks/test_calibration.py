import numpy as np
import pytest
from scipy.optimize import minimize

from tasks.calibration import Calibration, fit_calibration


def drawn(seed, *, slope, offset, size=4000):
    """Scores, and whether each is right with probability sigmoid(slope * logit(score) + offset)."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.02, 0.98, size)
    probability = 1 / (1 + np.exp(-(slope * np.log(scores / (1 - scores)) + offset)))
    return scores, rng.random(size) < probability


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -1.0), (2.0, 1.5)])
def test_fit_calibration__finds_what_made_the_data(slope, offset):
    scores, right = drawn(0, slope=slope, offset=offset)
    found = fit_calibration(scores, right_M=right)
    assert (found.slope, found.offset) == pytest.approx((slope, offset), abs=0.2)


def test_fit_calibration__equals_a_general_optimiser():
    scores, right = drawn(1, slope=0.7, offset=-0.5, size=60)
    logits = np.log(scores / (1 - scores))

    def loss(values):
        margin = np.where(right, 1, -1) * (values[0] * logits + values[1])
        return np.logaddexp(0, -margin).sum() + 0.5 * ((values[0] - 1) ** 2 + values[1] ** 2)

    expected = minimize(loss, [1.0, 0.0], tol=1e-12).x
    found = fit_calibration(scores, right_M=right)
    assert (found.slope, found.offset) == pytest.approx(expected, abs=1e-4)


def test_fit_calibration__without_detections_nothing_changes():
    found = fit_calibration([], right_M=[])
    assert found == Calibration()
    assert found([0.2, 0.9]) == pytest.approx([0.2, 0.9])


def test_fit_calibration__all_right_or_all_wrong_stays_finite():
    for right in (True, False):
        found = fit_calibration([0.9] * 50, right_M=[right] * 50)
        assert 0 < found([0.9])[0] < 1


def test_calibration__keeps_the_order_and_the_ends():
    probabilities = Calibration(slope=0.3, offset=-2.0)([0.0, 0.2, 0.8, 1.0])
    assert (np.diff(probabilities) > 0).all()
    assert np.isfinite(probabilities).all()
