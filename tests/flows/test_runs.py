import json
import os

import pytest

from flows.runs import RunRecord, last_run, moment_id, read_run, write_json
from storage.roots import kept_runs
from storage.store import Store
from tasks.stage import StageResult

RESULT = {
    "stage": "ingest",
    "key": "k",
    "content_digest": "c",
    "rows": 1,
    "quarantined": 0,
    "cached": False,
    "seconds": 1.0,
}


def record(name, **changes):
    return RunRecord(name=name, dataset="/d", preset="micro", store="file:///s", parameters={}, **changes)


def test_run_record__writes_what_read_run_reads(tmp_path):
    record("a", champion="source", ladder={"source": {}}).write(tmp_path / "a")
    read = read_run(tmp_path / "a")
    assert (read["name"], read["champion"], read["stages"], read["state"]) == ("a", "source", [], "running")


def test_run_record__an_earlier_run_of_the_name_moves_into_the_history(tmp_path):
    first, second = record("a", started="2026-01-01T00:00:00+00:00"), record("a", started="2026-01-02T03:04:05+02:00")
    for state in ("running", "completed"):
        first.state = state
        first.write(tmp_path / "a")
    second.write(tmp_path / "a")
    [kept] = (tmp_path / "a/history").iterdir()
    assert kept.name == "20260101T000000Z.json" and json.loads(kept.read_text())["state"] == "completed"
    assert read_run(tmp_path / "a")["started"] == second.started


def test_run_record__what_it_can_be_compared_with_is_kept_in_the_store(tmp_path):
    store, noted = f"file://{tmp_path}/store", []
    for day in range(1, 7):
        made = record("a", started=f"2026-01-0{day}T00:00:00+00:00", state="completed")
        made.store, made.results = store, {"ingest": StageResult(**RESULT, manifest=f"file:///m{day}")}
        made.write(tmp_path / "a")
        [kept] = kept_runs(Store.open(store))
        noted.append(kept.manifests)
    assert noted[0] == ("file:///m1",)
    assert noted[-1] == tuple(f"file:///m{day}" for day in (3, 4, 5, 6))


def test_moment_id__is_in_utc():
    assert moment_id("2026-01-02T03:04:05+02:00") == "20260102T010405Z"


def test_read_run__says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="tally run --name b"):
        read_run(tmp_path / "b")
    (tmp_path / "run.json").write_text("{broken")
    with pytest.raises(ValueError, match="broken text"):
        read_run(tmp_path)


def test_last_run__is_the_one_written_last(tmp_path):
    for name in ("b", "a"):
        record(name).write(tmp_path / name)

    os.utime(tmp_path / "a" / "run.json", (1, 1))
    assert last_run(tmp_path).name == "b"


def test_last_run__without_runs_says_so(tmp_path):
    with pytest.raises(ValueError, match="start one with"):
        last_run(tmp_path)


def test_write_json__leaves_no_other_file(tmp_path):
    write_json(tmp_path / "x" / "a.json", {"a": [1]})
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "x" / "a.json").read_text()) == {"a": [1]}
