"""Mapped stages: one function over many items, by threads, by processes, or by the workers of a Dask cluster.

The function travels once to each worker, pickled with what it refers to (cloudpickle: between processes of one run, all
of this program); items travel in pieces. What it writes goes straight into the store; rows and events come back.
Results come in the order of the items, and are those of the serial run: each depends on its item alone, and a worker's
torch takes as many threads as the caller's. OpenCV takes one: its results don't depend on that.

A piece whose worker dies is given to another one.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import cloudpickle
import cv2

from storage.digest import JSON, digest_bytes
from storage.manifest import ManifestRow
from tasks.ahead import ahead

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS, PROCESSES, DASK = "threads", "processes", "dask"
# Results that wait to be taken, a worker: memory stays flat.
_AHEAD = 4
_PIECES, _LARGEST_PIECE = 4, 64
_ATTEMPTS = 4
_UNWATCHED = {"distributed.worker.profile.enabled": False}
# glibc's mallopt: names from malloc.h, and the largest sizes it takes for memory that is kept.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST_KEPT = 1 << 28, 1 << 25


class Traveller(Protocol):
    """What a function may refer to that collects what it does on a worker: see `StageContext`."""

    def collected(self) -> tuple[list[ManifestRow], list[dict[str, JSON]]]:
        """Rows and events since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Piece(Generic[Result]):
    """Results of some items in a row, and the rows and events that came with them."""

    results: list[Result]
    rows: list[ManifestRow]
    events: list[dict[str, JSON]]


@dataclass(frozen=True, slots=True)
class Luggage:
    """A function on its way to workers: pickled together with the traveller it refers to."""

    data: bytes
    digest: str
    threads: int

    @staticmethod
    def pack(function: Callable[[Any], Any], traveller: Traveller) -> Luggage:
        """Pack a function."""
        data = cloudpickle.dumps((function, traveller))
        torch = sys.modules.get("torch")
        return Luggage(data, digest_bytes(data), torch.get_num_threads() if torch else 0)


@lru_cache(maxsize=2)
def _unpacked(luggage: Luggage) -> tuple[Callable[[Any], Any], Traveller]:
    if luggage.threads:
        import torch

        torch.set_num_threads(luggage.threads)
    # A worker is one of several on its machine, each with items of its own: they would wait for each other's threads.
    cv2.setNumThreads(1)
    keep_freed_memory()
    function, traveller = cloudpickle.loads(luggage.data)
    return function, traveller


def keep_freed_memory() -> None:
    """Let freed memory be used again by this process, where the C library is glibc.

    Dask starts its workers with `MALLOC_TRIM_THRESHOLD_`: whatever a photo takes is then given back to the system, and
    taken from it page by page for the next one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)


def work_on(luggage: Luggage, items: Sequence[Any]) -> Piece[Any]:
    """On a worker: the results of some items."""
    function, traveller = _unpacked(luggage)
    # What an attempt that failed has left is not this one's.
    traveller.collected()
    results = [function(item) for item in items]
    return Piece(results, *traveller.collected())


def in_pieces(items: Sequence[Item], *, workers: int) -> list[Sequence[Item]]:
    """The items in pieces, shorter ones to the end, so that none waits long for the last: guided self-scheduling.

    Source: Polychronopoulos and Kuck, IEEE Transactions on Computers 1987.
    """
    pieces, first = [], 0
    while first < len(items):
        size = max(1, min(_LARGEST_PIECE, (len(items) - first) // (_PIECES * workers)))
        pieces.append(items[first : first + size])
        first += size
    return pieces


def by_threads(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> Iterator[Result]:
    """Results in the order of the items, by threads of this process; serially by one."""
    if workers <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as executor:
        yield from ahead(function, items, executor=executor, most=_AHEAD * workers)


def by_processes(luggage: Luggage, items: Sequence[Any], *, workers: int) -> Iterator[Piece[Any]]:
    """Pieces in order, by processes of this machine; those of a process that died are given to new ones."""
    pieces = in_pieces(items, workers=workers)
    done = 0
    for attempt in range(_ATTEMPTS):
        try:
            # Spawned, not forked: a fork of a process with running threads (OpenMP, Prefect) may hang or die.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, context, initializer=_unpack, initargs=(luggage,)) as executor:
                for piece in ahead(_work_on_unpacked, pieces[done:], executor=executor, most=_AHEAD * workers):
                    yield piece
                    done += 1
            return
        except BrokenProcessPool:
            if attempt == _ATTEMPTS - 1:
                raise


# One function at a time in a worker of `by_processes`: it is unpacked when the process starts.
_held: list[Luggage] = []


def _unpack(luggage: Luggage) -> None:
    _held[:] = [luggage]
    _unpacked(luggage)


def _work_on_unpacked(items: Sequence[Any]) -> Piece[Any]:
    return work_on(_held[0], items)


def by_dask(luggage: Luggage, items: Sequence[Any], *, address: str) -> Iterator[Piece[Any]]:
    """Pieces in order, by the workers of the Dask cluster at `address`."""
    from distributed import Client

    # The function is large: on one machine it need not pass through the scheduler.
    with Client(address, set_as_default=False, direct_to_workers=_is_here(address)) as client:
        workers = max(1, len(client.scheduler_info()["workers"]))
        pieces, done = in_pieces(items, workers=workers), 0
        for attempt in range(_ATTEMPTS):
            try:
                for piece in _from_cluster(client, luggage, pieces[done:], most=_AHEAD * workers):
                    yield piece
                    done += 1
                return
            except _lost_errors():
                # The workers that held the function are gone: it is sent again to those that are there.
                if attempt == _ATTEMPTS - 1:
                    raise


def _from_cluster(
    client: Client, luggage: Luggage, pieces: Sequence[Sequence[Any]], *, most: int
) -> Iterator[Piece[Any]]:
    # On every worker: if one dies the others have it.
    sent = client.scatter(luggage, broadcast=True, hash=False)
    waiting: deque[Any] = deque()
    try:
        for piece in pieces:
            waiting.append(client.submit(work_on, sent, piece, pure=False, retries=_ATTEMPTS))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        client.cancel(list(waiting))


def _is_here(address: str) -> bool:
    """Whether a Dask address is this machine's: its workers can be spoken to as well as its scheduler."""
    return urlsplit(address).hostname in {"127.0.0.1", "localhost", "::1"}


def _lost_errors() -> tuple[type[BaseException], ...]:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    return KilledWorker, FutureCancelledError, CancelledError


@contextmanager
def dask_cluster(workers: int) -> Iterator[str]:
    """A Dask cluster of processes on this machine; gives its scheduler's address."""
    import dask
    from distributed import LocalCluster

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": "ERROR"}
    # A worker would look at its stack a hundred times a second, for a dashboard that isn't there.
    with dask.config.set(_UNWATCHED), LocalCluster(n_workers=workers, **options) as cluster:
        yield str(cluster.scheduler_address)
