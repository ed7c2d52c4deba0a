"""torchvision's region proposals and region heads, made to respect ignore regions and to sample from given seeds.

Under autocast torchvision rounds boxes to the precision of what the heads say, in bfloat16 by up to a pixel in 256;
here anchors and what the heads say are float32.

On a GPU sampling and suppression take many photos at once: photo by photo, as in torchvision, the GPU mostly waits.

An ignore region is a part of a photo of which nobody knows what it shows (a doubtful pseudo-label). What lies there is
neither a positive nor a negative example: anchors and proposals of which more than half lies in one are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad, softmax
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from models.group_nms import kept

_LEFT_OUT = -1
_COVERED = 0.5
# Side in pixels of the smallest box, as in torchvision.
_LEAST_BOX = 1e-2
# Photos whose proposals are suppressed at once: five levels of 2,000 boxes each take 320 MB a matrix in float32.
_PHOTOS_AT_ONCE = 4


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
    _drawn: int | Tensor = 0

    def start(self, seeds: Sequence[int]) -> None:
        """Draw for the photos of a batch from these seeds."""
        self._seeds, self._drawn = seeds, 0

    def over_photos(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses (scalars) that torchvision divides by the number of samples drawn, by the number that was wanted.

        So a sample weighs the same in every photo, and losses of a batch are the means of those of its photos.
        """
        drawn = int(self._drawn)
        if not drawn:
            # Means over nothing.
            return {name: torch.nan_to_num(loss) * 0 for name, loss in losses.items()}
        share = drawn / (len(self._seeds) * self.batch_size_per_image)
        return {name: loss * share for name, loss in losses.items()}

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the sampled positives (label >= 1) and negatives (label 0) of each photo."""
        if matched_idxs[0].is_cuda:
            most = int(self.batch_size_per_image * self.positive_fraction)
            masks = sampled(matched_idxs, seeds=self._seeds, count=self.batch_size_per_image, most_positive=most)
            self._drawn = self._drawn + torch.cat([*masks[0], *masks[1]]).sum()
            return masks
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


def sampled(
    labels: Sequence[Tensor], *, seeds: Sequence[int], count: int, most_positive: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks uint8 [A] of positives (label >= 1) and negatives (label 0) of photos, drawn without a wait for the device.

    A photo's labels are [A], its draw depends on its seed alone: at most `most_positive` positives, and as many
    negatives as there are to make it `count`.
    """
    labels_BA = pad_sequence(list(labels), batch_first=True, padding_value=_LEFT_OUT)
    keys = [_keys(one, seed=seed) for one, seed in zip(labels, seeds, strict=True)]
    keys_BA = pad_sequence(keys, batch_first=True)
    # Every label has a random key: those with the highest keys are a fair draw.
    positive_BA = _highest(keys_BA, among_BA=labels_BA >= 1, wanted_B1=most_positive, most=most_positive)
    missing_B1 = count - positive_BA.sum(dim=1, keepdim=True)
    negative_BA = _highest(keys_BA, among_BA=labels_BA == 0, wanted_B1=missing_B1, most=count)
    positives, negatives = (
        [mask_A[: len(one)] for mask_A, one in zip(masks_BA, labels, strict=True)]
        for masks_BA in (positive_BA, negative_BA)
    )
    return positives, negatives


def _keys(labels_A: Tensor, *, seed: int) -> Tensor:
    generator = torch.Generator(labels_A.device).manual_seed(seed)
    return torch.rand(labels_A.shape, generator=generator, device=labels_A.device)


