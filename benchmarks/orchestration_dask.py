"""Photos composed by Dask: throughput of two workers beside one, and the digests beside those of the serial run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.stages import ingest_split, segmented
from flows.presets import PRESETS
from storage.files import local_path
from storage.manifest import Manifest
from storage.store import Store
from tasks.mapping import THREADS, dask_cluster
from tasks.params import ComposeParams
from tasks.stage import execute, key_of, load_stage, run_stage_locally


def composing(dataset: Path, *, preset: str, folder: Path, photos: int, rounds: int, workers: int) -> dict[str, Any]:
    """Medians of alternating rounds of the whole stage; the clusters are started beforehand.

    What comes before the first photo (sprites, sizes, lights) is done by as many threads as there are Dask workers, so
    that one worker stands for one processor; before that, data stages are made by `workers` threads.
    """
    known = PRESETS[preset]()
    store = Store.open(str(folder / "store"))
    made = segmented(known, dataset=str(dataset), store=store, workers=workers)
    pool = ingest_split(str(dataset), split="pool", store=store, workers=workers)
    inputs = {"catalog": made["catalog"], "pool": pool}
    prune = {"masks": made["masks"], "network": made["network"]}
    inputs["poses"] = run_stage_locally(
        load_stage("prune"), known.prune, store=store, workers=workers, **inputs, **prune
    )
    inputs["boards"] = run_stage_locally(
        load_stage("board"), known.board, store=store, workers=workers, pool=pool, network=made["network"]
    )
    params = known.compose.model_copy(update={"photos": photos})
    seconds: dict[int, list[float]] = {1: [], 2: []}
    same = True
    with dask_cluster(1) as one, dask_cluster(2) as two, TemporaryDirectory(dir=folder, prefix="composed-") as aside:
        shared: dict[str, Any] = {"inputs": inputs, "store": store, "aside": Path(aside)}
        serial, _ = composed(params, runner=THREADS, workers=workers, **shared)
        for runner in (one, two):
            composed(params.model_copy(update={"photos": 8}), runner=f"dask:{runner}", workers=workers, **shared)
        for _ in range(rounds):
            for count, address in ((1, one), (2, two)):
                manifest, took = composed(params, runner=f"dask:{address}", workers=count, **shared)
                seconds[count].append(took)
                same = same and manifest.content_digest == serial.content_digest
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "photos": photos,
        "1 worker, photos/s": photos / statistics.median(seconds[1]),
        "2 workers, photos/s": photos / statistics.median(seconds[2]),
        "throughput, 2 workers / 1": statistics.median(ratios),
        "digests are those of the serial run": same,
    }


def composed(
    params: ComposeParams, *, inputs: dict[str, Manifest], store: Store, aside: Path, runner: str, workers: int
) -> tuple[Manifest, float]:
    """The stage compose, computed anew; and seconds. What was computed before is moved into the folder `aside`."""
    # As in a run that computes it for the first time: nothing is to be swept away. Nor is anything deleted: ext4 looks
    # at every inode that was deleted in the last seconds before it gives one to a new file.
    before = local_path(store.folder_url(params.stage, key=key_of(params, inputs=inputs)))
    if before.exists():
        before.rename(aside / str(len(list(aside.iterdir()))))
    started = time.monotonic()
    manifest, _ = execute(params, inputs=inputs, store=store, runner=runner, workers=workers)
    return manifest, time.monotonic() - started
