"""The CycleGAN's training loop and its state on disk: a killed run goes on and ends with the same weights.

All randomness of a step comes from one generator made for that step, so no random state has to be kept: the networks,
both optimisers, both image buffers and the number of the step are everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Adam, Optimizer

from models.cyclegan import (
    ADAM_BETAS,
    CycleGAN,
    ImageBuffer,
    LossWeights,
    Translation,
    critic_loss,
    linear_decay,
    translate,
)
from storage.store import replace_file
from tasks.render_photos import Crops, TrainingPhotos, draw_crops

STATE_FILE = "cyclegan.safetensors"
RandomAt = Callable[[int], torch.Generator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and with what a CycleGAN is trained; `crop` in pixels, state saved every `save_every` steps."""

    steps: int
    batch: int
    crop: int
    learning_rate: float
    weights: LossWeights
    save_every: int


@dataclass(kw_only=True)
class Training:
    """Everything that changes while training; `step` steps are done."""

    model: CycleGAN
    generators: Optimizer
    critics: Optimizer
    pool_buffer: ImageBuffer = field(default_factory=ImageBuffer)
    synthetic_buffer: ImageBuffer = field(default_factory=ImageBuffer)
    step: int = 0


def new_training(model: CycleGAN, *, learning_rate: float) -> Training:
    """A training at step 0, in channels-last memory format."""
    model = model.to(memory_format=torch.channels_last)
    return Training(
        model=model,
        generators=Adam(model.generator_parameters(), lr=learning_rate, betas=ADAM_BETAS),
        critics=Adam(model.critic_parameters(), lr=learning_rate, betas=ADAM_BETAS),
    )


def train(
    training: Training, *, photos: TrainingPhotos, schedule: Schedule, random_at: RandomAt, folder: Path
) -> Iterator[dict[str, float]]:
    """Take the steps that are left, one at a time, and yield each one's losses; the state is kept in `folder`.

    `random_at(step)` is the generator of a step's random choices. Stop iterating to stop training.
    """
    while training.step < schedule.steps:
        generator = random_at(training.step)
        crops = draw_crops(photos, size=schedule.crop, batch=schedule.batch, generator=generator)
        losses = take_step(training, crops=crops, schedule=schedule, generator=generator)
        if training.step % schedule.save_every == 0:
            save_state(training, folder=folder)
        yield losses


def take_step(training: Training, *, crops: Crops, schedule: Schedule, generator: torch.Generator) -> dict[str, float]:
    """One step of the generators, then one of the critics; returns the losses by name."""
    factor = linear_decay(training.step, steps=schedule.steps)
    for optimiser in (training.generators, training.critics):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * factor
    crops = _moved(crops, device=next(training.model.parameters()).device)
    translation = _step_generators(training, crops=crops, weights=schedule.weights)
    critics = _step_critics(training, crops=crops, translation=translation, generator=generator)
    training.step += 1
    return {**{name: float(part) for name, part in translation.parts.items()}, "critics": critics}


def save_state(training: Training, *, folder: Path) -> None:
    """Write everything that changes to one safetensors file in `folder` (header: JSON with the step), at once."""
    header = {"training": json.dumps({"step": training.step})}
    replace_file(folder / STATE_FILE, save(_state_tensors(training), metadata=header), sync=False)


def load_state(training: Training, *, folder: Path) -> bool:
    """Go on from the state in `folder`; False where there is none."""
    path = folder / STATE_FILE
    if not path.exists():
        return False
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: _channels_last(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
        training.step = json.loads(file.metadata()["training"])["step"]
    training.model.load_state_dict(_under("model", tensors))
    for name, optimiser in (("generators", training.generators), ("critics", training.critics)):
        _load_optimiser(optimiser, _under(name, tensors))
    training.pool_buffer.images = tensors["pool_buffer"]
    training.synthetic_buffer.images = tensors["synthetic_buffer"]
    return True


def _step_generators(training: Training, *, crops: Crops, weights: LossWeights) -> Translation:
    for parameter in training.model.critic_parameters():
        parameter.requires_grad_(False)
    with _mixed_precision(crops.pool_B3SS.device):
        translation = translate(
            training.model,
            synthetic_B3HW=crops.synthetic_B3SS,
            pool_B3HW=crops.pool_B3SS,
            mask_B1HW=crops.mask_B1SS,
            weights=weights,
        )
    _descend(training.generators, translation.loss)
    for parameter in training.model.critic_parameters():
        parameter.requires_grad_(True)
    return translation


def _step_critics(training: Training, *, crops: Crops, translation: Translation, generator: torch.Generator) -> float:
    model = training.model
    pool_like = training.pool_buffer.exchange(translation.pool_like_B3HW, generator=generator)
    synthetic_like = training.synthetic_buffer.exchange(translation.synthetic_like_B3HW, generator=generator)
    with _mixed_precision(crops.pool_B3SS.device):
        loss = critic_loss(model.pool_critic, real_B3HW=crops.pool_B3SS, translated_B3HW=pool_like) + critic_loss(
            model.synthetic_critic, real_B3HW=crops.synthetic_B3SS, translated_B3HW=synthetic_like
        )
    _descend(training.critics, loss)
    return float(loss.detach())


def _descend(optimiser: Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


def _mixed_precision(device: torch.device) -> torch.autocast:
    # bfloat16 has float32's range, so no loss scaling; on a CPU it is slower than float32 and stays off.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def _moved(crops: Crops, *, device: torch.device) -> Crops:
    return Crops(
        synthetic_B3SS=crops.synthetic_B3SS.to(device),
        mask_B1SS=crops.mask_B1SS.to(device),
        pool_B3SS=crops.pool_B3SS.to(device),
    )


def _state_tensors(training: Training) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    for name, optimiser in (("generators", training.generators), ("critics", training.critics)):
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": tensor for key, tensor in values.items()}
    tensors["pool_buffer"] = training.pool_buffer.images
    tensors["synthetic_buffer"] = training.synthetic_buffer.images
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _load_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
