"""The device that a parameter means."""

from __future__ import annotations

import torch


def pick_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device a parameter means: "auto" is the GPU where there is one; each process of a machine takes its own.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a CUDA GPU, got none on this machine; use device = cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
