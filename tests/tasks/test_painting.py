import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.items import ITEM
from tasks.painting import blend_item, feather, set_gains, shade_board, throw_shadow
from tasks.shadow import Lamp, kernels_of
from tests.tasks.item_cases import covered, item_of

FULL = np.ones((9, 9), np.float32)


@settings(deadline=None)
@given(canvas=hnp.arrays(np.uint8, (6, 9, 3)), rgba=hnp.arrays(np.uint8, (4, 5, 4)), gain=st.floats(0.3, 1.8))
def test_blend_item__is_alpha_blending(canvas, rgba, gain):
    alpha = rgba[..., 3:] / 255
    expected = canvas.astype(float)
    lit = np.minimum(rgba[..., :3] * [gain, 1, 1], 255)
    expected[1:5, 2:7] = expected[1:5, 2:7] * (1 - alpha) + lit * alpha
    item, crop = item_of(rgba, x=2, y=1, red=gain)
    blend_item(canvas, item, crop, FULL, 2)
    assert np.abs(canvas - expected).max() <= 1.6


@settings(deadline=None)
@given(canvas=hnp.arrays(np.uint8, (4, 5, 3)), rgba=hnp.arrays(np.uint8, (4, 5, 4)))
def test_blend_item__hard_edges_are_cut_at_one_half(canvas, rgba):
    expected = np.where(rgba[..., 3:] >= 128, rgba[..., :3], canvas)
    item, crop = item_of(rgba, hard=True)
    blend_item(canvas, item, crop, FULL, 2)
    assert np.array_equal(canvas, expected)


def test_blend_item__light_changes_smoothly_from_corner_to_corner():
    light = np.asarray([[1.0, 0.5], [1.0, 0.5]], np.float32)
    canvas = np.zeros((8, 8, 3), np.uint8)
    item, crop = item_of(np.full((8, 8, 4), (200, 200, 200, 255), np.uint8))
    blend_item(canvas, item, crop, light, 8)
    expected = 200 * (1 - 0.5 * (np.arange(8) + 0.5) / 8)
    assert np.abs(canvas[..., 1] - expected).max() <= 1.5


def test_blend_item__a_crop_larger_than_its_box():
    rgba = np.zeros((40, 50, 4), np.uint8)
    rgba[15:22, 20:33] = (250, 120, 10, 255)
    item, crop = item_of(rgba, x=3, y=2, left=23, top=17, right=36, bottom=24)
    canvas = np.full((60, 60, 3), 90, np.uint8)
    blend_item(canvas, item, crop, np.ones((99, 99), np.float32), 2)
    expected = np.full((60, 60, 3), 90, np.uint8)
    expected[17:24, 23:36] = (250, 120, 10)
    assert np.array_equal(canvas, expected)


def test_feather__is_a_binomial_blur_of_the_alpha():
    rgba = np.full((20, 24, 4), 100, np.uint8)
    rgba[..., 3] = 0
    rgba[6:14, 5:15, 3] = np.random.default_rng(0).integers(0, 256, (8, 10))
    item, crop = item_of(rgba)
    feather(item, crop)
    soft = crop.view(np.uint8).reshape(rgba.shape)
    bell = np.asarray([1, 4, 6, 4, 1]) / 16
    expected = cv2.sepFilter2D(rgba[..., 3].astype(np.float32), -1, bell, bell)
    assert np.array_equal(soft[..., :3], rgba[..., :3])
    assert np.abs(soft[..., 3] - expected).max() <= 0.7


@settings(deadline=None)
@given(corners=hnp.arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)), cell=st.integers(2, 9))
def test_shade_board__is_bilinear_between_the_corners_of_cells(corners, cell):
    height, width = 3 * cell - 1, 4 * cell - 1
    board = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    canvas = np.empty_like(board)
    shade_board(board, corners, cell, canvas)
    y, x = ((np.arange(size) + 0.5) / cell for size in (height, width))
    rows = np.stack([np.interp(x, np.arange(5), row) for row in corners])
    light = np.stack([np.interp(y, np.arange(4), column) for column in rows.T], axis=1)
    assert np.abs(canvas - board * light[..., None]).max() <= 3


def lamp(**changes):
    return Lamp(**{"angle": 0.0, "slope": 0.5, "softness": 0.2, "cast": 0.6, "contact": 0.0, **changes})


def shaded(one, *, x=80, y=80, size=10):
    """A board of grey 200 with a product of size x size cells of 4 pixels, its corner at (x, y), 60 pixels high."""
    light = np.ones((51, 51), np.float32)
    item, cover = covered(np.ones((size, size), bool))
    item["x"], item["y"] = x, y
    throw_shadow(light, item, cover, 4, kernels_of(one), 1 + round(60 * one.slope / 4), one.cast, one.contact)
    canvas = np.empty((200, 200, 3), np.uint8)
    shade_board(np.full((200, 200, 3), 200, np.uint8), light, 4, canvas)
    return canvas


@pytest.mark.parametrize(
    ("angle", "dark", "bright"), [(0.0, (100, 128), (100, 70)), (np.pi / 2, (128, 100), (70, 100))]
)
def test_throw_shadow__the_cast_shadow_falls_in_its_direction(angle, dark, bright):
    canvas = shaded(lamp(angle=angle))
    assert canvas[dark].max() < 160 and canvas[bright].min() > 185


def test_throw_shadow__the_contact_shadow_lies_all_around():
    canvas = shaded(lamp(cast=0.0, contact=0.5))
    sides = [canvas[100, 77, 0], canvas[100, 122, 0], canvas[77, 100, 0], canvas[122, 100, 0]]
    assert max(sides) < 190 and max(sides) - min(sides) <= 2
    assert (canvas[:40] == 200).all()


@pytest.mark.parametrize(("x", "y"), [(-8, 60), (188, 60), (60, -8), (60, 188)])
def test_throw_shadow__reaches_over_the_edges_of_the_photo(x, y):
    canvas = shaded(lamp(contact=0.5), x=x, y=y)
    assert canvas.shape == (200, 200, 3) and canvas.min() < 190


def test_set_gains__are_those_at_the_middles_of_the_boxes():
    gains = np.arange(4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
    items = np.zeros(2, ITEM)
    items["left"], items["top"], items["right"], items["bottom"] = [0, 90], [0, 60], [10, 100], [30, 80]
    set_gains(items, 80, 100, gains)
    assert items["green"].tolist() == [gains[0, 0, 1], gains[3, 4, 1]]
