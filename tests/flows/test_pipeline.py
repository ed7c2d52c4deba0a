import contextlib
import csv
import json
import sqlite3

import numpy as np
import pytest
from safetensors.numpy import load_file

from flows.pipeline import DatasetChoice, image_rounds, ingest_splits
from flows.presets import PRESETS
from flows.runner import LocalRunner, LookUpRunner, NotCachedError
from storage.store import USED_NAME, Store
from tasks.params import CoarseParams
from tests.commands import tally
from tests.flows.small_shop import shop

LEVELS = {"easy", "medium", "hard", "averaged"}
METRICS = {"cAcc", "ACD", "mCCD", "mCIoU", "mAP50", "mmAP"}


def load(folder, name):
    return json.loads((folder / "runs/micro" / name).read_text())


def test_pipeline__climbs_the_whole_ladder(micro_run):
    folder, _ = micro_run
    metrics = load(folder, "metrics.json")
    for rung in ("source", "render", "image_level", "instance_level"):
        assert LEVELS >= set(metrics[rung]) >= {"averaged"}
        assert set(metrics[rung]["averaged"]) == METRICS
    assert metrics["target_protocol"] == "unlabelled-target"


def test_pipeline__records_every_stage_with_key_and_manifest(micro_run):
    folder, _ = micro_run
    record = load(folder, "run.json")
    assert record["state"] == "completed"
    names = [stage["name"] for stage in record["stages"]]
    assert names[:4] == ["ingest.catalog", "ingest.pool", "ingest.val", "ingest.test"]
    assert {"coarse", "saliency", "segment", "prune", "board", "compose", "render"} <= set(names)
    store = Store.open(str(folder / "store"))
    for stage in record["stages"]:
        manifest = store.load(stage["manifest"])
        assert (manifest.stage, manifest.key) == (stage["stage"], stage["key"])
        assert store.verify(manifest) == []


def test_pipeline__composes_some_photos_of_the_first_training_on_the_fly(micro_run):
    folder, _ = micro_run
    store = Store.open(str(folder / "store"))
    stages = {stage["name"]: stage for stage in load(folder, "run.json")["stages"]}
    source = store.load(stages["train.source"]["manifest"]).metadata
    assert source["parameters"]["stream"] > 0
    made = [stages[name]["manifest"] for name in ("ingest.catalog", "prune", "board", "ingest.pool")]
    assert [one["manifest"] for one in source["inputs"]["synthesis"]] == made
    assert store.load(stages["train.render"]["manifest"]).metadata["inputs"]["synthesis"] is None


def test_pipeline__artifacts_in_prefect_lead_to_the_inspector(micro_run):
    folder, _ = micro_run
    with contextlib.closing(sqlite3.connect(folder / "prefect/prefect.db")) as database:
        artifacts = dict(database.execute("select key, data from artifact"))
    assert "(http://127.0.0.1:8420/runs/micro)" in artifacts["inspector"]
    assert "(http://127.0.0.1:8420/runs/micro/stages/evaluate.source)" in artifacts["evaluate-source"]


def test_pipeline__quarantines_a_broken_photo_and_goes_on(micro_run):
    folder, printed = micro_run
    val = Store.open(str(folder / "store")).load(load(folder, "run.json")["stages"][2]["manifest"])
    assert [row.status for row in val.rows].count("quarantined") == 1
    assert "1 inputs quarantined" in printed


