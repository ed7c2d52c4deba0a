"""Many runs in one process: descriptors, threads, children and memory at the end beside those at the beginning.

glibc's allocator gives each thread an arena, and what short-lived threads have freed waits there for the next thread: a
process grows for some dozens of runs without a leak. `MALLOC_ARENA_MAX=1` in the environment leaves only what is held.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults_inputs import write_pictures
from benchmarks.reduced_dataset import few_photos
from flows.execution import execute_run
from flows.gc import collect
from flows.options import GcOptions, RunOptions, VerifyOptions
from flows.verify import verify_store
from tasks.context import discard_event

# Caches fill and modules are imported in the first runs.
_WARM = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What this process holds."""

    descriptors: int
    threads: int
    children: int
    megabytes: float


def held() -> Held:
    """What this process holds now, garbage collected."""
    gc.collect()
    children = sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        threads=threading.active_count(),
        children=children,
        megabytes=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


def few(dataset: Path, *, folder: Path) -> Path:
    """Some ten exemplars and two photos of each other split, with bad pictures in the pool."""
    root = folder / "leaks"
    if not root.exists():
        few_photos(dataset, every=24, most=2, out=root)
        write_pictures(root / "pool2019")
    return root


def leaks(root: Path, *, folder: Path, runs: int, train: bool = True) -> dict[str, Any]:
    """Runs up to the coarse masks, one after the other in this process, each with an empty store.

    Bad photos are quarantined in each, its store is verified and collected. With `train` a tenth of them go on to the
    first stage that runs in a process of its own.
    """
    seen = []
    for number in range(runs):
        _one(root, folder=folder, far=train and number % 10 == 0)
        seen.append(held())
    first, last = seen[min(_WARM, runs // 2)], seen[-1]
    middle = seen[len(seen) // 2]
    return {
        "runs": runs,
        "descriptors, first and last": f"{first.descriptors} {last.descriptors}",
        "threads, first and last": f"{first.threads} {last.threads}",
        "children, first and last": f"{first.children} {last.children}",
        "memory, MB, first, middle and last": f"{first.megabytes:.0f} {middle.megabytes:.0f} {last.megabytes:.0f}",
        "equal": (first.descriptors, first.threads, first.children) == (last.descriptors, last.threads, last.children),
        "MB a run over the second half": (last.megabytes - middle.megabytes) / max(1, len(seen) // 2),
    }


def _one(root: Path, *, folder: Path, far: bool) -> None:
    where = {"store": str(folder / "leak-store"), "runs": str(folder / "leak-runs")}
    last = "saliency" if far else "coarse"
    execute_run(RunOptions(dataset=str(root), preset="micro", engine="local", to_stage=last, workers=2, **where))
    assert not verify_store(VerifyOptions(store=where["store"]), events=discard_event).damage
    collect(GcOptions(**where, older_than=0.0, delete=True))
    for place in where.values():
        shutil.rmtree(place)
