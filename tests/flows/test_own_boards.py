"""A user's photos of the empty board on their way to the stage that uses them, on a runner that computes nothing."""

import json

import pytest

from flows.pipeline import DatasetChoice, prepare, synthesize
from flows.presets import PRESETS
from tests.flows.test_feedback import RecordingRunner


def asked(root, monkeypatch):
    monkeypatch.setattr("flows.pipeline.reviews_for", lambda store, stage: None)
    runner = RecordingRunner()
    preset = PRESETS["micro"]()
    prepared = prepare(runner, choice=DatasetChoice(dataset=str(root)), preset=preset)
    synthesize(runner, prepared=prepared, preset=preset)
    return runner.asked


@pytest.mark.parametrize("names", [(), ("empty.jpg",)])
def test_synthesize__own_boards_reach_the_board_stage(tmp_path, monkeypatch, names):
    (tmp_path / "instances_train2019.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "boards").mkdir()
    for name in names:
        (tmp_path / "boards" / name).write_bytes(b"jpeg")
    inputs = asked(tmp_path, monkeypatch)
    assert ("ingest.boards" in inputs) == bool(names)
    assert ("own" in inputs["board"]) == bool(names)
