"""A DPSNet for another catalog: its class head, and its density channels, with rows for other products.

Rows of products that stay are kept. The row of a new product is made from embeddings: what the network's own head sees
in photos that show it. It is the direction from all other products to the new one (after Qi, Brown and Lowe, "Low-Shot
Learning with Imprinted Weights", CVPR 2018), scaled so that it tells its product from others as far as the old rows
tell theirs on average; training starts from there.

Shapes: K products, N regions, H width of the head, B photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.dpsnet import DPSNet

_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What the head saw in regions: features [N, H] and the product of each, int64 [N], places in the new catalog."""

    features_NH: Tensor
    product_N: Tensor


@torch.no_grad()
def region_features(network: DPSNet, photos_B3HW: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """The head's features, float32 [N, H], of boxes [n, 4] of each photo, one photo's after the other's.

    Photos are RGB in [0, 1], as the network takes them.
    """
    maps = network.pyramid_maps(photos_B3HW)
    size = (photos_B3HW.shape[-2], photos_B3HW.shape[-1])
    heads = network.roi_heads
    return heads.box_head(heads.box_roi_pool(maps, list(boxes), [size] * len(boxes)))


def with_products(
    network: DPSNet, *, before: Sequence[int | None], count_channels: tuple[int, ...], seen: Embeddings
) -> DPSNet:
    """A copy of the network whose product k was its product `before[k]`, or is new (None).

    `count_channels`: the density channel of each product (empty: one for all). `seen`: embeddings of new products, and
    of old ones to compare with; without any of a product its row is the mean of all rows.
    """
    config = replace(network.config, classes=len(before), count_channels=count_channels)
    made = DPSNet(config, pretrained=False)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    head = "roi_heads.box_predictor"
    weight, bias = state[f"{head}.cls_score.weight"], state[f"{head}.cls_score.bias"]
    rows, offsets = class_rows(weight, bias, before=before, seen=seen)
    state[f"{head}.cls_score.weight"], state[f"{head}.cls_score.bias"] = rows, offsets
    for name in ("weight", "bias"):
        state[f"{head}.bbox_pred.{name}"] = box_rows(state[f"{head}.bbox_pred.{name}"], before=before)
        key = f"counting.last.{name}"
        state[key] = channel_rows(state[key], network.config.count_channels, before=before, channels=count_channels)
    made.load_state_dict(state)
    return made


def class_rows(
    weight: Tensor, bias: Tensor, *, before: Sequence[int | None], seen: Embeddings
) -> tuple[Tensor, Tensor]:
    """Weight [K + 1, H] and bias [K + 1] of the class head (background first) for the products `before` describes."""
    rows, offsets = [weight[0]], [bias[0]]
    scale = _separation(weight, bias, before=before, seen=seen)
    others_H = _mean_of_means(seen, products=[place for place, old in enumerate(before) if old is not None])
    for place, old in enumerate(before):
        if old is not None:
            rows.append(weight[old + 1])
            offsets.append(bias[old + 1])
            continue
        own_NH = seen.features_NH[seen.product_N == place]
        if len(own_NH) == 0 or scale is None or others_H is None:
            rows.append(weight[1:].mean(dim=0))
            offsets.append(bias[1:].mean())
            continue
        row, offset = _imprinted(own_NH.mean(dim=0), others_H=others_H, own=scale[0], apart=scale[0] - scale[1])
        rows.append(row)
        offsets.append(offset)
    return torch.stack(rows), torch.stack(offsets)


def _imprinted(own_H: Tensor, *, others_H: Tensor, own: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """The row whose logit is `own` at the product's mean embedding, and less by `apart` at that of the others."""
    direction_H = own_H - others_H
    row_H = direction_H * apart.clamp(min=0) / direction_H.square().sum().clamp(min=_LEAST)
    return row_H, own - row_H @ own_H


def _separation(
    weight: Tensor, bias: Tensor, *, before: Sequence[int | None], seen: Embeddings
) -> tuple[Tensor, Tensor] | None:
    """The old rows' mean logit on their own products, and on other old products; None without two of those."""
    own, other = [], []
    old_N = torch.tensor([-1 if (old := before[place]) is None else old for place in seen.product_N.tolist()])
    for old in sorted(set(old_N.tolist()) - {-1}):
        logits_N = seen.features_NH @ weight[old + 1] + bias[old + 1]
        own.append(logits_N[old_N == old].mean())
        rest_N = (old_N != old) & (old_N >= 0)
        if rest_N.any():
            other.append(logits_N[rest_N].mean())
    return (torch.stack(own).mean(), torch.stack(other).mean()) if other else None


def _mean_of_means(seen: Embeddings, *, products: Sequence[int]) -> Tensor | None:
    means = [own.mean(dim=0) for one in products if len(own := seen.features_NH[seen.product_N == one])]
    return torch.stack(means).mean(dim=0) if means else None


def box_rows(rows: Tensor, *, before: Sequence[int | None]) -> Tensor:
    """Rows of the box head ([4 (K + 1), …], four a product, background first); a new product's are the mean of all."""
    fours = rows.reshape(-1, 4, *rows.shape[1:])
    mean = fours[1:].mean(dim=0)
    chosen = [fours[0], *(mean if old is None else fours[old + 1] for old in before)]
    return torch.stack(chosen).reshape(-1, *rows.shape[1:])


def channel_rows(
    rows: Tensor, old_channels: Sequence[int], *, before: Sequence[int | None], channels: Sequence[int]
) -> Tensor:
    """Rows [C, …] of the density map's last convolution: that of a product that had the channel, else the mean."""
    if not channels:
        return rows
    chosen = [rows.mean(dim=0)] * (max(channels) + 1)
    for place, old in enumerate(before):
        if old is not None:
            chosen[channels[place]] = rows[old_channels[old]] if old_channels else rows[0]
    return torch.stack(chosen)
