import os
import socket
from datetime import UTC, datetime

import orjson
import pytest

from inspector.run_shelf import RunShelf, seconds_between


def write(folder, name="run.json", **record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(orjson.dumps(record))


def test_all__runs_and_their_history_the_latest_first(tmp_path):
    write(tmp_path / "a", started="2026-01-02T00:00:00+00:00", state="completed", finished="2026-01-02T00:01:30+00:00")
    write(tmp_path / "a/history", "20260101T000000Z.json", started="2026-01-01T00:00:00+00:00", state="failed")
    write(tmp_path / "a/history", "notes.json", started="2026-01-03T00:00:00+00:00")
    write(tmp_path / "b", started="2026-01-03T00:00:00+00:00", state="completed")
    write(tmp_path / ".hidden", started="2026-01-04T00:00:00+00:00")
    found = RunShelf(tmp_path).all()
    assert [(one.id, one.state) for one in found] == [
        ("b", "completed"),
        ("a", "completed"),
        ("a@20260101T000000Z", "failed"),
    ]
    assert found[1].seconds == 90


def test_get__sees_a_record_that_changed(tmp_path):
    shelf = RunShelf(tmp_path)
    write(tmp_path / "a", state="failed")
    assert shelf.get("a").state == "failed"
    write(tmp_path / "a", state="completed", more="x")
    assert shelf.get("a").state == "completed"
    assert shelf.get("../a") is None and shelf.get("b") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_get__a_broken_record_says_so(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.json").write_bytes(content)
    entry = RunShelf(tmp_path).get("a")
    assert entry.state == "unreadable" and "record" in entry.problem


def test_state__a_run_whose_process_is_gone_was_interrupted(tmp_path):
    here, started = socket.gethostname(), datetime.now(UTC).isoformat()
    write(tmp_path / "lives", state="running", host=here, process=os.getpid(), started=started)
    write(tmp_path / "gone", state="running", host=here, process=2**22 + 1, started=started)
    write(tmp_path / "elsewhere", state="running", host="another", process=1, started=started)
    write(tmp_path / "silent", state="running", host="another", process=1, started="2026-01-01T00:00:00+00:00")
    states = {one.id: one.state for one in RunShelf(tmp_path).all()}
    assert states == {"lives": "running", "gone": "interrupted", "elsewhere": "running", "silent": "interrupted"}


def test_progress__of_a_running_run(tmp_path):
    write(tmp_path / "a", state="running", host=socket.gethostname(), process=os.getpid())
    shelf = RunShelf(tmp_path)
    assert shelf.get("a").progress is None
    write(tmp_path / "a", "progress.json", stage="train.source", done=3, total=9, what="steps")
    assert shelf.get("a").progress["done"] == 3


NONSENSE = [("", "2026-01-01T00:00:00"), ("x", "y"), ("2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00")]


@pytest.mark.parametrize(("start", "end"), NONSENSE)
def test_seconds_between__nonsense_is_none(start, end):
    assert seconds_between(start, end) is None
