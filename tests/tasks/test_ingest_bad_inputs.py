"""Whatever lies in a data set: no crash, every reject with its reason, the rest goes on."""

import json
import random
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.faults_inputs import OK, coco, dataset, encoded, hidden_huge_jpeg, many_scans, picture, write_pictures
from storage.images import decode_rgb, picture_size
from storage.store import Store
from tasks.ingest import files_digest, ingest
from tasks.params import IngestParams
from tasks.stage import run_stage_locally


def ingested(root, tmp_path, *, split):
    params = IngestParams(dataset=str(root), split=split, files_digest=files_digest(root, split=split))
    return run_stage_locally(ingest, params, store=Store.open(str(tmp_path / "store")))


def test_ingest__of_every_odd_picture(tmp_path):
    root = dataset(tmp_path / "data set, 100 %")
    expected = write_pictures(root / "pool2019")
    made = ingested(root, tmp_path, split="pool")
    rows = {Path(row.url).name if row.url else "": row for row in made.rows}
    assert len(made.rows) == len(expected) + 1
    for name, outcome in expected.items():
        row = rows.get(name)
        if outcome == OK:
            assert row is not None and row.status == OK, name
            with Image.open(root / "pool2019" / name) as read:
                assert {row.width, row.height} == set(read.size), name
                assert row.media_type == f"image/{read.format.lower()}", name
        else:
            reasons = [one.reason for one in made.rows if one.status == "quarantined"]
            assert row is None and any(outcome in reason for reason in reasons), name
    assert sum(row.status == OK for row in made.rows) == sum(one == OK for one in expected.values()) + 1
    for row in made.ok:
        Store.open(str(tmp_path / "store")).read(row)


@pytest.mark.parametrize("make", [hidden_huge_jpeg, many_scans])
def test_decode_rgb__refuses_what_would_cost_too_much_before_anything_is_allocated(make):
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="at most"):
        decode_rgb(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@given(
    seed=st.integers(0, 10),
    places=st.lists(st.integers(0, 10**6), max_size=8),
    cut=st.floats(0.05, 1.0),
    png=st.booleans(),
)
@settings(max_examples=60)
def test_picture_size__is_what_is_decoded_of_damaged_pictures_too(seed, places, cut, png):
    data = bytearray(encoded(picture(seed, size=(40, 24)), "PNG" if png else "JPEG"))
    for place in places:
        data[place % len(data)] ^= 1 << place % 8
    data = bytes(data[: int(len(data) * cut)])
    try:
        decoded = decode_rgb(data)
    except ValueError as error:
        assert "picture:" in str(error)
    else:
        assert sorted(decoded.shape[:2]) == sorted(picture_size(data)) and decoded.dtype == np.uint8


@given(seed=st.integers(0, 10**6), odd=st.floats(0.02, 0.5))
@settings(max_examples=25)
def test_ingest__of_any_coco_json(seed, odd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    root = dataset(folder / "data")
    listing = coco(images=4, draw=random.Random(seed), odd=odd)
    (root / "instances_val2019.json").write_text(json.dumps(listing))
    made = ingested(root, folder, split="val")
    assert all(row.reason for row in made.rows if row.status != OK)
    for row in made.ok:
        for item in row.objects:
            x0, y0, x1, y1 = item.box
            assert -0.5 <= x0 < x1 <= row.width + 0.5 and -0.5 <= y0 < y1 <= row.height + 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one["images"][1].update(id=0), "id: expected each image id once, got 0 2 times"),
        (lambda one: one["images"][1].pop("id"), "id: expected a number or a text for each image"),
        (lambda one: one["annotations"][1].update(id=0), "annotation: expected each id once, got 0 again"),
        (lambda one: one["annotations"][0].update(bbox=[float("nan"), 1, 2, 3]), "finite numbers"),
        (lambda one: one["annotations"][0].update(bbox=[1, 1, -2, 3]), "positive width and height"),
        (lambda one: one["annotations"][0].update(bbox=[10**400, 1, 2, 3]), "finite numbers"),
        (lambda one: one["annotations"][0].update(image_id=[1]), "got image_id '[1]'"),
        (lambda one: one["annotations"][0].update(category_id=True), "known categories, got True"),
        (lambda one: one["annotations"].append(7), "got image_id 'None'"),
        (lambda one: one["images"].append("x"), "id: expected a number or a text for each image, got 'x'"),
        (lambda one: one["images"][0].update(file_name="../0.jpg"), "expected a name inside val2019/"),
        (lambda one: one["images"][0].update(file_name="a\ud800.jpg"), "got no such file"),
        (lambda one: one["images"][0].update(level=3), "level: expected text, got 3"),
    ],
)
def test_ingest__tells_what_is_wrong_with_a_listing(change, reason, tmp_path):
    root = dataset(tmp_path / "data")
    listing = json.loads((root / "instances_val2019.json").read_text())
    change(listing)
    (root / "instances_val2019.json").write_text(json.dumps(listing))
    made = ingested(root, tmp_path, split="val")
    assert [one for one in made.rows if reason in one.reason], [one.reason for one in made.rows]
    assert made.ok


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "broken text"),
        ('{"images": [], "annotations": [], "categories": [7]}', "expected an id from 0"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", "x": 1%s}]}' % ("0" * 30),
            "plain values",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1%s, "name": "a"}]}' % ("0" * 5000), "broken text"),
        ("\xff", "broken text"),
    ],
)
def test_ingest__refuses_a_listing_that_is_none(text, problem, tmp_path):
    root = dataset(tmp_path / "data")
    (root / "instances_val2019.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=problem):
        ingested(root, tmp_path, split="val")
