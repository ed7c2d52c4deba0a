"""Fine masks: the filter against kornia's, the scores by hand, and the stages from catalog to masks."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.filters import guided_blur

from models.saliency import SaliencyNet
from storage.images import decode_grey
from storage.store import Store
from tasks.coarse import coarse_mask
from tasks.ingest import dataset_root, files_digest
from tasks.params import CoarseParams, IngestParams, SaliencyParams, SegmentParams
from tasks.segment import (
    cut_to_edges,
    expected_iou,
    fine_mask,
    guided_filter,
    mask_agreement,
    neighbour_consistency,
    plane_in_window,
    refine,
    sharpen,
)
from tasks.stage import load_stage, run_stage_locally
from tests.tasks.turntable import write_catalog

PARAMS = SegmentParams(working_size=96, cut_size=128)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SaliencyNet(backbone="efficientnet_lite0", width=8, pretrained=False).eval()


def disc(height=90, width=110, radius=28):
    y, x = np.mgrid[:height, :width]
    mask = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    photo = np.where(mask[..., None], (190, 50, 40), (200, 202, 198)).astype(np.uint8)
    return photo, mask


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(1e-4, 1e-1))
@settings(max_examples=15, deadline=None)
def test_guided_filter__as_kornia(seed, radius, epsilon):
    rng = np.random.default_rng(seed)
    guide, plane = rng.random((23, 31, 3), np.float32), rng.random((23, 31), np.float32)
    theirs = guided_blur(
        torch.from_numpy(guide).permute(2, 0, 1)[None], torch.from_numpy(plane)[None, None], 2 * radius + 1, epsilon
    )[0, 0].numpy()
    assert np.allclose(guided_filter(plane, guide, radius=radius, epsilon=epsilon), theirs, atol=2e-4)


def test_refine__rough_mask_snaps_to_the_edge():
    photo, truth = disc()
    rough = cv2.GaussianBlur(np.roll(truth, 2, axis=1).astype(np.float32), (0, 0), 2.0)
    assert iou(rough > 0.5, truth) < 0.95
    assert iou(refine(rough, photo, params=PARAMS) > 0.5, truth) > 0.985


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_refine__alpha_is_in_range(seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (40, 52, 3), np.uint8)
    alpha = refine(rng.random((40, 52), np.float32), photo, params=PARAMS)
    assert alpha.shape == (40, 52)
    assert alpha.min() >= 0 and alpha.max() <= 1


def test_refine__flipped_photo_flipped_mask():
    photo, truth = disc()
    truth[20:30, 55:90] = True
    photo[20:30, 55:90] = (30, 60, 150)
    soft = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1.5)
    plain = refine(soft, photo, params=PARAMS) > 0.5
    flipped = refine(soft[:, ::-1].copy(), photo[:, ::-1].copy(), params=PARAMS)[:, ::-1] > 0.5
    assert iou(plain, flipped) > 0.99


def test_cut_to_edges__bounded_working_size():
    photo, truth = disc(height=360, width=440, radius=112)
    soft = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 4.0)
    assert iou(cut_to_edges(soft, photo, doubt=0.1, most=128) > 0.5, truth) > 0.97


def test_fine_mask__stays_inside_an_annotated_box(network):
    photo, _ = disc()
    coarse = coarse_mask(photo, (27.0, 17.0, 83.0, 73.0), working_size=160, margin=0.2, iterations=2)
    made = fine_mask(network, photo, coarse, tight=True, params=PARAMS)
    assert made.alpha_hw.min() >= 0 and made.alpha_hw.max() <= 1
    # The network is not trained: what the coarse step is sure of is there nevertheless.
    assert made.area > 400
    if made.box is not None:
        assert made.box[0] >= 26 and made.box[1] >= 16 and made.box[2] <= 84 and made.box[3] <= 74


def test_expected_iou__by_hand():
    probability = np.array([[0.9, 0.8], [0.2, 0.0]], np.float32)
    assert expected_iou(probability, probability > 0.5) == pytest.approx(1.7 / 2.2)
    assert expected_iou(probability, probability > 1) == 0.0


def test_neighbour_consistency__odd_one_out():
    scores = neighbour_consistency([100, 104, 50, 102], [1, 11, 21, 31])
    assert scores[2] == pytest.approx(50 / 102)
    assert scores[0] == pytest.approx(100 / 102)
    assert scores[1] == pytest.approx(100 / 104)


def test_neighbour_consistency__too_few_to_compare():
    assert neighbour_consistency([5, 500], [1, 2]) == [1.0, 1.0]


def test_plane_in_window__windows_that_differ():
    mask = np.zeros((4, 4), bool)
    mask[:, 2:] = True
    made = plane_in_window(mask, (10, 10, 18, 18), (12, 8, 20, 16))
    expected = np.zeros((8, 8), bool)
    expected[2:, 2:6] = True
    assert np.array_equal(made, expected)


def test_mask_agreement__by_hand():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], other[1:3] = True, True
    assert mask_agreement(one, other) == pytest.approx(1 / 3)
    assert mask_agreement(one & False, one & False) == 0.0


def test_sharpen__keeps_the_outline():
    alpha = np.linspace(0, 1, 101, dtype=np.float32)
    assert np.array_equal(sharpen(alpha) > 0.5, alpha > 0.5)


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
    params = SaliencyParams(steps=2, rounds=2, batch=2, working_size=64, width=8, threads=1)
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
