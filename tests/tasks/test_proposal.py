"""Regions of products without annotated boxes: what changes in a turn, and what stands out in one photo."""

import cv2
import numpy as np
import pytest

from storage.boxes import mask_box
from tasks.backdrop import to_lab
from tasks.proposal import propose_regions, standing_out_region, still_groups
from tests.tasks.backdrops import BACKDROPS, made_backdrop, made_photo


def made_turn(kind, *, views=4):
    """Photos of a box that turns on a disc of another grey, with its masks."""
    photos, masks = [], []
    for view in range(views):
        rng = np.random.default_rng([7, view])
        photo = made_backdrop(kind)
        cv2.ellipse(photo, (160, 140), (110, 70), 0, 0, 360, (225, 225, 222), -1)
        mask = np.zeros(photo.shape[:2], np.uint8)
        corners = cv2.boxPoints(((160.0, 130.0), (80.0, 44.0), 20.0 + 50.0 * view))
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
        # As light as the disc it stands on, with a print.
        photo[mask > 0] = (205, 205, 208)
        cv2.circle(photo, (160, 130), 12, (60 + 40 * view, 50, 90), -1)
        photos.append(np.clip(photo + rng.normal(0, 1, photo.shape), 0, 255).astype(np.uint8))
        masks.append(mask > 0)
    return photos, masks


@pytest.mark.parametrize("kind", BACKDROPS)
def test_propose_regions__holds_the_product_and_little_else(kind):
    photos, masks = made_turn(kind)
    for region, mask in zip(propose_regions(photos), masks, strict=True):
        small = cv2.resize(mask.astype(np.uint8), region.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        assert (region & small).sum() > 0.95 * small.sum()
        assert region.sum() < 4 * small.sum()


@pytest.mark.parametrize("kind", BACKDROPS)
def test_propose_regions__one_photo_alone(kind):
    photo, _, box = made_photo(kind)
    (region,) = propose_regions([photo])
    found = np.array(mask_box(region)) * photo.shape[1] / region.shape[1]
    assert np.all(found[:2] <= np.array(box[:2]) + 3) and np.all(found[2:] >= np.array(box[2:]) - 3)
    assert np.allclose(found, box, atol=20)


def test_standing_out_region__nothing_there():
    assert standing_out_region(to_lab(made_backdrop("gradient").astype(np.uint8))) is None
    assert propose_regions([made_backdrop("gradient").astype(np.uint8)]) == [None]


def test_still_groups__by_what_is_around():
    photos = [to_lab(made_photo(kind, shape=shape)[0]) for kind in ("dark", "coloured") for shape in ("box", "thin")]
    assert still_groups(photos) == [[0, 1], [2, 3]]
