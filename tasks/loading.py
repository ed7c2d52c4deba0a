"""Batches for training, drawn ahead by worker processes: every sample has a number, and all it is depends on that.

A sample source makes sample `position` of the batch of `step` whenever it is asked to, so the order of the data is no
state: a training that goes on at step n asks for the samples of step n, with however many workers and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from models.training.batches import Batch
from models.training.world import World

_AHEAD = 3
Sample = TypeVar("Sample", covariant=True)


class SampleSource(Protocol[Sample]):
    """Makes samples by their place in a training."""

    def sample(self, *, step: int, position: int) -> Sample:
        """Sample `position` (from 0) of the batch of `step` (from 0); the same whoever asks."""
        ...


class _Places(Dataset[Any]):
    def __init__(self, source: SampleSource[Any]) -> None:
        self._source = source

    def __getitem__(self, place: tuple[int, int]) -> Any:  # noqa: ANN401 - what the source makes
        return self._source.sample(step=place[0], position=place[1])


def batches(
    source: SampleSource[Any],
    *,
    collate: Callable[[Sequence[Any]], Batch],
    batch: int,
    steps: range,
    world: World,
    workers: int,
    pinned: bool = False,
) -> Iterator[Batch]:
    """This process's share of the batches of `steps`: samples of a step at neighbouring positions, put together.

    Args:
        batch: samples a step, over all processes.
        workers: processes that draw ahead; 0: they are drawn when they are asked for.
        pinned: lay them in memory that a GPU can copy from by itself.
    """
    share = world.share_of(batch)
    first = world.rank * share
    places = [[(step, first + index) for index in range(share)] for step in steps]
    loader = DataLoader(
        _Places(source),
        batch_sampler=places,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_one_thread if workers else None,
        prefetch_factor=_AHEAD if workers else None,
        pin_memory=pinned,
        # Forked: a worker starts at once and shares what has been read. Nothing in it touches a GPU.
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
