import importlib
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

import tasks
from storage.store import Store
from tasks.ingest import files_digest
from tasks.params import IngestParams, TrainParams
from tasks.process import StageFailedError, elastic_command, elastic_processes, run_in_child, stop_children
from tasks.stage import key_of
from tests.waiting import wait_for

pytestmark = pytest.mark.long


def ingest_params(root):
    return IngestParams(dataset=str(root), split="pool", files_digest=files_digest(root, split="pool"))


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop/catalog/tea").mkdir(parents=True)
    (tmp_path / "shop/pool").mkdir()
    (tmp_path / "shop/pool/a.jpg").write_bytes(b"no picture")
    return tmp_path / "shop"


def test_run_in_child__publishes_and_passes_events_on(shop, tmp_path):
    store, params, events = Store.open(str(tmp_path / "store")), ingest_params(shop), []
    key = key_of(params, inputs={})
    run_in_child(params, key=key, inputs={}, store=store, workers=1, events=events.append)
    assert [row.status for row in store.find("ingest", key=key).rows] == ["quarantined"]
    assert {"progress", "metrics", "log"} <= {event["kind"] for event in events}


def test_run_in_child__raises_with_the_end_of_the_log(shop, tmp_path):
    store, params = Store.open(str(tmp_path / "store")), ingest_params(shop)
    (shop / "catalog/products.json").write_text("[]")
    with pytest.raises(StageFailedError, match="expected an object with one object a SKU"):
        run_in_child(params, key="k", inputs={}, store=store, workers=1, events=lambda _: None)
    assert store.find("ingest", key="k") is None


# A stage that never ends, in a module of its own; its process tells its number through a log event.
ENDLESS = """
import os, time
from tasks.params import StageParams
from tasks.stage import stage
class EndlessParams(StageParams):
    stage = "endless"
@stage(EndlessParams)
def endless(context, *, params):
    context.log(str(os.getpid()))
    time.sleep(600)
"""
PARENT = """
import sys
import tasks
tasks.__path__.append(sys.argv[2])
import tasks
from storage.store import Store
from tasks.endless import EndlessParams
from tasks.process import run_in_child
run_in_child(EndlessParams(), key="k", inputs={}, store=Store.open(sys.argv[1]), workers=1,
             events=lambda event: print(event["message"], flush=True))
"""


@pytest.fixture
def extra(tmp_path):
    """A folder with the endless stage, which processes that have it on their PYTHONPATH find under `tasks`."""
    folder = tmp_path / "extra"
    folder.mkdir()
    (folder / "endless.py").write_text(ENDLESS)
    # Python runs this at its start.
    (folder / "sitecustomize.py").write_text(f"import tasks; tasks.__path__.append({str(folder)!r})")
    return folder


def test_stop_children__ends_a_child_that_a_thread_waits_for(extra, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(extra))
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(extra)])
    params = importlib.import_module("tasks.endless").EndlessParams()
    store, started, failures = Store.open(str(tmp_path / "store")), threading.Event(), []

    def run():
        try:
            run_in_child(params, key="k", inputs={}, store=store, workers=1, events=lambda _: started.set())
        except StageFailedError as error:
            failures.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    stop_children()
    thread.join()
    assert "killed by signal 15" in failures[0]


def test_run_in_child__ends_when_its_parent_is_killed(extra, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(extra)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "store"), str(extra)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    # The pipe closes when the last process that holds it ends: the parent is gone, so this waits for the child alone.
    parent.stdout.read()
    parent.stdout.close()
    wait_for(lambda: _is_gone(child), what="the end of the child")


