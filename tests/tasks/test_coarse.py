"""Coarse masks on made photos: shapes on backdrops that the constants were not chosen on."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.coarse import (
    MAYBE_PRODUCT,
    SURE_BACKDROP,
    SURE_PRODUCT,
    backdrop_distance,
    coarse_mask,
    fill_holes,
    fit_backdrop,
    largest_pieces,
    product_window,
    propose_box,
    to_lab,
)

BACKDROPS = ("gradient", "textured", "dark", "coloured", "two surfaces")
SETTINGS = {"working_size": 160, "margin": 0.2, "iterations": 2}


def made_backdrop(kind, *, height=240, width=320):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    base = {
        "gradient": np.dstack([150 + 70 * x, 150 + 60 * x, 160 + 50 * y]),
        "textured": np.dstack([170 + 8 * np.sin(x * 60) * np.sin(y * 50)] * 3),
        "dark": np.dstack([40 + 10 * x, 40 + 10 * y, 45 + 0 * x]),
        "coloured": np.dstack([90 + 20 * x, 140 + 10 * y, 190 + 0 * x]),
        "two surfaces": np.where(y[..., None] < 0.45, [110.0, 115, 112], [205.0, 205, 204]),
    }[kind]
    return np.clip(base + rng.normal(0, 1.5, base.shape), 0, 255)


def made_photo(kind, *, shape="box", colour=(200, 60, 40)):
    """A photo with one product, its mask and its box."""
    photo = made_backdrop(kind)
    mask = np.zeros(photo.shape[:2], np.uint8)
    if shape == "box":
        cv2.fillPoly(mask, [np.array([[120, 70], [205, 85], [195, 180], [110, 165]])], 1)
    elif shape == "ellipse":
        cv2.ellipse(mask, (160, 125), (60, 35), 25, 0, 360, 1, -1)
    else:
        cv2.line(mask, (80, 180), (230, 70), 1, 7)
    stripes = 1 + 0.25 * np.sin(np.arange(photo.shape[1]) / 5)[None, :, None]
    photo = np.where(mask[..., None] > 0, np.array(colour) * stripes, photo)
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return np.clip(photo, 0, 255).astype(np.uint8), mask > 0, tuple(float(value) for value in box)


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
    made = coarse_mask(photo, box, **SETTINGS)
    assert iou(whole(made, truth.shape), truth) > (0.8 if shape == "thin" else 0.93)
    assert made.quality > 0.6


@pytest.mark.parametrize("kind", BACKDROPS)
def test_propose_box__finds_the_product_without_annotation(kind):
    photo, _, box = made_photo(kind)
    found = propose_box(photo)
    assert np.allclose(found, box, atol=6)


def test_propose_box__nothing_there():
    assert propose_box(made_backdrop("gradient").astype(np.uint8)) is None


def test_coarse_mask__shadow_is_backdrop():
    photo, truth, box = made_photo("gradient", colour=(40, 90, 160))
    shadow = cv2.GaussianBlur(np.roll(truth, (6, 8), (0, 1)).astype(np.float32), (0, 0), 5) * ~truth
    photo = (photo * (1 - 0.35 * shadow[..., None])).astype(np.uint8)
    assert iou(whole(coarse_mask(photo, box, **SETTINGS), truth.shape), truth) > 0.9


def test_coarse_mask__product_at_the_border():
    photo, _, _ = made_photo("gradient")
    photo[60:150, :70] = (30, 120, 60)
    made = coarse_mask(photo, (0.0, 60.0, 70.0, 150.0), **SETTINGS)
    truth = np.zeros(photo.shape[:2], bool)
    truth[60:150, :70] = True
    assert iou(whole(made, truth.shape), truth) > 0.9


@given(st.integers(0, 300), st.integers(0, 220), st.integers(4, 200), st.integers(4, 200))
@settings(max_examples=15, deadline=None)
def test_coarse_mask__stays_inside_its_box(x, y, across, down):
    photo, _, _ = made_photo("textured")
    box = (float(x), float(y), float(min(320, x + across)), float(min(240, y + down)))
    made = coarse_mask(photo, box, **SETTINGS)
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
    first, second = (coarse_mask(photo, box, **SETTINGS) for _ in range(2))
    assert np.array_equal(first.levels_HW, second.levels_HW)


def test_coarse_mask__sure_pixels_are_right():
    photo, truth, box = made_photo("two surfaces", shape="ellipse")
    made = coarse_mask(photo, box, **SETTINGS)
    x0, y0, x1, y1 = made.window
    share = cv2.resize(truth[y0:y1, x0:x1].astype(np.float32), made.levels_HW.shape[::-1], interpolation=cv2.INTER_AREA)
    assert share[made.levels_HW == SURE_PRODUCT].mean() > 0.99
    assert share[made.levels_HW == SURE_BACKDROP].mean() < 0.01


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
