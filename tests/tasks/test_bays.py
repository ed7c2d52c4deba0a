"""Hollows of a mask: those that the photo's edges do not show are product, the others are not."""

import numpy as np
import pytest

from tasks.bays import lost_bays


def white_carton(height=120, width=110):
    """A carton as white as its ground but for a faint edge, a strong print on it, and its mask."""
    truth = np.zeros((height, width), bool)
    truth[20:100, 30:80] = True
    photo = np.full((height, width, 3), 205, np.uint8)
    photo[truth] = 214
    photo[20:40, 30:80] = (40, 120, 190)
    photo[80:100, 30:80] = (40, 120, 190)
    return photo, truth


def crescent(height=120, width=120):
    y, x = np.mgrid[:height, :width]
    truth = ((x - 60) ** 2 + (y - 60) ** 2 < 45**2) & ((x - 85) ** 2 + (y - 60) ** 2 > 40**2)
    return np.where(truth[..., None], (200, 180, 30), (205, 205, 205)).astype(np.uint8), truth


def test_lost_bays__white_panel_is_given_back():
    photo, truth = white_carton()
    mask = truth.copy()
    mask[40:80, 30:50] = False
    lost = lost_bays(mask, photo, None)
    assert (lost & truth).sum() > 0.95 * (40 * 20)
    assert not (lost & ~truth).any()


def test_lost_bays__crescent_stays_hollow():
    photo, truth = crescent()
    assert not lost_bays(truth, photo, None).any()


def test_lost_bays__nothing_beyond_what_is_allowed():
    photo, truth = white_carton()
    mask = truth.copy()
    mask[40:80, 30:50] = False
    assert lost_bays(mask, photo, truth).any()
    assert not lost_bays(mask, photo, mask).any()


@pytest.mark.parametrize("fill", [False, True])
def test_lost_bays__none_in_an_empty_or_full_mask(fill):
    photo, truth = white_carton()
    assert not lost_bays(np.full(truth.shape, fill), photo, None).any()


def test_lost_bays__flipped_photo_flipped_bays():
    photo, truth = white_carton()
    mask = truth.copy()
    mask[40:80, 30:50] = False
    flipped = lost_bays(mask[:, ::-1].copy(), photo[:, ::-1].copy(), None)
    assert np.array_equal(flipped[:, ::-1], lost_bays(mask, photo, None))
