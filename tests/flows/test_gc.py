import shutil
from pathlib import Path

import pytest

from flows.gc import collect
from flows.options import GcOptions
from flows.runner import LocalRunner
from flows.runs import RunRecord
from flows.time_limit import TimeLimitError
from tests.flows.small_pipeline import climb


def test_collect__tells_first_and_removes_when_told(store, tmp_path):
    options = {"store": store.url, "runs": str(tmp_path / "runs"), "older_than": 0.0}
    for name, text in (("a", "tea"), ("b", "coffee")):
        runner = LocalRunner(store=store)
        climb(runner, text=text)
        record = RunRecord(
            name=name, dataset="/d", preset="micro", store=store.url, parameters={}, results=runner.results
        )
        record.state = "completed"
        record.write(tmp_path / "runs" / name)
    assert collect(GcOptions(**options)).summary(deleted=False).startswith("no garbage in file://")
    shutil.rmtree(tmp_path / "runs/b")
    found = collect(GcOptions(**options))
    assert sorted(one.stage for one in found.garbage) == ["length", "upper", "word"]
    assert found.summary(deleted=False) == f"3 folders, {found.bytes / 1e6:.1f} MB can go; --delete removes them"
    files = {path for path in Path(store.url.removeprefix("file://"), "artifacts").rglob("*") if path.is_file()}
    assert len(files) == 12
    assert collect(GcOptions(**options, delete=True)).garbage == found.garbage
    assert len({path for path in files if path.exists()}) == 6
    climb(LocalRunner(store=store), text="tea")


def test_collect__keeps_what_a_run_can_be_compared_with(store, tmp_path):
    for day, text in enumerate(("tea", "coffee"), start=1):
        runner = LocalRunner(store=store)
        climb(runner, text=text)
        record = RunRecord(
            name="a", dataset="/d", preset="micro", store=store.url, parameters={}, results=runner.results
        )
        record.state, record.started = "completed", f"2026-01-0{day}T00:00:00+00:00"
        record.write(tmp_path / "runs/a")
    options = GcOptions(store=store.url, runs=str(tmp_path / "runs"), older_than=0.0, delete=True)
    assert [collect(options).garbage, collect(options).garbage] == [(), ()]


def test_collect__stops_between_two_folders_when_its_time_is_over(store, tmp_path):
    climb(LocalRunner(store=store))
    options = GcOptions(store=store.url, runs=str(tmp_path / "runs"), older_than=0.0, delete=True)

    def impatient(event):
        if event["done"] == 1:
            raise TimeLimitError

    with pytest.raises(TimeLimitError):
        collect(options, events=impatient)
    assert len(collect(options).garbage) == 2
