"""Runs of one machine, measured: nothing to do beside `dvc repro`, the share of orchestration, changes."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.shortened import shortened
from flows.execution import carry_out, climb_of, execute_run, pipeline_of
from flows.options import RunOptions
from flows.pipeline import Outcome
from flows.runner import LocalRunner, Runner
from flows.runs import read_run
from storage.digest import JSON
from storage.store import Store
from tasks.context import discard_event
from tasks.stage import StageResult

PROJECT = Path(__file__).parents[1]
TALLY = (sys.executable, "-m", "flows.cli")
_DVC = "dvc==3.67.1"
_OTHER_PRUNES: dict[str, dict[str, JSON]] = {
    "after a parameter of prune that changes its result, run": {"share": 0.5},
    "after one that does not, run": {"area_ratio": 0.5},
}


def run_command(dataset: Path, *, preset: str, folder: Path, name: str = "run", engine: str = "prefect") -> list[str]:
    """The command line of a run in `folder`."""
    where = ("--store", str(folder / "store"), "--runs", str(folder / "runs"), "--name", name)
    return [*TALLY, "run", "--dataset", str(dataset), "--preset", preset, *where, "--engine", engine]


def environment(code: Path = PROJECT) -> dict[str, str]:
    """The environment of a run by the code in a folder; modules are compiled once, as any installed program's."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**bare, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}


def run(command: list[str], *, code: Path = PROJECT, folder: Path | None = None) -> float:
    """Run a command to its end; returns seconds.

    Raises:
        RuntimeError: it failed.
    """
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment(code))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.monotonic() - started


def cost(command: list[str], *, folder: Path | None = None) -> tuple[float, float]:
    """Run a command to its end; returns seconds, and seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = run(command, folder=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def digests(run: Mapping[str, JSON]) -> dict[str, str]:
    """Content digests of a run's stages, out of its run.json."""
    return {one["name"]: one["content_digest"] for one in run["stages"]}


def nothing_to_do(dataset: Path, *, preset: str, folder: Path, rounds: int) -> dict[str, Any]:
    """A whole run with nothing to do beside `dvc repro` on as many stages and files, by turns."""
    command = run_command(dataset, preset=preset, folder=folder)
    run(command)
    made = read_run(folder / "runs" / "run")
    store = Store.open(str(folder / "store"))
    sizes = [[row.bytes for row in store.load(one["manifest"]).rows if row.url] for one in made["stages"]]
    dvc = dvc_project(sizes, folder=folder)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(cost(command))
        theirs.append(cost([*dvc, "repro"], folder=folder / "dvc"))
    again = read_run(folder / "runs" / "run")
    assert all(one["cached"] for one in again["stages"]), "a run with nothing to do computed something"
    return {
        "stages": len(sizes),
        "files": sum(map(len, sizes)),
        "tally run, s": statistics.median(wall for wall, _ in ours),
        "tally run, processor s": statistics.median(used for _, used in ours),
        "dvc repro, s": statistics.median(wall for wall, _ in theirs),
        "dvc repro, processor s": statistics.median(used for _, used in theirs),
        "tally / dvc": statistics.median(one[0] / other[0] for one, other in zip(ours, theirs, strict=True)),
        "tally / dvc, processor": statistics.median(one[1] / other[1] for one, other in zip(ours, theirs, strict=True)),
    }


def dvc_project(sizes: list[list[int]], *, folder: Path) -> list[str]:
    """A DVC pipeline of one stage for each list, with as many files of these sizes; all of it made. Returns dvc."""
    environment, project = folder / "dvc-environment", folder / "dvc"
    dvc = [str(environment / "bin" / "python"), "-m", "dvc"]
    if not environment.exists():
        run([sys.executable, "-m", "venv", str(environment)])
        run([*dvc[:1], "-m", "pip", "install", "--quiet", _DVC])
    if not project.exists():
        project.mkdir()
        lines = ["stages:"]
        for number, files in enumerate(sizes):
            (project / f"sizes{number}").write_text("\n".join(map(str, files)))
            lines += [
                f"  s{number}:",
                f"    cmd: python make.py sizes{number} out{number}",
                "    deps:",
                "    - make.py",
            ]
            lines += [f"    - sizes{number}", *([f"    - out{number - 1}"] if number else [])]
            lines += ["    outs:", f"    - out{number}"]
        (project / "dvc.yaml").write_text("\n".join(lines) + "\n")
        (project / "make.py").write_text(
            "import os, pathlib, sys\n"
            "out = pathlib.Path(sys.argv[2]); out.mkdir()\n"
            "sizes = pathlib.Path(sys.argv[1]).read_text().split()\n"
            "[(out / str(n)).write_bytes(os.urandom(int(size))) for n, size in enumerate(sizes)]\n"
            "(out / 'manifest').write_text('made')\n"
        )
        run(["git", "init", "--quiet"], folder=project)
        run([*dvc, "init", "--quiet"], folder=project)
        run([*dvc, "repro"], folder=project)
    return dvc


