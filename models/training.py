"""A plain torch training loop's state: optimiser, schedule, moving average of the weights, and all of it as tensors.

Everything random in a step comes from a generator made for that step, so that weights, optimiser, average and the
number of the step are all there is to save; a killed training goes on bit for bit (CPU). Knows no files and no data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite: training stops at the step that did it."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights are changed: AdamW, linear warm-up, cosine decay to zero, clipped gradients, averaged weights.

    `average`: decay of the exponential moving average of the weights (0: none is kept, the last weights count).
    """

    steps: int
    learning_rate: float
    backbone_share: float = 0.3
    weight_decay: float = 1e-4
    warmup: int = 50
    clip: float = 10.0
    average: float = 0.995


def learning_rate_factor(step: int, *, warmup: int, steps: int) -> float:
    """Factor of the learning rate at `step` (from 0): up linearly for `warmup` steps, then down a half cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@dataclass(kw_only=True)
class Trainer:
    """A network in training; `step` steps are done."""

    network: nn.Module
    optimisation: Optimisation
    step: int = 0
    optimiser: AdamW = field(init=False)
    averaged: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Group the parameters: a pretrained `backbone` learns at its share of the rate."""
        self.optimiser = AdamW(_groups(self.network, self.optimisation), weight_decay=self.optimisation.weight_decay)
        self.averaged = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def take_step(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Change the weights by the gradients of the sum of `losses`; returns their values.

        Raises:
            NonFiniteLossError: the sum is NaN or infinite; nothing has been changed.
        """
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(sum(values.values())):
            raise NonFiniteLossError(f"step {self.step}: expected finite losses, got {values}")
        how = self.optimisation
        factor = learning_rate_factor(self.step, warmup=how.warmup, steps=how.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * group["peak"]
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), how.clip)
        self.optimiser.step()
        self.step += 1
        self._average()
        return values

    @torch.no_grad()
    def _average(self) -> None:
        # The average must forget the start early on: (1 + step) / (10 + step) is the customary ramp.
        decay = min(self.optimisation.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - decay)
            else:
                self.averaged[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, as tensors with flat names; `step` is one of them."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"averaged/{name}": value for name, value in self.averaged.items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
        tensors["step"] = torch.tensor(self.step)
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a state that `state` gave."""
        self.network.load_state_dict(_under("network", tensors))
        self.averaged = {name: value.clone() for name, value in _under("averaged", tensors).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser", tensors).items():
            index, _, key = name.partition("/")
            moments.setdefault(int(index), {})[key] = value.clone()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.step = int(tensors["step"])


def _groups(network: nn.Module, how: Optimisation) -> list[dict[str, object]]:
    learning = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    parts = {
        how.learning_rate * how.backbone_share: [value for name, value in learning if name.startswith("backbone.")],
        how.learning_rate: [value for name, value in learning if not name.startswith("backbone.")],
    }
    return [{"params": values, "lr": rate, "peak": rate} for rate, values in parts.items() if values]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def to_device(targets: Iterable[Mapping[str, Tensor]], *, device: torch.device) -> list[dict[str, Tensor]]:
    """Targets with every tensor on `device`."""
    return [{name: value.to(device) for name, value in target.items()} for target in targets]
