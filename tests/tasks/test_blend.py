import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.blend import (
    MARGIN,
    add_noise,
    bleed_colours,
    blur,
    edge_alpha,
    noise_field,
    paste,
    scale_sprite,
    turn_matrix,
    warp_sprite,
)

PICTURES = hnp.arrays(np.uint8, (4, 5, 3))


@given(window=PICTURES, colours=PICTURES, alpha=hnp.arrays(np.uint8, (4, 5)))
def test_paste__is_alpha_blending(window, colours, alpha):
    expected = window * (1 - alpha[..., None] / 255) + colours * (alpha[..., None] / 255)
    paste(window, colours, alpha_hw=alpha)
    assert np.abs(window - expected).max() <= 1.01


def test_paste__gains_light_each_channel():
    window = np.full((3, 3, 3), 100, np.uint8)
    paste(window, np.full((3, 3, 3), 80, np.uint8), alpha_hw=np.full((3, 3), 255, np.uint8), gains=(1.25, 1.0, 0.5))
    assert np.abs(window.astype(int) - (100, 80, 40)).max() <= 1


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


@given(quarters=st.integers(0, 3))
def test_warp_sprite__quarter_turns_equal_rot90(quarters):
    sprite = np.random.default_rng(0).integers(0, 255, (6, 9, 4), dtype=np.uint8)
    matrix = turn_matrix(angle=quarters * np.pi / 2, scale=1.0, tilt=0.0, tilt_axis=0.3)
    # Positive angles turn x towards y, which is clockwise on the screen; rot90 turns the other way.
    assert np.array_equal(warp_sprite(sprite, matrix_22=np.round(matrix, 9)), np.rot90(sprite, -quarters))


@given(angle=st.floats(0, 6.3), scale=st.floats(0.5, 2), tilt=st.floats(0, 0.3), axis=st.floats(0, 3.2))
def test_turn_matrix__keeps_the_print_readable_and_shortens_one_direction(angle, scale, tilt, axis):
    matrix = turn_matrix(angle=angle, scale=scale, tilt=tilt, tilt_axis=axis)
    assert np.linalg.det(matrix) > 0
    assert np.linalg.svd(matrix, compute_uv=False) == pytest.approx([scale, scale * (1 - tilt)])


def test_edge_alpha__hard_soft_and_feather():
    alpha = np.tile(np.asarray([0, 0, 100, 200, 255, 255], np.uint8), (6, 1))
    assert set(np.unique(edge_alpha(alpha, blend="hard"))) == {0, 255}
    assert edge_alpha(alpha, blend="soft") is alpha
    assert np.abs(np.diff(edge_alpha(alpha, blend="feather").astype(int))).max() < 100


def test_add_noise__has_the_asked_strength_and_no_bias():
    generator = np.random.default_rng(0)
    field = noise_field(200, 200, generator=generator)
    flat = np.full((200, 200, 3), 120, np.uint8)
    noisy = add_noise(flat, field_HW3=field, sigma=3.0, generator=generator).astype(float)
    assert noisy.std() == pytest.approx(3.0, rel=0.05) and noisy.mean() == pytest.approx(120, abs=0.15)
    again = add_noise(flat, field_HW3=field, sigma=3.0, generator=generator)
    assert not np.array_equal(noisy, again)


def test_blur__spreads_a_point_and_keeps_its_light():
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 250
    assert np.array_equal(blur(point, sigma=0.2), point)
    soft = blur(point, sigma=1.0)
    assert soft.max() < 60 and int(soft.sum()) == pytest.approx(750, rel=0.1)
    assert np.array_equal(soft, cv2.GaussianBlur(point, (5, 5), 1.0))
