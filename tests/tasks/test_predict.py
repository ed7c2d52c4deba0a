import io

import numpy as np
import pytest
import torch
from safetensors.torch import save

from models.dpsnet import DPSNet, DPSNetConfig
from storage.catalog import Category
from storage.images import encode_png
from storage.manifest import ManifestRow
from storage.store import Store
from tasks.confidence import UNTRAINED
from tasks.detection import encode_config
from tasks.params import PredictParams, View
from tasks.predict import predict
from tasks.stage import run_stage_locally

CONFIG = DPSNetConfig(classes=2, width=8, head_width=16, proposals=10, samples=8, strides=(8, 16, 32), score_floor=0.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store.open(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def checkpoint(store):
    torch.manual_seed(0)
    files = {
        "checkpoint": save(DPSNet(CONFIG, pretrained=False).state_dict()),
        "config": encode_config(
            CONFIG,
            image_size=64,
            categories=(Category(id=1, sku="a"), Category(id=2, sku="b")),
            threshold=0.25,
            count_scale=1.0,
            confidence=UNTRAINED,
        ),
    }
    publication = store.begin("train", key="made")
    for item_id, data in files.items():
        publication.put(data, path=item_id, row=ManifestRow(item_id=item_id))
    return publication.commit(metadata={})


@pytest.fixture(scope="module")
def photos(store):
    publication = store.begin("ingest", key="made")
    generator = np.random.default_rng(0)
    for index, shape in enumerate([(64, 64, 3), (48, 96, 3), (64, 64, 3)]):
        picture = encode_png(generator.integers(0, 256, shape, dtype=np.uint8))
        row = ManifestRow(item_id=f"pool/{index}", split="pool", level="easy", width=shape[1], height=shape[0])
        publication.put(picture, path=f"{index}.png", row=row)
    publication.add(ManifestRow(item_id="pool/broken", status="quarantined", reason="file: empty"))
    return publication.commit(metadata={})


def _predict(store, checkpoint, photos, **changes):
    return run_stage_locally(predict, PredictParams(**changes), store=store, checkpoint=checkpoint, photos=photos)


def test_predict__a_row_for_every_usable_photo_under_its_own_id(store, checkpoint, photos):
    made = _predict(store, checkpoint, photos, keep_density=2)
    assert [row.item_id for row in made.rows] == ["pool/0", "pool/1", "pool/2"]
    for row in made.rows:
        assert row.parents == (row.item_id,) and (row.split, row.level) == ("pool", "easy")
        assert row.objects and all(item.sku == {1: "a", 2: "b"}[item.category] for item in row.objects)
        assert all(0 <= x0 < x1 <= row.width and 0 <= y0 < y1 <= row.height for x0, y0, x1, y1 in boxes_of(row))
    assert made.content["threshold"] == 0.25


def boxes_of(row):
    return [item.box for item in row.objects]


def test_predict__kept_density_maps_sum_to_the_count(store, checkpoint, photos):
    made = _predict(store, checkpoint, photos, keep_density=2)
    kept = [row for row in made.rows if row.path]
    assert [row.item_id for row in kept] == ["pool/0", "pool/1"]
    for row in kept:
        density = np.load(io.BytesIO(store.read(row)), allow_pickle=False)
        assert density.sum() == pytest.approx(row.attributes["count"], rel=1e-5)


def test_predict__batches_change_nothing_that_matters(store, checkpoint, photos):
    one, other = (_predict(store, checkpoint, photos, batch=batch) for batch in (1, 3))
    for left, right in zip(one.rows, other.rows, strict=True):
        assert left.attributes["count"] == pytest.approx(right.attributes["count"], rel=1e-3)
        assert len(left.objects) == len(right.objects)


def test_predict__turned_views_find_the_photo_in_its_own_frame(store, checkpoint, photos):
    straight, turned = (_predict(store, checkpoint, photos, view=View(turns=turns)) for turns in (0, 1))
    assert straight.content_digest != turned.content_digest
    for row in turned.rows:
        assert all(0 <= x0 < x1 <= row.width and 0 <= y0 < y1 <= row.height for x0, y0, x1, y1 in boxes_of(row))


@pytest.mark.parametrize("before", [1, 3])
def test_predict__whatever_ran_before_in_the_process_its_threads_are_its_own(before, checkpoint, photos, tmp_path):
    torch.set_num_threads(before)
    _predict(Store.open(str(tmp_path)), checkpoint, photos, threads=2)
    assert torch.get_num_threads() == 2
