import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from storage.catalog import categories_of
from storage.images import encode_jpeg
from storage.store import Store
from tasks.ingest import dataset_root, files_digest, ingest, target_protocol
from tasks.params import IngestParams
from tasks.stage import key_of, publish, run_stage_locally


def photo(seed):
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def listing(folder, names, *, boxes=None, categories=(1, 2), level=None):
    images = [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names, 1)]
    images = [{**image, "level": level} if level else image for image in images]
    boxes = boxes or [(i, i % 2 + 1, [5, 5, 20, 10]) for i in range(1, len(names) + 1)]
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "bbox": box}
        for n, (image, category, box) in enumerate(boxes, 1)
    ]
    named = [{"id": i, "name": f"{i}_tea", "sku_name": f"tea-{i}", "supercategory": "tea"} for i in categories]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))


@pytest.fixture
def rpc(tmp_path):
    root = tmp_path / "rpc"
    for seed, (folder, names) in enumerate(
        {
            "train2019": ["1_camera0-1.jpg", "2_camera2-14-back.jpg"],
            "val2019": ["a.jpg", "b.jpg"],
            "test2019": ["c.jpg"],
            "pool2019": ["d.jpg", "e.jpg"],
        }.items()
    ):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            (root / folder / name).write_bytes(photo(10 * seed + number))
    listing(root / "instances_train2019.json", ["1_camera0-1.jpg", "2_camera2-14-back.jpg"])
    listing(root / "instances_val2019.json", ["a.jpg", "b.jpg"], level="easy")
    listing(root / "instances_test2019.json", ["c.jpg"], level="hard")
    return root


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def run(root, store, split, **options):
    digest = files_digest(root, split=split, pool_source=options.get("pool_source", "pool"))
    params = IngestParams(dataset=str(root), split=split, files_digest=digest, **options)
    return run_stage_locally(ingest, params, store=store)


def reasons(manifest):
    return {row.item_id: row.reason for row in manifest.rows if row.status == "quarantined"}


def test_ingest__reads_exemplars_with_camera_view_and_box(rpc, store):
    catalog = run(rpc, store, "catalog")
    row = catalog.row("catalog/2_camera2-14-back")
    assert (row.sku, row.width, row.height) == ("tea-1", 60, 40)
    assert row.attributes == {"camera": 2, "view": 14, "placement": "back"}
    assert row.objects[0].box == (5, 5, 25, 15)
    assert [category.sku for category in categories_of(catalog)] == ["tea-1", "tea-2"]
    assert store.read(row) == (rpc / "train2019/2_camera2-14-back.jpg").read_bytes()


def test_ingest__reads_levels_and_labels(rpc, store):
    val = run(rpc, store, "val")
    assert [(row.level, len(row.objects)) for row in val.rows] == [("easy", 1), ("easy", 1)]


def test_ingest__of_the_pool_has_no_labels_whatever_the_files_say(rpc, store):
    before = run(rpc, store, "pool")
    listing(rpc / "images_pool2019.json", ["d.jpg", "e.jpg"])
    listing(rpc / "instances_pool2019.json", ["d.jpg", "e.jpg"])
    after = run(rpc, store, "pool")
    assert after.content_digest == before.content_digest
    assert all(row.objects == () and row.sku is None for row in after.rows)
    assert after.content["target_protocol"] == "unlabelled-target"


def test_ingest__takes_test_photos_as_pool_only_when_asked(rpc, store):
    pool = run(rpc, store, "pool", pool_source="test")
    assert [row.item_id for row in pool.rows] == ["pool/c"]
    assert pool.rows[0].objects == () and pool.rows[0].level is None
    assert pool.content["target_protocol"] == "transductive"


def test_ingest__without_a_pool_is_exemplars_only(rpc, store):
    shutil.rmtree(rpc / "pool2019")
    pool = run(rpc, store, "pool")
    assert (pool.rows, pool.content["target_protocol"]) == ((), "exemplars-only")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "truncated"),
        (lambda path: path.write_bytes(b"not a picture"), "expected a JPEG or PNG"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(photo(0)), ""),
        (lambda path: path.write_bytes(encode_jpeg(np.zeros((8, 8, 3), np.uint8))), "expected 60 x 40 as listed"),
    ],
)
def test_ingest__quarantines_a_bad_file_and_goes_on(rpc, store, damage, reason):
    damage(rpc / "val2019/a.jpg")
    val = run(rpc, store, "val")
    assert reasons(val).get("val/a", "") == reason or reason in reasons(val)["val/a"]
    assert val.row("val/b").status == "ok"
    assert len(val.rows) == 2


@pytest.mark.parametrize(
    ("category", "box", "reason"),
    [
        (9, [5, 5, 20, 10], "category_id: expected one of 2 known categories, got 9"),
        (1, [50, 5, 20, 10], "inside the photo"),
        (1, [5, 5, -3, 10], "positive width"),
        (1, [5, 5, 10], "four numbers"),
        (1, [5, 5, "x", 10], "four numbers"),
        (1, [5, 5, 1e999, 10], "finite"),
    ],
)
def test_ingest__quarantines_a_photo_with_a_wrong_annotation(rpc, store, category, box, reason):
    listing(rpc / "instances_val2019.json", ["a.jpg", "b.jpg"], boxes=[(1, category, box), (2, 1, [0, 0, 60, 40])])
    text = (rpc / "instances_val2019.json").read_text().replace("Infinity", "1e999")
    (rpc / "instances_val2019.json").write_text(text)
    val = run(rpc, store, "val")
    assert reason in reasons(val)["val/a"]
    assert val.row("val/a").objects == ()
    assert val.row("val/b").objects[0].box == (0, 0, 60, 40)


