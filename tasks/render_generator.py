"""Trains the generator of a renderer that learns, CycleGAN or FastCUT, and draws what it has come to on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.cyclegan import CycleGAN, Generator, LossWeights
from models.fastcut import FastCut
from models.training.loop import StepReport
from models.training.trainer import Trainer
from models.training.world import ALONE
from storage.files import replace_file
from storage.images import encode_png
from tasks.context import StageContext
from tasks.device import pick_device
from tasks.loading import batches
from tasks.params import RenderParams
from tasks.render_photos import TrainingPhotos, draw_crops
from tasks.render_progress import picture_steps, progress_picture
from tasks.render_training import CropSource, collated, make_cyclegan_trainer, make_fastcut_trainer
from tasks.training import Plan, TrainingFolder, run_training

_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A trainer, the generator that is wanted, and what translates crops one after the other for a progress picture."""

    trainer: Trainer
    generator: Generator
    translators: Sequence[nn.Module]


def trained_generator(context: StageContext, *, params: RenderParams, photos: TrainingPhotos) -> Generator:
    """The generator from synthetic photos to the pool's look, trained or taken up where a killed training stopped.

    Progress pictures lie in the checkpoint folder as `<step>.png`.

    Raises:
        ValueError: photos smaller than a crop.
    """
    torch.set_num_threads(params.threads)
    training = _training(context, params=params)
    source = CropSource(
        photos=photos,
        size=params.crop,
        random_at=lambda step, position: context.torch_generator("crop", step, position),
    )
    shown = draw_crops(photos, size=params.crop, batch=_SHOWN, generator=context.torch_generator("progress"))
    shown_B3SS = shown.synthetic_B3SS.to(training.trainer.device)
    wanted, folder = picture_steps(params.steps), TrainingFolder(context.checkpoint_folder)

    def draw_progress(report: StepReport) -> NDArray[np.uint8] | None:
        if report.step not in wanted:
            return None
        picture_HW3 = progress_picture(shown_B3SS, translators=training.translators)
        replace_file(folder.folder / f"{report.step:06d}.png", encode_png(picture_HW3), sync=False)
        context.report(**report.losses)
        return picture_HW3

    run_training(
        context,
        trainer=training.trainer,
        plan=Plan(steps=params.steps, batch=params.batch, save_every=params.save_every),
        folder=folder,
        batches=lambda steps: batches(
            source, collate=collated, batch=params.batch, steps=steps, world=ALONE, workers=0
        ),
        picture=draw_progress,
        what="training steps",
    )
    return training.generator


def _training(context: StageContext, *, params: RenderParams) -> _Training:
    shape = {"channels": params.channels, "blocks": params.blocks, "critic_channels": params.critic_channels}
    device, weights = pick_device("auto"), context.torch_generator("weights")
    if params.renderer == "fastcut":
        cut = FastCut(**shape, generator=weights)
        trainer = make_fastcut_trainer(
            cut,
            steps=params.steps,
            learning_rate=params.learning_rate,
            generator_share=params.generator_share,
            contrast=params.contrast_weight,
            content=params.content_weight,
            slope_weight=params.slope_weight,
            device=device,
        )
        return _Training(trainer=trainer, generator=cut.to_pool, translators=[cut.to_pool])
    gan = CycleGAN(**shape, generator=weights)
    trainer = make_cyclegan_trainer(
        gan,
        steps=params.steps,
        crop=params.crop,
        learning_rate=params.learning_rate,
        generator_share=params.generator_share,
        weights=LossWeights(cycle=params.cycle_weight, identity=params.identity_weight, content=params.content_weight),
        slope_weight=params.slope_weight,
        device=device,
    )
    return _Training(trainer=trainer, generator=gan.to_pool, translators=[gan.to_pool, gan.to_synthetic])
