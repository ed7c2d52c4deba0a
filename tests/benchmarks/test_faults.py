"""The other parts of `python -m benchmarks.faults`, in seconds."""

import os
import random
import signal
import sys

import pytest

from benchmarks import faults_fuzz, faults_runs
from benchmarks.faults import wrong
from benchmarks.faults_annotations import annotations
from benchmarks.faults_fuzz import TARGETS, one
from benchmarks.faults_inputs import dataset, write_pictures
from benchmarks.faults_leaks import leaks
from benchmarks.faults_s3 import faults

pytestmark = pytest.mark.long


def test_at_once__a_key_is_computed_by_one_of_eight_processes(tmp_path):
    found = faults_runs.at_once(dataset(tmp_path / "data"), folder=tmp_path, rounds=1)
    assert (found["computed in each round"], found["rounds with one result"]) == ([1], 1)


def test_annotations__broken_ones_cost_their_photos_and_no_others(tmp_path):
    found = annotations(tmp_path, count=6000)
    assert found["unexpected"] == 0
    assert {name: count for name, count in found.items() if "quarantined" in name} == {
        f"quarantined, {reason}": 1
        for reason in ("each id once", "finite", "four numbers", "inside", "known categories", "positive")
    }


def test_leaks__a_process_holds_after_runs_what_it_held_before(tmp_path):
    root = dataset(tmp_path / "data")
    write_pictures(root / "pool2019")
    found = leaks(root, folder=tmp_path, runs=4, train=False)
    assert found["equal"], found


def test_faults__of_object_storage_are_told_and_nothing_half_is_seen():
    found = faults(kinds=("403", "404"), every=4)
    assert found["told"] > 0


def test_fuzz__every_input_is_taken_or_refused(tmp_path):
    for name in TARGETS:
        assert {one(name, number) for number in range(15)} <= {"taken", "refused"}


def test_fuzz__says_which_input_was_too_large_and_which_crashed(tmp_path, monkeypatch):
    def spoiled(draw, folder):
        number = int(folder.name)
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return "taken" if b"x" * (600_000_000 * (number == 5)) else "refused"

    monkeypatch.setattr(faults_fuzz, "one", lambda name, number: spoiled(None, tmp_path / str(number)))
    # The forked process begins with what this one holds, which may be anything.
    before = {"spoiled, refused": 0, "most memory, MB": 0}
    faults_fuzz.batch("spoiled", range(1), counts=before, folder=tmp_path)
    most = before["most memory, MB"] + 300
    monkeypatch.setattr(faults_fuzz, "_MOST_MEGABYTES", most)
    counts = dict.fromkeys(("crashes", "too large", "spoiled, taken", "spoiled, refused", "most memory, MB"), 0)
    faults_fuzz.batch("spoiled", range(8), counts=counts, folder=tmp_path)
    assert counts.pop("most memory, MB") > most
    assert counts == {
        "crashes": 1,
        "too large": 1,
        "spoiled, taken": 1,
        "spoiled, refused": 6,
        "most memory, by": "spoiled 5",
    }


@pytest.mark.parametrize(("cached", "kills"), [("false", 1), ("true", 0)])
def test_killed_once__kills_a_run_that_is_at_work(tmp_path, cached, kills):
    progress = tmp_path / "runs" / "run" / "progress.json"
    progress.parent.mkdir(parents=True)
    at_work = f"import pathlib, time; pathlib.Path({str(progress)!r}).write_text('{{\"cached\": {cached}}}')"
    command = [sys.executable, "-c", f"{at_work}; time.sleep({60 * kills})"]
    done = faults_runs.Storm(path=tmp_path / "storm.json")
    # Draws the flow, or all of it, and no early kill.
    faults_runs.killed_once(command, place=tmp_path, draw=random.Random(3), longest=0.1, done=done)
    assert done.counts["kills"] == kills


def test_wrong__tells_what_is_not_as_it_should_be():
    assert wrong("storm", {"runs finished": 3, "runs with equal digests": 3, "stores damaged": 0}) == ""
    assert "runs finished: 3" in wrong("storm", {"runs finished": 3, "runs with equal digests": 2, "stores damaged": 0})
    assert wrong("leaks", {"equal": False}) == "equal"
