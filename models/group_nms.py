"""Greedy non-maximum suppression of many groups of boxes at once, without a step a box and with few waits for a GPU.

torchvision's operator on a GPU takes one group a call and goes through its boxes one after the other.

Shapes: G groups of N boxes each (padded to the same number), xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rounds between two looks at whether anything has changed: each look waits for the device.
_ROUNDS = 6


def kept(boxes_GN4: Tensor, *, valid_GN: Tensor, iou: float) -> Tensor:
    """What greedy non-maximum suppression keeps in each group, bool [G, N].

    A box is kept if no better one that is kept overlaps it by more than `iou`. That is a fixed point, and iterating
    comes to it exactly: after t rounds each box whose chains of suppressors are no longer than t is settled, and no
    chain is longer than N.

    Args:
        boxes_GN4: float32, each group's best first.
        valid_GN: bool, false for padding, which is neither kept nor suppresses.
    """
    above_GNN = _overlaps_a_better_one(boxes_GN4, iou=iou)
    keep_GN = valid_GN
    # Autocast might convert the matrix in each round.
    with torch.autocast(boxes_GN4.device.type, enabled=False):
        while True:
            for _ in range(_ROUNDS):
                hits_GN1 = torch.bmm(above_GNN, keep_GN[:, :, None].to(above_GNN.dtype))
                keep_GN, before_GN = valid_GN & (hits_GN1[:, :, 0] == 0), keep_GN
            if torch.equal(keep_GN, before_GN):
                return keep_GN


def _overlaps_a_better_one(boxes_GN4: Tensor, *, iou: float) -> Tensor:
    """1 where a box (row) overlaps a better one (column) by more than `iou`, else 0, [G, N, N]."""
    x0_GN, y0_GN, x1_GN, y1_GN = boxes_GN4.unbind(dim=2)
    shared_GNN = _shared(x0_GN, high_GN=x1_GN).mul_(_shared(y0_GN, high_GN=y1_GN))
    area_GN = (x1_GN - x0_GN) * (y1_GN - y0_GN)
    # As torchvision computes it, rounding included; 0 / 0 is above nothing.
    union_GNN = (area_GN[:, :, None] + area_GN[:, None, :]).sub_(shared_GNN)
    above_GNN = (shared_GNN.div_(union_GNN) > iou).tril_(-1)
    # Sums of zeros and ones are 0 or not in bfloat16 too, at half the traffic; processors are slow in it.
    return above_GNN.to(torch.bfloat16 if above_GNN.is_cuda else torch.float32)


def _shared(low_GN: Tensor, *, high_GN: Tensor) -> Tensor:
    """The length along one axis that each pair of a group's boxes shares, [G, N, N]."""
    low_GNN = torch.maximum(low_GN[:, :, None], low_GN[:, None, :])
    return torch.minimum(high_GN[:, :, None], high_GN[:, None, :]).sub_(low_GNN).clamp_(min=0)
