"""Coarse masks on made photos: shapes on backdrops that the constants were not chosen on."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.backdrop import backdrop_distance, channel_sum, fit_backdrop, to_lab
from tasks.coarse import (
    MAYBE_PRODUCT,
    SURE_BACKDROP,
    SURE_PRODUCT,
    coarse_mask,
    cut,
    loose_coarse_mask,
    product_window,
)
from tasks.mask_shapes import fill_holes, largest_pieces, piece_with_most
from tasks.params import CoarseParams
from tests.tasks.backdrops import BACKDROPS, made_backdrop, made_photo

PARAMS = CoarseParams()


def whole(made, shape):
    """The coarse mask in the photo's pixels."""
    x0, y0, x1, y1 = made.window
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = cv2.resize((made.levels_HW >= MAYBE_PRODUCT).astype(np.float32), (x1 - x0, y1 - y0)) > 0.5
    return mask


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("shape", ["box", "ellipse", "thin"])
@pytest.mark.parametrize("kind", BACKDROPS)
def test_coarse_mask__any_backdrop(kind, shape):
    photo, truth, box = made_photo(kind, shape=shape)
    made = coarse_mask(photo, box, params=PARAMS)
    assert iou(whole(made, truth.shape), truth) > (0.8 if shape == "thin" else 0.93)
    assert made.quality > 0.6


@pytest.mark.parametrize("kind", BACKDROPS)
def test_loose_coarse_mask__tight_box_in_a_loose_region(kind):
    photo, truth, box = made_photo(kind)
    region = cv2.dilate(truth.astype(np.uint8), np.ones((31, 31), np.uint8)) > 0
    made = loose_coarse_mask(photo, region, params=PARAMS)
    assert iou(whole(made, truth.shape), truth) > 0.93
    assert np.allclose(made.box, box, atol=4)


def test_loose_coarse_mask__nothing_there():
    photo = made_backdrop("gradient").astype(np.uint8)
    assert loose_coarse_mask(photo, np.zeros((60, 80), bool), params=PARAMS) is None


def test_moved_to__levels_stay_where_they_were():
    photo, truth, box = made_photo("gradient")
    made = coarse_mask(photo, box, params=PARAMS)
    moved = made.moved_to((box[0] + 20, box[1] - 12, box[2] + 5, box[3]), height=240, width=320)
    assert moved.window != made.window
    assert iou(whole(moved, truth.shape), whole(made, truth.shape)) > 0.97


def test_coarse_mask__shadow_is_backdrop():
    photo, truth, box = made_photo("gradient", colour=(40, 90, 160))
    shadow = cv2.GaussianBlur(np.roll(truth, (6, 8), (0, 1)).astype(np.float32), (0, 0), 5) * ~truth
    photo = (photo * (1 - 0.35 * shadow[..., None])).astype(np.uint8)
    assert iou(whole(coarse_mask(photo, box, params=PARAMS), truth.shape), truth) > 0.9


def test_coarse_mask__product_at_the_border():
    photo, _, _ = made_photo("gradient")
    photo[60:150, :70] = (30, 120, 60)
    made = coarse_mask(photo, (0.0, 60.0, 70.0, 150.0), params=PARAMS)
    truth = np.zeros(photo.shape[:2], bool)
    truth[60:150, :70] = True
    assert iou(whole(made, truth.shape), truth) > 0.9


@given(st.integers(0, 300), st.integers(0, 220), st.integers(4, 200), st.integers(4, 200))
@settings(max_examples=15, deadline=None)
def test_coarse_mask__stays_inside_its_box(x, y, across, down):
    photo, _, _ = made_photo("textured")
    box = (float(x), float(y), float(min(320, x + across)), float(min(240, y + down)))
    made = coarse_mask(photo, box, params=PARAMS)
    rows, columns = np.nonzero(made.levels_HW >= MAYBE_PRODUCT)
    x0, y0, x1, y1 = made.window
    height, width = made.levels_HW.shape
    slack = 1 + max((x1 - x0) / width, (y1 - y0) / height)
    if len(rows):
        assert columns.min() * (x1 - x0) / width + x0 >= box[0] - slack
        assert rows.max() * (y1 - y0) / height + y0 <= box[3] + slack
    assert 0 <= made.quality <= 1


def test_coarse_mask__same_bytes_again():
    photo, _, box = made_photo("two surfaces")
    first, second = (coarse_mask(photo, box, params=PARAMS) for _ in range(2))
    assert np.array_equal(first.levels_HW, second.levels_HW)


def test_coarse_mask__sure_pixels_are_right():
    photo, truth, box = made_photo("two surfaces", shape="ellipse")
    made = coarse_mask(photo, box, params=PARAMS)
    x0, y0, x1, y1 = made.window
    share = cv2.resize(truth[y0:y1, x0:x1].astype(np.float32), made.levels_HW.shape[::-1], interpolation=cv2.INTER_AREA)
    assert share[made.levels_HW == SURE_PRODUCT].mean() > 0.99
    assert share[made.levels_HW == SURE_BACKDROP].mean() < 0.01


@pytest.mark.parametrize(("kind", "step"), [("gradient", 1), ("textured", 1), ("coloured", 40)])
def test_cut__as_grabcut_with_colours_of_all_pixels(kind, step):
    photo, truth, box = made_photo(kind)
    window = product_window(box, height=240, width=320, margin=0.2)
    part, truth = (values[window[1] : window[3] : step, window[0] : window[2] : step] for values in (photo, truth))
    labels = np.full(truth.shape, cv2.GC_PR_FGD, np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
    expected = labels.copy()
    cv2.setRNGSeed(0)
    bgr = np.ascontiguousarray(part[..., ::-1])
    cv2.grabCut(bgr, expected, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    made = cut(np.ascontiguousarray(part), labels, iterations=2)
    assert made.any() and not made.all()
    assert iou(made, largest_pieces(expected % 2 == 1)) > 0.99


@pytest.mark.parametrize("channels", [2, 3])
def test_channel_sum__as_numpy(channels):
    values = np.random.default_rng(0).random((30, 40, channels), np.float32)
    assert np.array_equal(channel_sum(values), values.sum(axis=-1))


def test_fit_backdrop__recovers_two_surfaces():
    photo = made_backdrop("two surfaces").astype(np.uint8)
    lab = to_lab(photo)
    backdrop = fit_backdrop(lab, np.ones(lab.shape[:2], bool))
    assert len(backdrop) == 2
    assert np.mean(backdrop_distance(lab, backdrop) < 4) > 0.98


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_fill_holes__as_scipy(seed):
    mask = np.random.default_rng(seed).random((12, 15)) < 0.55
    # A hole is closed by eight-connected walls, so background spreads four-connected, as in scipy's default.
    assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_largest_pieces__drops_specks():
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:10] = mask[15, 15] = True
    assert largest_pieces(mask).sum() == 64


def test_product_window__cut_at_the_border():
    assert product_window((0.0, 10.0, 50.0, 90.0), height=100, width=200, margin=0.25) == (0, 0, 74, 100)


def test_piece_with_most__of_two():
    mask, other = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    mask[0:3, 0:3] = mask[5:8, 5:8] = True
    other[2:9, 2:9] = True
    assert piece_with_most(mask, other).sum() == 9
    assert piece_with_most(mask, other)[6, 6]
    assert not piece_with_most(mask, np.zeros((9, 9), bool)).any()
