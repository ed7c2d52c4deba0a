"""Progress pictures of a CycleGAN's training: the same crops, translated and translated back, at fixed steps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.cyclegan import CycleGAN

PICTURES = 5


def picture_steps(steps: int) -> set[int]:
    """After which steps a picture is taken: PICTURES of them, evenly spaced, the last one at the end."""
    return {steps * number // PICTURES for number in range(1, PICTURES + 1)} - {0}


def progress_picture(model: CycleGAN, synthetic_B3SS: Tensor) -> NDArray[np.uint8]:
    """uint8 RGB [3 S, B S, 3]: the synthetic crops, below them as pool photos, below those translated back.

    `synthetic_B3SS` is float32 in [-1, 1] on the model's device.
    """
    with torch.inference_mode():
        pool_like_B3SS = model.to_pool(synthetic_B3SS)
        back_B3SS = model.to_synthetic(pool_like_B3SS)
    rows = [_side_by_side(images_B3SS) for images_B3SS in (synthetic_B3SS, pool_like_B3SS, back_B3SS)]
    return np.concatenate(rows)


def _side_by_side(images_B3SS: Tensor) -> NDArray[np.uint8]:
    bytes_B3SS = ((images_B3SS.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.concatenate(list(bytes_B3SS.permute(0, 2, 3, 1).cpu().numpy()), axis=1)
