"""RoIAlign over a pyramid (He et al. 2017, Lin et al. 2017) whose training on a CPU uses all its threads.

torchvision's backward pass adds up gradients in one thread (`benchmarks.train speed` shows what that takes). Here a
cell of a region is a weighted sum of rows of the map, which is what `torch.nn.functional.embedding_bag` computes,
forwards and backwards, in parallel. The sums are the same up to rounding. On GPUs, and in evaluation, torchvision's
operator works.

Shapes: B photos, R regions, h×w a map's pixels, C channels, O cells a side, P points a side of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper


class RegionPooling(MultiScaleRoIAlign):
    """torchvision's pooling of regions from the pyramid level that fits their size."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Features float32 [R, C, O, O] of regions, xyxy in pixels of the photos, one tensor [N, 4] a photo."""
        maps = [x[name] for name in self.featmap_names]
        if maps[0].device.type != "cpu" or not self.training:
            return super().forward(x, boxes, image_shapes)
        boxes_R4 = torch.cat(boxes)
        photo_R = torch.repeat_interleave(torch.tensor([len(one) for one in boxes]))
        scales = [_scale(one, image_shapes=image_shapes) for one in maps]
        level_R = self._levels(scales)(boxes)
        pooled_RCOO = torch.zeros(len(boxes_R4), maps[0].shape[1], *self.output_size)
        for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
            (at,) = torch.where(level_R == level)
            if len(at):
                cells = pooled(
                    one.float(),
                    boxes_R4=boxes_R4[at] * scale,
                    photo_R=photo_R[at],
                    side=self.output_size[0],
                    points=self.sampling_ratio,
                )
                pooled_RCOO = pooled_RCOO.index_put((at,), cells)
        return pooled_RCOO

    def _levels(self, scales: Sequence[float]) -> LevelMapper:
        finest, coarsest = (-round(math.log2(scale)) for scale in (scales[0], scales[-1]))
        return LevelMapper(finest, coarsest, self.canonical_scale, self.canonical_level)


def _scale(map_BChw: Tensor, *, image_shapes: Sequence[tuple[int, int]]) -> float:
    """Map pixels a photo pixel: a power of two, as torchvision infers it."""
    height = max(shape[0] for shape in image_shapes)
    return 2.0 ** round(math.log2(map_BChw.shape[-2] / height))


def pooled(map_BChw: Tensor, *, boxes_R4: Tensor, photo_R: Tensor, side: int, points: int) -> Tensor:
    """RoIAlign as torchvision's with `aligned=False`, float32 [R, C, O, O].

    Boxes are xyxy in pixels of the map; `photo_R` int64 says which map of the batch each lies on; `side` is O and
    `points` P: each cell is the mean of P×P points between the map's pixels.
    """
    photos, channels, height, width = map_BChw.shape
    columns_ROT, along_ROT = _taps(boxes_R4[:, 0], boxes_R4[:, 2], length=width, side=side, points=points)
    rows_ROT, down_ROT = _taps(boxes_R4[:, 1], boxes_R4[:, 3], length=height, side=side, points=points)
    first_R = photo_R[:, None, None] * height
    index_ROOTT = (first_R + rows_ROT)[:, :, None, :, None] * width + columns_ROT[:, None, :, None, :]
    weight_ROOTT = down_ROT[:, :, None, :, None] * along_ROT[:, None, :, None, :]
    cells = len(boxes_R4) * side * side
    pixels_PC = map_BChw.permute(0, 2, 3, 1).reshape(photos * height * width, channels)
    bags = functional.embedding_bag(
        index_ROOTT.reshape(cells, -1), pixels_PC, per_sample_weights=weight_ROOTT.reshape(cells, -1), mode="sum"
    )
    return bags.view(len(boxes_R4), side, side, channels).permute(0, 3, 1, 2)


def _taps(low_R: Tensor, high_R: Tensor, *, length: int, side: int, points: int) -> tuple[Tensor, Tensor]:
    """Along one axis the pixels of each cell, int64 [R, O, 2P], and their weights, float32, whose sum is at most 1.

    A point more than a pixel outside of the map counts as zero, one less far takes the pixel at the border.
    """
    size_R1 = (high_R - low_R).clamp(min=1.0)[:, None]
    steps = (torch.arange(side * points) + 0.5) / (side * points)
    place_RL = low_R[:, None] + size_R1 * steps
    on_map_RL = (place_RL >= -1) & (place_RL <= length)
    place_RL = place_RL.clamp(0, length - 1)
    pixel_RL = place_RL.floor()
    beyond_RL = place_RL - pixel_RL
    taps_RL2 = torch.stack([pixel_RL, (pixel_RL + 1).clamp(max=length - 1)], dim=-1).long()
    weights_RL2 = torch.stack([1 - beyond_RL, beyond_RL], dim=-1) * on_map_RL[..., None] / points
    return taps_RL2.view(-1, side, 2 * points), weights_RL2.view(-1, side, 2 * points)
