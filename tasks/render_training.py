"""CycleGAN and FastCUT in the training engine: their networks, phases, and the crops they learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from models.cyclegan import ADAM_BETAS, CriticLosses, CycleGAN, GeneratorLosses, ImageBuffer, LossWeights
from models.fastcut import FastCut, PoolCriticLoss, TranslationLosses
from models.training.batches import Batch
from models.training.optimisation import Optimisation
from models.training.trainer import Phase, Precision, Trainer
from tasks.render_photos import Crops, TrainingPhotos, draw_crops

RandomAt = Callable[[int, int], torch.Generator]


def make_cyclegan_trainer(
    model: CycleGAN,
    *,
    steps: int,
    crop: int,
    learning_rate: float,
    generator_share: float,
    weights: LossWeights,
    slope_weight: float,
    device: torch.device,
) -> Trainer:
    """The trainer of a CycleGAN: a phase for its generators, one for its critics.

    `crop`: side of a crop in pixels. `generator_share`: the generators' learning rate as a share of the critics'.
    """
    buffers = nn.ModuleDict({name: ImageBuffer(side=crop) for name in ("pool", "synthetic")})
    generators = GeneratorLosses(model, weights=weights)
    critics = CriticLosses(generators, buffers=buffers, slope_weight=slope_weight)
    slow, fast = _rates(steps=steps, learning_rate=learning_rate, generator_share=generator_share)
    both, judges = [model.to_pool, model.to_synthetic], [model.pool_critic, model.synthetic_critic]
    return Trainer(
        network=nn.ModuleDict({"model": model, "older": buffers}),
        phases=[
            Phase(name="generators", module=generators, learns=both, optimisation=slow),
            Phase(name="critics", module=critics, learns=judges, optimisation=fast),
        ],
        device=device,
        precision=_precision(device),
    )


def make_fastcut_trainer(
    model: FastCut,
    *,
    steps: int,
    learning_rate: float,
    generator_share: float,
    contrast: float,
    content: float,
    slope_weight: float,
    device: torch.device,
) -> Trainer:
    """The trainer of a FastCUT: a phase for its generator, one for its critic, as `make_cyclegan_trainer` has them.

    `contrast`, `content` and `slope_weight` weigh losses.
    """
    translations = TranslationLosses(model, contrast=contrast, content=content)
    slow, fast = _rates(steps=steps, learning_rate=learning_rate, generator_share=generator_share)
    learns, critic = [model.to_pool, model.projections], PoolCriticLoss(translations, slope_weight=slope_weight)
    return Trainer(
        network=nn.ModuleDict({"model": model}),
        phases=[
            Phase(name="generators", module=translations, learns=learns, optimisation=slow),
            Phase(name="critics", module=critic, learns=[model.pool_critic], optimisation=fast),
        ],
        device=device,
        precision=_precision(device),
    )


def _rates(*, steps: int, learning_rate: float, generator_share: float) -> tuple[Optimisation, Optimisation]:
    """How generators and critics learn: critics faster (Heusel et al., NeurIPS 2017), or generators outrun them."""
    fast = Optimisation(steps=steps, learning_rate=learning_rate, kind="adam", betas=ADAM_BETAS, schedule="late_linear")
    return replace(fast, learning_rate=generator_share * learning_rate), fast


def _precision(device: torch.device) -> Precision:
    # bfloat16 has float32's range; on a CPU it is slower than float32.
    return "bf16" if device.type == "cuda" else "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSource:
    """Pairs of crops by their place in the training; `random_at(step, position)` draws one."""

    photos: TrainingPhotos
    size: int
    random_at: RandomAt

    def sample(self, *, step: int, position: int) -> tuple[Crops, int]:
        """A crop of either domain, and the seed of what the critics draw for it."""
        generator = self.random_at(step, position)
        crops = draw_crops(self.photos, size=self.size, batch=1, generator=generator)
        return crops, int(torch.randint(2**31, (), generator=generator))


def collated(samples: Sequence[tuple[Crops, int]]) -> Batch:
    """Synthetic crops, their masks, pool crops and seeds, as `models.cyclegan` takes them."""
    crops = [one for one, _ in samples]
    names = ("synthetic_B3SS", "mask_B1SS", "pool_B3SS")
    planes = [torch.cat([getattr(one, name) for one in crops]) for name in names]
    return *(one.contiguous(memory_format=torch.channels_last) for one in planes), [seed for _, seed in samples]
