"""Fine masks and the stages from catalog to masks."""

import io

import numpy as np
import pytest
import torch

from models.saliency import SaliencyNet
from storage.images import decode_grey
from storage.store import Store
from tasks.coarse import coarse_mask
from tasks.ingest import dataset_root, files_digest
from tasks.params import CoarseParams, IngestParams, RefineParams, SaliencyParams, SegmentParams
from tasks.segment import fine_mask
from tasks.stage import load_stage, run_stage_locally
from tests.tasks.turntable import write_catalog

PARAMS = SegmentParams(working_size=96, second_size=64, refine=RefineParams(size=128))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SaliencyNet(backbone="efficientnet_lite0", width=8, pretrained=False).eval()


def disc(height=90, width=110, radius=28):
    y, x = np.mgrid[:height, :width]
    mask = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    photo = np.where(mask[..., None], (190, 50, 40), (200, 202, 198)).astype(np.uint8)
    return photo, mask


def test_fine_mask__stays_inside_an_annotated_box(network):
    photo, _ = disc()
    coarse = coarse_mask(photo, (27.0, 17.0, 83.0, 73.0), params=CoarseParams())
    made = fine_mask(network, photo, coarse, tight=True, params=PARAMS)
    assert made.alpha_hw.min() >= 0 and made.alpha_hw.max() <= 1
    # The network is not trained: what the coarse step is sure of is there nevertheless.
    assert made.area > 400
    if made.box is not None:
        assert made.box[0] >= 26 and made.box[1] >= 16 and made.box[2] <= 84 and made.box[3] <= 74


def run_to_masks(dataset, store):
    digest = files_digest(dataset_root(str(dataset)), split="catalog")
    params = IngestParams(dataset=str(dataset), split="catalog", files_digest=digest)
    catalog = run_stage_locally(load_stage("ingest"), params, store=store)
    coarse = run_stage_locally(load_stage("coarse"), CoarseParams(), store=store, catalog=catalog)
    return catalog, coarse


def test_segment__adding_a_product_changes_no_other(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    small, large = tmp_path / "small", tmp_path / "large"
    masks = write_catalog(small, categories=(1, 2))
    write_catalog(large, categories=(1, 2, 3))
    params = SaliencyParams(steps=2, rounds=2, batch=2, working_size=64, label_size=64, width=8, threads=1)
    catalog, coarse = run_to_masks(small, store)
    network = run_stage_locally(load_stage("saliency"), params, store=store, catalog=catalog, coarse=coarse)
    first = run_stage_locally(
        load_stage("segment"), PARAMS, store=store, catalog=catalog, coarse=coarse, network=network
    )
    grown, grown_coarse = run_to_masks(large, store)
    kept = run_stage_locally(
        load_stage("saliency"),
        params.model_copy(update={"retrain_growth": 0.6}),
        store=store,
        catalog=grown,
        coarse=grown_coarse,
        previous=network,
    )
    second = run_stage_locally(
        load_stage("segment"), PARAMS, store=store, workers=2, catalog=grown, coarse=grown_coarse, network=kept
    )
    assert kept.row("network/weights").digest == network.row("network/weights").digest
    for row in first.rows:
        assert second.row(row.item_id).digest == row.digest
        assert second.row(row.item_id).quality == row.quality
    assert {row.digest for row in coarse.rows} < {row.digest for row in grown_coarse.rows}
    assert len(second.rows) == len(masks) + 3
    picture = decode_grey(io.BytesIO(store.read(first.rows[0])).read())
    assert picture.shape == (120, 160)
