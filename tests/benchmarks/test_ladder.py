"""The ladder's table: what is counted as right, what a share shortens, how seeds are summed up."""

import shutil

import orjson
import pytest
import torch

from benchmarks.ladder import are_right, as_long_as_both, main, minutes_of, shortened, summary
from flows.presets import PRESETS
from storage.manifest import ManifestObject
from tasks.params import RenderParams, TrainParams
from tasks.stage import StageResult

pytestmark = pytest.mark.long


def item(x, sku=1):
    return ManifestObject(category=sku, sku=str(sku), box=(x, 0.0, x + 10.0, 10.0))


@pytest.mark.parametrize(
    ("items", "truth", "expected"),
    [
        ([item(0)], [item(1)], [True]),
        ([item(0)], [item(5)], [False]),
        ([item(0, sku=2)], [item(0)], [False]),
        ([item(0), item(1)], [item(0)], [True, False]),
        ([item(0), item(1)], [item(0), item(2)], [True, True]),
        ([item(0)], [], [False]),
        ([], [item(0)], []),
    ],
)
def test_are_right__each_product_once(items, truth, expected):
    assert are_right(items, truth=truth) == expected


def test_shortened__all_trainings_alike():
    whole = PRESETS["cpu"]()
    made = shortened(whole, share=0.5, seed=7)
    assert {name: params.steps for name, params in made.train.items()} == {
        name: round(params.steps / 2) for name, params in whole.train.items()
    }
    assert {params.seed for params in (*made.train.values(), *made.select.values())} == {7}
    assert made.compose == whole.compose


def test_as_long_as_both__image_level_only():
    whole = PRESETS["cpu"]()
    made = as_long_as_both(whole)
    assert made.train["image_level"].steps == whole.train["image_level"].steps + whole.train["instance_level"].steps
    assert made.train["instance_level"] == whole.train["instance_level"]


def test_summary__mean_and_range_of_what_is_there():
    made = summary([{"source": {"cAcc": 0.25}, "random": {"cAcc": 0.5}}, {"source": {"cAcc": 0.75}}])
    assert made == {"source cAcc": 0.5, "source cAcc, range": "0.250 to 0.750", "random cAcc": 0.5}


def test_minutes_of__trainings_by_rung():
    seconds = {"train.source": 120.0, "train.render": 60.0, "predict.val": 30.0, "predict.test": 90.0}
    shared = {"key": "k", "manifest": "m", "content_digest": "d", "rows": 1, "quarantined": 0, "cached": True}
    results = {name: StageResult(stage=name.split(".")[0], seconds=value, **shared) for name, value in seconds.items()}
    assert minutes_of(results) == {"train.source": 2.0, "train.render": 1.0, "predict": 2.0}


@pytest.fixture
def _trained_here(monkeypatch):
    """A dozen trainings in this process: in one of its own each would import for longer than it learns."""
    threads = torch.get_num_threads()
    for params in (TrainParams, RenderParams):
        monkeypatch.setattr(params, "own_process", False)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_trained_here")
def test_main__every_row_of_a_small_ladder(micro_run, small_dataset, tmp_path, monkeypatch, capsys):
    folder, _ = micro_run
    store = shutil.copytree(folder / "store", tmp_path / "store")
    options = ["--dataset", str(small_dataset), "--preset", "micro", "--store", str(store), "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["ladder", *options, "--json"])
    main()
    made = orjson.loads(capsys.readouterr().out)
    assert {"paper cAcc", "source cAcc", "render cAcc", "image_level cAcc", "instance_level cAcc"} <= made.keys()
    assert {f"{way} of val items" for way in ("whole photos", "votes", "one view")} <= made.keys()
    assert {f"{way} selection taken" for way in ("random", "everything", "paper_rule")} <= made.keys()
    assert {"minutes segment", "minutes train.paper", "minutes train.source", "minutes predict"} <= made.keys()
