"""Progress pictures of a renderer's training: the same crops, translated and translated back, at fixed steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PICTURES = 5


def picture_steps(steps: int) -> set[int]:
    """After which steps a picture is taken: PICTURES of them, evenly spaced, the last one at the end."""
    return {steps * number // PICTURES for number in range(1, PICTURES + 1)} - {0}


def progress_picture(synthetic_B3SS: Tensor, *, translators: Sequence[nn.Module]) -> NDArray[np.uint8]:
    """uint8 RGB [(1 + T) S, B S, 3]: the synthetic crops, below them what each translator made of the row above it.

    A CycleGAN has two translators, to the pool's look and back; a FastCUT has one. `synthetic_B3SS` is float32 in
    [-1, 1] on the translators' device.
    """
    rows = [synthetic_B3SS]
    with torch.inference_mode():
        for translator in translators:
            rows.append(translator(rows[-1]))
    return np.concatenate([_side_by_side(images_B3SS) for images_B3SS in rows])


def _side_by_side(images_B3SS: Tensor) -> NDArray[np.uint8]:
    bytes_B3SS = ((images_B3SS.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.concatenate(list(bytes_B3SS.permute(0, 2, 3, 1).cpu().numpy()), axis=1)
