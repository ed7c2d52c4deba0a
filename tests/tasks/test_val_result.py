import weakref
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torchvision.ops import nms

from models.dpsnet import DPSNetConfig
from storage.catalog import Category
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.confidence import UNTRAINED
from tasks.detection import AS_IT_IS, Detector
from tasks.params import View
from tasks.val_result import across_products, evaluate_on_val, mean_rank, turned_views

CATEGORIES = (Category(id=1, sku="a"), Category(id=2, sku="b"))
PHOTO = np.zeros((64, 64, 3), np.uint8)


class _Finds(nn.Module):
    """Finds the same in every photo, and counts 1.5 items."""

    def __init__(self, boxes, scores, labels):
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.config = DPSNetConfig(classes=2, nms="product")
        self._found = {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}

    def forward(self, photos):
        density = torch.full((len(photos), 1, 8, 8), 1.5 / 64)
        return [dict(self._found) for _ in photos], density


class _FindsUpright(_Finds):
    """Finds only what lies in photos whose upper left pixel is white."""

    def forward(self, photos):
        found, density = super().forward(photos)
        none = {name: values[:0] for name, values in self._found.items()}
        upright = photos[:, 0, 0, 0] > 0.5
        return [one if seen else none for one, seen in zip(found, upright, strict=True)], density


def _results(network, true, *, photos, views, count, choice="val"):
    detector = Detector(
        network=network, image_size=64, categories=CATEGORIES, threshold=0.5, count_scale=1.0, confidence=UNTRAINED
    )
    objects = tuple(ManifestObject(category=category, sku="ab"[category - 1], box=box) for category, box in true)
    rows = tuple(ManifestRow(item_id=f"val/{index}", width=64, height=64, objects=objects) for index in range(count))
    val = Manifest(stage="ingest", key="", url="", content_digest="", rows=rows)
    return evaluate_on_val(detector, photos=photos, val=val, nms_choice=choice, views=views)


def _result(network, true, *, choice="val", photos=4, view=AS_IT_IS, photo=PHOTO):
    (result,) = _results(network, true, photos=[photo] * photos, views=[view], count=photos, choice=choice)
    return result


BOX, SAME, OTHER = (4.0, 4.0, 24.0, 24.0), (5.0, 4.0, 25.0, 24.0), (40.0, 40.0, 60.0, 60.0)


def test_evaluate_on_val__one_product_is_not_two_skus():
    # Both SKUs at one place, of nearly the same score: no threshold takes one of them away.
    network = _Finds([BOX, SAME], [0.9, 0.89], [1, 2])
    result = _result(network, [(1, BOX)])
    assert result.nms == "agnostic" and result.metrics["cAcc"] == 1
    assert result.count_error == 0.5 and result.count_right == 0
    assert abs(result.count_scale - 1 / 1.5) < 1e-6


def test_evaluate_on_val__two_products_that_overlap_keep_nms_a_product():
    network = _Finds([BOX, SAME, OTHER], [0.9, 0.8, 0.02], [1, 2, 1])
    result = _result(network, [(1, BOX), (2, SAME)], photos=5)
    assert result.nms == "product" and result.metrics["cAcc"] == 1
    assert _result(network, [(1, BOX), (2, SAME)], choice="agnostic", photos=5).nms == "agnostic"


def test_evaluate_on_val__a_few_photos_that_gain_prove_nothing():
    network = _Finds([BOX, SAME, OTHER], [0.9, 0.8, 0.02], [1, 2, 1])
    assert _result(network, [(1, BOX), (2, SAME)], photos=4).nms == "agnostic"


def test_across_products__is_torchvisions_nms_without_labels():
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 40, (30, 2))
    boxes = np.concatenate([corner, corner + 20], axis=1)
    scores = np.sort(generator.random(30))[::-1]
    objects = [
        ManifestObject(category=1 + index % 2, sku="a", box=tuple(box), score=float(score))
        for index, (box, score) in enumerate(zip(boxes.tolist(), scores, strict=True))
    ]
    kept = across_products(objects, overlap=0.5)
    expected = nms(torch.tensor(boxes), torch.tensor(scores.copy()), 0.5).tolist()
    assert list(kept) == [objects[index] for index in expected]
    assert across_products([], overlap=0.5) == ()


def test_rank__right_lists_or_wrong_items_first():
    # One photo more is right, but the others are wrong in two items instead of one.
    few, many = (
        replace(_result(_Finds([BOX], [0.9], [1]), [(1, BOX)]), metrics={"cAcc": accuracy, "ACD": wrong})
        for accuracy, wrong in ((0.5, 0.5), (0.6, 0.8))
    )
    assert many.rank(best_by="cAcc") > few.rank(best_by="cAcc")
    assert few.rank(best_by="ACD") > many.rank(best_by="ACD")
    equal = replace(few, metrics={"cAcc": 0.6, "ACD": 0.5})
    assert equal.rank(best_by="ACD") > few.rank(best_by="ACD") and equal.rank(best_by="cAcc") > many.rank(
        best_by="cAcc"
    )


def test_turned_views__evenly_spread_from_the_photo_as_it_is():
    assert [[view.turns for view in turned_views(count)] for count in (1, 2, 4)] == [[0], [0, 2], [0, 1, 2, 3]]
    assert turned_views(4)[0] == View()


def test_evaluate_on_val__takes_each_photo_once_for_all_views_and_keeps_none():
    alive, most = [0], []

    def photos():
        for _ in range(40):
            photo = PHOTO.copy()
            alive[0] += 1
            weakref.finalize(photo, lambda: alive.__setitem__(0, alive[0] - 1))
            most.append(alive[0])
            yield photo

    network, true = _Finds([BOX], [0.9], [1]), [(1, BOX)]
    results = _results(network, true, photos=photos(), views=turned_views(2), count=40)
    assert results[0] == _result(network, true, photos=40) and len(results) == 2
    assert len(most) == 40 and max(most) <= 16


def test_mean_rank__of_a_checkpoint_that_reads_photos_upright_only():
    photo = PHOTO.copy()
    photo[:8, :8] = 255
    results = [
        _result(_FindsUpright([BOX], [0.9], [1]), [(1, BOX)], view=view, photo=photo) for view in turned_views(4)
    ]
    assert [one.metrics["cAcc"] for one in results] == [1, 0, 0, 0]
    assert mean_rank(results, best_by="cAcc") == (0.25, -0.75) and mean_rank(results, best_by="ACD") == (-0.75, 0.25)
    assert mean_rank(results[:1], best_by="cAcc") == results[0].rank(best_by="cAcc")