def share(dataset: Path, *, preset: str, folder: Path, effort: float, workers: int) -> dict[str, Any]:
    """What a run through Prefect takes besides its stages: start, server, keys, processes, artifacts, report.

    It hardly depends on how long the stages take, so an `effort` below 1 shortens them; the last figure is the share in
    a run whose stages take an hour.
    """
    where = {"store": str(folder / "store"), "runs": str(folder / "runs"), "name": "share"}
    started = time.monotonic()
    with shortened(preset, effort=effort, threads=workers):
        record = execute_run(RunOptions(dataset=str(dataset), preset=preset, workers=workers, **where))
    seconds = time.monotonic() - started
    computed = [one.seconds for one in record.results.values() if not one.cached]
    if len(computed) < len(record.results):
        raise RuntimeError(f"{folder}: expected an empty folder, got one in which stages are done already")
    beside = seconds - sum(computed)
    return {
        "effort": effort,
        "whole, s": seconds,
        "stages, s": sum(computed),
        "beside them, s": beside,
        "share": beside / seconds,
        "share at 60 min": beside / (beside + 3600),
    }


def changes(dataset: Path, *, preset: str, folder: Path) -> dict[str, Any]:
    """Which stages run after one parameter of prune has changed, and after a comment in every file of tasks/."""
    command = run_command(dataset, preset=preset, folder=folder)
    run(command)
    commented = folder / "commented"
    if not commented.exists():
        kept = shutil.ignore_patterns(".*", "store", "runs", "__pycache__", "sample")
        shutil.copytree(PROJECT, commented, ignore=kept)
        for path in (*commented.glob("tasks/*.py"), *commented.glob("models/*.py"), *commented.glob("storage/*.py")):
            path.write_text(path.read_text() + "\n# A comment.\n")
    run(command, code=commented)
    after_comment = [one["name"] for one in read_run(folder / "runs" / "run")["stages"] if not one["cached"]]
    found = {"after a comment, run": ", ".join(after_comment) or "nothing"}
    for title, update in _OTHER_PRUNES.items():
        changed = _with_other_prune(dataset, preset=preset, folder=folder, update=update)
        found[title] = ", ".join(name for name, result in changed.items() if not result.cached)
        found[f"{title}; cached"] = ", ".join(name for name, result in changed.items() if result.cached)
    return found


def _with_other_prune(
    dataset: Path, *, preset: str, folder: Path, update: dict[str, JSON]
) -> Mapping[str, StageResult]:
    """The stages up to the first training with other parameters of prune."""
    where = {"store": str(folder / "store"), "runs": str(folder / "runs"), "name": "changed"}
    options = RunOptions(dataset=str(dataset), preset=preset, engine="local", to_stage="train.source", **where)
    runner = LocalRunner(store=Store.open(options.store), workers=options.worker_count())

    def climb(run: Runner) -> Outcome:
        return climb_of(options)(_OtherPrune(run, update=update))

    carry_out(options, run=runner, work=pipeline_of(options, climb), events=discard_event)
    return runner.results


class _OtherPrune:
    """A runner with other parameters of prune."""

    def __init__(self, inner: Runner, *, update: dict[str, JSON]) -> None:
        self._inner, self._update, self.store, self.results = inner, update, inner.store, inner.results

    def stage(self, name: str, params: Any, **inputs: Any) -> Any:  # noqa: ANN401 - as in Runner
        if params.stage == "prune":
            params = params.model_copy(update=self._update)
        return self._inner.stage(name, params, **inputs)
