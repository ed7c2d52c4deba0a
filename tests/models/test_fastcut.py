import math

import pytest
import torch
from torch.nn import functional

from models.cyclegan import Generator
from models.fastcut import PATCHES, FastCut, PoolCriticLoss, TranslationLosses, draw_places, patch_contrast, patches_at


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small_model(seed: int = 0) -> FastCut:
    return FastCut(channels=4, blocks=1, critic_channels=4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_encoded__with_decoded_is_the_whole_generator(blocks):
    torch.manual_seed(0)
    network, images = Generator(channels=4, blocks=blocks), noise(2, 3, 24, 32)
    features = network.encoded(images)
    assert [tuple(one.shape[1:]) for one in features] == [(3, 24, 32), (8, 12, 16), *[(16, 6, 8)] * 3]
    assert torch.equal(network.decoded(features[-1]), network.residual(images))


def test_patches_at__rows_of_the_places():
    features = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert patches_at(features, places_BP=torch.tensor([[5, 0]])).tolist() == [[[5.0, 17.0], [0.0, 12.0]]]


def test_draw_places__different_and_each_images_own():
    places = draw_places(area=400, seeds=[3, 4, 3], depth=1)
    assert places.shape == (3, PATCHES) and all(len(set(row.tolist())) == PATCHES for row in places)
    assert torch.equal(places[0], places[2]) and not torch.equal(places[0], places[1])
    assert sorted(draw_places(area=9, seeds=[0], depth=0)[0].tolist()) == list(range(9))


def test_patch_contrast__against_the_definition():
    queries, keys = (functional.normalize(noise(2, 5, 8, seed=seed), dim=2) for seed in (1, 2))
    expected = 0.0
    for image in range(2):
        for patch in range(5):
            likes = [math.exp(float(queries[image, patch] @ keys[image, other]) / 0.07) for other in range(5)]
            expected -= math.log(likes[patch] / sum(likes)) / 10
    assert float(patch_contrast(queries, keys)) == pytest.approx(expected, rel=1e-5)


def test_patch_contrast__log_of_the_patches_where_nothing_is_told_apart_and_little_where_all_is():
    same = functional.normalize(torch.ones(1, 16, 4), dim=2)
    assert float(patch_contrast(same, same)) == pytest.approx(math.log(16), rel=1e-5)
    apart = torch.eye(16)[None]
    assert float(patch_contrast(apart, apart)) < 1e-4


def test_translation_losses__content_that_moves_costs_contrast():
    model = small_model()
    losses = TranslationLosses(model, contrast=1.0, content=0.0)
    images = functional.interpolate(noise(1, 3, 8, 8), 48)
    sources = model.to_pool.encoded(images)
    stays = losses._contrast(sources, model.to_pool.encoded(0.8 * images + 0.1), seeds=[0])
    moves = losses._contrast(sources, model.to_pool.encoded(images.roll(12, dims=3)), seeds=[0])
    assert stays < moves


def test_pool_critic_loss__sees_what_the_generator_made_and_moves_the_critic_alone():
    model = small_model()
    translations = TranslationLosses(model, contrast=1.0, content=1.0)
    batch = (noise(2, 3, 48, 48), torch.ones(2, 1, 48, 48), noise(2, 3, 48, 48, seed=1), [1, 2])
    assert set(translations(*batch)) == {"adversarial", "contrast", "content"}
    PoolCriticLoss(translations, slope_weight=1.0)(*batch)["critics"].backward()
    assert not translations.made
    assert all(value.grad is not None for value in model.pool_critic.parameters())
    assert all(value.grad is None for value in model.to_pool.parameters())
