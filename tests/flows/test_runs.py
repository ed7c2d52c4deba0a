import json
import os

import pytest

from flows.runs import RunRecord, last_run, read_run, write_json


def record(name, **changes):
    return RunRecord(name=name, dataset="/d", preset="micro", store="file:///s", parameters={}, **changes)


def test_run_record__writes_what_read_run_reads(tmp_path):
    record("a", champion="source", ladder={"source": {}}).write(tmp_path / "a")
    read = read_run(tmp_path / "a")
    assert (read["name"], read["champion"], read["stages"], read["state"]) == ("a", "source", [], "running")


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