def test_pipeline__leaves_a_champion_lists_and_a_report(micro_run):
    folder, _ = micro_run
    run = folder / "runs/micro"
    weights = load_file(run / "champion/model.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    lists = json.loads((run / "shopping_lists.json").read_text())
    assert len(lists) == 5
    with (run / "shopping_lists.csv").open() as file:
        assert {row["photo"] for row in csv.DictReader(file)} == {one["photo"] for one in lists}
    assert len(list((run / "photos").iterdir())) == 5
    page = (run / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "unlabelled-target" in page


def changed_at(folder):
    """When each artifact of the store and each output of the run was written."""
    outputs = [path for path in (folder / "runs/micro").rglob("*") if path.suffix in (".html", ".jpg", ".csv")]
    # Files, without the mark that says when a result was last used.
    artifacts = [path for path in (folder / "store/artifacts").rglob("*") if path.is_file() and path.name != USED_NAME]
    return {path: path.stat().st_mtime_ns for path in (*artifacts, *outputs)}


def test_pipeline__again_computes_nothing_and_starts_no_prefect(micro_run, small_dataset):
    folder, _ = micro_run
    before = changed_at(folder)
    done = tally("run", "--dataset", small_dataset, "--preset", "micro", folder=folder)
    assert done.returncode == 0
    assert "0 stages computed" in done.stdout
    assert changed_at(folder) == before
    [earlier, *_] = sorted((folder / "runs/micro/history").iterdir())
    kept = json.loads(earlier.read_text())
    assert kept["flow_run"] and not all(stage["cached"] for stage in kept["stages"])
    assert load(folder, "run.json")["flow_run"] is None and not (folder / "runs/micro/progress.json").exists()


def test_status__prints_the_last_run_as_json(micro_run):
    folder, _ = micro_run
    done = tally("status", "--json", folder=folder)
    record = json.loads(done.stdout)
    assert record["name"] == "micro"
    assert all(set(stage) >= {"name", "key", "manifest"} for stage in record["stages"])


def test_predict__writes_lists_and_skips_what_is_no_photo(micro_run, small_dataset):
    folder, _ = micro_run
    done = tally(
        "predict", small_dataset / "val2019", "--model", "runs/micro/champion", "--out", "lists", folder=folder
    )
    assert done.returncode == 0, done.stderr
    assert "skipped broken.jpg" in done.stdout
    assert len(json.loads((folder / "lists/shopping_lists.json").read_text())) == 4
    assert len(list((folder / "lists/photos").iterdir())) == 4


def test_look_up_runner__refuses_to_compute(tmp_path):
    with pytest.raises(NotCachedError, match="coarse"):
        LookUpRunner(store=Store.open(str(tmp_path))).stage("coarse", CoarseParams())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets__are_complete_and_take_the_seed(name):
    preset = PRESETS[name]().seeded(7)
    assert preset.name == name
    assert set(preset.train) == {"source", "render", "image_level", "instance_level"}
    assert {params.seed for params in preset.train.values()} == {7}
    assert preset.compose.seed == preset.evaluate.seed == 7
    assert [len(params.mix) for params in preset.train.values()] == [1, 2, 3, 3]


def test_image_rounds__begin_with_the_ladders_rung():
    preset = PRESETS["micro"]().model_copy(update={"image_rounds": 3})
    assert image_rounds(preset) == ["image_level", "image_level_2", "image_level_3"]
    assert len(image_rounds(PRESETS["paper"]())) == 14


@pytest.mark.parametrize("split", ["val", "pool"])
def test_ingest_splits__test_has_no_photo_that_was_seen_before(tmp_path, split):
    root, run = shop(tmp_path / "shop"), LocalRunner(store=Store.open(str(tmp_path / "store")))
    assert ingest_splits(run, choice=DatasetChoice(dataset=str(root))).test.usable
    copy = root / split / ("a.jpg" if split == "val" else "again.jpg")
    copy.write_bytes((root / "test/a.jpg").read_bytes())
    expected = (
        f"test: expected photos that {split} doesn't have, got 1 that are in both, first {split}/{copy.stem} as test/a;"
    )
    with pytest.raises(ValueError, match=expected):
        ingest_splits(run, choice=DatasetChoice(dataset=str(root)))


def test_ingest_splits__the_pool_may_be_test_where_that_is_asked_for(tmp_path):
    root, run = shop(tmp_path / "shop"), LocalRunner(store=Store.open(str(tmp_path / "store")))
    splits = ingest_splits(run, choice=DatasetChoice(dataset=str(root), pool_source="test"))
    assert splits.target_protocol == "transductive"
    assert {row.digest for row in splits.test.ok} <= {row.digest for row in splits.pool.ok}
