"""`python -m benchmarks`: every benchmark in its short form on a data set, and a row of each in RESULTS.md.

    python -m benchmarks [--dataset D] [--only NAME …] [--out FILE]

A row has the date, the commit, the machine with its load, the command, and every figure that the command printed, those
of the peers that it ran beside ours among them. Slower forms and further options: `python -m benchmarks.NAME --help`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from flows.endings import end_with_code

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "benchmarks" / "RESULTS.md"
_HEADING = "## By `make bench`"
_TABLE = "| date | commit | machine | command | figures |\n|---|---|---|---|---|\n"
_SHORT = {
    "house": (),
    "segment": ("--dataset", "{dataset}", "--preset", "demo"),
    "prune": ("--dataset", "{dataset}", "--preset", "demo"),
    "compose": ("--dataset", "{dataset}", "--preset", "demo", "speed", "board"),
    "render": ("--dataset", "{dataset}", "--preset", "micro", "--photos", "8"),
    "train": ("--dataset", "{dataset}", "--steps", "3"),
    "ladder": ("--dataset", "{dataset}", "--preset", "micro", "--seeds", "1"),
    "evaluate": ("--photos", "2000"),
    "inspector": (),
    "predict": ("--dataset", "{dataset}", "--preset", "demo", "--photos", "24", "--rounds", "2"),
    "export": ("--dataset", "{dataset}", "--preset", "demo", "--photos", "24", "--rounds", "1"),
    "faults": ("commit", "refused", "power", "once"),
    "orchestration": ("noop", "--dataset", "{dataset}", "--rounds", "3"),
    "serve": ("--dataset", "{dataset}", "--preset", "demo", "--seconds", "10"),
}

app = App(name="benchmarks", help=__doc__, result_action="return_value", suppress_keyboard_interrupt=False)


@app.default
def run_all(
    *,
    dataset: Path = Path("sample"),
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    out: Path = _RESULTS,
) -> None:
    """Run the benchmarks and append their rows; ends with 1 when one of them failed.

    Args:
        dataset: folder in RPC layout with masks/ and poses.json beside it.
        only: benchmarks to run; all of them when not given.
        out: the file that rows are appended to.

    Raises:
        ValueError: there is no benchmark of such a name.
    """
    if unknown := sorted(set(only) - set(_SHORT)):
        raise ValueError(f"only: expected benchmarks ({', '.join(_SHORT)}), got {', '.join(unknown)}")
    failed = []
    for name in only or tuple(_SHORT):
        words = [f"benchmarks.{name}", *(option.format(dataset=dataset) for option in _SHORT[name])]
        print(f"== {' '.join(words)}", flush=True)
        done = subprocess.run([sys.executable, "-m", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        printed = printed_figures(done.stdout)
        if done.returncode or not printed:
            print(done.stdout, end="", flush=True)
            failed.append(name)
            continue
        told = "; ".join(f"{key} {value}" for key, value in figures_of(printed))
        print(told, flush=True)
        append_row(out, command=f"python -m {' '.join(words)}", figures=told)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def printed_figures(text: str) -> dict[str, Any]:
    """What the JSON objects say that a benchmark printed, a line each; other lines are passed over."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def figures_of(value: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of all figures, those in deeper objects by their path; floats to four digits, lists left out.

    >>> dict(figures_of({"ours": {"seconds": 0.123456}, "photos": 8, "each": [1, 2]}))
    {'ours.seconds': '0.1235', 'photos': '8'}
    """
    for key, one in value.items():
        name = f"{prefix}{key}"
        if isinstance(one, Mapping):
            yield from figures_of(one, prefix=f"{name}.")
        elif isinstance(one, float):
            yield name, f"{one:.4g}"
        elif isinstance(one, (int, str)):
            yield name, str(one)


def append_row(path: Path, *, command: str, figures: str) -> None:
    """Append a row to the table of `make bench`, which is the last one of the file; it is begun where there is none."""
    text = path.read_text().rstrip("\n") + "\n" if path.exists() else ""
    if _HEADING not in text:
        text += f"\n{_HEADING}\n\n{_TABLE}"
    cells = (f"{datetime.now(UTC):%Y-%m-%d}", commit(), machine(), f"`{command}`", figures)
    path.write_text(text + f"| {' | '.join(one.replace('|', '/') for one in cells)} |\n")


def commit() -> str:
    """The commit of this checkout, with a + where files differ from it; "none" outside of git."""
    git = shutil.which("git")
    if git is None:
        return "none"
    asked = (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    told = [subprocess.run([git, *one], cwd=_ROOT, capture_output=True, text=True, check=False) for one in asked]
    return f"{told[0].stdout.strip()}{'+' * bool(told[1].stdout)}" if told[0].returncode == 0 else "none"


def machine() -> str:
    """Processors, their kind, the GPU, and how busy the machine is: times of a busy one say little."""
    cores = len(os.sched_getaffinity(0))
    listed = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in listed.splitlines() if line.startswith("model name")]
    nvidia = shutil.which("nvidia-smi")
    query = [nvidia or "", "--query-gpu=name", "--format=csv,noheader"]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0] if nvidia else ""
    load = os.getloadavg()[0]
    return f"{cores} cores {names[0] if names else platform.machine()}, {shown or 'no GPU'}, load {load:.1f}"


if __name__ == "__main__":
    end_with_code(lambda: app(exit_on_error=False, print_error=False), name="python -m benchmarks")
