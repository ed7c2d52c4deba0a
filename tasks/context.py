"""What a running stage may use: its inputs' bytes, its own publication, randomness, parallel maps and progress.

A stage function gets a `StageContext` and its input manifests; everything it writes goes through the context, so that
digests, rows and the final commit are made in one place.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from storage.digest import JSON, digest_json
from storage.images import Picture, decode_grey, decode_rgb, decode_rgba
from storage.manifest import ManifestRow
from storage.store import Publication, Store

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
    nothing more. `scratch` is a local folder of this stage key that outlives a killed run.
    """

    stage: str
    seed: int
    store: Store
    publication: Publication
    scratch: Path
    workers: int = 1
    events: EventSink = discard_event
    content: dict[str, JSON] = field(default_factory=dict)
    metadata: dict[str, JSON] = field(default_factory=dict)

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
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        what: str = "photos",
        kind: Literal["threads", "processes"] = "threads",
    ) -> Iterator[Result]:
        """Results of `function` in the order of `items`, computed by `workers` threads or processes.

        At most four results a worker wait to be taken, so memory stays flat. For "processes" the function and the items
        must be importable and picklable (they only travel between processes of this run).
        """
        listed = list(items)
        results = map(function, listed) if self.workers <= 1 else self._parallel(function, listed, kind=kind)
        return self.progress(results, total=len(listed), what=what)

    def _parallel(self, function: Callable[[Item], Result], items: list[Item], *, kind: str) -> Iterator[Result]:
        with self._executor(kind) as executor:
            waiting: deque[Future[Result]] = deque()
            try:
                for item in items:
                    waiting.append(executor.submit(function, item))
                    if len(waiting) >= 4 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _executor(self, kind: str) -> Executor:
        if kind == "threads":
            return ThreadPoolExecutor(self.workers)
        # Spawned, not forked: a fork of a process with running threads (OpenMP, Prefect) may hang or die.
        return ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))

    @cached_property
    def checkpoint_folder(self) -> Path:
        """Where a training keeps its resumable state: a sub-folder of `scratch`."""
        folder = self.scratch / CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        return folder
