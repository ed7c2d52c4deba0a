"""Cut-outs to embeddings: the stride-16 map of a pretrained backbone, product pixels only, laid out where they lie.

The map's layout is kept and not averaged away: which print is where tells views of one product apart. It is therefore
rotation-sensitive; who compares embeddings turns one of the two cut-outs.

Shapes: B batch, S side of a patch, C channels, G = S / 16 side of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import build_backbone

STRIDE = 16


class CutoutEmbedding(nn.Module):
    """The frozen feature extractor: patches with masks in, maps out."""

    def __init__(self, *, backbone: str, pretrained: bool = True) -> None:
        """Build it in inference mode; `backbone` is a name that `models.backbones.build_backbone` understands."""
        super().__init__()
        self.body = build_backbone(backbone, pretrained=pretrained, out_strides=(STRIDE,))
        self.register_buffer("mean_311", torch.tensor(self.body.mean)[:, None, None], persistent=False)
        self.register_buffer("std_311", torch.tensor(self.body.std)[:, None, None], persistent=False)
        self.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, patches_B3SS: Tensor, masks_B1SS: Tensor) -> Tensor:
        """Maps float32 [B, C, G, G], each cell weighted by its share of product.

        Args:
            patches_B3SS: float32 RGB in [0, 1], S a multiple of 16; mid grey where there is no product.
            masks_B1SS: float32 share of product in [0, 1].
        """
        shown = (patches_B3SS - self.mean_311) / self.std_311
        (maps,) = self.body(shown.contiguous(memory_format=torch.channels_last))
        return maps * functional.avg_pool2d(masks_B1SS, STRIDE)
