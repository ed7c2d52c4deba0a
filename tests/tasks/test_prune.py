"""Which views stay: the rules by hand, descriptors against turned pictures, evidence on made distances, the stage."""

import cv2
import numpy as np
import pytest

from storage.images import decode_rgba
from storage.store import Store
from tasks.evidence import PoolCrop, best_apart, describe, distances, evidence, neutralised, product_candidates
from tasks.ingest import dataset_root, files_digest
from tasks.params import CoarseParams, IngestParams, PruneParams, SaliencyParams, SegmentParams
from tasks.prune import area_rule, evidence_rule, keep_all_rule, sprite, view_descriptor
from tasks.stage import load_stage, run_stage_locally
from tests.tasks.turntable import draw_product, write_catalog, write_pool


def product_photo(category, turn, *, size=(60, 36), ground=190.0, light=1.0):
    photo = np.full((120, 120, 3), ground)
    mask = draw_product(photo, category, centre=(60.0, 60.0), size=size, turn=turn)
    return np.clip(photo * light, 0, 255).astype(np.uint8), mask


def crop_of(photo, mask, *, name="pool/1", box=(0, 0, 10, 10), rotations=24):
    return PoolCrop(name, box, describe(neutralised(photo, mask, ring=6), mask, rotations=rotations))


def test_area_rule__by_hand():
    made = area_rule([100, 46, 45, 10], ratio=0.45)
    assert [one.kept for one in made] == [True, True, False, False]
    assert made[1].score == pytest.approx(0.46)


def test_keep_all_rule__keeps_all():
    assert all(one.kept and one.weight == 1 for one in keep_all_rule(3))


def test_evidence_rule__weights_and_floor():
    made = evidence_rule([6.0, 2.0, 0.0, 0.0], share=0.5, least_views=1)
    assert [one.kept for one in made] == [True, True, False, False]
    assert made[0].weight == pytest.approx(3 * made[1].weight)
    assert made[0].weight + made[1].weight == pytest.approx(2)


def test_evidence_rule__every_product_keeps_a_minimum():
    assert sum(one.kept for one in evidence_rule([5.0, 0.0, 0.0, 0.0], share=0.5, least_views=3)) == 3
    assert all(one.kept for one in evidence_rule([0.0, 0.0], share=0.5, least_views=1))


def test_sprite__cropped_to_the_mask():
    photo, mask = product_photo(1, 0)
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    rgba, (x, y) = sprite(photo, np.round(255 * alpha).astype(np.uint8))
    rows, columns = np.nonzero(np.round(255 * alpha) > 0)
    assert (x, y) == (columns.min(), rows.min())
    assert rgba.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1, 4)
    rim = (rgba[..., 3] > 20) & (rgba[..., 3] < 235)
    # The rim has the product's red and not the ground's grey.
    assert (rgba[rim][:, 0].astype(int) - rgba[rim][:, 1]).mean() > 60


@pytest.mark.parametrize("turn", [15.0, 90.0, 200.0])
def test_describe__finds_the_turned_product(turn):
    photo, mask = product_photo(1, 0)
    other, other_mask = product_photo(2, 0)
    matrix = cv2.getRotationMatrix2D((60, 60), turn, 1.3)
    turned = cv2.warpAffine(photo, matrix, (120, 120), borderValue=(190, 190, 190))
    turned_mask = cv2.warpAffine(mask.astype(np.uint8), matrix, (120, 120)) > 0
    views = np.stack([view_descriptor(photo, mask), view_descriptor(other, other_mask)])
    same, different = distances(views, [crop_of(turned, turned_mask)])[:, 0]
    assert same < 0.3 * different


def test_describe__light_matters_little():
    photo, mask = product_photo(1, 30)
    dim, _ = product_photo(1, 30, light=0.7)
    other, other_mask = product_photo(2, 30)
    views = np.stack([view_descriptor(photo, mask), view_descriptor(other, other_mask)])
    same, different = distances(views, [crop_of(dim, mask)])[:, 0]
    assert same < 0.2 * different


def test_distances__as_brute_force():
    rng = np.random.default_rng(0)
    views = rng.random((5, 7), np.float32)
    crops = [PoolCrop("p", (0, 0, 1, 1), rng.random((3, 7), np.float32)) for _ in range(4)]
    expected = [[min(np.linalg.norm(view - one) for one in crop.descriptors_RD) for crop in crops] for view in views]
    assert np.allclose(distances(views, crops), expected, atol=1e-3)


