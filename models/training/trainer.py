"""A network in training: the steps that change it, and everything that changes as tensors with flat names.

A step has one or more phases (a detector one; a GAN one for its generators and one for its critics). Each phase has a
module whose `forward` takes a batch and returns losses by name, and an optimiser of its own.

Losses must be means over the samples of a batch: then pieces of a batch (when memory is short) and processes that share
a batch add up to the same gradients as the whole batch in one process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from models.training.batches import Batch, length, moved, pieces
from models.training.half_precision import keep_depthwise_whole
from models.training.optimisation import Optimisation, learning_rate_factor, make_optimiser
from models.training.world import ALONE, World, unsynchronised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer

Precision = Literal["fp32", "bf16", "fp16"]
_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NonFiniteLossError(RuntimeError):
    """A loss or a gradient became NaN or infinite: training stops before the weights take it up."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a step: `module(*batch)` gives losses by name; `learns` are the parts of the network it changes."""

    name: str
    module: nn.Module
    learns: Sequence[nn.Module]
    optimisation: Optimisation


@dataclass(kw_only=True)
class Trainer:
    """A network in training; `step` steps are done.

    `network` is what is saved and averaged. `parts`: into how many pieces a batch is cut; it doubles by itself when
    the device's memory is too short for a piece. Processes that train together agree on it before their first step.
    """

    network: nn.Module
    phases: Sequence[Phase]
    device: torch.device
    precision: Precision = "fp32"
    world: World = ALONE
    parts: int = 1
    step: int = 0
    optimisers: list[Optimizer] = field(init=False)
    _together: list[nn.Module] = field(init=False)
    _averaged: dict[str, Tensor] = field(init=False)
    _scaler: torch.amp.GradScaler = field(init=False)
    _rehearsed: bool = field(init=False)

    def __post_init__(self) -> None:
        """Move the network to its device, channels last in memory, and connect it with the other processes."""
        self.world.with_shared_statistics(self.network, device=self.device)
        self.network.to(self.device, memory_format=torch.channels_last)
        if self.precision != "fp32" and self.device.type == "cpu":
            keep_depthwise_whole(self.network)
        self.optimisers = [make_optimiser(phase.learns, how=phase.optimisation) for phase in self.phases]
        self._together = []
        for index, phase in enumerate(self.phases):
            with self._learning(index):
                self._together.append(self.world.together(phase.module, device=self.device))
        self._averaged = self._copy() if self._average_decay else {}
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._rehearsed = self.world.size == 1

    @property
    def _average_decay(self) -> float:
        return self.phases[0].optimisation.average

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @property
    def averaged(self) -> dict[str, Tensor]:
        """The moving average of the weights; the weights themselves where none is kept."""
        return self._averaged or dict(self.network.state_dict())

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, that of the layers that learn fastest."""
        return max(group["lr"] for group in self.optimisers[0].param_groups)

    def take_step(self, batch: Batch) -> dict[str, float]:
        """Change the weights by this process's samples of a batch; returns the losses, means over all processes.

        Raises:
            NonFiniteLossError: a loss or a gradient is NaN or infinite; that phase has changed nothing.
        """
        if not self._rehearsed:
            self._rehearse(batch)
        values: dict[str, float] = {}
        for index, phase in enumerate(self.phases):
            factor = learning_rate_factor(self.step, how=phase.optimisation)
            for group in self.optimisers[index].param_groups:
                group["lr"] = factor * group["peak"]
            values |= self._take_phase(index, batch)
        self.step += 1
        self._update_average()
        return values

    def _take_phase(self, index: int, batch: Batch) -> dict[str, float]:
        optimiser, phase = self.optimisers[index], self.phases[index]
        with self._learning(index):
            losses = self._with_enough_memory(index, batch)
        self._scaler.unscale_(optimiser)
        learning = [value for group in optimiser.param_groups for value in group["params"]]
        norm = nn.utils.clip_grad_norm_(learning, phase.optimisation.clip or math.inf)
        means = self.world.mean(torch.stack([*losses.values(), norm.detach()]))
        *numbers, norm_number = means.tolist()
        values = dict(zip(losses, numbers, strict=True))
        # Half precision overflows now and then: its scaler then leaves the step out by itself.
        if not math.isfinite(sum(numbers)) or not (math.isfinite(norm_number) or self._scaler.is_enabled()):
            optimiser.zero_grad(set_to_none=True)
            raise NonFiniteLossError(
                f"step {self.step}: expected finite losses and gradients, got {values} and a norm of {norm_number}"
            )
        self._scaler.step(optimiser)
        self._scaler.update()
        return values

    def _with_enough_memory(self, index: int, batch: Batch) -> dict[str, Tensor]:
        """Losses and gradients of a batch; cut into ever smaller pieces until one fits into the device's memory.

        Only where one process trains one phase: otherwise others would wait for gradients that do not come.
        """
        module = self._together[index]
        if self.world.size > 1 or len(self.phases) > 1:
            return self._accumulate(index, batch, module=module)
        return self._fitted(index, batch, module=module)

    def _fitted(self, index: int, batch: Batch, *, module: nn.Module) -> dict[str, Tensor]:
        while True:
            try:
                return self._accumulate(index, batch, module=module)
            except torch.OutOfMemoryError:
                if self.parts >= length(batch):
                    raise
            torch.cuda.empty_cache()
            self.parts = min(2 * self.parts, length(batch))

    def _rehearse(self, batch: Batch) -> None:
        """Find, with the other processes, the number of pieces that fits everywhere; nothing else changes by it.

        Each process tries on its own: in a step, one that stopped for memory would leave the others waiting.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        with torch.random.fork_rng(devices):
            for index, phase in enumerate(self.phases):
                with self._learning(index):
                    self._fitted(index, batch, module=phase.module)
                self.optimisers[index].zero_grad(set_to_none=True)
        for name, value in self.network.named_buffers():
            value.copy_(buffers[name])
        self.parts = self.world.largest(self.parts, device=self.device)
        self._rehearsed = True

    def _accumulate(self, index: int, batch: Batch, *, module: nn.Module) -> dict[str, Tensor]:
        self.optimisers[index].zero_grad(set_to_none=True)
        size, total = length(batch), {}
        cut = list(pieces(batch, count=self.parts))
        for number, piece in enumerate(cut, start=1):
            with unsynchronised(module, unless=number == len(cut)):
                with torch.autocast(self.device.type, dtype=_TYPES[self.precision], enabled=self.precision != "fp32"):
                    losses: dict[str, Tensor] = module(*moved(piece, device=self.device))
                share = length(piece) / size
                self._scaler.scale(torch.stack([loss.float() for loss in losses.values()]).sum() * share).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0.0) + loss.detach().float() * share
        return total

    @contextmanager
    def _learning(self, index: int) -> Iterator[None]:
        """Only what the phase changes gets gradients."""
        others = [
            value
            for number, optimiser in enumerate(self.optimisers)
            if number != index
            for group in optimiser.param_groups
            for value in group["params"]
        ]
        for value in others:
            value.requires_grad_(False)
        try:
            yield
        finally:
            for value in others:
                value.requires_grad_(True)

    @torch.no_grad()
    def _update_average(self) -> None:
        if not self._averaged:
            return
        # The average must forget the start early on: (1 + step) / (10 + step) is the customary ramp.
        decay = min(self._average_decay, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self._averaged[name] for name in floating], [state[name] for name in floating], 1 - decay)
        for name in state.keys() - floating:
            self._averaged[name].copy_(state[name])

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, as tensors with flat names; `step` and `parts` are two of them."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"averaged/{name}": value for name, value in self._averaged.items()}
        for phase, optimiser in zip(self.phases, self.optimisers, strict=True):
            for index, moments in optimiser.state_dict()["state"].items():
                tensors |= {f"{phase.name}/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
        tensors |= {f"scaler/{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()}
        tensors |= {"step": torch.tensor(self.step), "parts": torch.tensor(self.parts)}
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a state that `state` gave."""
        self.network.load_state_dict(_under("network", tensors))
        averaged = _under("averaged", tensors)
        for name, value in self._averaged.items():
            value.copy_(averaged[name])
        for phase, optimiser in zip(self.phases, self.optimisers, strict=True):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(phase.name, tensors).items():
                index, _, key = name.partition("/")
                moments.setdefault(int(index), {})[key] = _like_parameter(value)
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": moments, "param_groups": groups})
        scale = {name: value.item() for name, value in _under("scaler", tensors).items()}
        if scale:
            self._scaler.load_state_dict(scale)
        self.step, self.parts = int(tensors["step"]), int(tensors["parts"])


def _like_parameter(moment: Tensor) -> Tensor:
    # A moment lies in memory as its parameter does; files hold everything row by row.
    return moment.clone(memory_format=torch.channels_last) if moment.dim() == 4 else moment.clone()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
