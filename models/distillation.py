"""Learning new products without forgetting the old: a frozen teacher says what it sees in the student's regions.

The teacher knows only the old products. What it calls background may be a new one, so the student's background and new
products together are compared with its background (after Cermelli et al., "Modeling the Background for Incremental
Learning in Semantic Segmentation", CVPR 2020); regions that show a new product by their labels are left out.

Shapes: N regions, K products of the student, J of the teacher.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from models.dpsnet import DPSNet, DPSNetLosses

_COVERED = 0.3
_CERTAIN = 0.5


def kept_knowledge(student_NK: Tensor, teacher_NJ: Tensor, *, places: Sequence[int | None]) -> Tensor:
    """Cross entropy of the student's opinion on each region under the teacher's, float32 [N].

    Args:
        student_NK: logits [N, K + 1], background first.
        teacher_NJ: logits [N, J + 1], background first.
        places: the teacher's product j is the student's product `places[j]`, or left the catalog (None).
    """
    kept = [(old + 1, place + 1) for old, place in enumerate(places) if place is not None]
    gone = [old + 1 for old, place in enumerate(places) if place is None]
    old_columns, columns = [old for old, _ in kept], [place for _, place in kept]
    fresh = sorted(set(range(1, student_NK.shape[1])) - set(columns))
    student = functional.log_softmax(student_NK, dim=1)
    teacher = functional.softmax(teacher_NJ, dim=1)
    background_N = torch.logsumexp(student[:, [0, *fresh]], dim=1)
    wanted_N = teacher[:, [0, *gone]].sum(dim=1)
    return -(wanted_N * background_N + (teacher[:, old_columns] * student[:, columns]).sum(dim=1))


def kept_boxes(student_NK4: Tensor, teacher_NJ4: Tensor, teacher_NJ: Tensor, *, places: Sequence[int | None]) -> Tensor:
    """Smooth L1 between the boxes of both, float32 [N]; 0 where the teacher is not certain of an old product."""
    share_N, product_N = functional.softmax(teacher_NJ, dim=1)[:, 1:].max(dim=1)
    place_N = torch.tensor([-1 if place is None else place for place in places], device=product_N.device)[product_N]
    regions_N = torch.arange(len(product_N), device=product_N.device)
    ours = student_NK4[regions_N, place_N.clamp(min=0) + 1]
    theirs = teacher_NJ4[regions_N, product_N + 1]
    apart_N = functional.smooth_l1_loss(ours, theirs, beta=1 / 9, reduction="none").sum(dim=1)
    return apart_N * ((share_N > _CERTAIN) & (place_N >= 0))


class DistilledLosses(nn.Module):
    """A DPSNet's own losses, and those that keep what its teacher knows."""

    def __init__(
        self, losses: DPSNetLosses, *, teacher: DPSNet, places: Sequence[int | None], weight: float, box_weight: float
    ) -> None:
        """`places`: see `kept_knowledge`. The teacher is frozen and no part of this module's state."""
        super().__init__()
        self.losses = losses
        self._places, self._weights = list(places), (weight, box_weight)
        # In a list: a module's children are trained, saved and shared between processes.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self._seen: dict[str, Any] = {}
        network = losses.network
        # Photos as the network sees them: the device may have varied them.
        network.register_forward_pre_hook(lambda module, args: self._seen.update(photos=args[0]))
        network.roi_heads.box_roi_pool.register_forward_pre_hook(lambda module, args: self._seen.update(regions=args))
        network.roi_heads.box_predictor.register_forward_hook(
            lambda module, args, opinions: self._seen.update(opinions=opinions)
        )

    def forward(self, photos_BHW3: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses by name; see `DPSNetLosses`. Those of the teacher are means over photos of means over regions."""
        losses = self.losses(photos_BHW3, targets)
        _, proposals, sizes = self._seen["regions"]
        student_NK, boxes = self._seen["opinions"]
        teacher_NJ, teacher_boxes = self._asked(self._seen["photos"], proposals=proposals, sizes=sizes)
        share_N = torch.cat([self._share(one, target) for one, target in zip(proposals, targets, strict=True)])
        known_N = kept_knowledge(student_NK, teacher_NJ, places=self._places)
        placed_N = kept_boxes(
            boxes.reshape(len(boxes), -1, 4),
            teacher_boxes.reshape(len(boxes), -1, 4),
            teacher_NJ,
            places=self._places,
        )
        weights = {"kept_classes": (self._weights[0], known_N), "kept_boxes": (self._weights[1], placed_N)}
        kept = {name: weight * (share_N * one_N).sum() / len(targets) for name, (weight, one_N) in weights.items()}
        return {**losses, **kept}

    @torch.no_grad()
    def _asked(
        self, photos_B3HW: Tensor, *, proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        teacher = self._teacher[0].to(photos_B3HW.device)
        maps: OrderedDict[str, Tensor] = teacher.pyramid_maps(photos_B3HW)
        heads = teacher.roi_heads
        return heads.box_predictor(heads.box_head(heads.box_roi_pool(maps, proposals, sizes)))

    def _share(self, proposals_N4: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Each region's share of its photo's mean, float32 [N]: none for one that shows a new product by its label."""
        old = torch.tensor([place + 1 for place in self._places if place is not None], device=proposals_N4.device)
        fresh_M4 = target["boxes"][~torch.isin(target["labels"], old)]
        asked_N = torch.ones(len(proposals_N4), device=proposals_N4.device)
        if len(fresh_M4):
            asked_N = (box_iou(proposals_N4, fresh_M4).max(dim=1).values < _COVERED).float()
        return asked_N / asked_N.sum().clamp(min=1)
