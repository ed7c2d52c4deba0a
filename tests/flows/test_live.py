import json

import pytest

from flows.live import LiveRun
from flows.runs import RunRecord, read_run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "a"


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def following(folder, *, clock, seen):
    live = LiveRun(seen.append, flow_run="f-1", clock=clock)
    live.follow(RunRecord(name="a", dataset="/d", preset="micro", store="file:///s", parameters={}), folder=folder)
    return live


def progress(folder):
    told = json.loads((folder / "progress.json").read_text())
    return told["stage"], told["done"], told["total"]


def test_live_run__tells_what_it_is_at_and_leaves_nothing_behind(folder, clock):
    seen = []
    live = following(folder, clock=clock, seen=seen)
    record = read_run(folder)
    assert (record["state"], record["flow_run"]) == ("running", "f-1") and record["process"] > 0
    live({"kind": "start", "stage": "train", "name": "train.source", "cached": False})
    assert progress(folder) == ("train.source", None, None)
    clock.now = 2.0
    live({"kind": "progress", "stage": "train", "name": "train.source", "what": "steps", "done": 3, "total": 9})
    assert progress(folder) == ("train.source", 3, 9)
    live.end()
    assert not (folder / "progress.json").exists()
    assert [event["kind"] for event in seen] == ["start", "progress"]


def test_live_run__writes_once_a_second_but_the_last_word_at_once(folder, clock):
    live = following(folder, clock=clock, seen=[])
    for done in range(10):
        live({"kind": "progress", "stage": "s", "what": "steps", "done": done, "total": 9})
        clock.now += 0.01
    assert progress(folder) == ("s", 9, 9)
    clock.now += 0.1
    live({"kind": "progress", "stage": "s", "what": "steps", "done": 1, "total": 9})
    assert progress(folder) == ("s", 9, 9)


def test_live_run__passes_events_on_before_and_after_a_run(folder, clock):
    seen = []
    live = following(folder, clock=clock, seen=seen)
    live.end()
    live({"kind": "start", "stage": "s", "cached": True})
    assert len(seen) == 1 and not (folder / "progress.json").exists()
