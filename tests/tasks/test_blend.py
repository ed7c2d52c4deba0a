import cv2
import numpy as np
import pytest

from tasks.blend import (
    MARGIN,
    add_noise,
    bleed_colours,
    blur,
    collected,
    lit_crop,
    noise_lines,
    picture_at,
    poisson_crop,
    scale_sprite,
    thumbnail,
    turned_sprite,
)


def test_bleed_colours__nothing_of_the_backdrop_is_left_near_the_product():
    rgba = np.full((30, 30, 4), (255, 255, 255, 0), np.uint8)
    rgba[10:20, 10:20] = (200, 30, 40, 255)
    rgba[9, 10:20] = (230, 140, 150, 128)
    bled = bleed_colours(rgba)
    assert np.array_equal(bled[..., 3], rgba[..., 3])
    assert np.abs(bled[6:24, 6:24, :3].astype(int) - (200, 30, 40)).max() <= 1


def test_scale_sprite__has_an_empty_margin():
    rgba = np.full((40, 60, 4), 255, np.uint8)
    scaled = scale_sprite(rgba, factor=0.5)
    assert scaled.shape == (20 + 2 * MARGIN, 30 + 2 * MARGIN, 4)
    assert scaled[MARGIN:-MARGIN, MARGIN:-MARGIN, 3].min() == 255
    assert scaled[:MARGIN, :, 3].max() == 0 and scaled[..., :3].min() == 255


def test_turned_sprite__a_quarter_turn_equals_rot90():
    sprite = np.random.default_rng(0).integers(0, 255, (6, 9, 4), dtype=np.uint8)
    turned = turned_sprite(np.pad(sprite, ((2, 2), (2, 2), (0, 0))), angle=np.pi / 2)
    assert np.abs(turned.astype(int) - np.rot90(np.pad(sprite, ((2, 2), (2, 2), (0, 0))), -1)).max() <= 1


def test_thumbnail__two_pixels_a_cell_in_a_frame():
    thumb = thumbnail(np.full((40, 60, 4), 200, np.uint8), cell=4)
    assert thumb.shape == (22, 32, 4) and (thumb[1:-1, 1:-1] == 200).all()
    assert thumb.sum() == 20 * 30 * 4 * 200


def test_collected__finds_every_picture_again():
    pictures = [np.random.default_rng(n).integers(0, 255, (3 + n, 5, 4), dtype=np.uint8) for n in range(3)]
    made = collected(pictures)
    for number, picture in enumerate(pictures):
        found = picture_at(made, number)
        assert np.array_equal(found, picture) and np.shares_memory(found, made.pixels)


def test_lit_crop__gains_for_colours_only():
    lit = lit_crop(np.full((3, 3, 4), (100, 100, 100, 77), np.uint8), gains=(1.25, 1.0, 0.5))
    assert lit[1, 1].tolist() == [125, 100, 50, 77]


def test_poisson_crop__moves_the_edge_towards_the_board():
    crop = np.full((30, 30, 4), (200, 40, 40, 0), np.uint8)
    crop[5:25, 5:25, 3] = 255
    window = np.full((30, 30, 3), 120, np.uint8)
    mixed = poisson_crop(window, crop)
    assert np.array_equal(mixed[..., 3], crop[..., 3])
    assert np.abs(mixed[15, 15, :3].astype(int) - (160, 80, 80)).max() <= 3


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_add_noise__has_the_asked_strength_and_no_bias(sigma):
    generator = np.random.default_rng(0)
    lines = noise_lines(300, generator=generator)
    noisy = np.full((300, 300, 3), 120, np.uint8)
    add_noise(noisy, lines_LW3=lines, sigma=sigma, generator=generator)
    # Rounding to whole grey levels adds a variance of 1 / 12.
    assert noisy.std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.07)
    assert noisy.mean() == pytest.approx(120, abs=0.1)
    again = np.full((300, 300, 3), 120, np.uint8)
    add_noise(again, lines_LW3=lines, sigma=sigma, generator=generator)
    assert not np.array_equal(noisy, again)


def test_add_noise__stays_in_range():
    generator = np.random.default_rng(0)
    lines = noise_lines(64, generator=generator)
    for level in (0, 255):
        noisy = np.full((64, 64, 3), level, np.uint8)
        add_noise(noisy, lines_LW3=lines, sigma=6.0, generator=generator)
        assert np.abs(noisy.astype(int) - level).max() < 40


def test_blur__spreads_a_point_and_keeps_its_light():
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 250
    assert np.array_equal(blur(point, sigma=0.2), point)
    soft = blur(point, sigma=1.0)
    assert soft.max() < 60 and int(soft.sum()) == pytest.approx(750, rel=0.1)


@pytest.mark.parametrize("sigma", [0.4, 0.57, 0.9])
def test_blur__agrees_with_opencv(sigma):
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    expected = cv2.GaussianBlur(photo, (5, 5), sigma, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(blur(photo, sigma=sigma).astype(int) - expected).max() <= 3
