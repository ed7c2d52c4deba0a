"""A Prefect server on PostgreSQL, measured: from an event to the retraining's start, and many pipelines at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.orchestration_runs import PROJECT, TALLY
from benchmarks.reduced_dataset import only_product, without_product
from benchmarks.services import PREFECT, Stack, prefect_stack, wait_until
from flows.runs import read_run

_STARTED = {"RUNNING", "COMPLETED", "FAILED", "CRASHED"}


def deploy(stack: Stack) -> None:
    """Work pools, deployments, limits and automations, as the README says."""
    for pool in ("cpu", "gpu"):
        stack.run(*PREFECT, "work-pool", "create", pool, "--type", "process", "--overwrite")
    file = PROJECT / "deployments" / "prefect.yaml"
    stack.run(*PREFECT, "--no-prompt", "deploy", "--prefect-file", str(file), "--all")
    stack.run(*TALLY, "automations", "apply")


def event_to_retraining(dataset: Path, *, sku: str, folder: Path) -> dict[str, Any]:
    """Seconds from `tally catalog add`'s event to the retraining's run being there, and to it running."""
    home = folder / "server"
    home.mkdir(parents=True)
    without_product(dataset, sku=sku, out=home / "shop")
    only_product(dataset, sku=sku, out=home / "arrived")
    with prefect_stack(home, TALLY_HOME=str(home), OMP_NUM_THREADS="1", PYTHONPATH=str(PROJECT)) as stack:
        deploy(stack)
        with stack.worker("cpu"):
            stack.run(*TALLY, "catalog", "add", "arrived", "--dataset", "shop")
            run = retraining_of_event(stack)
            wanted = {"event": {"name": ["tally.catalog.updated"]}}
            events = dict(stack.ask("/events/filter", filter=wanted))["events"]
            stack.ask(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    told = moment(events[0]["occurred"])
    return {
        "event to run created, s": moment(run["created"]) - told,
        "event to run started, s": moment(run["start_time"]) - told,
    }


def retraining_of_event(stack: Stack) -> dict[str, Any]:
    """The flow run of `retrain/cpu` that an automation made, once it has started."""
    deployment = stack.get("/deployments/name/retrain/cpu")["id"]
    wanted = {"deployment_id": {"any_": [deployment]}, "state": {"type": {"any_": sorted(_STARTED)}}}
    found: list[dict[str, Any]] = []

    def started() -> bool:
        found[:] = stack.ask("/flow_runs/filter", flow_runs=wanted)
        return bool(found)

    wait_until(started, what="a run of retrain/cpu", seconds=180)
    return found[0]


def moment(text: str) -> float:
    """Seconds since the epoch of a time as the server writes it."""
    return datetime.fromisoformat(text).timestamp()


def at_once(dataset: Path, *, preset: str, folder: Path, pipelines: int) -> dict[str, Any]:
    """Several pipelines on the same data at once, each a flow run on one server: failures, and keys computed twice."""
    home = folder / "at-once"
    home.mkdir(parents=True)
    started = time.monotonic()
    with prefect_stack(home, OMP_NUM_THREADS="1", PYTHONPATH=str(PROJECT)) as stack:
        names = [f"run{number}" for number in range(pipelines)]
        children = [
            subprocess.Popen(
                [*TALLY, "run", "--dataset", str(dataset.resolve()), "--preset", preset, "--name", name],
                env={**os.environ, **stack.environment},
                cwd=home,
                stdout=subprocess.DEVNULL,
                stderr=(home / f"{name}.err").open("wb"),
            )
            for name in names
        ]
        codes = [child.wait() for child in children]
        states = Counter(
            one["state"]["type"]
            for one in stack.ask("/flow_runs/filter", flow_runs={"parent_task_run_id": {"is_null_": True}})
        )
    runs = [read_run(home / "runs" / name) for name in names]
    computed = Counter(one["key"] for run in runs for one in run["stages"] if not one["cached"])
    print(f"exit codes {codes}", file=sys.stderr)
    return {
        "pipelines": pipelines,
        "flow runs by state": ", ".join(f"{name.lower()} {count}" for name, count in states.items()),
        "failed": sum(code != 0 for code in codes),
        "different stage keys": len({one["key"] for run in runs for one in run["stages"]}),
        "keys computed more than once": sum(count > 1 for count in computed.values()),
        "digests differ": len({tuple(one["content_digest"] for one in run["stages"]) for run in runs}) - 1,
        "wall, s": time.monotonic() - started,
    }
