"""Which views stay: the rules by hand, the sprite, and the stage on a made catalog and pool."""

import cv2
import numpy as np
import pytest

from models.embedding import CutoutEmbedding
from storage.images import decode_rgba
from storage.manifest import ManifestObject, ManifestRow
from storage.store import Store
from tasks.ingest import dataset_root, files_digest
from tasks.params import CoarseParams, IngestParams, PruneParams, SaliencyParams, SegmentParams
from tasks.prune import accepted_labels, area_rule, evidence_rule, keep_all_rule, pool_crops, sprite, unchanged_products
from tasks.stage import load_stage, run_stage_locally
from tests.tasks.turntable import draw_product, write_catalog, write_pool

pytestmark = pytest.mark.long


def product_photo(category, turn, *, size=(60, 36), ground=190.0, light=1.0):
    photo = np.full((120, 120, 3), ground)
    mask = draw_product(photo, category, centre=(60.0, 60.0), size=size, turn=turn)
    return np.clip(photo * light, 0, 255).astype(np.uint8), mask


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
    params = PruneParams(rule=rule, working_size=160, rotations=6, least_views=2)
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


def test_prune__rows_say_what_was_near(stages):
    store, made = stages
    inputs = {name: made[name] for name in ("catalog", "masks", "pool", "network")}
    poses = run_stage_locally(load_stage("prune"), PruneParams(working_size=160, rotations=6), store=store, **inputs)
    for row in poses.rows:
        assert {"rule", "score", "weight", "nearest", "mask"} <= set(row.attributes)
        for near in row.attributes["nearest"]:
            x0, y0, x1, y1 = near["box"]
            assert 0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 200
            assert near["photo"].startswith("pool/") and near["distance"] >= 0
        found = [near["distance"] for near in row.attributes["nearest"]]
        assert found == sorted(found)


def pseudo_labels(store, pool, *, category, sku, box, status="ok"):
    """A result as `select` publishes it: every pool photo shows one product."""
    publication = store.begin("select", key=f"{sku}-{status}")
    for row in pool.ok:
        publication.add(
            ManifestRow(
                item_id=f"pseudo/{row.item_id}",
                parents=(row.item_id,),
                status="ok" if status == "ok" else "rejected",
                reason="made",
                objects=(ManifestObject(category=category, sku=sku, box=box, score=0.9),),
            )
        )
    return publication.commit(metadata={}, content={})


def test_accepted_labels__taken_photos_and_trusted_items_only(stages):
    store, made = stages
    taken = pseudo_labels(store, made["pool"], category=1, sku="red_box", box=(30, 30, 90, 90))
    refused = pseudo_labels(store, made["pool"], category=1, sku="red_box", box=(30, 30, 90, 90), status="rejected")
    assert set(accepted_labels(taken)) == {row.item_id for row in made["pool"].ok}
    assert accepted_labels(refused) == {}


def test_pool_crops__pseudo_labels_name_them():
    photo, mask = product_photo(1, 30)
    label = ManifestObject(category=1, sku="red_box", box=(20.0, 20.0, 100.0, 100.0), score=0.9)
    made = pool_crops(
        photo,
        probability_HW=mask.astype(np.float32),
        embedding=CutoutEmbedding(backbone="efficientnet_lite0"),
        photo="pool/1",
        rotations=4,
        labels=[label],
    )
    assert [(crop.sku, crop.maps_RCGG.shape) for crop in made] == [("red_box", (4, 112, 6, 6))]
    assert made[0].box == cv2.boundingRect(mask.astype(np.uint8))[:2] + (
        int(np.nonzero(mask.any(axis=0))[0].max()) + 1,
        int(np.nonzero(mask.any(axis=1))[0].max()) + 1,
    )


def mask_row(stem, *, sku, digest):
    return ManifestRow(item_id=f"mask/{stem}", sku=sku, digest=digest)


def pose_row(stem, *, sku, mask):
    return ManifestRow(
        item_id=f"pose/{stem}", sku=sku, status="dropped", reason="made", attributes={"mask": mask},
        parents=(f"catalog/{stem}", f"mask/{stem}"),
    )  # fmt: skip


def test_unchanged_products__by_their_masks(stages):
    publication = stages[0].begin("prune", key="earlier")
    for stem, sku in (("a", "tea"), ("b", "tea"), ("c", "oats"), ("d", "soup")):
        publication.add(pose_row(stem, sku=sku, mask=f"mask of {stem}"))
    previous = publication.commit(metadata={}, content={})
    masks = [
        mask_row("a", sku="tea", digest="mask of a"),
        mask_row("b", sku="tea", digest="mask of b"),
        mask_row("c", sku="oats", digest="another mask of c"),
        mask_row("d", sku="soup", digest="mask of d"),
        mask_row("e", sku="soup", digest="one view more"),
    ]
    assert unchanged_products(masks, previous) == {"tea"}


def test_prune__a_new_product_changes_no_other(stages):
    store, made = stages
    shorter = store.begin("segment", key="one-product")
    for row in made["masks"].ok:
        if row.sku == "red_box":
            shorter.put(store.read(row), path=row.path, row=row)
    params = PruneParams(working_size=160, rotations=6)
    inputs = {name: made[name] for name in ("catalog", "pool", "network")}
    before = run_stage_locally(
        load_stage("prune"), params, store=store, masks=shorter.commit(metadata={}, content={}), **inputs
    )
    after = run_stage_locally(load_stage("prune"), params, store=store, masks=made["masks"], previous=before, **inputs)
    told = [(row.item_id, row.digest, row.status, row.reason, row.attributes) for row in before.rows]
    assert told == [
        (row.item_id, row.digest, row.status, row.reason, row.attributes) for row in after.rows if row.sku == "red_box"
    ]
    assert {row.sku for row in after.rows} == {"red_box", "blue_box"}
    sprites = {row.item_id: row.url for row in before.rows if row.url}
    assert sprites and sprites.items() <= {row.item_id: row.url for row in after.rows}.items()
