import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.anchors import box_sides, fitted_anchors, mean_best_iou


def _sides(count=400, *, side=90):
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.normal(np.log(side), 0.15, count))
    ratios = np.exp(generator.normal(0, 0.4, count))
    return np.stack([sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)], axis=1)


@pytest.mark.parametrize("side", [36, 44, 60])
def test_fitted_anchors__fit_better_than_four_strides_a_level(side):
    sides = _sides(side=side)
    sizes, ratios = fitted_anchors(sides, strides=(8, 16, 32, 64))
    assert ratios[0] < 1 == ratios[1] < ratios[2]
    fitted = mean_best_iou(sides, sizes=sizes, ratios=ratios)
    assert fitted > mean_best_iou(sides, sizes=(32, 64, 128, 256), ratios=(0.5, 1, 2)) + 0.01


def test_fitted_anchors__as_many_strides_on_every_level():
    sizes, _ = fitted_anchors(_sides(), strides=(4, 8, 16))
    assert np.ptp(np.array(sizes) / (4, 8, 16)) < 0.05 and 4 <= sizes[0] / 4 <= 8


def test_fitted_anchors__items_of_one_size():
    sizes, ratios = fitted_anchors(np.full((5, 2), 45.0), strides=(8, 16))
    assert sizes[0] == pytest.approx(45, rel=0.03) and ratios == (0.833, 1.0, 1.2)


def test_mean_best_iou__as_torchvision_measures_it():
    sides = _sides(50)
    anchors = np.array([(size / r**0.5, size * r**0.5) for size in (50, 100) for r in (0.5, 2)])
    centred = [torch.tensor(np.concatenate([-one / 2, one / 2], axis=1)) for one in (sides, anchors)]
    expected = box_iou(*centred).amax(dim=1).mean()
    assert mean_best_iou(sides, sizes=(50, 100), ratios=(0.5, 2)) == pytest.approx(float(expected))


def test_box_sides__known_items_in_the_networks_pixels():
    objects = (
        ManifestObject(category=1, sku="a", box=(0, 0, 40, 20)),
        ManifestObject(category=1, sku="a", box=(0, 0, 40, 20), status="ignored"),
    )
    row = ManifestRow(item_id="x", width=200, height=400, objects=objects)
    manifest = Manifest(stage="compose", key="", url="", content_digest="", rows=(row,))
    assert box_sides([manifest], image_size=100).tolist() == [[10, 5]]
    assert box_sides([], image_size=100).shape == (0, 2)
