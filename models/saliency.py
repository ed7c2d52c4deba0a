"""A saliency network with deep supervision and short connections (DSS) on a light pretrained backbone.

After Hou et al., "Deeply Supervised Salient Object Detection with Short Connections", CVPR 2017: every level of the
backbone has a side output with its own loss, and every side output sees those of the deeper levels. Two changes: the
backbone is a light one (Tan and Le's EfficientNet-Lite0 instead of VGG-16), the nearest deeper level hands down its
features, not only its map, and the finest side output is as large as the photo: a sub-pixel convolution (Shi et al.,
CVPR 2016) places the outline more exactly than the backbone's stride.

Shapes: B batch, H×W pixels of the photo, S side outputs (finest first).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import build_backbone

_STRIDES = (2, 4, 8, 16, 32)


class SideOutput(nn.Module):
    """One level's map: backbone features, features from the nearest deeper level, maps of all deeper levels.

    Args:
        channels: of the backbone's level.
        width: of the level's own features.
        deeper: how many deeper maps there are.
        fold: the map is this many times as large as the level.
    """

    def __init__(self, channels: int, width: int, *, deeper: int, fold: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(channels, width, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(width + deeper, width, 3, padding=1, bias=False), nn.GroupNorm(4, width), nn.ReLU(inplace=True)
        )
        self.score = nn.Conv2d(width, fold * fold, 1)
        self.unfold = nn.PixelShuffle(fold)

    def forward(
        self, features: Tensor, deeper_features: Tensor | None, deeper_maps: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The level's own features at its size, and its map (logits) at `fold` times that."""
        size = features.shape[-2:]
        mixed = self.lateral(features)
        if deeper_features is not None:
            mixed = mixed + _resize(deeper_features, size)
        mixed = self.mix(torch.cat([mixed, *(_resize(deeper, size) for deeper in deeper_maps)], dim=1))
        return mixed, self.unfold(self.score(mixed))


class SaliencyNet(nn.Module):
    """Photos to the probability that a pixel belongs to a product.

    Args:
        backbone: name understood by `models.backbones.build_backbone`.
        width: channels of the side outputs, a multiple of 4.
        pretrained: start the backbone from its ImageNet weights.
    """

    def __init__(self, *, backbone: str, width: int, pretrained: bool) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, pretrained=pretrained, out_strides=_STRIDES)
        levels = len(self.backbone.channels)
        self.sides = nn.ModuleList(
            SideOutput(channels, width, deeper=levels - 1 - index, fold=_STRIDES[0] if index == 0 else 1)
            for index, channels in enumerate(self.backbone.channels)
        )
        self.fuse = nn.Conv2d(levels, 1, 1)
        nn.init.constant_(self.fuse.weight, 1 / levels)
        nn.init.zeros_(self.fuse.bias)

    def forward(self, photos_B3HW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of the fused map [B, 1, H, W] and of the side outputs: the finest at full size, then H/4, H/8, ..."""
        features = self.backbone(photos_B3HW)
        maps: list[Tensor] = []
        carried: Tensor | None = None
        for side, level in zip(reversed(self.sides), reversed(features), strict=True):
            carried, score = side(level, carried, maps)
            maps.append(score)
        maps.reverse()
        size = maps[0].shape[-2:]
        return self.fuse(torch.cat([_resize(score, size) for score in maps], dim=1)), maps


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class SaliencyLosses(nn.Module):
    """A batch to its loss: deep supervision, cross entropy on every map, and soft IoU on the fused one."""

    def __init__(self, network: SaliencyNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos_B3HW: Tensor, target_B1HW: Tensor, weight_B1HW: Tensor) -> dict[str, Tensor]:
        """The loss, a mean over the samples.

        Args:
            photos_B3HW: as `SaliencyNet.forward` takes them.
            target_B1HW: float in [0, 1].
            weight_B1HW: float >= 0; pixels with weight 0 teach nothing.
        """
        fused, maps = self.network(photos_B3HW)
        return {"saliency": saliency_loss(fused, maps, target_B1HW=target_B1HW, weight_B1HW=weight_B1HW)}


def saliency_loss(fused: Tensor, maps: list[Tensor], *, target_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """Deep supervision: cross entropy plus soft IoU on the fused map, cross entropy on every side output.

    Args:
        fused, maps: logits as `SaliencyNet.forward` returns them.
        target_B1HW: float in [0, 1].
        weight_B1HW: float >= 0; pixels with weight 0 teach nothing.
    """
    target, weight = _shrink(target_B1HW, fused.shape[-2:]), _shrink(weight_B1HW, fused.shape[-2:])
    loss = _cross_entropy(fused, target, weight) + _soft_iou_loss(fused, target, weight)
    for score in maps:
        size = score.shape[-2:]
        loss = loss + 0.4 * _cross_entropy(score, _shrink(target_B1HW, size), _shrink(weight_B1HW, size))
    return loss


def _shrink(maps: Tensor, size: torch.Size) -> Tensor:
    return functional.adaptive_avg_pool2d(maps, size)


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    return (loss.sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def _soft_iou_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    probability = logits.sigmoid() * weight
    target = target * weight
    shared = (probability * target).sum(dim=(1, 2, 3))
    union = (probability + target - probability * target).sum(dim=(1, 2, 3))
    return (1 - (shared + 1) / (union + 1)).mean()