def test_ingest__quarantines_unlisted_orphaned_and_doubled_photos(rpc, store):
    (rpc / "val2019/extra.jpg").write_bytes(photo(77))
    (rpc / "val2019/b.jpg").write_bytes((rpc / "val2019/a.jpg").read_bytes())
    boxes = [(1, 1, [5, 5, 20, 10]), (2, 1, [5, 5, 20, 10]), (55, 1, [5, 5, 20, 10])]
    listing(rpc / "instances_val2019.json", ["a.jpg", "b.jpg"], boxes=boxes)
    found = reasons(run(rpc, store, "val"))
    assert found == {
        "val/extra": "listing: no entry in the annotations",
        "val/annotation-of-55": "annotation: expected the id of a listed image, got image_id 55",
        "val/b": "content: the same bytes as val/a",
    }


def test_ingest__never_leaves_the_folder(rpc, store):
    listing(rpc / "instances_val2019.json", ["../test2019/c.jpg", "b.jpg"])
    assert "inside val2019/" in reasons(run(rpc, store, "val"))["val/c"]


def test_ingest__of_moved_data_gives_the_same_content(rpc, store, tmp_path):
    before = run(rpc, store, "val")
    moved = Path(shutil.copytree(rpc, tmp_path / "moved"))
    after = run(moved, store, "val")
    assert (after.content_digest, after.key == before.key) == (before.content_digest, False)


def test_ingest__reads_folders_of_photos(tmp_path, store):
    root = tmp_path / "shop"
    for number, name in enumerate(["catalog/tea/1.jpg", "catalog/milk/1.jpg", "pool/x.jpg", "val/y.jpg"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(photo(number))
    (root / "catalog/products.json").write_text(json.dumps({"tea": {"supercategory": "drinks", "price": 2.5}}))
    listing(root / "val/labels.json", ["y.jpg"], boxes=[(1, 2, [5, 5, 20, 10])], level="easy")
    catalog = run(root, store, "catalog")
    assert {row.sku for row in catalog.ok} == {"tea", "milk"}
    tea = categories_of(catalog)[1]
    assert (tea.id, tea.sku, tea.supercategory, tea.metadata) == (2, "tea", "drinks", {"price": 2.5})
    assert run(root, store, "val").rows[0].objects[0].sku == "tea"
    assert len(run(root, store, "pool").ok) == 1


@pytest.fixture
def shop(tmp_path):
    """A shop's folders with one photo each."""
    root = tmp_path / "shop"
    for number, name in enumerate(["catalog/tea/1.jpg", "pool/x.jpg", "val/y.jpg"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(photo(number))
    return root


def test_ingest__tells_of_photos_in_other_formats(shop, store):
    """As phones write them; where a JPEG was made of one beside it, that is the one that counts."""
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    (shop / "catalog/tea/1.HEIC").write_bytes(heic)
    (shop / "catalog/milk").mkdir()
    (shop / "catalog/milk/2.heic").write_bytes(heic)
    (shop / "catalog/milk/notes.txt").write_text("no picture")
    told = []
    params = IngestParams(dataset=str(shop), split="catalog", files_digest=files_digest(shop, split="catalog"))
    made = publish(params, key=key_of(params, inputs={}), inputs={}, store=store, workers=1, events=told.append)
    assert [row.item_id for row in made.ok] == ["catalog/tea_1"]
    found = reasons(made)
    assert set(found) == {"catalog/milk_2", "catalog/tea_1#2"}
    assert found["catalog/milk_2"].startswith("file: picture: expected a JPEG or PNG, got a file that starts with")
    assert any("no usable photo of milk" in str(event.get("message")) for event in told)


def test_ingest__tells_of_photos_without_labels(shop, store):
    assert reasons(run(shop, store, "val")) == {
        "val/y": "listing: expected labels.json (COCO) beside the photos, got none"
    }


@pytest.mark.parametrize("price", ["2,49", -1, True])
def test_ingest__refuses_a_price_that_is_none(shop, store, price):
    (shop / "catalog/products.json").write_text(json.dumps({"tea": {"price": price}}))
    with pytest.raises(ValueError, match="^price of tea: expected a number that is not negative, got"):
        run(shop, store, "catalog")


def test_files_digest__changes_with_a_file(rpc):
    before = files_digest(rpc, split="val")
    (rpc / "val2019/a.jpg").write_bytes(b"other")
    assert files_digest(rpc, split="val") != before


def test_dataset_root__says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        dataset_root(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"got the file .*file'; name the folder"):
        dataset_root(str(tmp_path / "file"))
    with pytest.raises(ValueError, match="got neither"):
        dataset_root(str(tmp_path))


def test_target_protocol__names_what_was_seen():
    assert target_protocol(pool_photos=3, pool_source="pool") == "unlabelled-target"
    assert target_protocol(pool_photos=3, pool_source="test") == "transductive"
    assert target_protocol(pool_photos=0, pool_source="pool") == "exemplars-only"


def test_ingest__of_the_users_boards(rpc, store):
    (rpc / "boards").mkdir()
    for seed, name in enumerate(("empty.jpg", "night.jpg")):
        (rpc / "boards" / name).write_bytes(photo(100 + seed))
    before = files_digest(rpc, split="boards")
    made = run(rpc, store, "boards")
    assert [row.item_id for row in made.ok] == ["boards/empty", "boards/night"]
    assert not any(row.objects for row in made.rows)
    (rpc / "boards" / "night.jpg").unlink()
    assert files_digest(rpc, split="boards") != before
