import cv2
import numpy as np
import pytest
import torch

from models.cyclegan import CycleGAN, Generator
from tasks.renderers import chained, colour_renderer, coloured_items, fourier_renderer, generator_renderer


def restless_generator(blocks: int = 1) -> Generator:
    """A generator with random weights everywhere, so that every pixel of its input counts."""
    torch.manual_seed(0)
    return Generator(channels=4, blocks=blocks).eval()


def scene(seed: int, *, board: tuple[int, int, int], item: tuple[int, int, int], size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    photo = np.full((size, size, 3), board, np.float32) + rng.normal(0, 3, (size, size, 1))
    photo[30:70, 20:60] = np.float32(item) + rng.normal(0, 12, (40, 40, 1))
    return np.clip(photo, 0, 255).astype(np.uint8)


def item_of(photo: np.ndarray) -> np.ndarray:
    mask = np.zeros(photo.shape[:2], bool)
    mask[30:70, 20:60] = True
    return mask


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_generator_renderer__tiles_equal_a_single_pass(scale):
    photo = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
    network, mask, generator = restless_generator(), np.zeros((300, 420), bool), np.random.default_rng(0)
    whole, tiled = (
        generator_renderer(network, scale=scale, tile=tile)(photo, mask, generator).astype(int) for tile in (1024, 120)
    )
    assert np.abs(whole - tiled).max() <= 1
    assert np.abs(whole - photo).mean() > 1, "the generator must do something here"


def test_generator_renderer__an_untrained_generator_changes_nothing():
    photo = np.random.default_rng(0).integers(0, 256, (97, 130, 3), np.uint8)
    network = CycleGAN(channels=4, blocks=1, critic_channels=4, generator=torch.Generator()).to_pool
    rendered = generator_renderer(network, scale=0.5, tile=256)(
        photo, np.zeros((97, 130), bool), np.random.default_rng()
    )
    assert np.array_equal(rendered, photo)


def test_coloured_items__coloured_products_on_a_grey_board():
    photo = scene(0, board=(180, 180, 185), item=(200, 60, 40))
    lab = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    mask, truth = coloured_items(lab), item_of(photo)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


def test_colour_renderer__products_take_the_statistics_of_the_pool_and_the_board_stays():
    synthetic = scene(1, board=(170, 170, 175), item=(190, 90, 60))
    pool = scene(2, board=(120, 125, 140), item=(215, 100, 72))
    rendered = colour_renderer([synthetic], [pool])(synthetic, item_of(synthetic), np.random.default_rng(0))
    inside, board = np.s_[36:64, 26:54], np.s_[:20, :]
    np.testing.assert_allclose(rendered[inside].mean((0, 1)), pool[inside].mean((0, 1)), atol=4)
    assert np.abs(rendered[board].astype(int) - synthetic[board]).max() <= 1


def test_colour_renderer__many_photos_count_as_one_of_them_does():
    """Sums over 25 million pixels are as exact as over few: copies of a photo tell what the photo tells."""
    photo = scene(3, board=(120, 125, 140), item=(215, 100, 72), size=100).repeat(4, axis=0).repeat(4, axis=1)
    photo[20:380, 20:380] = scene(4, board=(200, 60, 40), item=(215, 100, 72), size=360)
    pool, everywhere = scene(5, board=(120, 125, 140), item=(190, 90, 60)), np.ones(photo.shape[:2], bool)
    one, many = (
        colour_renderer([photo] * number, [pool])(photo, everywhere, np.random.default_rng(0)) for number in (1, 200)
    )
    assert np.array_equal(one, many)


def test_colour_renderer__grey_photos_without_a_product_are_no_problem():
    grey = np.full((40, 40, 3), 128, np.uint8)
    rendered = colour_renderer([grey], [grey])(grey, np.ones((40, 40), bool), np.random.default_rng(0))
    assert np.abs(rendered.astype(int) - grey).max() <= 1


def test_chained__second_sees_what_first_made():
    photo, mask, generator = np.full((2, 2, 3), 10, np.uint8), np.ones((2, 2), bool), np.random.default_rng(0)
    double_then_add = chained(lambda photo, *_: photo * 2, lambda photo, *_: photo + 1)
    assert double_then_add(photo, mask, generator).tolist() == np.full((2, 2, 3), 21).tolist()


def test_fourier_renderer__its_own_photo_as_pool_changes_nothing_and_brightness_follows_the_pool():
    photo = scene(0, board=(170, 170, 170), item=(200, 90, 60))
    mask, generator = item_of(photo), np.random.default_rng(0)
    assert np.abs(fourier_renderer([photo], radius=0.05)(photo, mask, generator).astype(int) - photo).max() <= 1
    darker = fourier_renderer([photo // 2], radius=0.001)(photo, mask, generator)
    assert darker.mean() == pytest.approx((photo // 2).mean(), abs=1.5)


@pytest.mark.parametrize("size", [(60, 84), (61, 83)])
def test_fourier_renderer__equals_the_whole_transform(size):
    rng = np.random.default_rng(3)
    photo, other = (cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 2) for _ in range(2))
    source, target = (np.fft.fft2(picture, axes=(0, 1)) for picture in (photo, other))
    low = (np.abs(np.fft.fftfreq(size[0])) <= 0.05)[:, None] & (np.abs(np.fft.fftfreq(size[1])) <= 0.05)
    amplitude = np.where(low[..., None], np.abs(target), np.abs(source))
    expected = np.fft.ifft2(amplitude * np.exp(1j * np.angle(source)), axes=(0, 1)).real
    rendered = fourier_renderer([other], radius=0.05)(photo, np.ones(size, bool), np.random.default_rng(0))
    assert np.abs(rendered - np.clip(expected, 0, 255)).max() <= 0.51