def _highest(keys_BA: Tensor, *, among_BA: Tensor, wanted_B1: Tensor | int, most: int) -> Tensor:
    """Mask uint8 [B, A] of the `wanted_B1` (never more than `most`) highest keys of each row among some."""
    highest_BK, at_BK = keys_BA.masked_fill(~among_BA, -1).topk(min(most, keys_BA.shape[1]), dim=1)
    rank_K = torch.arange(at_BK.shape[1], device=keys_BA.device)
    chosen_BK = (highest_BK >= 0) & (rank_K < wanted_B1)
    return torch.zeros_like(keys_BA, dtype=torch.uint8).scatter_(1, at_BK, chosen_BK.to(torch.uint8))


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

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's (boxes [P, 4] and scores [P] a photo, best first); on a GPU photos are all of one size."""
        if not proposals.is_cuda:
            return super().filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
        return self.filter_together(
            proposals, logits=objectness, image_shape=image_shapes[0], anchors=num_anchors_per_level
        )

    def filter_together(
        self, boxes_BA4: Tensor, *, logits: Tensor, image_shape: tuple[int, int], anchors: list[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What torchvision's `filter_proposals` gives of photos of one size, at once and with few waits for the device.

        `logits`: as many as boxes, in any shape; `anchors`: how many of a photo's boxes each level has.
        """
        logits_BA = logits.detach().reshape(len(boxes_BA4), -1)
        boxes_BLK4, scores_BLK = _best_of_levels(
            boxes_BA4, logits_BA=logits_BA, anchors=anchors, most=self.pre_nms_top_n()
        )
        boxes_BLK4 = clip_boxes_to_image(boxes_BLK4, image_shape)
        large_BLK = (boxes_BLK4[..., 2:] - boxes_BLK4[..., :2] >= self.min_size).all(dim=3)
        valid_BLK = large_BLK & (scores_BLK >= self.score_thresh)
        keep = [
            kept(boxes.flatten(0, 1), valid_GN=valid.flatten(0, 1), iou=self.nms_thresh).view_as(valid)
            for boxes, valid in zip(boxes_BLK4.split(_PHOTOS_AT_ONCE), valid_BLK.split(_PHOTOS_AT_ONCE), strict=True)
        ]
        return _best_of_photos(boxes_BLK4, scores_BLK=scores_BLK, keep_BLK=torch.cat(keep), most=self.post_nms_top_n())

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's (1 positive, 0 negative, -1 left out; [A] a photo), without negatives in ignore regions."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & covered_by(anchor, regions_M4=target["ignore"])] = _LEFT_OUT
        return labels, boxes


def _best_of_levels(
    boxes_BA4: Tensor, *, logits_BA: Tensor, anchors: Sequence[int], most: int
) -> tuple[Tensor, Tensor]:
    """The best `most` boxes of each level and their scores, best first, [B, L, K, 4] and [B, L, K].

    A level that has fewer is filled up with boxes of no size and scores of -1.
    """
    width = min(most, max(anchors))
    boxes, scores = [], []
    for level_BN4, level_BN in zip(boxes_BA4.split(anchors, dim=1), logits_BA.split(anchors, dim=1), strict=True):
        top_BK, at_BK = level_BN.topk(min(most, level_BN.shape[1]), dim=1)
        missing = width - at_BK.shape[1]
        boxes.append(pad(level_BN4.gather(1, at_BK[..., None].expand(-1, -1, 4)), (0, 0, 0, missing)))
        scores.append(pad(top_BK.sigmoid(), (0, missing), value=-1.0))
    return torch.stack(boxes, dim=1), torch.stack(scores, dim=1)


def _best_of_photos(
    boxes_BLK4: Tensor, *, scores_BLK: Tensor, keep_BLK: Tensor, most: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The best `most` kept boxes of each photo over all levels and their scores, best first."""
    ranked_BN, order_BN = scores_BLK.masked_fill(~keep_BLK, -1).flatten(1).sort(dim=1, descending=True, stable=True)
    at_BP = order_BN[:, :most]
    best_BP4 = boxes_BLK4.flatten(1, 2).gather(1, at_BP[..., None].expand(-1, -1, 4))
    counts = keep_BLK.sum(dim=(1, 2)).clamp(max=most).tolist()
    boxes = [one_P4[:count] for one_P4, count in zip(best_BP4, counts, strict=True)]
    return boxes, [one_N[:count] for one_N, count in zip(ranked_BN, counts, strict=True)]


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
        scores_RK = softmax(class_logits, dim=1)
        moves_RK4 = box_regression.reshape(-1, class_logits.shape[1], 4)
        regions = [one.shape[0] for one in proposals]
        photos = zip(proposals, scores_RK.split(regions), moves_RK4.split(regions), image_shapes, strict=True)
        found = [
            self._of_photo(regions_R4, scores_RK=scores, moves_RK4=moves, image_shape=shape)
            for regions_R4, scores, moves, shape in photos
        ]
        boxes, scores, labels = (list(ones) for ones in zip(*found, strict=True))
        if not self.agnostic_nms:
            return boxes, scores, labels
        kept = [
            batched_nms(box, score, torch.zeros_like(label), self.nms_thresh)
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
        return tuple([one[index] for one, index in zip(ones, kept, strict=True)] for ones in (boxes, scores, labels))

    def _of_photo(
        self, regions_R4: Tensor, *, scores_RK: Tensor, moves_RK4: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What torchvision finds in a photo: boxes [N, 4], scores [N] and labels [N] after NMS a product.

        It makes a box for every product in every region; here only those above the score floor are made, which are few
        however many products there are.
        """
        region_M, product_M = torch.where(scores_RK[:, 1:] > self.score_thresh)
        label_M = product_M + 1
        boxes_M4 = self.box_coder.decode_single(moves_RK4[region_M, label_M], regions_R4[region_M])
        boxes_M4, score_M = clip_boxes_to_image(boxes_M4, image_shape), scores_RK[region_M, label_M]
        large = remove_small_boxes(boxes_M4, min_size=_LEAST_BOX)
        boxes_M4, score_M, label_M = boxes_M4[large], score_M[large], label_M[large]
        best = batched_nms(boxes_M4, score_M, label_M, self.nms_thresh)[: self.detections_per_img]
        return boxes_M4[best], score_M[best], label_M[best]
