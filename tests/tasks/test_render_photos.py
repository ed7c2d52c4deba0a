import numpy as np
import pytest
import torch

from storage.manifest import ManifestObject, ManifestRow
from storage.rle import encode_mask
from tasks.render_photos import TrainingPhotos, draw_crops, item_mask, shrink, shrink_mask, to_unit


def product(**fields) -> ManifestObject:
    return ManifestObject(category=1, sku="a", **fields)


def test_item_mask__union_of_masks_and_of_boxes_where_there_is_no_mask():
    disc = np.zeros((20, 30), bool)
    disc[3:6, 4:9] = True
    objects = (product(box=(4, 3, 9, 6), mask_rle=encode_mask(disc)), product(box=(-2, 10, 5, 25)))
    expected = disc.copy()
    expected[10:20, 0:5] = True
    assert np.array_equal(item_mask(ManifestRow(item_id="x", objects=objects), height=20, width=30), expected)


def test_shrink__averages_areas():
    photo = np.zeros((4, 4, 3), np.uint8)
    photo[:2, :2] = 200
    assert shrink(photo, scale=0.5)[..., 0].tolist() == [[200, 0], [0, 0]]
    assert shrink(photo, scale=1.0) is photo
    assert shrink_mask(photo[..., 0] > 0, scale=0.5).tolist() == [[True, False], [False, False]]


def test_to_unit__range():
    assert to_unit(np.uint8([0, 255])).tolist() == [-1, 1]


def test_draw_crops__crops_are_windows_of_the_photos_and_masks_belong_to_them():
    rng = np.random.default_rng(0)
    synthetic = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2)]
    photos = TrainingPhotos(synthetic=synthetic, masks=[photo[..., 0] > 128 for photo in synthetic], pool=synthetic)
    crops = draw_crops(photos, size=16, batch=3, generator=torch.Generator().manual_seed(0))
    assert crops.synthetic_B3SS.shape == crops.pool_B3SS.shape == (3, 3, 16, 16)
    assert torch.equal(crops.mask_B1SS[:, 0], (crops.synthetic_B3SS[:, 0] > to_unit(np.uint8([128]))[0]).float())


def test_draw_crops__a_photo_smaller_than_a_crop_is_refused():
    photo = np.zeros((10, 20, 3), np.uint8)
    photos = TrainingPhotos(synthetic=[photo], masks=[photo[..., 0] > 0], pool=[photo])
    with pytest.raises(ValueError, match="at most 10 pixels"):
        draw_crops(photos, size=16, batch=1, generator=torch.Generator())
