import multiprocessing
from pathlib import Path

import pytest

from flows.runner import LocalRunner
from storage.store import Store
from tasks import stage as stage_module
from tests.flows.small_pipeline import COMPUTED, STAGES, climb


def computed(store, *, refresh=(), **options):
    COMPUTED.clear()
    climb(LocalRunner(store=store, refresh=frozenset(refresh)), **options)
    return list(COMPUTED)


def test_local_runner__computes_once(store):
    assert computed(store) == ["word", "upper", "length"]
    assert computed(store) == []


def test_local_runner__a_changed_parameter_runs_its_stage_and_what_follows(store):
    computed(store)
    assert computed(store, exclamations=1) == ["upper", "length"]


def test_local_runner__cuts_off_where_the_output_is_the_same(store):
    computed(store)
    assert computed(store, text="TEA") == ["word", "upper"]
    assert computed(store, refresh=["word"]) == ["word"]


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"TOO"), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("stage", ["word", "upper", "length"])
def test_local_runner__a_damaged_artifact_runs_exactly_its_stage(store, stage, damage):
    runner = LocalRunner(store=store)
    climb(runner)
    damage(Path(runner.results[stage].manifest.removeprefix("file://")).parent / "text.txt")
    assert computed(store) == [stage]


def _run(url):
    stage_module.load_stage = STAGES.__getitem__
    climb(LocalRunner(store=Store.open(url)), text="coffee")
    return list(COMPUTED)


def test_local_runner__two_runs_at_once_compute_each_key_once(store):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.map(_run, [store.url] * 2, chunksize=1)
    assert sorted(name for one in done for name in one) == ["length", "upper", "word"]
