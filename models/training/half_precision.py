"""Half precision on a CPU: where it pays, and which layers must keep float32 for it to pay.

Processors with bfloat16 instructions compute ordinary convolutions faster in it, forwards and backwards. For the
backward pass of most depthwise convolutions PyTorch has no bfloat16 kernel there, and what it takes instead is slower
than the float32 one. `benchmarks.train speed` shows what is gained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_depthwise_whole(network: nn.Module) -> None:
    """Let depthwise convolutions that learn compute in float32 under autocast on a CPU; what they give is bfloat16.

    Those that are frozen have no backward pass and compute as the others do.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.weight.requires_grad:
            module.forward = partial(_whole, module.forward)  # type: ignore[method-assign]


def _whole(forward: Callable[[Tensor], Tensor], maps_BChw: Tensor) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return forward(maps_BChw)
    with torch.autocast("cpu", enabled=False):
        return forward(maps_BChw.float()).to(torch.get_autocast_dtype("cpu"))
