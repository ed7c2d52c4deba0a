"""Cut-outs in pictures with known products: light, size and rotation, and what counts as one product."""

import cv2
import numpy as np
import pytest

from tasks.cutouts import PATCH_SIDE, mask_in_box, neutral_patch, product_candidates, turned
from tests.tasks.turntable import draw_product


def product_photo(category, turn, *, size=(60, 36), ground=190.0, light=1.0):
    photo = np.full((120, 120, 3), ground)
    mask = draw_product(photo, category, centre=(60.0, 60.0), size=size, turn=turn)
    return np.clip(photo * light, 0, 255).astype(np.uint8), mask


def test_product_candidates__parts_products_that_touch():
    probability = np.zeros((200, 200), np.float32)
    probability[40:90, 40:90] = probability[94:150, 60:120] = 0.99
    probability[90:94, 60:90] = 0.6
    boxes = {cv2.boundingRect(mask.astype(np.uint8)) for mask in product_candidates(probability)}
    assert len(boxes) >= 3
    assert any(abs(x - 40) <= 1 and abs(y - 40) <= 1 and abs(w - 50) <= 2 and abs(h - 50) <= 2 for x, y, w, h in boxes)


def test_product_candidates__not_cut_by_the_border():
    probability = np.zeros((100, 100), np.float32)
    probability[0:30, 20:50] = 1
    assert product_candidates(probability) == []


def test_neutral_patch__light_matters_little():
    bright, mask = product_photo(1, 30)
    dim, _ = product_photo(1, 30, light=0.7)
    inside = neutral_patch(bright, mask)[..., 3] == 1
    difference = np.abs(neutral_patch(bright, mask) - neutral_patch(dim, mask))[inside]
    assert difference.max() < 0.03


@pytest.mark.parametrize("zoom", [0.5, 1.7])
def test_neutral_patch__size_matters_little(zoom):
    photo, mask = product_photo(1, 30)
    other = cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    other_mask = cv2.resize(mask.astype(np.uint8), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST) > 0
    one, two = neutral_patch(photo, mask)[..., 3], neutral_patch(other, other_mask)[..., 3]
    assert one.shape == (PATCH_SIDE, PATCH_SIDE)
    assert np.minimum(one, two).sum() / np.maximum(one, two).sum() > 0.9


def test_neutral_patch__a_product_ends_at_the_photos_border():
    photo, mask = product_photo(1, 0)
    cut = np.s_[: int(np.flatnonzero(mask.any(axis=1))[-1]) - 8]
    at_border, inside = neutral_patch(photo[cut], mask[cut]), np.zeros_like(mask)
    inside[cut] = mask[cut]
    np.testing.assert_allclose(at_border[..., 3], neutral_patch(photo, inside)[..., 3], atol=0.5)
    assert at_border[..., 3].sum() == pytest.approx(neutral_patch(photo, inside)[..., 3].sum(), rel=0.03)
    assert not at_border[-1, :, 3].any()


def test_neutral_patch__no_product():
    with pytest.raises(ValueError, match="expected some product pixels"):
        neutral_patch(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), bool))


def test_turned__quarter_turns_as_numpy():
    patch = neutral_patch(*product_photo(1, 30))
    made = turned(patch, rotations=4)
    for turns in range(4):
        assert np.allclose(made[turns][..., 3], np.rot90(patch[..., 3], turns), atol=0.02)
    assert np.allclose(made[0][0, 0], [0.5, 0.5, 0.5, 0])


def test_mask_in_box__the_salient_piece():
    probability = np.zeros((60, 60), np.float32)
    probability[10:30, 10:30] = probability[40:50, 40:50] = 1
    made = mask_in_box(probability, (8.0, 8.0, 34.0, 34.0))
    assert made.sum() == 400 and made[10:30, 10:30].all()
    assert mask_in_box(probability, (30.0, 0.0, 60.0, 30.0)) is None
    assert mask_in_box(probability, (36.0, 36.0, 54.0, 54.0)).sum() == 100
