"""DPSNet: a detection view and a counting view on one feature pyramid.

After "Iterative Knowledge Distillation for Automatic Check-Out", IEEE TMM 2021. The detection view is Faster R-CNN on a
pyramid (Ren et al. 2015, Lin et al. 2017) out of torchvision's parts. The counting view hands the pyramid down from its
coarsest level to stride 8 (P6 → P5 → P4 → P3, bilinear resizing and 1×1 convolutions), adds the finer P2 where there is
one, and ends in a 3×3 and a 1×1 convolution to a density map. Unlike the published code nothing is normalised after the
last convolution, the head learns at the full rate, and one scale holds in training and inference: it counts.

Shapes: B photos, H×W pixels, N items of a photo. Boxes are xyxy in pixels. Photos are float32 RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.backbones import build_backbone
from models.density import counting_losses, density_targets, valid_cells
from models.proposals import (
    IgnoringRegionProposals,
    IgnoringRoIHeads,
    SeededSampler,
    WholeAnchors,
    WholePredictor,
    WholeProposalHead,
)
from models.region_pooling import RegionPooling

COUNT_STRIDE = 8
_ANCHOR_STRIDES = 4


@dataclass(frozen=True, kw_only=True)
class DPSNetConfig:
    """What a DPSNet is made of; JSON can hold it.

    `strides`: levels of the pyramid that come from the backbone, finest first: (4, 8, 16, 32), or (8, 16, 32) without
    P2; one coarser level is pooled from the last. `anchor_sizes`: side in pixels of each level's square anchor (empty:
    four strides); `anchor_ratios`: height / width of the anchors. `count_channels`: the density channel of each product
    (empty: one channel for all). `frozen_stages`: how many of the backbone's first parts keep their pretrained weights
    (they cost no backward pass). `norm`: "frozen" folds the backbone's batch normalisations into its convolutions,
    "group" puts group normalisation in their place. `samples`: regions a photo that the head learns from;
    `roi_samples`: points a side that each of a region's 7×7 cells is averaged from.
    """

    classes: int
    backbone: str = "efficientnet_lite0"
    strides: tuple[int, ...] = (4, 8, 16, 32)
    width: int = 256
    head_width: int = 1024
    anchor_sizes: tuple[float, ...] = ()
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 300
    samples: int = 128
    roi_samples: int = 2
    norm: Literal["frozen", "trainable", "group"] = "frozen"
    count_channels: tuple[int, ...] = ()
    nms: Literal["agnostic", "product"] = "agnostic"
    nms_iou: float = 0.5
    score_floor: float = 0.05
    max_detections: int = 100
    frozen_stages: int = 0


class CountingView(nn.Module):
    """Pyramid maps to a density map at stride 8."""

    def __init__(self, width: int, *, levels: int, finer: bool, channels: int) -> None:
        """`levels`: pyramid levels from stride 8 upwards; `finer`: whether there is a level at stride 4 to add."""
        super().__init__()
        self.hand_down = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(levels - 1))
        self.from_finer = nn.Conv2d(width, width, 1) if finer else None
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 1)
        # softplus(-5.5) ≈ 0.004 a cell: a dozen items on 56 x 56 cells, so that learning starts at the right scale.
        nn.init.constant_(self.last.bias, -5.5)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Density [B, C, H / 8, W / 8], non-negative, of pyramid maps, finest first."""
        coarse_to_fine = maps[:0:-1] if self.from_finer is None else maps[:1:-1]
        finest = maps[0] if self.from_finer is None else maps[1]
        handed = coarse_to_fine[0]
        for convolution, level in zip(self.hand_down, [*coarse_to_fine[1:], finest], strict=True):
            handed = functional.relu(convolution(_resize(handed, like=level)) + level)
        if self.from_finer is not None:
            handed = handed + self.from_finer(_resize(maps[0], like=handed))
        return functional.softplus(self.last(functional.relu(self.mix(handed))).float())


def _resize(map_BChw: Tensor, *, like: Tensor) -> Tensor:
    return functional.interpolate(map_BChw, size=like.shape[-2:], mode="bilinear", align_corners=False)


