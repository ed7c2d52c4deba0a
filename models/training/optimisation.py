"""How weights are changed: optimiser, learning rate over the steps, clipping, averaging - and the linear rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_KINDS = {"adamw": AdamW, "adam": Adam}
_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How one optimiser works.

    `schedule`: "cosine" falls along half a cosine to 0; "late_linear" stays for half of the steps, then falls straight
    to 0; "steps" falls to a tenth after 2/3 and again after 8/9 of them, as detectors are commonly trained.
    `backbone_share`: learning rate of the parameters under `backbone.`, as a share of the others'. `clip`: largest norm
    of the gradients (0: not clipped). `average`: decay of the moving average of the weights (0: none is kept).
    """

    steps: int
    learning_rate: float
    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "late_linear", "steps"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    backbone_share: float = 1.0
    weight_decay: float = 0.0
    warmup: int = 0
    clip: float = 0.0
    average: float = 0.0


def learning_rate_factor(step: int, *, how: Optimisation) -> float:
    """Factor of the learning rate at `step` (from 0): up linearly for `how.warmup` steps, then by its schedule."""
    if step < how.warmup:
        return (step + 1) / how.warmup
    done = (step - how.warmup) / max(1, how.steps - how.warmup)
    if how.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if how.schedule == "late_linear":
        return min(1.0, 2 * (1 - done))
    return 0.1 ** sum(done >= share for share in (2 / 3, 8 / 9))


def make_optimiser(modules: Sequence[nn.Module], *, how: Optimisation) -> Optimizer:
    """The optimiser of everything that learns in `modules`; each group remembers its full rate as `peak`."""
    learning = [pair for module in modules for pair in module.named_parameters() if pair[1].requires_grad]
    parts = {True: [], False: []}
    for name, value in learning:
        parts[name.startswith("backbone.")].append(value)
    groups = [
        {"params": values, "lr": rate, "peak": rate}
        for rate, values in ((how.learning_rate * how.backbone_share, parts[True]), (how.learning_rate, parts[False]))
        if values and rate > 0
    ]
    if how.kind == "sgd":
        return SGD(groups, lr=how.learning_rate, momentum=_MOMENTUM, weight_decay=how.weight_decay)
    return _KINDS[how.kind](groups, lr=how.learning_rate, betas=how.betas, weight_decay=how.weight_decay)


def scaled_steps(count: int, *, factor: float) -> int:
    """In how many steps as many photos are seen as in `count`, when a batch is `factor` times as large; at least 1."""
    return max(1, round(count / factor))


def scaled(how: Optimisation, *, factor: float) -> Optimisation:
    """The linear rule (Goyal et al., 2017) for batches `factor` times as large: rate x factor, steps / factor.

    As many photos are seen, in the warm-up too, and the average forgets as fast a photo.
    """
    return replace(
        how,
        steps=scaled_steps(how.steps, factor=factor),
        warmup=scaled_steps(how.warmup, factor=factor) if how.warmup else 0,
        learning_rate=how.learning_rate * factor,
        average=how.average**factor,
    )


def rule_in_words(before: Optimisation, *, after: Optimisation, factor: float) -> str:
    """What the linear rule has changed, for the log."""
    names = ("learning_rate", "steps", "warmup", "average")
    changes = [f"{name} {getattr(before, name):g} -> {getattr(after, name):g}" for name in names]
    return f"linear rule, batch x {factor:g}: {', '.join(changes)}"
