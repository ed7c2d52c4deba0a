"""Density maps: what the counting view learns. The integral of a map over a photo is the number of its products.

Shapes: N items, B photos, C channels (1, or one a product), h×w cells of the map (photo size / stride).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SPREAD = 0.125
MIN_SIGMA_CELLS = 0.7
# A normalised Gaussian's squares sum up to 1 / (4 pi sigma^2): here of an item of 12 cells.
_SQUARES_OF_ONE = 1 / (4 * math.pi * (12 * SPREAD) ** 2)


def density_targets(
    boxes_N4: Tensor, *, photo_N: Tensor, channel_N: Tensor, shape: tuple[int, int, int, int], stride: int
) -> Tensor:
    """Density maps [B, C, h, w] = `shape` of items: a Gaussian each, with integral 1 inside the photo.

    The standard deviation is SPREAD of the box's width and height (at least MIN_SIGMA_CELLS cells), so that the blob
    lies inside the item. Each axis is normalised over the cells of the photo: an item at the border counts 1 as well.

    Args:
        boxes_N4: xyxy in pixels, centres inside the photo.
        photo_N: int64, which photo of the batch an item is in.
        channel_N: int64, which channel it counts in.
    """
    batch, channels, height, width = shape
    density = boxes_N4.new_zeros(batch * channels, height * width)
    if len(boxes_N4) == 0:
        return density.view(shape)
    across_Nw = _gaussian(boxes_N4[:, 0::2] / stride, cells=width)
    down_Nh = _gaussian(boxes_N4[:, 1::2] / stride, cells=height)
    blobs_Nhw = down_Nh[:, :, None] * across_Nw[:, None, :]
    density.index_add_(0, photo_N * channels + channel_N, blobs_Nhw.flatten(1))
    return density.view(shape)


def _gaussian(edges_N2: Tensor, *, cells: int) -> Tensor:
    centre_N1 = edges_N2.mean(dim=1, keepdim=True)
    sigma_N1 = ((edges_N2[:, 1:] - edges_N2[:, :1]) * SPREAD).clamp(min=MIN_SIGMA_CELLS)
    places_c = torch.arange(cells, device=edges_N2.device, dtype=edges_N2.dtype) + 0.5
    # softmax of the exponent is the normalised Gaussian, and is safe where all of it would underflow.
    return functional.softmax(-((places_c - centre_N1) ** 2) / (2 * sigma_N1**2), dim=1)


def counting_losses(predicted_BChw: Tensor, *, target_BChw: Tensor, valid_B1hw: Tensor) -> dict[str, Tensor]:
    """Losses of the counting view where `valid_B1hw` is 1; regions that must teach nothing are 0 there.

    `density`: squared error of a photo's map, relative to the squares of its target (at least those of one item), so
    that its size depends neither on the stride nor on how many cells are empty. `count`: absolute error of the
    integral, relative to 1 + count. Both are means over photos.
    """
    error = (predicted_BChw - target_BChw) * valid_B1hw
    scale_B = (target_BChw.square() * valid_B1hw).sum(dim=(1, 2, 3)).clamp(min=_SQUARES_OF_ONE)
    counted_B, true_B = ((map_BChw * valid_B1hw).sum(dim=(1, 2, 3)) for map_BChw in (predicted_BChw, target_BChw))
    count = ((counted_B - true_B).abs() / (1 + true_B)).mean()
    return {"density": (error.square().sum(dim=(1, 2, 3)) / scale_B).mean(), "count": count}


def valid_cells(ignore: list[Tensor], *, height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """1 where a photo may teach and 0 inside its ignore boxes (list of [M, 4] xyxy pixels), float [B, 1, h, w]."""
    xs = (torch.arange(width, device=device) + 0.5) * stride
    ys = (torch.arange(height, device=device) + 0.5) * stride
    valid = torch.ones(len(ignore), 1, height, width, device=device)
    for index, boxes_M4 in enumerate(ignore):
        if len(boxes_M4):
            across_Mw = (xs >= boxes_M4[:, :1]) & (xs < boxes_M4[:, 2:3])
            down_Mh = (ys >= boxes_M4[:, 1:2]) & (ys < boxes_M4[:, 3:4])
            valid[index, 0][(down_Mh[:, :, None] & across_Mw[:, None, :]).any(dim=0)] = 0
    return valid
