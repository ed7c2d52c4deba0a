import numpy as np
import pytest
import torch

from models.cyclegan import (
    CycleGAN,
    Generator,
    ImageBuffer,
    LossWeights,
    PatchCritic,
    PixelNorm,
    adversarial_loss,
    content_loss,
    critic_loss,
    slope_loss,
    translate,
)


def small_model(seed: int = 0) -> CycleGAN:
    return CycleGAN(channels=4, blocks=1, critic_channels=4, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_pixel_norm__every_pixel_has_mean_0_and_variance_1_over_channels():
    normal = PixelNorm(8)(noise(2, 8, 5, 6)).detach()
    np.testing.assert_allclose(normal.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(normal.var(1, unbiased=False), 1, atol=1e-3)


def test_generator__starts_as_the_identity():
    images = noise(1, 3, 16, 20)
    assert torch.equal(small_model().to_pool(images), images)


def test_generator__a_flat_photo_stays_flat_whatever_the_weights():
    torch.manual_seed(0)
    with torch.inference_mode():
        flat = Generator(channels=4, blocks=1)(torch.full((1, 3, 96, 96), 0.3))[0, :, 40:56, 40:56]
    assert flat.std(dim=(1, 2)).max() < 1e-5


@pytest.mark.parametrize("blocks", [1, 2])
def test_generator__nothing_beyond_the_receptive_radius_changes_a_pixel(blocks):
    network = Generator(channels=4, blocks=blocks)
    radius = network.receptive_radius
    size = 2 * radius + 24
    images = noise(1, 3, size, size).requires_grad_()
    network(images)[0, :, radius + 12, radius + 12].sum().backward()
    rows = images.grad[0].abs().sum(0).sum(1).nonzero()[:, 0]
    reach = max(radius + 12 - int(rows.min()), int(rows.max()) - (radius + 12))
    assert radius - 4 < reach <= radius


def test_patch_critic__sees_70_pixels():
    critic = PatchCritic(channels=4)
    images = noise(1, 3, 128, 128).requires_grad_()
    scores = critic(images)
    scores[0, 0, 7, 7].backward()
    rows = images.grad[0].abs().sum(0).sum(1).nonzero()[:, 0]
    assert int(rows.max() - rows.min()) + 1 == 70


def test_adversarial_loss__by_hand():
    assert adversarial_loss(torch.tensor([0.0, 0.5, 1.0]), real=1.0).item() == pytest.approx((1 + 0.25) / 3)


def test_content_loss__is_0_for_a_change_of_light_and_counts_edges_inside_the_mask_only():
    source = torch.zeros(1, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    assert content_loss(source + 0.3, source, mask_B1HW=mask).item() == 0
    changed = source.clone()
    changed[..., 3, 3] = 5.0
    assert content_loss(changed, source, mask_B1HW=mask).item() == 0
    changed[..., 0, 0] = 0.8
    # Four pairs of neighbours lie in the mask; the changed corner is in two of them.
    assert content_loss(changed, source, mask_B1HW=mask).item() == pytest.approx(2 * 0.8 / 4)


def test_content_loss__empty_mask_is_0():
    assert content_loss(noise(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), mask_B1HW=torch.zeros(1, 1, 4, 4)).item() == 0


def test_translate__identity_generators_leave_the_adversarial_loss_only():
    model, weights = small_model(), LossWeights(cycle=10, identity=5, content=1)
    images = {"synthetic_B3HW": noise(2, 3, 32, 32), "pool_B3HW": noise(2, 3, 32, 32, seed=1)}
    translation = translate(model, **images, mask_B1HW=torch.ones(2, 1, 32, 32), weights=weights)
    assert {name: part.item() for name, part in translation.losses.items() if name != "adversarial"} == {
        "cycle": 0,
        "identity": 0,
        "content": 0,
    }
    assert translation.losses["adversarial"] > 0
    assert torch.equal(translation.pool_like_B3HW, images["synthetic_B3HW"])


@pytest.mark.parametrize("side", [32, 64])
def test_slope_loss__square_of_a_linear_critics_slope_for_crops_of_every_size(side):
    images = noise(2, 3, side, side).requires_grad_()
    scores = 1.5 * torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 8) + 0.3
    assert slope_loss(scores, images_B3HW=images).item() == pytest.approx(1.5**2, rel=1e-5)


def test_critic_loss__slope_as_by_finite_differences():
    critic, images, step = small_model().pool_critic.double(), noise(1, 3, 32, 32).double(), 1e-6
    dark = images - 1
    slopes = []
    for index in range(images.numel()):
        moved = images.clone()
        moved.view(-1)[index] += step
        slopes.append((critic(moved).mean() - critic(images).mean()).item() / step * images.numel())
    with_slope, without = (
        critic_loss(critic, real_B3HW=images, translated_B3HW=dark, slope_weight=weight).item() for weight in (1.0, 0.0)
    )
    expected = sum(slope**2 for slope in slopes) / len(slopes) / 2
    assert with_slope - without == pytest.approx(expected, rel=1e-3)


def test_critic_loss__slope_moves_the_critic():
    critic = small_model().pool_critic
    critic_loss(critic, real_B3HW=noise(1, 3, 32, 32), translated_B3HW=noise(1, 3, 32, 32), slope_weight=0.0).backward()
    without = next(critic.parameters()).grad.clone()
    critic.zero_grad()
    critic_loss(critic, real_B3HW=noise(1, 3, 32, 32), translated_B3HW=noise(1, 3, 32, 32), slope_weight=1.0).backward()
    assert not torch.equal(next(critic.parameters()).grad, without)


def test_critic_loss__trains_a_critic_to_tell_bright_from_dark():
    critic = small_model().pool_critic
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-3)
    bright, dark = noise(2, 3, 32, 32) * 0.1 + 0.7, noise(2, 3, 32, 32) * 0.1 - 0.7
    losses = []
    for _ in range(40):
        loss = critic_loss(critic, real_B3HW=bright, translated_B3HW=dark, slope_weight=0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.2 and losses[-1] < 0.05


def test_image_buffer__fills_then_returns_as_many_as_it_gets_from_new_and_old():
    buffer = ImageBuffer(side=2, size=4)
    first = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    assert torch.equal(buffer.exchange(first, seeds=range(4)), first)
    given, returned = set(range(4)), set()
    for step in range(4, 40, 2):
        batch = torch.tensor([step, step + 1.0])[:, None, None, None].expand(2, 3, 2, 2)
        given |= {step, step + 1}
        values = buffer.exchange(batch, seeds=[step, step + 1])[:, 0, 0, 0].tolist()
        assert set(values) <= given and len(values) == 2
        returned |= set(values)
    assert buffer.filled == 4
    assert returned & set(range(4)), "old images come back"
