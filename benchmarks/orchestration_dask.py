"""Photos composed by Dask: throughput of two workers beside one, and the digests beside those of the serial run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.stages import ingest_split, segmented
from flows.presets import PRESETS
from storage.digest import JSON
from storage.files import local_path
from storage.manifest import Manifest
from storage.store import Store
from tasks.mapping import THREADS, dask_cluster, in_pieces
from tasks.params import ComposeParams
from tasks.stage import execute, key_of, load_stage, run_stage_locally


def composing(dataset: Path, *, preset: str, folder: Path, photos: int, rounds: int, workers: int) -> dict[str, Any]:
    """Medians of alternating rounds of the stage, whole and while photos come in; the clusters are started beforehand.

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
    rounds_of: dict[int, list[Round]] = {1: [], 2: []}
    with dask_cluster(1) as one, dask_cluster(2) as two, TemporaryDirectory(dir=folder, prefix="composed-") as aside:
        shared: dict[str, Any] = {"inputs": inputs, "store": store, "aside": Path(aside)}
        serial = composed(params, runner=THREADS, workers=workers, **shared)
        for runner in (one, two):
            composed(params.model_copy(update={"photos": 8}), runner=f"dask:{runner}", workers=workers, **shared)
        for _ in range(rounds):
            for count, address in ((1, one), (2, two)):
                rounds_of[count].append(composed(params, runner=f"dask:{address}", workers=count, **shared))
    figures = {"photos": photos} | {
        f"{count} worker{'s' * (count > 1)}, photos/s{when}": median(speed(made) for made in rounds_of[count])
        for count in (1, 2)
        for when, speed in (("", lambda made: photos / made.seconds), (" while composing", lambda made: made.pace))
    }
    pairs = list(zip(rounds_of[1], rounds_of[2], strict=True))
    return figures | {
        "throughput while composing, 2 workers / 1": median(two.pace / one.pace for one, two in pairs),
        "throughput of the whole stage, 2 workers / 1": median(one.seconds / two.seconds for one, two in pairs),
        "digests are those of the serial run": all(made.digest == serial.digest for pair in pairs for made in pair),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The stage compose, computed once.

    pace: photos a second from the first piece that came back to the last; by then every worker may have done a piece,
    so none of their first pieces counts.
    """

    digest: str
    seconds: float
    pace: float


def composed(
    params: ComposeParams, *, inputs: dict[str, Manifest], store: Store, aside: Path, runner: str, workers: int
) -> Round:
    """The stage compose, computed anew. What was computed before is moved into the folder `aside`."""
    # As in a run that computes it for the first time: nothing is to be swept away. Nor is anything deleted: ext4 looks
    # at every inode that was deleted in the last seconds before it gives one to a new file.
    before = local_path(store.folder_url(params.stage, key=key_of(params, inputs=inputs)))
    if before.exists():
        before.rename(aside / str(len(list(aside.iterdir()))))
    came: list[float] = []

    def watch(event: dict[str, JSON]) -> None:
        if event["kind"] == "progress" and event["what"] == "synthetic photos" and event["done"]:
            came.append(time.monotonic())

    started = time.monotonic()
    manifest, _ = execute(params, inputs=inputs, store=store, runner=runner, workers=workers, events=watch)
    seconds = time.monotonic() - started
    first = workers * len(in_pieces(range(params.photos), workers=workers)[0])
    pace = max(0, len(came) - first) / (came[-1] - came[0])
    return Round(digest=manifest.content_digest, seconds=seconds, pace=pace)
