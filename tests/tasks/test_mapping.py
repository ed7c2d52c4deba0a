import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.manifest import ManifestRow
from storage.store import Store
from tasks import stage as stage_module
from tasks.mapping import dask_cluster, in_pieces
from tasks.params import StageParams
from tasks.stage import execute, stage
from tests.waiting import wait_for

pytestmark = pytest.mark.long

COUNT = 60


class SquaresParams(StageParams):
    stage = "squares"
    seconds: float = 0.0
    meet: int = 1


def noted(notes):
    # A note that is just being written is empty.
    return {int(text) for path in notes.iterdir() if (text := path.read_text())}


@stage(SquaresParams)
def squares(context, *, params):
    """Squares of numbers, written by the workers; the process that made each is noted beside the store."""
    notes = context.scratch.parents[2] / "notes"
    notes.mkdir(exist_ok=True)

    def square(number):
        draw = int(context.generator("draw", number).integers(1000))
        (notes / str(number)).write_text(str(os.getpid()))
        # On a busy machine one process may have done all before the other has started.
        wait_for(lambda: len(noted(notes)) >= params.meet, what=f"work by {params.meet} processes")
        time.sleep(params.seconds)
        if number == 7:
            context.log("seven")
        row = ManifestRow(item_id=f"{number:03d}", attributes={"draw": draw})
        return context.put(str(number**2).encode(), path=f"{number}.txt", row=row).bytes

    context.content["bytes"] = sum(context.spread(square, range(COUNT), what="numbers"))


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setattr(stage_module, "load_stage", {"squares": squares}.__getitem__)


def run(folder, *, runner, events=lambda event: None, **params):
    store = Store.open(str(folder / "store"))
    manifest, _ = execute(SquaresParams(**params), inputs={}, store=store, workers=2, runner=runner, events=events)
    assert store.verify(manifest) == []
    return manifest


def digests(manifest):
    return [row.digest for row in manifest.rows]


def processes(folder):
    return noted(folder / "store/notes")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """What one thread makes of it."""
    stage_module.load_stage, kept = {"squares": squares}.__getitem__, stage_module.load_stage
    store = Store.open(str(tmp_path_factory.mktemp("serial") / "store"))
    manifest, _ = execute(SquaresParams(), inputs={}, store=store)
    stage_module.load_stage = kept
    return manifest


def test_spread__by_threads_equals_the_serial_run(serial, tmp_path):
    assert run(tmp_path, runner="threads").content_digest == serial.content_digest
    assert processes(tmp_path) == {os.getpid()}


def test_spread__by_processes_equals_the_serial_run_and_passes_events_on(serial, tmp_path):
    events = []
    made = run(tmp_path, runner="processes", events=events.append, meet=2)
    assert digests(made) == digests(serial) and made.content == serial.content
    assert len(processes(tmp_path)) == 2 and os.getpid() not in processes(tmp_path)
    assert [event["message"] for event in events if event["kind"] == "log"] == ["seven"]
    assert [event["done"] for event in events if event["kind"] == "progress"] == list(range(COUNT + 1))


def test_spread__a_killed_process_loses_nothing(serial, tmp_path):
    killed = []

    def kill_one(event):
        if event["kind"] == "progress" and event["done"] == 10 and not killed:
            killed.append(max(processes(tmp_path)))
            os.kill(killed[0], signal.SIGKILL)

    made = run(tmp_path, runner="processes", events=kill_one, seconds=0.01)
    assert killed and digests(made) == digests(serial)


def test_spread__by_dask_equals_the_serial_run_and_a_killed_worker_loses_nothing(serial, tmp_path):
    killed = []

    def kill_one(event):
        if event["kind"] == "progress" and event["done"] == 10 and not killed:
            killed.append(max(processes(tmp_path)))
            os.kill(killed[0], signal.SIGKILL)

    with dask_cluster(2) as address:
        assert digests(run(tmp_path / "a", runner=f"dask:{address}", meet=2)) == digests(serial)
        made = run(tmp_path, runner=f"dask:{address}", events=kill_one, seconds=0.01)
    assert killed and digests(made) == digests(serial)
    assert len(processes(tmp_path / "a")) == 2


@given(count=st.integers(0, 3000), workers=st.integers(1, 50))
def test_in_pieces__covers_the_items_in_order_and_leaves_nobody_waiting(count, workers):
    pieces = in_pieces(range(count), workers=workers)
    assert [number for piece in pieces for number in piece] == list(range(count))
    lengths = [len(piece) for piece in pieces]
    assert lengths == sorted(lengths, reverse=True)
    # When a piece is given away, all others have at least as much to do.
    left = count
    for length in lengths:
        assert length == 1 or (workers - 1) * length <= left - length
        left -= length


_FAULTS = """
import resource, sys, numpy
from tasks.mapping import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
numpy.ones(2_000_000, numpy.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    numpy.ones(2_000_000, numpy.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_keep_freed_memory__photos_are_not_taken_from_the_system_page_by_page():
    # As Dask starts its workers.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}

    def faults(how):
        command = [sys.executable, "-c", _FAULTS, how]
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    assert faults("as they come") > 50 * 400
    assert faults("kept") < 1000
