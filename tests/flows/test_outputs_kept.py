import dataclasses
import os

import pytest

from flows.outputs_kept import note_outputs, outputs_kept
from flows.runs import RunRecord
from tasks.stage import StageResult

RESULT = StageResult(
    stage="ingest",
    key="k",
    manifest="file:///m",
    content_digest="c",
    rows=1,
    quarantined=0,
    cached=False,
    seconds=1.0,
)


def record(result=RESULT, **changes):
    made = RunRecord(name="a", dataset="/d", preset="micro", store="file:///s", parameters={}, **changes)
    made.results = {"ingest": result}
    return made


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that has written two files and its record."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "photos/1.jpg").write_text("jpeg")
    made = record()
    note_outputs(made, folder=tmp_path)
    made.write(tmp_path)
    return tmp_path


def test_outputs_kept__after_a_run_that_found_all_cached(folder):
    again = record(dataclasses.replace(RESULT, cached=True), started="2026-01-01T00:00:00+00:00")
    assert outputs_kept(again, folder=folder)
    assert set(again.outputs["files"]) == {"metrics.json", "photos/1.jpg"}


def test_outputs_kept__not_after_another_result_or_option(folder):
    assert not outputs_kept(record(dataclasses.replace(RESULT, content_digest="d")), folder=folder)
    assert not outputs_kept(record(champion="source"), folder=folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("longer"),
        lambda path: os.utime(path, ns=(0, 0)),
    ],
)
def test_outputs_kept__not_when_a_file_is_gone_or_another(folder, change):
    change(folder / "photos/1.jpg")
    assert not outputs_kept(record(), folder=folder)


def test_outputs_kept__not_where_nothing_was_written_before(tmp_path):
    assert not outputs_kept(record(), folder=tmp_path / "nowhere")
    record().write(tmp_path)
    assert not outputs_kept(record(), folder=tmp_path)
