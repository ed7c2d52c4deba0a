"""`tally run --only select --checkpoint NAME`: which checkpoint a name means, and what is computed with it."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from flows.checkpoints import named_checkpoint, require_same_products
from flows.execution import execute_run, explain_run
from flows.options import RunOptions
from flows.runs import RUN_FILE, write_json
from storage.catalog import Category, category_records
from storage.manifest import ManifestRow
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def trained(store, key):
    return store.begin("train", key=key).commit(metadata={}, content={"key": key})


def note(runs, name, *, trained=(), champion=None, checkpoints=None, file=RUN_FILE):
    """A record of a run that trained these rungs: pairs of a rung and a key."""
    stages = [{"name": f"train.{rung}", "stage": "train", "key": key} for rung, key in trained]
    record = {"stages": stages, "champion": champion, "checkpoints": checkpoints or {}}
    write_json(runs / name / file, record)


def meant(name, *, runs, store):
    return named_checkpoint(name, runs=runs, own="mine", store=store).content["key"]


def test_named_checkpoint__a_rung_a_run_or_both(store, tmp_path):
    for key in ("a", "b", "c", "d"):
        trained(store, key)
    note(tmp_path, "mine", trained=[("source", "a"), ("render", "b")])
    note(tmp_path, "other", trained=[("source", "c"), ("render", "d")], champion="source")
    names = ("render", "other", "other/render", "mine/source")
    assert [meant(name, runs=tmp_path, store=store) for name in names] == ["b", "c", "d", "a"]


def test_named_checkpoint__a_challenger_is_no_rung_but_a_checkpoint(store, tmp_path):
    trained(store, "e")
    ended = {"challenger": {"stage": "train", "key": "e", "content_digest": ""}}
    note(tmp_path, "retrain", champion="challenger", checkpoints=ended)
    assert meant("retrain", runs=tmp_path, store=store) == "e"


def test_named_checkpoint__earlier_runs_of_the_name_count_the_latest_first(store, tmp_path):
    for key in ("a", "b", "c"):
        trained(store, key)
    note(tmp_path, "mine", trained=[])
    note(tmp_path, "mine", trained=[("source", "a"), ("render", "b")], file="history/20260101T000000Z.json")
    note(tmp_path, "mine", trained=[("source", "c")], file="history/20260102T000000Z.json")
    assert [meant(name, runs=tmp_path, store=store) for name in ("source", "mine/render")] == ["c", "b"]


def refused(name, *, runs, store):
    with pytest.raises(ValueError, match="^checkpoint: expected") as error:
        meant(name, runs=runs, store=store)
    return str(error.value)


def test_named_checkpoint__says_what_there_is(store, tmp_path):
    assert "there is none), got 'render'" in refused("render", runs=tmp_path, store=store)
    note(tmp_path, "mine", trained=[("source", "a")])
    note(tmp_path, "bare")
    assert "run mine (source)" in refused("nowhere", runs=tmp_path, store=store)
    assert "(bare, mine), got 'nowhere/source'" in refused("nowhere/source", runs=tmp_path, store=store)
    assert "run mine (source), got 'mine/render'" in refused("mine/render", runs=tmp_path, store=store)
    assert "bare has none" in refused("bare", runs=tmp_path, store=store)
    assert "mine/source in file://" in refused("source", runs=tmp_path, store=store)


def products_of(*skus):
    return category_records([Category(id=number, sku=sku) for number, sku in enumerate(skus, start=1)])


def test_require_same_products__names_what_differs(store):
    publication = store.begin("train", key="0")
    publication.put(
        json.dumps({"categories": products_of("oats", "tea")}).encode(), path="c", row=ManifestRow(item_id="config")
    )
    checkpoint = publication.commit(metadata={}, content={})
    require_same_products(
        checkpoint, val=SimpleNamespace(content={"categories": products_of("oats", "tea")}), store=store
    )
    with pytest.raises(ValueError, match="same 2 products, got one of 2 .cocoa, tea"):
        val = SimpleNamespace(content={"categories": products_of("oats", "cocoa")})
        require_same_products(checkpoint, val=val, store=store)


@pytest.mark.parametrize(
    "changes", [{}, {"only": "train"}, {"only": "select.render"}, {"only": "", "to_stage": "select"}]
)
def test_run_options__a_checkpoint_selects_and_does_nothing_else(changes):
    with pytest.raises(ValueError, match="checkpoint: expected --only select or one place of it"):
        RunOptions(dataset="d", preset="micro", checkpoint="render", **changes)


def test_part__is_what_selects():
    options = RunOptions(dataset="d", preset="micro", checkpoint="render", only="select.image_level")
    assert options.part().computed == {
        *("predict.image_level.teacher.val", "predict.image_level.pool", "predict.image_level.pool.turned2"),
        *("predict.image_level.val.turned2", "select.image_level"),
    }
    both = RunOptions(dataset="d", preset="micro", checkpoint="render", only="select")
    assert both.part().last == "select.instance_level" and "select.image_level" in both.part().computed


@pytest.fixture
def selecting(micro_run, small_dataset, tmp_path):
    """Options of runs that select with a checkpoint of the micro run, in a copy of its folders."""
    folder, _ = micro_run
    shutil.copytree(folder / "store", tmp_path / "store", copy_function=os.link)
    (tmp_path / "runs/micro").mkdir(parents=True)
    shutil.copy(folder / "runs/micro/run.json", tmp_path / "runs/micro/run.json")
    places = {"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")}

    def options(**changes):
        return RunOptions(dataset=str(small_dataset), preset="micro", engine="local", name="look", **places, **changes)

    return options


def stages_of(record):
    return {name: result.to_json() for name, result in record.results.items()}


def test_execute_run__another_rungs_checkpoint_selects_and_every_row_says_why(selecting):
    options = selecting(only="select.image_level", checkpoint="micro/source")
    record = execute_run(options)
    assert record.state == "completed to select.image_level"
    made, store = stages_of(record), Store.open(options.store)
    assert not [name for name in made if name.startswith("train")]
    select = store.load(made["select.image_level"]["manifest"])
    teacher = store.load(made["predict.image_level.pool"]["manifest"]).metadata["inputs"]["checkpoint"]
    former = json.loads((options.folder.parent / "micro/run.json").read_text())["checkpoints"]
    assert teacher["content_digest"] == former["source"]["content_digest"]
    rows = [row for row in select.rows if row.item_id.startswith("pseudo/")]
    assert len(rows) == 8 and all(row.reason for row in rows)


def test_execute_run__a_rounds_own_teacher_selects_what_it_did(selecting):
    record = execute_run(selecting(only="select.image_level", checkpoint="micro/render"))
    assert all(one["cached"] for one in stages_of(record).values())


def test_explain_run__tells_what_a_checkpoint_would_need(selecting):
    verdicts = {one.name: one.verdict for one in explain_run(selecting(only="select", checkpoint="micro/source"))}
    assert verdicts["board"] == "hit" and verdicts["predict.image_level.pool"] == "miss"


def test_execute_run__a_wrong_name_leaves_the_run_as_it_was(selecting):
    options = selecting(only="select", checkpoint="nowhere")
    with pytest.raises(ValueError, match="a run under .*micro.*got 'nowhere'"):
        execute_run(options)
    assert not options.folder.exists()