def _is_gone(process):
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_main__prints_events_as_json_lines(shop, tmp_path):
    params = ingest_params(shop)
    request = {
        "stage": "ingest",
        "params": params.model_dump(mode="json"),
        "key": "k",
        "store": str(tmp_path / "store"),
        "workers": 1,
        "runner": "threads",
        "inputs": {},
    }
    child = subprocess.Popen([sys.executable, "-m", "tasks.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(orjson.dumps(request) + b"\n")
    child.stdin.flush()
    events = [orjson.loads(line) for line in child.stdout]
    assert child.wait() == 0
    assert events[-1]["kind"] in ("log", "metrics")
    child.stdin.close()
    child.stdout.close()


# A stage that several processes run together: each tells the sum of all ranks, and only the first one publishes.
TOGETHER = """
import torch
from storage.manifest import ManifestRow
from models.training.world import joined, world_of_environment
from tasks.params import StageParams
from tasks.stage import stage
class TogetherParams(StageParams):
    stage = "together"
    many_processes = True
@stage(TogetherParams)
def together(context, *, params):
    world = world_of_environment()
    with joined(world, device=torch.device("cpu")):
        mean = float(world.mean(torch.tensor(float(world.rank))))
    context.put(b"x", path="x", row=ManifestRow(item_id=f"rank {world.rank} of {world.size}, mean {mean}"))
    context.log(f"rank {world.rank}")
"""


def test_run_in_child__several_processes_run_a_stage_together(extra, tmp_path, monkeypatch):
    (extra / "together.py").write_text(TOGETHER)
    monkeypatch.setenv("PYTHONPATH", f"{extra}{os.pathsep}{Path.cwd()}")
    monkeypatch.setenv("TALLY_PROCESSES", "2")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(extra)])
    params = importlib.import_module("tasks.together").TogetherParams()
    store, events = Store.open(str(tmp_path / "store")), []
    run_in_child(params, key="k", inputs={}, store=store, workers=1, events=events.append)
    assert [row.item_id for row in store.find("together", key="k").rows] == ["rank 0 of 2, mean 0.5"]
    assert [event["message"] for event in events if event["kind"] == "log"] == ["rank 0"]


def test_elastic_processes__as_the_environment_says(monkeypatch):
    params = TrainParams(device="cpu")
    assert elastic_processes(params) == 0
    assert elastic_processes(ingest_params(Path("shop"))) == 0
    monkeypatch.setenv("TALLY_PROCESSES", "3")
    assert elastic_processes(params) == 3
    monkeypatch.setenv("TALLY_PROCESSES", "many")
    with pytest.raises(ValueError, match="expected a number of processes, got 'many'"):
        elastic_processes(params)


def test_elastic_command__for_one_machine_and_for_several(monkeypatch):
    request = Path("request.json")
    assert "--standalone" in elastic_command(request, key="k", processes=2)
    monkeypatch.setenv("TALLY_RENDEZVOUS", "first:29500")
    monkeypatch.setenv("TALLY_NODES", "2")
    made = " ".join(elastic_command(request, key="k", processes=8))
    assert "--nproc-per-node 8 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint first:29500 --rdzv-id k" in made
    assert made.endswith("-m tasks.process request.json")


# A stage that takes and gives back memory, and tells how many pages it had to ask for.
TAKING = """
import resource
from tasks.params import StageParams
from tasks.stage import stage
class TakingParams(StageParams):
    stage = "taking"
@stage(TakingParams)
def taking(context, *, params):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * (64 << 20)
    context.log(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not LARGE_PAGES.exists() or "[madvise]" not in LARGE_PAGES.read_text(),
    reason="needs glibc and large pages for those who ask",
)
def test_run_in_child__memory_comes_in_large_pages_unless_the_user_says_otherwise(extra, tmp_path, monkeypatch):
    (extra / "taking.py").write_text(TAKING)
    monkeypatch.setenv("PYTHONPATH", f"{extra}{os.pathsep}{Path.cwd()}")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(extra)])
    params = importlib.import_module("tasks.taking").TakingParams()
    store, faults = Store.open(str(tmp_path / "store")), []
    for tunables in (None, "glibc.malloc.hugetlb=0"):
        if tunables:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
        events = []
        run_in_child(params, key=f"k{tunables}", inputs={}, store=store, workers=1, events=events.append)
        faults += [int(event["message"]) for event in events if event["kind"] == "log"]
    large, small = faults
    assert small >= 20 * (64 << 20) / 4096 * 0.9
    assert large < small / 4
