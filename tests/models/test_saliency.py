"""The saliency network: shapes, short connections, the loss by hand, and that it learns."""

import pytest
import torch

from models.saliency import SaliencyNet, saliency_loss


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SaliencyNet(backbone="efficientnet_lite0", width=8, pretrained=False)


def test_forward__shapes(network):
    fused, maps = network.eval()(torch.zeros(2, 3, 64, 96))
    assert fused.shape == (2, 1, 64, 96)
    assert [tuple(one.shape[-2:]) for one in maps] == [(64, 96), (16, 24), (8, 12), (4, 6), (2, 3)]


def test_forward__deepest_map_reaches_the_finest(network):
    network.eval()
    photo = torch.randn(1, 3, 64, 64)
    deepest = network.sides[-1].score
    before = network(photo)[1][0]
    with torch.no_grad():
        deepest.bias += 3
    after = network(photo)[1][0]
    with torch.no_grad():
        deepest.bias -= 3
    assert not torch.allclose(before, after)


def test_saliency_loss__by_hand():
    logits = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]])
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    loss = saliency_loss(logits, [logits], target_B1HW=target, weight_B1HW=torch.ones_like(target))
    # Cross entropy ln 2 (fused once, the side output 0.4 times); soft IoU (1 + 1) / (3 + 1).
    assert float(loss) == pytest.approx(1.4 * 0.693147 + 0.5, abs=1e-5)


def test_saliency_loss__weightless_pixels_teach_nothing():
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    weight = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    saliency_loss(logits, [logits], target_B1HW=target, weight_B1HW=weight).backward()
    assert float(logits.grad[0, 0, 0, 1]) == 0.0
    assert float(logits.grad[0, 0, 0, 0]) < 0 < float(logits.grad[0, 0, 1, 0])


def test_saliency_net__learns_a_square():
    torch.manual_seed(0)
    network = SaliencyNet(backbone="efficientnet_lite0", width=8, pretrained=False).train()
    network.backbone.eval()
    photo, target = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    photo[..., 16:48, 16:48], target[..., 16:48, 16:48] = 2.0, 1.0
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(12):
        loss = saliency_loss(*network(photo), target_B1HW=target, weight_B1HW=torch.ones_like(target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
