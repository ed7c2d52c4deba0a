import copy
import math

import pytest
import torch
from torch import nn

from models.training.optimisation import Optimisation
from models.training.trainer import NonFiniteLossError, Phase, Trainer

HOW = Optimisation(steps=20, learning_rate=1e-2, backbone_share=0.3, warmup=4, average=0.9, clip=10.0)
CPU = torch.device("cpu")


class _Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.norm(self.backbone(x)).relu())


class _Error(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"error": (self.network(x)[:, 0] - x.sum(dim=1)).square().mean()}


def _trainer(network=None, *, how=HOW, **changes):
    network = network or _Small()
    phase = Phase(name="small", module=_Error(network), learns=[network], optimisation=how)
    return Trainer(network=network, phases=[phase], device=CPU, **changes)


def _batch(step):
    return (torch.randn(8, 4, generator=torch.Generator().manual_seed(step)),)


def _step(trainer):
    return trainer.take_step(_batch(trainer.step))


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_take_step__learns():
    trainer = _trainer()
    errors = [_step(trainer)["error"] for _ in range(20)]
    assert errors[-1] < errors[0] and trainer.step == 20


def test_take_step__the_backbone_learns_at_its_share_of_the_rate():
    trainer = _trainer()
    before = copy.deepcopy(trainer.network.state_dict())
    _step(trainer)
    # Adam's first step moves every weight by the rate (0.01 x 1/4 of the warm-up), whatever the gradient's size.
    moved = {name: (value - before[name]).abs().max() for name, value in trainer.network.state_dict().items()}
    torch.testing.assert_close(moved["head.weight"], torch.tensor(0.0025), rtol=1e-2, atol=0)
    torch.testing.assert_close(moved["backbone.weight"], torch.tensor(0.00075), rtol=1e-2, atol=0)


def test_take_step__averages_as_the_recurrence_says():
    trainer = _trainer()
    expected = trainer.network.head.weight.detach().clone()
    for step in range(1, 16):
        _step(trainer)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.network.head.weight.detach()
    torch.testing.assert_close(trainer.averaged["head.weight"], expected)


def test_averaged__are_the_weights_where_no_average_is_kept():
    trainer = _trainer(how=Optimisation(steps=5, learning_rate=1e-2))
    _step(trainer)
    assert torch.equal(trainer.averaged["head.weight"], trainer.network.head.weight)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_take_step__pieces_of_a_batch_are_the_batch(parts):
    # Statistics of a batch are not those of its pieces: norms are left out.
    networks = [nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    trainers = [_trainer(network, parts=count) for network, count in zip(networks, (1, parts), strict=True)]
    for step in range(3):
        losses = [trainer.take_step(_batch(step)) for trainer in trainers]
        assert losses[0]["error"] == pytest.approx(losses[1]["error"], rel=1e-5)
    for name, value in networks[0].state_dict().items():
        torch.testing.assert_close(networks[1].state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_take_step__cuts_the_batch_until_it_fits_into_memory():
    class Short(_Error):
        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError
            return super().forward(x)

    network = _Small()
    phase = Phase(name="small", module=Short(network), learns=[network], optimisation=HOW)
    trainer = Trainer(network=network, phases=[phase], device=CPU)
    _step(trainer)
    assert trainer.parts == 4 and int(trainer.state()["parts"]) == 4


def test_take_step__one_photo_that_does_not_fit_is_an_error():
    class Full(_Error):
        def forward(self, x):
            raise torch.OutOfMemoryError

    network = _Small()
    phase = Phase(name="small", module=Full(network), learns=[network], optimisation=HOW)
    with pytest.raises(torch.OutOfMemoryError):
        _step(Trainer(network=network, phases=[phase], device=CPU))


@pytest.mark.parametrize("killed_after", [1, 7])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_restore__goes_on_bit_for_bit(killed_after, kind):
    how = Optimisation(steps=20, learning_rate=1e-2, warmup=4, average=0.9, kind=kind)
    whole = _trainer(how=how)
    for _ in range(12):
        _step(whole)
    first = _trainer(how=how)
    for _ in range(killed_after):
        _step(first)
    saved = {name: value.clone() for name, value in first.state().items()}
    second = _trainer(how=how)
    second.restore(saved)
    for _ in range(12 - killed_after):
        _step(second)
    assert _same(second.state(), whole.state())


def test_take_step__stops_at_a_loss_that_is_no_number_and_changes_nothing():
    trainer = _trainer()
    _step(trainer)
    before = {name: value.clone() for name, value in trainer.state().items()}
    trainer.network.norm.eval()
    with pytest.raises(NonFiniteLossError, match=r"step 1: expected finite losses and gradients, got \{'error': nan\}"):
        trainer.take_step((torch.full((8, 4), math.nan),))
    assert _same(trainer.state(), before)


def test_take_step__two_phases_change_each_their_own_part():
    class Distance(nn.Module):
        def __init__(self, one, other, sign):
            super().__init__()
            self.one, self.other, self.sign = one, other, sign

        def forward(self, x):
            return {f"distance{self.sign}": self.sign * (self.one(x) - self.other(x)).abs().mean()}

    network = nn.ModuleDict({"one": nn.Linear(4, 1), "other": nn.Linear(4, 1)})
    phases = [
        Phase(
            name=name,
            module=Distance(network["one"], network["other"], sign),
            learns=[network[name]],
            optimisation=Optimisation(steps=5, learning_rate=rate, kind="adam"),
        )
        for name, sign, rate in (("one", 1, 1e-2), ("other", -1, 1e-12))
    ]
    trainer = Trainer(network=network, phases=phases, device=CPU)
    before = copy.deepcopy(network.state_dict())
    assert set(_step(trainer)) == {"distance1", "distance-1"}
    assert not torch.equal(network["one"].weight, before["one.weight"])
    torch.testing.assert_close(network["other"].weight, before["other.weight"])
    assert all(value.requires_grad for value in network.parameters())


def test_take_step__half_precision_computes_in_bfloat16_and_keeps_weights_whole():
    trainer = _trainer(precision="bf16")
    whole, half = _step(_trainer())["error"], _step(trainer)["error"]
    assert whole != half and whole == pytest.approx(half, rel=0.05)
    assert trainer.network.head.weight.dtype == torch.float32
