"""The processes that train together: one a device, started by torch elastic, which tells each its place.

    torchrun --nproc-per-node 2 -m tasks.process REQUEST

Alone (no torch elastic around) everything here is free of effect. NCCL carries gradients between GPUs, gloo between
processors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

# One process evaluates while the others wait.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class World:
    """Which process of how many this is, and which of its machine."""

    rank: int
    size: int
    local_rank: int

    @property
    def leads(self) -> bool:
        """Whether this is the process that evaluates, saves and publishes."""
        return self.rank == 0

    def share_of(self, batch: int) -> int:
        """How many samples of a batch each process takes.

        Raises:
            ValueError: they can't be shared evenly.
        """
        if batch % self.size:
            raise ValueError(
                f"batch: expected a multiple of the {self.size} processes that train together, got {batch}; "
                f"try {batch // self.size * self.size or self.size} or {(batch // self.size + 1) * self.size}"
            )
        return batch // self.size

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over all processes."""
        if self.size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total / self.size

    def largest(self, value: int, *, device: torch.device) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return int(found)

    def from_leader(self, data: bytes, *, device: torch.device) -> bytes:
        """What the leading process gives, in every process."""
        if self.size == 1:
            return data
        count = torch.tensor(len(data), device=device)
        distributed.broadcast(count, src=0)
        body = torch.zeros(int(count), dtype=torch.uint8, device=device)
        if self.leads and data:
            body.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        distributed.broadcast(body, src=0)
        return body.cpu().numpy().tobytes()

    def with_shared_statistics(self, network: nn.Module, *, device: torch.device) -> None:
        """Let batch norms take their statistics from the samples of all processes, in place; state names stay.

        A process may hold one photo only, which says little. On processors there is no such norm: there the statistics
        of a process's own samples are used, and the leader's are kept.
        """
        if self.size > 1 and device.type == "cuda":
            # torch's own conversion drops the activations that timm's norms carry.
            convert_sync_batchnorm(network)

    def together(self, module: nn.Module, *, device: torch.device) -> nn.Module:
        """The module with gradients that are means over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


ALONE = World(rank=0, size=1, local_rank=0)


def world_of_environment() -> World:
    """The world that torch elastic tells of, or ALONE."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):
        return ALONE
    rank, size, local_rank = (int(os.environ[name]) for name in names)
    return World(rank=rank, size=size, local_rank=local_rank)


@contextmanager
def joined(world: World, *, device: torch.device) -> Iterator[None]:
    """Be connected with the other processes of the world."""
    if world.size == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def unsynchronised(module: nn.Module, *, unless: bool) -> Iterator[None]:
    """Gradients stay in this process (they are summed up first) `unless` they are to be shared now."""
    if unless or not isinstance(module, DistributedDataParallel):
        yield
        return
    with module.no_sync():
        yield
