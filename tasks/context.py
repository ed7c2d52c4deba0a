"""What a running stage may use: its inputs' bytes, its own publication, randomness, parallel maps and progress.

A stage function gets a `StageContext` and its input manifests; everything it writes goes through the context, so that
digests, rows and the final commit are made in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from storage.digest import JSON, digest_json
from storage.images import Picture, decode_grey, decode_rgb, decode_rgba
from storage.manifest import ManifestRow
from storage.store import Publication, Store
from tasks.mapping import DASK, THREADS, Luggage, by_dask, by_processes, by_threads

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
EventSink = Callable[[dict[str, JSON]], None]
CHECKPOINTS = "checkpoints"


def discard_event(event: dict[str, JSON]) -> None:
    """An event sink for callers who watch nothing."""


@dataclass(kw_only=True)
class StageContext:
    """One run of one stage.

    `content` becomes part of the manifest's identity (small facts about the whole result); `metadata` is recorded and
    nothing more. `scratch` is a local folder of this stage key that outlives a killed run. `runner`: what `spread`
    works with: threads, processes, or dask:ADDRESS.
    """

    stage: str
    seed: int
    store: Store
    publication: Publication
    scratch: Path
    workers: int = 1
    runner: str = THREADS
    events: EventSink = discard_event
    content: dict[str, JSON] = field(default_factory=dict)
    metadata: dict[str, JSON] = field(default_factory=dict)
    _arrived: list[dict[str, JSON]] = field(default_factory=list)

    def read(self, row: ManifestRow) -> bytes:
        """The bytes of a row's file, compared with its digest (DamagedArtifactError if they differ)."""
        return self.store.read(row)

    def read_rgb(self, row: ManifestRow) -> Picture:
        """A row's picture as uint8 RGB [H, W, 3]."""
        return decode_rgb(self.read(row))

    def read_rgba(self, row: ManifestRow) -> Picture:
        """A row's picture as uint8 RGBA [H, W, 4]."""
        return decode_rgba(self.read(row))

    def read_grey(self, row: ManifestRow) -> Picture:
        """A row's picture as uint8 [H, W]."""
        return decode_grey(self.read(row))

    def put(self, data: bytes, *, path: str, row: ManifestRow) -> ManifestRow:
        """Write a file and add its row, completed by path, digest and size. Thread-safe."""
        return self.publication.put(data, path=path, row=row)

    def add(self, row: ManifestRow) -> ManifestRow:
        """Add a row without a file of its own: dropped, quarantined, or a reference to another stage's file."""
        return self.publication.add(row)

    def generator(self, *names: str | int) -> np.random.Generator:
        """A numpy generator that depends on (seed, stage, names) only: take one per item."""
        return np.random.default_rng(self._entropy(*names))

    def torch_generator(self, *names: str | int) -> torch.Generator:
        """A CPU torch generator that depends on (seed, stage, names) only."""
        import torch

        return torch.Generator().manual_seed(self._entropy(*names) % 2**63)

    def _entropy(self, *names: str | int) -> int:
        return int(digest_json([self.seed, self.stage, *names])[:32], 16)

    def log(self, message: str) -> None:
        """Say something to whoever watches the run."""
        self.events({"kind": "log", "stage": self.stage, "message": message})

    def report(self, **metrics: float) -> None:
        """Record numbers with the run: they stand in the manifest's metadata under `metrics`."""
        self.metadata.setdefault("metrics", {}).update(metrics)
        self.events({"kind": "metrics", "stage": self.stage, "metrics": metrics})

    def progress(self, items: Iterable[Item], *, total: int | None = None, what: str = "photos") -> Iterator[Item]:
        """Pass `items` on and tell how many have been asked for."""
        total = len(items) if total is None and isinstance(items, Sized) else total
        self._tell(0, total=total, what=what)
        for done, item in enumerate(items, start=1):
            yield item
            self._tell(done, total=total, what=what)

    def _tell(self, done: int, *, total: int | None, what: str) -> None:
        self.events({"kind": "progress", "stage": self.stage, "what": what, "done": done, "total": total})

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, what: str = "photos"
    ) -> Iterator[Result]:
        """Results of `function` in the order of `items`, computed by `workers` threads.

        At most four results a worker wait to be taken, so memory stays flat.
        """
        listed = list(items)
        return self.progress(by_threads(function, listed, workers=self.workers), total=len(listed), what=what)

    def spread(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, what: str = "photos"
    ) -> Iterator[Result]:
        """Like `map`, by the runner for mapped stages: threads, processes or Dask (`tasks.mapping`).

        What the function refers to is sent to the workers, this context too: there it reads and writes the store, and
        rows and events come back from there. Each result must depend on its item alone.
        """
        if self.runner == THREADS:
            return self.map(function, items, what=what)
        listed = list(items)
        return self.progress(self._from_workers(function, listed), total=len(listed), what=what)

    def _from_workers(self, function: Callable[[Item], Result], items: list[Item]) -> Iterator[Result]:
        kind, _, address = self.runner.partition(":")
        luggage = Luggage.pack(function, self)
        pieces = (
            by_dask(luggage, items, address=address)
            if kind == DASK
            else by_processes(luggage, items, workers=self.workers)
        )
        for piece in pieces:
            for row in piece.rows:
                self.publication.add(row)
            for event in piece.events:
                self.events(event)
            yield from piece.results

    def __getstate__(self) -> dict[str, object]:
        """What travels to a worker: rows and events are collected there."""
        kept = ("stage", "seed", "scratch", "workers")
        return {"store": self.store.url, "publication": self.publication.detached()} | {
            name: getattr(self, name) for name in kept
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On a worker: nothing is spread any further there."""
        store, publication = Store.open(state["store"]), Publication.attached(state["publication"])
        self.__init__(**{**state, "store": store, "publication": publication, "workers": 1})  # type: ignore[misc]
        self.events = self._arrived.append

    def collected(self) -> tuple[list[ManifestRow], list[dict[str, JSON]]]:
        """On a worker: the rows and events since the last call."""
        events, self._arrived[:] = list(self._arrived), []
        return self.publication.taken(), [event for event in events if event["kind"] != "progress"]

    @cached_property
    def checkpoint_folder(self) -> Path:
        """Where a training keeps its resumable state: a sub-folder of `scratch`."""
        folder = self.scratch / CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        return folder
