"""CycleGAN (Zhu et al., ICCV 2017): two generators, two patch critics and their losses. torch only.

Job: translate photos of one domain ("synthetic") to the look of another ("pool") without pairs, and back again.
Boundary: tensors in, tensors out; drawing crops, the loop and what a run leaves on disk are in `tasks`.

Published: ResNet generators (7x7 stem, two strided convolutions, n residual blocks, two transposed convolutions,
7x7 head), 70x70 PatchGAN critics, least-squares adversarial loss, cycle and identity losses, a buffer of 50
translated images for the critics, Adam with beta1 = 0.5 and a learning rate that falls linearly in the second half.

Deviations, each to keep print sharp and items in place:
- A generator adds its (tanh) output to its input, and its head starts at zero: it begins as the identity and learns
  the difference of the two looks only.
- The generator normalises each pixel over its channels in place of each channel over the photo. What a pixel becomes
  then depends on its receptive field alone: tiles agree with a single pass, and photos with training crops.
- The critics do not normalise at all: instance normalisation removes the brightness and the noise level of a patch,
  which is most of what tells a composed photo from a real one. He initialisation keeps their scale instead, and R1
  (Mescheder et al., ICML 2018) holds their slope. Without it, or with generators that learn as fast as critics, some
  trainings run away to photos that are all dark or all blue, and stay there.
- The cycle and identity losses are smooth around 0 (Huber in place of L1): the identity, where training begins, would
  be a kink that weak critics never push the generators out of.
- Bilinear resizing and a 3x3 convolution take the place of each transposed convolution: those print a grid of their
  stride on a flat board (Odena et al., 2016), and few steps do not unlearn it.
- `content_loss`: inside products the difference of output and input has to be smooth, so light and colour may change
  and print and edges may not.

B batch, C channels, H x W pixels; images are float32 [B, 3, H, W] in [-1, 1], H and W multiples of 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4
BUFFER_SIZE = 50
LEAK = 0.2
# Where the cycle and identity losses turn from square to absolute: 13 grey levels.
SMOOTH_UP_TO = 0.1
ADAM_BETAS = (0.5, 0.999)
# Places in a generator's body: the last layer at stride 2, the last before its trunk.
_STRIDE_2, _STRIDE_4 = 5, 8


class PixelNorm(nn.Module):
    """Layer normalisation of every pixel over its channels, with a learned gain and offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Same shape out; in channels-last memory format this moves no data."""
        return self.norm(features_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with reflected borders, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, channels, kernel=3),
            PixelNorm(channels),
            nn.ReLU(inplace=True),
            _convolution(channels, channels, kernel=3),
            PixelNorm(channels),
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Same shape out."""
        return features_BCHW + self.body(features_BCHW)