def test_evidence__goes_to_the_view_that_is_seen():
    # Two products of two views; three crops look like the first view of product 0, one like the second of product 1.
    distance = np.array([[0.1, 0.1, 0.1, 0.5], [0.3, 0.3, 0.3, 0.5], [0.4, 0.4, 0.4, 0.3], [0.4, 0.4, 0.4, 0.1]])
    made = evidence(distance.astype(np.float32), np.array([0, 0, 1, 1]))
    assert made[0] == pytest.approx(3, abs=0.05)
    assert made[3] == pytest.approx(1, abs=0.05)
    assert made[1] < 0.1 and made[2] < 0.1


def test_evidence__look_alikes_share():
    distance = np.array([[0.1], [0.1]], np.float32)
    assert evidence(distance, np.array([0, 1])) == pytest.approx([0.5, 0.5])


def test_evidence__strange_crops_say_little():
    distance = np.array([[0.1, 0.1, 0.4], [0.2, 0.2, 0.41]], np.float32)
    with_strange = evidence(distance, np.array([0, 1]))
    without = evidence(distance[:, :2], np.array([0, 1]))
    assert with_strange == pytest.approx(without, abs=0.01)


def test_best_apart__keeps_the_better_of_two_that_overlap():
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60), (0, 0, 10, 10)]
    photos = ["pool/1", "pool/1", "pool/1", "pool/2"]
    crops = [PoolCrop(photo, box, np.zeros((1, 2), np.float32)) for photo, box in zip(photos, boxes, strict=True)]
    assert best_apart(np.array([[0.3, 0.2, 0.9, 0.8]], np.float32), crops) == [1, 2, 3]


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


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prune")
    write_catalog(folder / "data")
    write_pool(folder / "data")
    store, made = Store.open(str(folder / "store")), {}
    for split in ("catalog", "pool"):
        digest = files_digest(dataset_root(str(folder / "data")), split=split)
        params = IngestParams(dataset=str(folder / "data"), split=split, files_digest=digest)
        made[split] = run_stage_locally(load_stage("ingest"), params, store=store)
    catalog = made["catalog"]
    made["coarse"] = run_stage_locally(load_stage("coarse"), CoarseParams(), store=store, catalog=catalog)
    network = SaliencyParams(steps=12, rounds=1, batch=4, working_size=64, width=8, threads=1, learning_rate=5e-3)
    made["network"] = run_stage_locally(
        load_stage("saliency"), network, store=store, catalog=catalog, coarse=made["coarse"]
    )
    made["masks"] = run_stage_locally(
        load_stage("segment"),
        SegmentParams(working_size=96, least_quality=0.0),
        store=store,
        **{name: made[name] for name in ("catalog", "coarse", "network")},
    )
    return store, made


@pytest.mark.parametrize("rule", ["evidence", "area", "keep_all"])
def test_prune__every_view_gets_a_row(stages, rule):
    store, made = stages
    inputs = {name: made[name] for name in ("catalog", "masks", "pool", "network")}
    params = PruneParams(rule=rule, working_size=160, rotations=12, least_views=2)
    poses = run_stage_locally(load_stage("prune"), params, store=store, **inputs)
    assert {row.item_id.removeprefix("pose/") for row in poses.rows} == {
        row.item_id.removeprefix("mask/") for row in made["masks"].ok
    }
    for row in poses.rows:
        assert row.status in ("ok", "dropped") and row.reason
        assert row.attributes["rule"] == rule
    for sku in ("red_box", "blue_box"):
        assert sum(row.sku == sku for row in poses.ok) >= 2
    first = poses.ok[0]
    picture = decode_rgba(store.read(first))
    assert picture.shape == (first.height, first.width, 4)
    x, y = first.attributes["origin"]
    assert 0 <= x < 160 and 0 <= y < 120


def test_prune__workers_change_nothing(stages, tmp_path):
    _, made = stages
    inputs = {name: made[name] for name in ("catalog", "masks", "pool", "network")}
    params = PruneParams(working_size=160, rotations=6)
    digests = [
        run_stage_locally(
            load_stage("prune"), params, store=Store.open(str(tmp_path / str(workers))), workers=workers, **inputs
        ).content_digest
        for workers in (1, 3)
    ]
    assert digests[0] == digests[1]
