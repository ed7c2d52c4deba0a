import copy
import math

import pytest
import torch
from torch import nn

from models.training import NonFiniteLossError, Optimisation, Trainer, learning_rate_factor

HOW = Optimisation(steps=20, learning_rate=1e-2, warmup=4, average=0.9)


class _Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.norm(self.backbone(x)).relu())


def _step(trainer):
    generator = torch.Generator().manual_seed(trainer.step)
    x = torch.randn(8, 4, generator=generator)
    return trainer.take_step({"error": (trainer.network(x)[:, 0] - x.sum(dim=1)).square().mean()})


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_learning_rate_factor__rises_linearly_then_falls_by_a_half_cosine():
    factors = [learning_rate_factor(step, warmup=4, steps=20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    by_torch = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 16)
    for factor in factors[4:]:
        assert math.isclose(factor, by_torch.get_last_lr()[0], abs_tol=1e-9)
        by_torch.optimizer.step()
        by_torch.step()


def test_take_step__learns():
    trainer = Trainer(network=_Small(), optimisation=HOW)
    errors = [_step(trainer)["error"] for _ in range(20)]
    assert errors[-1] < errors[0] and trainer.step == 20


def test_take_step__the_backbone_learns_at_its_share_of_the_rate():
    trainer = Trainer(network=_Small(), optimisation=HOW)
    before = copy.deepcopy(trainer.network.state_dict())
    _step(trainer)
    # Adam's first step moves every weight by the rate (0.01 x 1/4 of the warm-up), whatever the gradient's size.
    moved = {name: (value - before[name]).abs().max() for name, value in trainer.network.state_dict().items()}
    torch.testing.assert_close(moved["head.weight"], torch.tensor(0.0025), rtol=1e-2, atol=0)
    torch.testing.assert_close(moved["backbone.weight"], torch.tensor(0.00075), rtol=1e-2, atol=0)


def test_take_step__averages_as_the_recurrence_says():
    trainer = Trainer(network=_Small(), optimisation=HOW)
    expected = trainer.network.head.weight.detach().clone()
    for step in range(1, 16):
        _step(trainer)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.network.head.weight.detach()
    torch.testing.assert_close(trainer.averaged["head.weight"], expected)


@pytest.mark.parametrize("killed_after", [1, 7])
def test_restore__goes_on_bit_for_bit(killed_after):
    whole = Trainer(network=_Small(), optimisation=HOW)
    for _ in range(12):
        _step(whole)
    first = Trainer(network=_Small(), optimisation=HOW)
    for _ in range(killed_after):
        _step(first)
    saved = {name: value.clone() for name, value in first.state().items()}
    second = Trainer(network=_Small(), optimisation=HOW)
    second.restore(saved)
    for _ in range(12 - killed_after):
        _step(second)
    assert _same(second.state(), whole.state())


def test_take_step__stops_at_a_loss_that_is_no_number_and_changes_nothing():
    trainer = Trainer(network=_Small(), optimisation=HOW)
    _step(trainer)
    before = {name: value.clone() for name, value in trainer.state().items()}
    with pytest.raises(NonFiniteLossError, match=r"step 1: expected finite losses, got \{'error': nan\}"):
        trainer.take_step({"error": trainer.network.head.weight.sum() * math.nan})
    assert _same(trainer.state(), before)