class DPSNet(nn.Module):
    """Both views. `train()` mode wants targets and returns losses; `eval()` mode returns detections and density."""

    def __init__(self, config: DPSNetConfig, *, pretrained: bool) -> None:
        """Build the network; `pretrained` starts the backbone from ImageNet weights."""
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, pretrained=pretrained, out_strides=config.strides)
        if config.norm == "frozen":
            self.backbone.fold_norms()
        elif config.norm == "group":
            self.backbone.group_norms()
        self.backbone.freeze(config.frozen_stages)
        self.pyramid = FeaturePyramidNetwork(self.backbone.channels, config.width, extra_blocks=LastLevelMaxPool())
        self.proposals = _region_proposals(config)
        self.roi_heads = _roi_heads(config)
        self.samplers = (
            SeededSampler(batch_size_per_image=2 * config.samples, positive_fraction=0.5),
            SeededSampler(batch_size_per_image=config.samples, positive_fraction=0.25),
        )
        self.proposals.fg_bg_sampler, self.roi_heads.fg_bg_sampler = self.samplers
        finer = config.strides[0] < COUNT_STRIDE
        levels = len(config.strides) + (0 if finer else 1)
        channels = config.count_channels or (0,) * config.classes
        self.counting = CountingView(config.width, levels=levels, finer=finer, channels=max(channels) + 1)
        self.register_buffer("count_channels", torch.tensor(channels), persistent=False)
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(self.backbone.std).view(1, 3, 1, 1), persistent=False)

    def pyramid_maps(self, photos_B3HW: Tensor) -> OrderedDict[str, Tensor]:
        """The pyramid's maps by name ("0" finest … "pool"), all with `config.width` channels."""
        maps = self.backbone((photos_B3HW - self.mean) / self.deviation)
        return self.pyramid(OrderedDict((str(index), one) for index, one in enumerate(maps)))

    def forward(
        self, photos_B3HW: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | tuple[list[dict[str, Tensor]], Tensor]:
        """Losses by name when training; else (detections, density [B, C, H/8, W/8]).

        Args:
            photos_B3HW: RGB in [0, 1]; H and W multiples of 64.
            targets: per photo `boxes` [N, 4], `labels` int64 [N] from 1, `ignore` [M, 4]: boxes that teach nothing, and
                `seed`: int, from which the photo's training samples are drawn.

        Losses are means over photos: those of a batch are the means of those of its parts.

        Detections are dicts of `boxes` [N, 4], `scores` [N] and `labels` [N], best score first.
        """
        if self.training:
            assert targets is not None, "training needs targets"
            for salt, sampler in enumerate(self.samplers):
                sampler.start([2 * int(target["seed"]) + salt for target in targets])
        maps = self.pyramid_maps(photos_B3HW)
        density = self.counting(list(maps.values()))
        height, width = photos_B3HW.shape[-2:]
        images = ImageList(photos_B3HW, [(height, width)] * len(photos_B3HW))
        proposals, proposal_losses = self.proposals(images, maps, targets)
        detections, region_losses = self.roi_heads(maps, proposals, images.image_sizes, targets)
        if not self.training:
            return detections, density
        losses = [
            sampler.over_photos(one)
            for sampler, one in zip(self.samplers, (proposal_losses, region_losses), strict=True)
        ]
        return {**losses[0], **losses[1], **self._counting_losses(density, targets=targets)}

    def _counting_losses(self, density: Tensor, *, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        boxes = torch.cat([target["boxes"] for target in targets])
        labels = torch.cat([target["labels"] for target in targets])
        sizes = torch.tensor([len(target["boxes"]) for target in targets], device=density.device)
        # With the length given nothing waits for the device.
        photo_N = torch.repeat_interleave(
            torch.arange(len(targets), device=density.device), sizes, output_size=len(boxes)
        )
        channel_N = self.count_channels[labels - 1]
        shape = (density.shape[0], density.shape[1], density.shape[2], density.shape[3])
        wanted = density_targets(boxes, photo_N=photo_N, channel_N=channel_N, shape=shape, stride=COUNT_STRIDE)
        ignore = [target["ignore"] for target in targets]
        valid = valid_cells(ignore, height=shape[2], width=shape[3], stride=COUNT_STRIDE, device=density.device)
        return counting_losses(density, target_BChw=wanted, valid_B1hw=valid)


class DPSNetLosses(nn.Module):
    """What a DPSNet learns from a batch: its losses, those of the counting view times their weights.

    Where targets hold a `matrix` [2, 3], a `light` [7] and `covers` [K, 5] (`models.augmentation`) the device varies
    the photos.
    """

    def __init__(self, network: DPSNet, *, size: int, density_weight: float, count_weight: float) -> None:
        """Wrap a network; `size`: side of a varied photo in pixels."""
        super().__init__()
        self.network, self.size = network, size
        self.weights = {"density": density_weight, "count": count_weight}

    def forward(self, photos_BHW3: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses by name of photos uint8 RGB [B, H, W, 3] with targets as DPSNet wants them."""
        photos_B3HW = photos_BHW3.permute(0, 3, 1, 2).float() / 255
        if "matrix" in targets[0]:
            # Its libraries take a second that predictions, and trainings varied by their loaders, should not wait for.
            from models.augmentation import varied

            photos_B3HW = varied(photos_B3HW, targets=targets, size=self.size)
        losses = self.network(photos_B3HW, targets)
        return {name: loss * self.weights.get(name, 1.0) for name, loss in losses.items()}


def _region_proposals(config: DPSNetConfig) -> IgnoringRegionProposals:
    strides = (*config.strides, 2 * config.strides[-1])
    sides = config.anchor_sizes or tuple(float(_ANCHOR_STRIDES * stride) for stride in strides)
    anchors = WholeAnchors(sizes=tuple((side,) for side in sides), aspect_ratios=(config.anchor_ratios,) * len(strides))
    head = WholeProposalHead(config.width, anchors.num_anchors_per_location()[0])
    kept = {"training": config.proposals, "testing": config.proposals}
    return IgnoringRegionProposals(
        anchors,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=2 * config.samples,
        positive_fraction=0.5,
        pre_nms_top_n={name: 2 * count for name, count in kept.items()},
        post_nms_top_n=kept,
        nms_thresh=0.7,
    )


def _roi_heads(config: DPSNetConfig) -> IgnoringRoIHeads:
    names = [str(index) for index in range(len(config.strides))]
    pooled = 7
    heads = IgnoringRoIHeads(
        RegionPooling(featmap_names=names, output_size=pooled, sampling_ratio=config.roi_samples),
        TwoMLPHead(config.width * pooled**2, config.head_width),
        WholePredictor(config.head_width, config.classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.samples,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=config.score_floor,
        nms_thresh=config.nms_iou,
        detections_per_img=config.max_detections,
    )
    heads.agnostic_nms = config.nms == "agnostic"
    return heads


def padded_size(size: int) -> int:
    """The smallest multiple of 64 (the coarsest level's stride) that is not below `size` pixels."""
    return math.ceil(size / 64) * 64
