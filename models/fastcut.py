"""FastCUT (Park et al., ECCV 2020): translation of one domain to the look of another in one direction. torch only.

One generator and one critic in place of CycleGAN's two of each: what keeps content in its place is a contrastive loss.
A patch of the translation must be recognised, among patches of the same image, as the one that was made from the patch
at its place: in the generator's own features at several depths, each under a small projection.

As published: 256 patches an image, temperature 0.07, least-squares adversarial loss, contrastive loss times 10, no
buffer. Deviations: generator and critic are those of `models.cyclegan` (the reasons stand there), `content_loss` guards
print, and nothing is flipped: mirrored print occurs in neither domain.

B batch, P patches, C channels, D dimensions of a projection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cyclegan import Generator, PatchCritic, adversarial_loss, content_loss, critic_loss, initialise

TEMPERATURE = 0.07
PATCHES = 256
DIMENSIONS = 64


class FastCut(nn.Module):
    """The generator, the pool's critic, and a projection of each depth's features; initialised from `generator` alone.

    `channels` of the generator at full resolution, `blocks` of its trunk, `critic_channels` of the critic's first
    layer.
    """

    def __init__(self, *, channels: int, blocks: int, critic_channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.to_pool = Generator(channels=channels, blocks=blocks)
        self.pool_critic = PatchCritic(channels=critic_channels)
        widths = (3, 2 * channels, 4 * channels, 4 * channels, 4 * channels)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, DIMENSIONS), nn.ReLU(inplace=True), nn.Linear(DIMENSIONS, DIMENSIONS))
            for width in widths
        )
        initialise(self, generator=generator)
        for layer in self.projections.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)


def patches_at(features_BCHW: Tensor, *, places_BP: Tensor) -> Tensor:
    """The features at places (row by row numbers), [B, P, C]."""
    flat_BSC = features_BCHW.flatten(2).transpose(1, 2)
    return flat_BSC.gather(1, places_BP[..., None].expand(-1, -1, flat_BSC.shape[2]))


def draw_places(*, area: int, seeds: Sequence[int], depth: int) -> Tensor:
    """Different places of `area`, int64 [B, P], P at most PATCHES; each image's from its own seed and the depth."""
    drawn = [
        torch.randperm(area, generator=torch.Generator().manual_seed(8 * seed + depth))[:PATCHES] for seed in seeds
    ]
    return torch.stack(drawn)


def patch_contrast(queries_BPD: Tensor, keys_BPD: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al., 2018): query p must be nearest to key p among the keys of its image.

    Both have norm 1; keys get no gradient. 0 at best, log P when nothing is told apart.
    """
    logits_BPP = queries_BPD @ keys_BPD.detach().transpose(1, 2) / TEMPERATURE
    own_BP = torch.arange(logits_BPP.shape[1], device=logits_BPP.device).expand(len(logits_BPP), -1)
    return functional.cross_entropy(logits_BPP.flatten(0, 1).float(), own_BP.flatten())


class TranslationLosses(nn.Module):
    """What the generator and the projections learn from a batch; translations wait for the critic's turn."""

    def __init__(self, model: FastCut, *, contrast: float, content: float) -> None:
        """`contrast` and `content`: weights relative to the adversarial loss."""
        super().__init__()
        self.model, self.contrast, self.content = model, contrast, content
        self.made: deque[Tensor] = deque()

    def forward(
        self, synthetic_B3SS: Tensor, mask_B1SS: Tensor, pool_B3SS: Tensor, seeds: list[int]
    ) -> dict[str, Tensor]:
        """Losses by name, times their weights; `seeds` choose each image's patches."""
        network = self.model.to_pool
        sources = network.encoded(synthetic_B3SS)
        pool_like_B3SS = synthetic_B3SS + network.decoded(sources[-1])
        self.made.append(pool_like_B3SS.detach())
        return {
            "adversarial": adversarial_loss(self.model.pool_critic(pool_like_B3SS), real=1.0),
            "contrast": self.contrast * self._contrast(sources, network.encoded(pool_like_B3SS), seeds=seeds),
            "content": self.content * content_loss(pool_like_B3SS, synthetic_B3SS, mask_B1HW=mask_B1SS),
        }

    def _contrast(self, sources: Sequence[Tensor], translated: Sequence[Tensor], *, seeds: Sequence[int]) -> Tensor:
        parts = []
        for depth, (source_BCHW, made_BCHW) in enumerate(zip(sources, translated, strict=True)):
            places_BP = draw_places(area=source_BCHW[0, 0].numel(), seeds=seeds, depth=depth).to(source_BCHW.device)
            keys_BPD, queries_BPD = (
                functional.normalize(self.model.projections[depth](patches_at(one, places_BP=places_BP)), dim=2)
                for one in (source_BCHW, made_BCHW)
            )
            parts.append(patch_contrast(queries_BPD, keys_BPD))
        return torch.stack(parts).mean()


class PoolCriticLoss(nn.Module):
    """What the critic learns from the same batch: pool images against translated ones."""

    def __init__(self, translations: TranslationLosses, *, slope_weight: float) -> None:
        super().__init__()
        self.slope_weight = slope_weight
        self.pool_critic = translations.model.pool_critic
        self._made = translations.made

    def forward(
        self, synthetic_B3SS: Tensor, mask_B1SS: Tensor, pool_B3SS: Tensor, seeds: list[int]
    ) -> dict[str, Tensor]:
        """The critic's loss by name."""
        loss = critic_loss(
            self.pool_critic,
            real_B3HW=pool_B3SS,
            translated_B3HW=self._made.popleft(),
            slope_weight=self.slope_weight,
        )
        return {"critics": loss}
