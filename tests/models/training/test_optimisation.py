import math

import pytest
import torch
from torch import nn

from models.training.optimisation import Optimisation, learning_rate_factor, rule_in_words, scaled


def _factors(**how):
    made = Optimisation(learning_rate=1.0, **how)
    return [learning_rate_factor(step, how=made) for step in range(made.steps)]


def test_learning_rate_factor__rises_linearly_then_falls_by_a_half_cosine():
    factors = _factors(steps=20, warmup=4)
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    by_torch = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 16)
    for factor in factors[4:]:
        assert math.isclose(factor, by_torch.get_last_lr()[0], abs_tol=1e-9)
        by_torch.optimizer.step()
        by_torch.step()


def test_learning_rate_factor__late_linear_stays_then_falls_to_nothing():
    factors = _factors(steps=10, schedule="late_linear")
    assert factors == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_learning_rate_factor__steps_are_those_of_torch():
    factors = _factors(steps=18, schedule="steps")
    by_torch = torch.optim.lr_scheduler.MultiStepLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), [12, 16], gamma=0.1
    )
    for factor in factors:
        assert math.isclose(factor, by_torch.get_last_lr()[0], rel_tol=1e-9)
        by_torch.optimizer.step()
        by_torch.step()


def test_scaled__as_many_photos_at_a_rate_in_proportion():
    before = Optimisation(steps=6000, learning_rate=1e-3, warmup=50, average=0.99)
    after = scaled(before, factor=4)
    assert (after.steps, after.learning_rate, after.warmup) == (1500, 4e-3, 12)
    # The share of the weights that is left of what the average held n photos ago is the same.
    assert after.average == pytest.approx(before.average**4)
    assert rule_in_words(before, after=after, factor=4) == (
        "linear rule, batch x 4: learning_rate 0.001 -> 0.004, steps 6000 -> 1500, warmup 50 -> 12, "
        "average 0.99 -> 0.960596"
    )
