"""`python -m benchmarks`: every benchmark in its short form on a data set, one after the other.

    python -m benchmarks [--dataset D] [--only NAME …]

Slower forms and further options: `python -m benchmarks.NAME --help`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

_SHORT = {
    "segment": ("--dataset", "{dataset}", "--preset", "demo"),
    "prune": ("--dataset", "{dataset}", "--preset", "demo"),
    "compose": ("--dataset", "{dataset}", "--preset", "demo", "speed", "board"),
    "render": ("--dataset", "{dataset}", "--preset", "micro", "--photos", "8"),
    "train": ("--dataset", "{dataset}", "--steps", "3"),
    "evaluate": ("--photos", "2000"),
    "inspector": (),
    "predict": ("--dataset", "{dataset}", "--preset", "demo", "--photos", "24", "--rounds", "2"),
    "export": ("--dataset", "{dataset}", "--preset", "demo", "--photos", "24", "--rounds", "1"),
    "orchestration": ("noop", "--dataset", "{dataset}", "--rounds", "3"),
    "serve": ("--dataset", "{dataset}", "--preset", "demo", "--seconds", "10"),
}

app = App(name="benchmarks", help=__doc__, result_action="return_value")


@app.default
def run_all(
    *, dataset: Path = Path("sample"), only: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
) -> None:
    """Run the benchmarks; ends with 1 when one of them failed."""
    failed = []
    for name in only or tuple(_SHORT):
        print(f"== benchmarks.{name}", flush=True)
        options = [option.format(dataset=dataset) for option in _SHORT[name]]
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    app()
