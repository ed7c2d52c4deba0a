"""Batches as the engine sees them: tuples of parts (tensors, or lists of other things), one entry a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Any, ...]


def length(batch: Batch) -> int:
    """The number of samples in a batch."""
    return len(batch[0])


def pieces(batch: Batch, *, count: int) -> Iterator[Batch]:
    """The batch cut into `count` pieces of nearly the same length, in order; never an empty one."""
    size = length(batch)
    edges = sorted({round(size * index / count) for index in range(count + 1)})
    for first, last in zip(edges, edges[1:], strict=False):
        yield tuple(part[first:last] for part in batch)


def moved(value: Any, *, device: torch.device) -> Any:  # noqa: ANN401 - tensors, however nested
    """The same with every tensor on `device`; a tensor in pinned memory is copied while the device works on."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: moved(one, device=device) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(one, device=device) for one in value)
    return value
