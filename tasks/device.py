"""The device and the precision that parameters mean."""

from __future__ import annotations

from typing import Literal

import torch

from models.training.half_precision import computes_bfloat16
from models.training.trainer import Precision


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


def pick_precision(name: Precision | Literal["auto"], *, device: torch.device) -> Precision:
    """The precision a parameter means: "auto" is bfloat16 where the device has instructions for it, else float32."""
    if name != "auto":
        return name
    return "bf16" if computes_bfloat16(device) else "fp32"
