"""Which layers keep float32 where the rest computes in bfloat16 on a CPU."""

import copy

import pytest
import torch
from torch import nn

from models.training.half_precision import computes_bfloat16, keep_depthwise_whole

CPU = torch.device("cpu")
MAPS = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))


def _layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), nn.Conv2d(8, 4, 1))


def _learned(network):
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(MAPS)
        assert found.dtype == torch.bfloat16
        found.float().square().sum().backward()
    return found.detach(), network[0].weight.grad


def test_keep_depthwise_whole__only_depthwise_layers_are_exact():
    network = _layers()
    depthwise, pointwise = copy.deepcopy(network)
    keep_depthwise_whole(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network[0](MAPS)
    exact = depthwise(MAPS)
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network[1](found), pointwise(found))


def test_keep_depthwise_whole__gradients_are_those_of_float32_to_rounding():
    network, rough = _layers(), _layers()
    keep_depthwise_whole(network)
    _, gradient = _learned(network)
    exact = _layers()
    exact(MAPS).square().sum().backward()
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, exact[0].weight.grad, rtol=0.05, atol=0.05 * gradient.abs().max().item())
    assert not torch.equal(gradient, _learned(rough)[1])


def test_keep_depthwise_whole__without_autocast_nothing_changes():
    network, same = _layers(), _layers()
    keep_depthwise_whole(network)
    assert torch.equal(network(MAPS), same(MAPS))
    assert list(network.state_dict()) == list(same.state_dict())


def test_keep_depthwise_whole__leaves_frozen_layers_to_autocast():
    network = _layers()
    network[0].requires_grad_(False)
    keep_depthwise_whole(network)
    assert "forward" not in vars(network[0])


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_bf16": False}, True), ({"avx2": True}, False)],
)
def test_computes_bfloat16__asks_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16(CPU) is expected
