"""kill -9 of a run's process at random moments: what the rerun makes, beside what an undisturbed run made."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.orchestration_runs import digests, environment, run, run_command
from flows.runs import PROGRESS_FILE, read_run, write_json
from storage.digest import JSON

_FOLLOWED, _GRACE = 0.02, 10.0
_PATIENCE = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When a stage of a run was at work, seconds from the run's start."""

    name: str
    manifest: Path
    begin: float
    end: float


def killed(dataset: Path, *, preset: str, folder: Path, moments: int, whole: int) -> dict[str, Any]:
    """Kill, run again, compare, `moments` times. What is done already in `folder` is not done again.

    A moment is drawn evenly from an undisturbed run. Where the stages before the one at work are done, their results
    lie in the store; those of the stages after it lie there as well, to be found only if that stage puts out the same
    digest: so a moment takes as long as one stage. The first `whole` moments begin with an empty store instead.
    """
    calm = folder / "undisturbed"
    if not (calm / "runs" / "run" / "report.html").is_file():
        run(run_command(dataset, preset=preset, folder=calm, engine="local"))
    undisturbed = read_run(calm / "runs" / "run")
    wanted, spans = digests(undisturbed), spans_of(undisturbed)
    found = []
    for number in range(moments):
        told = folder / f"moment{number}.json"
        if not told.is_file():
            place = folder / f"killed{number}"
            command = run_command(dataset, preset=preset, folder=place, engine="local")
            write_json(told, moment(number, command=command, spans=spans, calm=calm, place=place, empty=number < whole))
        found.append(orjson.loads(told.read_bytes()))
        equal = sum(one["digests"] == wanted for one in found)
        print(f"{number + 1}: in {found[-1]['stage']}; {equal} reruns equal", file=sys.stderr, flush=True)
    stages = sorted({one["stage"] for one in found})
    return {
        "undisturbed, s": spans[-1].end,
        "kills": len(found),
        "in the midst of": ", ".join(f"{name} {sum(one['stage'] == name for one in found)}" for name in stages),
        "stages left to compute by the reruns": sum(one["computed"] for one in found),
        "processes left behind": sum(one["left"] for one in found),
        "reruns with equal digests": sum(one["digests"] == wanted for one in found),
    }


def spans_of(record: dict[str, JSON]) -> list[Span]:
    """When the stages of a run were at work, by the times at which their manifests were published."""
    manifests = [Path(one["manifest"].removeprefix("file://")) for one in record["stages"]]
    ends = [manifest.stat().st_mtime for manifest in manifests]
    start = ends[0] - record["stages"][0]["seconds"]
    return [
        Span(name=one["name"], manifest=manifest, begin=begin - start, end=end - start)
        for one, manifest, begin, end in zip(record["stages"], manifests, [start, *ends], ends, strict=False)
    ]


def moment(
    number: int, *, command: Sequence[str], spans: Sequence[Span], calm: Path, place: Path, empty: bool
) -> dict[str, JSON]:
    """Kill a run at a random moment and run it again; `place` is its folder, gone in the end."""
    draw = random.Random(number)
    while True:
        shutil.rmtree(place, ignore_errors=True)
        at = draw.uniform(0, spans[-1].end)
        span = next(one for one in spans if at <= one.end)
        if not empty:
            without(span, calm=calm, place=place)
        # A run that was faster than the undisturbed one is over by then: another moment.
        if (left := kill_at(span, after=at - span.begin, command=command, place=place)) is not None:
            break
    run(list(command))
    again = read_run(place / "runs" / "run")
    shutil.rmtree(place)
    computed = sum(not one["cached"] for one in again["stages"])
    return {"stage": span.name, "at": at, "computed": computed, "left": left, "digests": digests(again)}


def without(span: Span, *, calm: Path, place: Path) -> None:
    """The undisturbed run's store (its files are links) without the result of one stage."""
    unfinished = shutil.ignore_patterns("scratch")
    shutil.copytree(calm / "store", place / "store", copy_function=os.link, ignore=unfinished)
    # artifacts/<stage>/<key>
    shutil.rmtree(place.joinpath("store", *span.manifest.parent.parts[-3:]))


def kill_at(span: Span, *, after: float, command: Sequence[str], place: Path) -> int | None:
    """Kill -9 a run's process `after` seconds after a stage began: how many of its children live on; None: it ended."""
    flow = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    started = time.monotonic()
    progress = place / "runs" / "run" / PROGRESS_FILE
    while flow.poll() is None and not _at_work(span.name, progress=progress):
        if time.monotonic() - started > _PATIENCE:
            raise RuntimeError(f"{span.name}: expected it to begin within {_PATIENCE:.0f} s")
        time.sleep(_FOLLOWED)
    try:
        flow.wait(timeout=after)
    except subprocess.TimeoutExpired:
        children = psutil.Process(flow.pid).children(recursive=True)
        flow.kill()
        flow.wait()
        return len(psutil.wait_procs(children, timeout=_GRACE)[1])
    return None


def _at_work(name: str, *, progress: Path) -> bool:
    try:
        told = orjson.loads(progress.read_bytes())
    except FileNotFoundError:
        return False
    return bool(told["stage"] == name and not told["cached"])
