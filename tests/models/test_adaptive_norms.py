import pytest
import torch
from torch import nn

from models.adaptive_norms import adapt_norms, normalised_layers, statistics


def folded():
    """Two convolutions with offsets, as they are once normalisations were folded in."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))


def photos(*, gain=1.0, offset=0.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(8, 3, 16, 16, generator=generator) * gain + offset


def outputs(network, batch):
    found = []
    hooks = [layer.register_forward_hook(lambda *call: found.append(call[2])) for layer in normalised_layers(network)]
    network(batch)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("batched", [False, True])
def test_adapt_norms__target_photos_get_the_statistics_of_source_photos(batched):
    network, source, target = folded(), photos(), photos(gain=0.8, offset=0.3, seed=2)
    wanted = [statistics(one) for one in outputs(network, source)]
    batches = source.split(4) if batched else [source]
    assert adapt_norms(network, source=batches, target=target, forward=network, strength=1.0) == 2
    for expected, out in zip(wanted, outputs(network, target), strict=True):
        for one, other in zip(expected, statistics(out), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_adapt_norms__strength_0_changes_nothing():
    network = folded()
    before = network(photos())
    adapt_norms(network, source=[photos()], target=photos(offset=1.0), forward=network, strength=0.0)
    torch.testing.assert_close(network(photos()), before)


def test_adapt_norms__of_a_batch_norm_what_running_statistics_of_the_target_give():
    """With the source's own statistics as running ones, AdaBN is the plain change of running statistics."""
    norm, target = nn.BatchNorm2d(3).eval(), photos(gain=0.7, offset=0.2, seed=3)
    source = photos()
    norm.running_mean, norm.running_var = source.mean(dim=(0, 2, 3)), source.var(dim=(0, 2, 3), correction=0)
    plain = nn.BatchNorm2d(3).eval()
    plain.running_mean, plain.running_var = target.mean(dim=(0, 2, 3)), target.var(dim=(0, 2, 3), correction=0)
    adapt_norms(norm, source=[source], target=target, forward=norm, strength=1.0)
    torch.testing.assert_close(norm(target), plain(target), atol=1e-3, rtol=1e-3)


def test_normalised_layers__not_convolutions_without_an_offset():
    assert normalised_layers(nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())) == []
