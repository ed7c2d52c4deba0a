import pytest
import torch
from torch import nn

from models.training.loop import FailedBatchError, train_steps
from models.training.optimisation import Optimisation
from models.training.trainer import Phase, Trainer


class _Mean(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"mean": self.network(x).mean()}


def _trainer():
    network = nn.Linear(2, 1)
    how = Optimisation(steps=4, learning_rate=0.1, warmup=2)
    phase = Phase(name="mean", module=_Mean(network), learns=[network], optimisation=how)
    return Trainer(network=network, phases=[phase], device=torch.device("cpu"))


def test_train_steps__tells_of_each_step_and_of_the_time_spent_waiting():
    # The clock is read before a batch comes, when it is there, and when its step is done.
    ticks = iter([0.0, 1.0, 4.0, 10.0, 12.0, 20.0])
    reports = list(train_steps(_trainer(), [(torch.ones(3, 2),)] * 2, clock=lambda: next(ticks, 99.0)))
    assert [(one.step, one.waited, one.seconds, one.learning_rate) for one in reports] == [
        (1, 1.0, 4.0, 0.05),
        (2, 2.0, 10.0, 0.1),
    ]
    assert reports[1].losses["mean"] < reports[0].losses["mean"]


def test_train_steps__gives_the_batch_that_failed():
    bad = (torch.full((3, 2), float("inf")),)
    with pytest.raises(FailedBatchError, match="step 1") as failed:
        list(train_steps(_trainer(), [(torch.ones(3, 2),), bad], clock=lambda: 0.0))
    assert failed.value.batch is bad
