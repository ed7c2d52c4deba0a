"""The saliency network's training loop: a killed run takes it up again and ends with the same weights.

Everything random in a step comes from a generator made for that step, so weights, optimiser and the number of the step
are all there is to keep. The backbone's batch normalisations are folded away: the batches are small, their statistics
stay those of ImageNet.

Shapes: B batch, N crops, S side of a crop, H×W pixels of a photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from models.backbones import IMAGENET_MEAN, IMAGENET_STD
from models.saliency import SaliencyNet, saliency_loss
from models.training import Optimisation, Trainer
from storage.store import replace_file
from tasks.params import SaliencyParams
from tasks.saliency_samples import Sample, collage_sample, exemplar_sample

RandomAt = Callable[[int], np.random.Generator]


def new_network(params: SaliencyParams, *, seed: int) -> SaliencyNet:
    """A network with pretrained backbone and seeded new layers; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SaliencyNet(backbone=params.backbone, width=params.width, pretrained=True)
    network.backbone.fold_norms()
    return network.to(memory_format=torch.channels_last)


def new_trainer(network: SaliencyNet, *, params: SaliencyParams, turn: int) -> Trainer:
    """The training of round `turn` (from 0), in place; later rounds learn at half the rate."""
    if params.backbone_share == 0:
        network.backbone.requires_grad_(False)
    how = Optimisation(
        steps=params.steps,
        learning_rate=params.learning_rate if turn == 0 else params.learning_rate / 2,
        backbone_share=params.backbone_share,
        warmup=max(1, params.steps // 7),
        clip=5.0,
        average=0.0,
    )
    return Trainer(network=network, optimisation=how)


def read_state(path: Path) -> dict[str, Tensor] | None:
    """The state of a round as `train_saliency` keeps it; None if there is none yet."""
    return load_tensors(path.read_bytes()) if path.exists() else None


def train_saliency(
    trainer: Trainer, crops_NSS4: NDArray[np.uint8], *, params: SaliencyParams, random_at: RandomAt, path: Path
) -> Iterator[float]:
    """Takes the steps that are left, one at a time, and yields each one's loss; the state is kept in `path`.

    Args:
        trainer: as `new_trainer` gives it, or restored from an earlier state.
        crops_NSS4: the labelled exemplars (`tasks.saliency_samples`).
        random_at: the generator of a step's random choices.
        path: safetensors file, written every `params.save_every` steps and after the last.
    """
    while trainer.step < params.steps:
        trainer.network.train()
        generator = random_at(trainer.step)
        samples = [draw_sample(crops_NSS4, params=params, generator=generator) for _ in range(params.batch)]
        photos, targets, weights = zip(*samples, strict=True)
        fused, maps = trainer.network(to_batch(photos))
        loss = saliency_loss(fused, maps, target_B1HW=_planes(targets), weight_B1HW=_planes(weights))
        values = trainer.take_step({"saliency": loss})
        if trainer.step % params.save_every == 0 or trainer.step == params.steps:
            replace_file(path, save_tensors(trainer.state()), sync=False)
        yield values["saliency"]


def draw_sample(crops_NSS4: NDArray[np.uint8], *, params: SaliencyParams, generator: np.random.Generator) -> Sample:
    """One training sample: a collage with probability `params.collages`, otherwise an exemplar crop."""
    size, doubt = params.working_size, params.doubt
    if generator.random() >= params.collages:
        chosen = crops_NSS4[generator.integers(len(crops_NSS4))]
        return exemplar_sample(chosen, size=size, doubt=doubt, generator=generator)
    several = generator.integers(len(crops_NSS4), size=int(generator.integers(1, 9)))
    return collage_sample([crops_NSS4[index] for index in several], size=size, doubt=doubt, generator=generator)


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
