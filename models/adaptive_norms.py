"""Adaptive normalisation: a network's channels get the statistics on target photos that they had on source photos.

After AdaBN (Li et al., "Revisiting Batch Normalization for Practical Domain Adaptation", 2016), written so that it also
works where normalisations were folded into the convolutions before them (`Backbone.fold_norms`): what a layer puts out
on target photos is brought to the mean and deviation that it has on source photos, layer after layer, and the change
becomes part of the layer's gains and offsets. It needs no label.

Shapes: B photos, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

_LEAST_DEVIATION = 1e-3
# A channel that is all but silent in one of the domains would be blown up.
_LARGEST_GAIN = 2.0

Statistics = tuple[Tensor, Tensor]


@torch.no_grad()
def adapt_norms(
    body: nn.Module, *, source: Iterable[Tensor], target: Tensor, forward: Callable[[Tensor], object], strength: float
) -> int:
    """Adapt the normalised layers inside `body` to target photos; returns how many there are.

    Args:
        body: holds batch normalisations, or convolutions that they were folded into.
        source: batches of photos [B, 3, H, W] of the domain that the network knows.
        target: one batch of photos of the other domain.
        forward: runs photos through the network that `body` is part of, in the manner of `eval()`.
        strength: 0 changes nothing, 1 takes the target's statistics; between, means are mixed and deviations too, by
            their logarithms.
    """
    layers = normalised_layers(body)
    known = _statistics_of(layers, batches=source, forward=forward)
    with ExitStack() as hooks:
        for layer in layers:
            hook = _adapting(known[layer], strength=strength)
            hooks.callback(layer.register_forward_hook(hook).remove)
        forward(target)
    return len(layers)


def normalised_layers(body: nn.Module) -> list[nn.Module]:
    """Batch normalisations, and convolutions with an offset, which they only have from one that was folded in."""
    return [
        module
        for module in body.modules()
        if isinstance(module, nn.BatchNorm2d) or (isinstance(module, nn.Conv2d) and module.bias is not None)
    ]


def _statistics_of(
    layers: list[nn.Module], *, batches: Iterable[Tensor], forward: Callable[[Tensor], object]
) -> dict[nn.Module, Statistics]:
    sums: dict[nn.Module, list[Statistics]] = {layer: [] for layer in layers}

    def keep(layer: nn.Module, _: object, out_BCHW: Tensor) -> None:
        sums[layer].append(statistics(out_BCHW))

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(keep).remove)
        for batch in batches:
            forward(batch)
    return {layer: _pooled(found) for layer, found in sums.items()}


def statistics(out_BCHW: Tensor) -> Statistics:
    """Mean and deviation of every channel over photos and pixels, [C] each."""
    deviation_C, mean_C = torch.std_mean(out_BCHW.float(), dim=(0, 2, 3), correction=0)
    return mean_C, deviation_C


def _pooled(found: list[Statistics]) -> Statistics:
    means_NC, deviations_NC = torch.stack([one[0] for one in found]), torch.stack([one[1] for one in found])
    mean_C = means_NC.mean(dim=0)
    return mean_C, (deviations_NC.square() + means_NC.square()).mean(dim=0).sub(mean_C.square()).clamp(min=0).sqrt()


def _adapting(known: Statistics, *, strength: float) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def adapt(layer: nn.Module, _: object, out_BCHW: Tensor) -> Tensor:
        mean_C, deviation_C = statistics(out_BCHW)
        ratio_C = (known[1].clamp(min=_LEAST_DEVIATION) / deviation_C.clamp(min=_LEAST_DEVIATION)) ** strength
        gain_C = ratio_C.clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)
        middle_C = torch.lerp(known[0], mean_C, strength)
        offset_C = known[0] - middle_C * gain_C
        _scale_output(layer, gain_C=gain_C, offset_C=offset_C)
        # Later layers must see what the changed layer puts out.
        return out_BCHW * gain_C[:, None, None] + offset_C[:, None, None]

    return adapt


def _scale_output(layer: nn.Module, *, gain_C: Tensor, offset_C: Tensor) -> None:
    assert isinstance(layer, (nn.BatchNorm2d, nn.Conv2d)) and layer.bias is not None
    shape = (-1, 1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
    layer.weight.mul_(gain_C.view(shape))
    layer.bias.mul_(gain_C).add_(offset_C)
