"""torchvision's region proposals and region heads, made to respect ignore regions and to sample from given seeds.

Under autocast torchvision rounds boxes to the precision of what the heads say, in bfloat16 by up to a pixel in 256;
here anchors and what the heads say are float32.

An ignore region is a part of a photo of which nobody knows what it shows (a doubtful pseudo-label). What lies there is
neither a positive nor a negative example: anchors and proposals of which more than half lies in one are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms

_LEFT_OUT = -1
_COVERED = 0.5


def covered_by(boxes_N4: Tensor, *, regions_M4: Tensor) -> Tensor:
    """Whether more than half of each box lies inside one of the regions, bool [N]."""
    if len(regions_M4) == 0 or len(boxes_N4) == 0:
        return torch.zeros(len(boxes_N4), dtype=torch.bool, device=boxes_N4.device)
    low = torch.maximum(boxes_N4[:, None, :2], regions_M4[None, :, :2])
    high = torch.minimum(boxes_N4[:, None, 2:], regions_M4[None, :, 2:])
    shared_NM = (high - low).clamp(min=0).prod(dim=2)
    area_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).clamp(min=0).prod(dim=1)
    return (shared_NM > _COVERED * area_N[:, None]).any(dim=1)


class SeededSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler with a seed for each photo: what is drawn depends on no other photo and can be repeated."""

    _seeds: Sequence[int] = ()
    _drawn: int = 0

    def start(self, seeds: Sequence[int]) -> None:
        """Draw for the photos of a batch from these seeds."""
        self._seeds, self._drawn = seeds, 0

    def over_photos(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses (scalars) that torchvision divides by the number of samples drawn, by the number that was wanted.

        So a sample weighs the same in every photo, and losses of a batch are the means of those of its photos.
        """
        if not self._drawn:
            # Means over nothing.
            return {name: torch.nan_to_num(loss) * 0 for name, loss in losses.items()}
        share = self._drawn / (len(self._seeds) * self.batch_size_per_image)
        return {name: loss * share for name, loss in losses.items()}

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the sampled positives (label >= 1) and negatives (label 0) of each photo."""
        pairs = [self._sample(labels, seed=seed) for labels, seed in zip(matched_idxs, self._seeds, strict=True)]
        return [positive for positive, _ in pairs], [negative for _, negative in pairs]

    def _sample(self, labels: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        positives, negatives = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
        wanted = min(len(positives), int(self.batch_size_per_image * self.positive_fraction))
        kept = (
            _draw(positives, wanted, generator=generator),
            _draw(negatives, self.batch_size_per_image - wanted, generator=generator),
        )
        self._drawn += sum(len(indices) for indices in kept)
        masks = []
        for indices in kept:
            mask = torch.zeros_like(labels, dtype=torch.uint8)
            mask[indices] = 1
            masks.append(mask)
        return masks[0], masks[1]


def _draw(indices: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(indices), generator=generator)
    return indices[order[:count].to(indices.device)]


class WholeAnchors(AnchorGenerator):
    """Anchors in float32 whatever the maps are."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """The anchors at the origin, on a device."""
        super().set_cell_anchors(torch.float32, device)


class WholeProposalHead(RPNHead):
    """What says, for every anchor, whether it is a product and how it has to move, in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [B, A, h, w] and moves [B, 4A, h, w] a level."""
        logits, moves = super().forward(x)
        return [one.float() for one in logits], [one.float() for one in moves]


class WholePredictor(FastRCNNPredictor):
    """What says, for every region, which product it is and how its box has to move, in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [R, K] and moves [R, 4K] of K classes."""
        logits, moves = super().forward(x)
        return logits.float(), moves.float()


class IgnoringRegionProposals(RegionProposalNetwork):
    """Region proposals whose training leaves out background anchors in ignore regions."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's (1 positive, 0 negative, -1 left out; [A] a photo), without negatives in ignore regions."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & covered_by(anchor, regions_M4=target["ignore"])] = _LEFT_OUT
        return labels, boxes


class IgnoringRoIHeads(RoIHeads):
    """Region heads whose training leaves out background proposals in ignore regions, with NMS across products."""

    agnostic_nms: bool = False
    _regions: list[Tensor]

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """As torchvision's, knowing each photo's ignore regions."""
        self._regions = [target["ignore"] for target in targets]
        return super().select_training_samples(proposals, targets)

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's, [P] a photo, with background proposals in ignore regions left out."""
        indices, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, regions in zip(labels, proposals, self._regions, strict=True):
            label[(label == 0) & covered_by(boxes, regions_M4=regions)] = _LEFT_OUT
        return indices, labels

    def postprocess_detections(
        self, class_logits: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """As torchvision's (boxes [N, 4] xyxy, scores [N], labels [N] a photo).

        With `agnostic_nms` one product can't be two SKUs: the better score stays.
        """
        boxes, scores, labels = super().postprocess_detections(class_logits, box_regression, proposals, image_shapes)
        if not self.agnostic_nms:
            return boxes, scores, labels
        kept = [
            batched_nms(box, score, torch.zeros_like(label), self.nms_thresh)
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
        return tuple([one[index] for one, index in zip(ones, kept, strict=True)] for ones in (boxes, scores, labels))
