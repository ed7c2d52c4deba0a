"""The saliency network's training: what it is shown at a step, and how its weights are changed.

A round of training is a training of its own (`tasks.training`): it is killed and taken up again at any step and ends
with the same weights. The backbone's batch normalisations are folded away: the batches are small, their statistics stay
those of ImageNet.

Shapes: B batch, N crops, S side of a crop, H×W pixels of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backbones import IMAGENET_MEAN, IMAGENET_STD
from models.saliency import SaliencyLosses, SaliencyNet
from models.training.batches import Batch
from models.training.optimisation import Optimisation
from models.training.trainer import Phase, Trainer
from models.training.world import ALONE
from tasks.device import pick_device
from tasks.loading import batches
from tasks.params import SaliencyParams
from tasks.saliency_samples import Sample, collage_sample, exemplar_sample


def new_network(params: SaliencyParams) -> SaliencyNet:
    """A network with pretrained backbone and seeded new layers; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        network = SaliencyNet(backbone=params.backbone, width=params.width, pretrained=True)
    network.backbone.fold_norms()
    if params.backbone_share == 0:
        network.backbone.requires_grad_(False)
    return network


def new_trainer(network: SaliencyNet, *, params: SaliencyParams, turn: int) -> Trainer:
    """The training of round `turn` (from 0), in place; later rounds learn at half the rate."""
    how = Optimisation(
        steps=params.steps,
        learning_rate=params.learning_rate if turn == 0 else params.learning_rate / 2,
        backbone_share=params.backbone_share,
        weight_decay=1e-4,
        warmup=max(1, params.steps // 7),
        clip=5.0,
    )
    phase = Phase(name="saliency", module=SaliencyLosses(network), learns=[network], optimisation=how)
    return Trainer(network=network, phases=[phase], device=pick_device(params.device))


class SampleSource:
    """Samples of labelled crops: single exemplars, and collages on invented grounds."""

    def __init__(self, crops_NSS4: NDArray[np.uint8], *, params: SaliencyParams, turn: int) -> None:
        """`crops_NSS4` as `tasks.saliency_samples.square_crop` makes them; each round draws other samples."""
        self._crops_NSS4, self._params, self._turn = crops_NSS4, params, turn

    def sample(self, *, step: int, position: int) -> Sample:
        """A collage with probability `params.collages`, otherwise an exemplar crop."""
        generator = np.random.default_rng((self._params.seed, self._turn, step, position))
        size, doubt, count = self._params.working_size, self._params.doubt, len(self._crops_NSS4)
        if generator.random() >= self._params.collages:
            chosen_SS4 = self._crops_NSS4[generator.integers(count)]
            return exemplar_sample(chosen_SS4, size=size, doubt=doubt, generator=generator)
        several = generator.integers(count, size=int(generator.integers(1, 9)))
        crops = [self._crops_NSS4[index] for index in several]
        return collage_sample(crops, size=size, doubt=doubt, generator=generator)


def drawn(source: SampleSource, *, params: SaliencyParams, steps: range) -> Iterator[Batch]:
    """The batches of some steps: photos [B, 3, H, W] as the backbone takes them, targets and weights [B, 1, H, W]."""
    workers = params.loader_workers
    return batches(source, collate=collated, batch=params.batch, steps=steps, world=ALONE, workers=workers)


def collated(samples: Sequence[Sample]) -> Batch:
    """Samples as one batch."""
    photos, targets, weights = zip(*samples, strict=True)
    return to_batch(photos), _planes(targets), _planes(weights)


def to_batch(photos: Sequence[NDArray[np.float32]]) -> Tensor:
    """Photos of one size, float32 RGB in [0, 255], as the backbone takes them: [B, 3, H, W], normalised as ImageNet."""
    mean_3, scale_3 = 255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD)
    return (
        ((torch.from_numpy(np.stack(photos)) - mean_3) / scale_3)
        .permute(0, 3, 1, 2)
        .contiguous(memory_format=torch.channels_last)
    )


def _planes(planes: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(planes)[:, None])