class Generator(nn.Module):
    """The ResNet generator, fully convolutional: images [B, 3, H, W] in [-1, 1] to images of the same shape and range.

    `channels` are those at full resolution (64 in the paper); `blocks` is 6 in the paper, 9 from 256 pixels on.
    """

    def __init__(self, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.body = nn.Sequential(
            _convolution(3, channels, kernel=7),
            *_normalised(channels),
            nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1),
            *_normalised(channels * 2),
            nn.Conv2d(channels * 2, channels * 4, 3, stride=2, padding=1),
            *_normalised(channels * 4),
            *(ResidualBlock(channels * 4) for _ in range(blocks)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _convolution(channels * 4, channels * 2, kernel=3),
            *_normalised(channels * 2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _convolution(channels * 2, channels, kernel=3),
            *_normalised(channels),
            _convolution(channels, 3, kernel=7),
            nn.Tanh(),
        )

    @property
    def receptive_radius(self) -> int:
        """How far an output pixel looks, in pixels, rounded up to a multiple of the stride: the overlap tiles need."""
        # Going up: a bilinear neighbour and a neighbour of the convolution, at strides 4 and 2, then 2 and 1.
        stem, down, trunk, up, head = 3, 1 + 2, 2 * STRIDE * self.blocks, (4 + 2) + (2 + 1), 3
        return -(-(stem + down + trunk + up + head) // STRIDE) * STRIDE

    def encoded(self, images_B3HW: Tensor) -> list[Tensor]:
        """The images and what becomes of them: at strides 2 and 4, after half of the trunk and after all of it.

        Channels are 3, then those at full resolution times 2, 4, 4 and 4; the last is what `decoded` takes.
        """
        features, kept = images_B3HW, [images_B3HW]
        wanted = (_STRIDE_2, _STRIDE_4, _STRIDE_4 + self.blocks // 2, _STRIDE_4 + self.blocks)
        for index, layer in enumerate(self.body[: _STRIDE_4 + self.blocks + 1]):
            features = layer(features)
            kept += [features] * wanted.count(index)
        return kept

    def decoded(self, trunk_BCHW: Tensor) -> Tensor:
        """What is added to the images whose trunk this is, [B, 3, H, W] in [-1, 1]."""
        return self.body[_STRIDE_4 + self.blocks + 1 :](trunk_BCHW)

    def residual(self, images_B3HW: Tensor) -> Tensor:
        """What the generator adds to its input, [B, 3, H, W] in [-1, 1]."""
        return self.body(images_B3HW)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """The translated images; not clamped, so that the losses see (and punish) what leaves [-1, 1]."""
        return images_B3HW + self.residual(images_B3HW)


class PatchCritic(nn.Module):
    """The PatchGAN discriminator: one score per patch (70x70 pixels with 3 `layers`); near 1 means real.

    `channels` are those of the first layer (64 in the paper). Images [B, 3, H, W] to scores [B, 1, h, w].
    """

    def __init__(self, *, channels: int, layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(LEAK, inplace=True)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            modules += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1),
                nn.LeakyReLU(LEAK, inplace=True),
            ]
        self.body = nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Scores [B, 1, h, w], unbounded."""
        return self.body(images_B3HW)


class CycleGAN(nn.Module):
    """Both generators and both critics, initialised from `generator` alone."""

    def __init__(self, *, channels: int, blocks: int, critic_channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.to_pool = Generator(channels=channels, blocks=blocks)
        self.to_synthetic = Generator(channels=channels, blocks=blocks)
        self.pool_critic = PatchCritic(channels=critic_channels)
        self.synthetic_critic = PatchCritic(channels=critic_channels)
        initialise(self, generator=generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights relative to the adversarial loss. Published: cycle 10, identity 5 (half of cycle)."""

    cycle: float
    identity: float
    content: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What one pass of the generators gives: the losses by name, times their weights, and both translations
    (detached)."""

    losses: dict[str, Tensor]
    pool_like_B3HW: Tensor
    synthetic_like_B3HW: Tensor


class ImageBuffer(nn.Module):
    """The last translated images, mixed with new ones for the critics (Shrivastava et al., CVPR 2017).

    Half of the time an image is swapped for an older one. `images` is [size, 3, S, S], of which `filled` are in use;
    both are part of the module's state.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, *, side: int, size: int = BUFFER_SIZE) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, 3, side, side))
        self.register_buffer("filled", torch.tensor(0))

    def exchange(self, images_B3SS: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Store `images_B3SS` and return as many: each either the new image or an old one that it replaces.

        `seeds`: of each image's random choice.
        """
        chosen = [
            self._exchange_one(image_3SS, generator=torch.Generator().manual_seed(seed))
            for image_3SS, seed in zip(images_B3SS, seeds, strict=True)
        ]
        return torch.stack(chosen).contiguous(memory_format=torch.channels_last)

    def _exchange_one(self, image_3SS: Tensor, *, generator: torch.Generator) -> Tensor:
        filled = int(self.filled)
        if filled < len(self.images):
            self.images[filled] = image_3SS
            self.filled += 1
            return image_3SS
        if torch.rand((), generator=generator).item() >= 0.5:
            return image_3SS
        index = int(torch.randint(filled, (), generator=generator))
        older_3SS = self.images[index].clone()
        self.images[index] = image_3SS
        return older_3SS


def initialise(module: nn.Module, *, generator: torch.Generator) -> None:
    """He initialisation of every convolution in `module`; generators begin as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=LEAK, generator=generator)
            assert part.bias is not None
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Generator):
            nn.init.zeros_(_head(part).weight)


def adversarial_loss(scores: Tensor, *, real: float) -> Tensor:
    """Least-squares GAN loss (Mao et al., ICCV 2017): mean squared distance of the scores to `real` (1 or 0)."""
    return (scores - real).square().mean()


def content_loss(translated_B3HW: Tensor, source_B3HW: Tensor, *, mask_B1HW: Tensor) -> Tensor:
    """Total variation of (translated - source) inside the mask: 0 where light and colour shift without a new edge.

    Mean absolute difference of horizontal and vertical neighbours, over pairs that lie in the mask together
    (`mask_B1HW` in [0, 1]); 0 for an empty mask.
    """
    change_B3HW = translated_B3HW - source_B3HW
    across = mask_B1HW[..., :, 1:] * mask_B1HW[..., :, :-1]
    down = mask_B1HW[..., 1:, :] * mask_B1HW[..., :-1, :]
    total = (change_B3HW.diff(dim=3).abs() * across).sum() + (change_B3HW.diff(dim=2).abs() * down).sum()
    return total / (3 * (across.sum() + down.sum())).clamp(min=1)


def translate(
    model: CycleGAN, *, synthetic_B3HW: Tensor, pool_B3HW: Tensor, mask_B1HW: Tensor, weights: LossWeights
) -> Translation:
    """One pass of both generators with every loss that moves them. The critics' gradients are not of interest here.

    `mask_B1HW` marks the products of the synthetic images.
    """
    pool_like = model.to_pool(synthetic_B3HW)
    synthetic_like = model.to_synthetic(pool_B3HW)
    parts = {
        "adversarial": adversarial_loss(model.pool_critic(pool_like), real=1.0)
        + adversarial_loss(model.synthetic_critic(synthetic_like), real=1.0),
        "cycle": _distance(model.to_synthetic(pool_like), synthetic_B3HW)
        + _distance(model.to_pool(synthetic_like), pool_B3HW),
        "identity": _distance(model.to_pool(pool_B3HW), pool_B3HW)
        + _distance(model.to_synthetic(synthetic_B3HW), synthetic_B3HW),
        "content": content_loss(pool_like, synthetic_B3HW, mask_B1HW=mask_B1HW),
    }
    factors = {"cycle": weights.cycle, "identity": weights.identity, "content": weights.content}
    return Translation(
        losses={name: factors.get(name, 1.0) * part for name, part in parts.items()},
        pool_like_B3HW=pool_like.detach(),
        synthetic_like_B3HW=synthetic_like.detach(),
    )


def critic_loss(critic: PatchCritic, *, real_B3HW: Tensor, translated_B3HW: Tensor, slope_weight: float) -> Tensor:
    """The critic's least-squares loss on real and translated images, halved as published, and that of its slope."""
    real_B3HW = real_B3HW.detach().requires_grad_()
    scores = critic(real_B3HW)
    told = adversarial_loss(scores, real=1.0) + adversarial_loss(critic(translated_B3HW), real=0.0)
    return (told + slope_weight * slope_loss(scores, images_B3HW=real_B3HW)) / 2


def slope_loss(scores: Tensor, *, images_B3HW: Tensor) -> Tensor:
    """R1 (Mescheder et al., ICML 2018): the mean square of the scores' gradient at the images they are of.

    The gradient is that of an image's mean score times the number of its values: what the score changes by for each
    unit that all values rise alike, if all have the same share in it. So it does not depend on the crop's size.
    """
    (gradient_B3HW,) = torch.autograd.grad(scores.sum(), images_B3HW, create_graph=True)
    return (gradient_B3HW * (images_B3HW[0].numel() / scores[0].numel())).square().mean()


class GeneratorLosses(nn.Module):
    """What the generators learn from a batch. Their translations wait for the critics' turn, piece by piece."""

    def __init__(self, model: CycleGAN, *, weights: LossWeights) -> None:
        super().__init__()
        self.model, self.weights = model, weights
        self.made: deque[Translation] = deque()

    def forward(
        self, synthetic_B3SS: Tensor, mask_B1SS: Tensor, pool_B3SS: Tensor, seeds: list[int]
    ) -> dict[str, Tensor]:
        """Losses by name, times their weights; `seeds` are the critics' business."""
        made = translate(
            self.model, synthetic_B3HW=synthetic_B3SS, pool_B3HW=pool_B3SS, mask_B1HW=mask_B1SS, weights=self.weights
        )
        self.made.append(made)
        return made.losses


class CriticLosses(nn.Module):
    """What the critics learn from the same batch: real images against translated ones, some of them older."""

    def __init__(self, generators: GeneratorLosses, *, buffers: nn.ModuleDict, slope_weight: float) -> None:
        super().__init__()
        self.slope_weight = slope_weight
        self.pool_critic, self.synthetic_critic = generators.model.pool_critic, generators.model.synthetic_critic
        self.buffers_of = buffers
        self._made = generators.made

    def forward(
        self, synthetic_B3SS: Tensor, mask_B1SS: Tensor, pool_B3SS: Tensor, seeds: list[int]
    ) -> dict[str, Tensor]:
        """The critics' loss by name."""
        made = self._made.popleft()
        pool_like, synthetic_like = (
            self.buffers_of[name].exchange(images.float(), seeds=[2 * seed + salt for seed in seeds])
            for salt, (name, images) in enumerate(
                (("pool", made.pool_like_B3HW), ("synthetic", made.synthetic_like_B3HW))
            )
        )
        pairs = (
            (self.pool_critic, pool_B3SS, pool_like),
            (self.synthetic_critic, synthetic_B3SS, synthetic_like),
        )
        losses = [
            critic_loss(critic, real_B3HW=real, translated_B3HW=translated, slope_weight=self.slope_weight)
            for critic, real, translated in pairs
        ]
        return {"critics": losses[0] + losses[1]}


def _distance(images_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    return functional.smooth_l1_loss(images_B3HW, target_B3HW, beta=SMOOTH_UP_TO)


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return PixelNorm(channels), nn.ReLU(inplace=True)


def _convolution(inputs: int, outputs: int, *, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")


def _head(network: Generator) -> nn.Conv2d:
    head = network.body[-2]
    assert isinstance(head, nn.Conv2d)
    return head
