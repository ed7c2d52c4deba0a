import io

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.manifest import ManifestRow
from storage.store import Store
from tasks.choose import choose, compared
from tasks.params import ChooseParams
from tasks.stage import run_stage_locally

NAMES = ("none", "colour", "fastcut")


def manifests(store, wrong_RN):
    """What each of several renderers made, and the evaluation of a detector with so many wrong items in each photo."""
    rendered, reports = [], []
    for index, wrong_N in enumerate(wrong_RN):
        photos = store.begin("render", key=f"r{index}")
        photos.put(b"photo %d" % index, path="a.jpg", row=ManifestRow(item_id="rendered/a", media_type="image/jpeg"))
        photos.add(ManifestRow(item_id="rendered/b", status="rejected", reason="1 of 2 items drifted"))
        rendered.append(photos.commit(metadata={}))
        evaluation = store.begin("evaluate", key=f"e{index}")
        table = io.BytesIO()
        pq.write_table(pa.table({"wrong": pa.array(wrong_N, pa.int64())}), table)
        evaluation.put(table.getvalue(), path="photos.parquet", row=ManifestRow(item_id="table/photos"))
        report = {"val": {"averaged": {"mAP50": 0.5}}}
        evaluation.put(orjson.dumps(report), path="report.json", row=ManifestRow(item_id="report"))
        reports.append(evaluation.commit(metadata={}))
    return rendered, reports


def test_choose__takes_the_photos_of_the_best_on_val_and_keeps_the_table(tmp_path):
    store = Store.open(str(tmp_path))
    rendered, reports = manifests(store, [[1, 1, 1, 3], [0, 0, 1, 2], [0, 1, 2, 2]])
    made = run_stage_locally(choose, ChooseParams(renderers=NAMES), store=store, rendered=rendered, reports=reports)
    assert [row.item_id for row in made.ok] == ["rendered/a"] and store.read(made.row("rendered/a")) == b"photo 1"
    assert made.row("rendered/b").reason == "1 of 2 items drifted"
    said = made.row("renderers").attributes
    assert said["chosen"] == "colour"
    assert [(line["renderer"], line["cAcc"], line["ACD"], line["rejected"]) for line in said["table"]] == [
        ("none", 0.0, 1.5, 1),
        ("colour", 0.5, 0.75, 1),
        ("fastcut", 0.25, 1.25, 1),
    ]
    assert [line["chosen"] for line in said["table"]] == [False, True, False]


def test_choose__several_detectors_of_a_renderer_count_together(tmp_path):
    store = Store.open(str(tmp_path))
    # One detector of each: none is better; both: colour is.
    _, reports = manifests(store, [[0, 1], [2, 2], [1, 1], [0, 1]])
    rendered = reports[:2]
    made = run_stage_locally(choose, ChooseParams(renderers=NAMES[:2]), store=store, rendered=rendered, reports=reports)
    said = made.row("renderers").attributes
    assert said["chosen"] == "colour" and [line["ACD"] for line in said["table"]] == [1.25, 0.75]


@pytest.mark.parametrize(
    ("wrong_RN", "chosen"),
    [
        ([[0, 2, 2], [0, 1, 1]], "colour"),  # of equal cAcc fewer wrong items
        ([[0, 1, 1], [0, 1, 1]], "none"),  # of equals the first
        ([[0, 0, 9], [0, 1, 1]], "colour"),  # one photo more is chance
        ([[0] * 9 + [9], [1] * 9 + [0]], "none"),  # eight of ten are not, whatever is wrong in the others
    ],
)
def test_compared__the_fewest_wrong_items_unless_clearly_fewer_lists_are_right(tmp_path, wrong_RN, chosen):
    rendered, _ = manifests(Store.open(str(tmp_path)), wrong_RN)
    table = compared(("none", "colour"), rendered=rendered, wrong_RN=[*map(np.asarray, wrong_RN)], maps_R=[0.5, 0.5])
    assert [line["renderer"] for line in table if line["chosen"]] == [chosen]
