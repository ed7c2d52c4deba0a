import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.blend import (
    MARGIN,
    add_noise,
    bleed_colours,
    blur,
    feathered,
    lit_crop,
    noise_field,
    poisson_crop,
    scale_sprite,
    thumbnail,
    turn_matrix,
    warp_sprite,
    warped_cover,
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


@settings(deadline=None)
@given(quarters=st.integers(0, 3))
def test_warp_sprite__quarter_turns_equal_rot90(quarters):
    sprite = np.random.default_rng(0).integers(1, 255, (6, 9, 4), dtype=np.uint8)
    matrix = turn_matrix(angle=quarters * np.pi / 2, scale=1.0, tilt=0.0, tilt_axis=0.3)
    # Positive angles turn x towards y, which is clockwise on the screen; rot90 turns the other way.
    assert np.array_equal(warp_sprite(sprite, matrix=np.round(matrix, 9).tolist()), np.rot90(sprite, -quarters))


def soft_sprite(*, height=40, width=60):
    generator = np.random.default_rng(1)
    sprite = cv2.GaussianBlur(generator.integers(0, 255, (height, width, 4), dtype=np.uint8), (0, 0), 2.0)
    sprite[..., 3] = 0
    sprite[5:-5, 5:-5, 3] = 255
    return cv2.GaussianBlur(sprite, (3, 3), 0)


@settings(deadline=None)
@given(angle=st.floats(0, 6.3), scale=st.floats(0.5, 2), tilt=st.floats(0, 0.3))
def test_warp_sprite__agrees_with_opencv(angle, scale, tilt):
    sprite = soft_sprite()
    matrix = turn_matrix(angle=angle, scale=scale, tilt=tilt, tilt_axis=0.5)
    found = warp_sprite(sprite, matrix=matrix)
    height, width = found.shape[:2]
    offset = np.asarray([(width - 1) / 2, (height - 1) / 2]) - np.asarray(matrix) @ [(60 - 1) / 2, (40 - 1) / 2]
    expected = cv2.warpAffine(sprite, np.column_stack([matrix, offset]), (width, height), flags=cv2.INTER_LINEAR)
    differences = np.abs(found.astype(int) - expected)
    # Colours of transparent pixels don't matter; ours are black there. Positions are rounded to a sixteenth of a pixel.
    differences[..., :3][(found[..., 3] == 0) | (expected[..., 3] == 0)] = 0
    assert differences.max() <= 14 and differences.mean() < 0.6


def test_warp_sprite__keeps_hidden_colours_if_asked():
    sprite = soft_sprite()
    matrix = turn_matrix(angle=0.3, scale=1.0, tilt=0.0, tilt_axis=0.0)
    bare, coloured = (warp_sprite(sprite, matrix=matrix, colours=colours) for colours in (False, True))
    assert np.array_equal(bare[..., 3], coloured[..., 3])
    empty = cv2.dilate(bare[..., 3], np.ones((5, 5), np.uint8)) == 0
    assert bare[empty].max() == 0 and coloured[empty].max() > 0


@settings(deadline=None)
@given(angle=st.floats(0, 6.3), cell=st.integers(2, 9))
def test_warped_cover__is_the_share_of_each_cell(angle, cell):
    sprite = np.zeros((60, 90, 4), np.uint8)
    cv2.ellipse(sprite, (45, 30), (40, 22), 15, 0, 360, (255,) * 4, -1)
    matrix = turn_matrix(angle=angle, scale=1.1, tilt=0.05, tilt_axis=0.5)
    found = warped_cover(thumbnail(sprite, cell=cell), sprite, matrix=matrix, cell=cell)
    alpha = warp_sprite(sprite, matrix=matrix)[..., 3]
    rows, columns = found.shape
    framed = np.zeros((rows * cell, columns * cell))
    framed[: alpha.shape[0], : alpha.shape[1]] = alpha
    expected = framed.reshape(rows, cell, columns, cell).mean(axis=(1, 3))
    assert np.abs(found - expected).mean() < 8
    assert ((found > 127) != (expected > 127)).mean() < 0.12


@given(angle=st.floats(0, 6.3), scale=st.floats(0.5, 2), tilt=st.floats(0, 0.3), axis=st.floats(0, 3.2))
def test_turn_matrix__keeps_the_print_readable_and_shortens_one_direction(angle, scale, tilt, axis):
    matrix = turn_matrix(angle=angle, scale=scale, tilt=tilt, tilt_axis=axis)
    assert np.linalg.det(matrix) > 0
    assert np.linalg.svd(matrix, compute_uv=False) == pytest.approx([scale, scale * (1 - tilt)])


def test_feathered__widens_the_edge_both_ways():
    sprite = np.full((20, 20, 4), 100, np.uint8)
    sprite[..., 3] = 0
    sprite[6:14, 6:14, 3] = 255
    soft = feathered(sprite)
    assert np.array_equal(soft[..., :3], sprite[..., :3]) and sprite[10, 6, 3] == 255
    assert 0 < soft[10, 5, 3] < 128 < soft[10, 6, 3] < 255 and soft[10, 10, 3] == 255


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
