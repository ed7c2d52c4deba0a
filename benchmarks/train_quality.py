"""What a preset's training reaches on a data set: counts, lists, waiting for data, memory, and the losses' weights.

Data stages and trainings are those of the pipeline; what the store has is taken from there. Truth is read to compare.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.compose import made_manifests
from benchmarks.stages import ingest_split
from benchmarks.train_speed import peak_megabytes
from flows.presets import Preset
from models.density import density_targets
from models.training.loop import train_steps
from models.training.world import ALONE
from storage.catalog import categories_of
from storage.manifest import Manifest
from storage.store import Store
from tasks.loading import batches
from tasks.params import TrainParams
from tasks.photo_source import PhotoSource, collated
from tasks.stage import execute
from tasks.train import make_trainer, network_losses, scaled_plan, start_network

# (density weight, count weight); the first is the default.
_WEIGHTS = ((0.5, 0.5), (0.5, 0.0), (0.0, 0.5), (0.1, 0.1), (2.0, 2.0))
_ABLATION_SIZE, _ABLATION_BATCH = 256, 4
_STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a training on synthetic photos needs."""

    photos: Manifest
    val: Manifest


def training_inputs(preset: Preset, *, dataset: str, store: Store, workers: int) -> Inputs:
    """The preset's synthetic photos of a data set and its val photos."""
    made = made_manifests(dataset, preset=preset, store=store, workers=workers)
    inputs = {name: made[name] for name in ("catalog", "poses", "boards", "pool")}
    photos = execute(preset.compose, inputs=inputs, store=store, workers=workers)[0]
    return Inputs(photos=photos, val=ingest_split(dataset, split="val", store=store, workers=workers))


def trained(params: TrainParams, *, inputs: Inputs, store: Store) -> Manifest:
    """The checkpoint of a training on synthetic photos."""
    given = {"photos": [inputs.photos], "val": inputs.val, "init": None, "synthesis": None}
    return execute(params, inputs=given, store=store)[0]


def counting(preset: Preset, *, inputs: Inputs, store: Store) -> dict[str, float | str]:
    """The counting view on val after the preset's training on synthetic photos, and what both views reach together."""
    made = trained(preset.train["source"], inputs=inputs, store=store)
    val, metrics = made.content["val"], made.metadata["metrics"]
    return {
        "val photos": float(len(inputs.val.ok)),
        "count error, mean absolute (<= 0.6)": val["count_error"],
        "exact counts (>= 0.60)": val["count_right"],
        "val cAcc, both views": val["cAcc"],
        "val cAcc, detection view's own threshold": val["plain_accuracy"],
        "NMS that val chose": val["nms"],
        "temperature": val["confidence"]["temperature"],
        "steps to the best": float(metrics["step"]),
        "photos/s": metrics["photos_per_second"],
        "waiting for data, share of a step (<= 0.05)": metrics["waiting_for_data"],
    }


def density_error(*, sets: int = 200) -> dict[str, float]:
    """The largest error of a target map's integral over random sets of boxes, at the border and beyond it too."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(sets):
        count = int(torch.randint(0, 30, (), generator=generator))
        centres_N2 = torch.rand(count, 2, generator=generator) * 256
        sides_N2 = torch.rand(count, 2, generator=generator) * 300 + 1
        boxes_N4 = torch.cat([centres_N2 - sides_N2 / 2, centres_N2 + sides_N2 / 2], dim=1)
        zeros_N = torch.zeros(count, dtype=torch.int64)
        density = density_targets(boxes_N4, photo_N=zeros_N, channel_N=zeros_N, shape=(1, 1, 32, 32), stride=_STRIDE)
        worst = max(worst, abs(float(density.sum()) - count))
    return {"density integral, largest error (<= 0.001)": worst}


def loading(preset: Preset, *, inputs: Inputs, store: Store, steps: int) -> dict[str, float]:
    """The share of a step that waits for data, and how memory grows over `steps` steps of the preset's training."""
    params = preset.train["source"]
    torch.set_num_threads(params.threads)
    categories = categories_of(inputs.val)
    with TemporaryDirectory() as folder:
        context = _Weights(Path(folder))
        network = start_network(context, params=params, init=None, categories=categories, photos=[inputs.photos])
    how, plan, _ = scaled_plan(params)
    losses = network_losses(network, params=params)
    trainer = make_trainer(network, losses=losses, how=how, params=params, world=ALONE)
    source = PhotoSource(
        store,
        photos=[inputs.photos],
        categories=categories,
        params=params,
        kit=None,
        workers=params.loader_workers,
    )
    drawn = batches(
        source, collate=collated, batch=plan.batch, steps=range(steps), world=ALONE, workers=params.loader_workers
    )
    waited = spent = early = 0.0
    for report in train_steps(trainer, drawn, clock=time.perf_counter):
        # The first step waits for the workers to start.
        if report.step > 1:
            waited, spent = waited + report.waited, spent + report.seconds
        if report.step == max(1, steps // 5):
            early = peak_megabytes()
    return {
        "waiting for data, share of a step (<= 0.05)": waited / max(spent, 1e-9),
        "photos/s": plan.batch * (steps - 1) / max(spent, 1e-9),
        f"peak megabytes after {max(1, steps // 5)} steps": early,
        f"peak megabytes after {steps} steps (flat)": peak_megabytes(),
    }


class _Weights:
    """The one thing of a stage's context that a network's first weights come from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def torch_generator(self, *names: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(0)


def ablation(preset: Preset, *, inputs: Inputs, store: Store, steps: int) -> dict[str, str]:
    """Both views on val after short trainings with other weights of the counting losses."""
    base = preset.train["source"].model_copy(
        update={
            "image_size": _ABLATION_SIZE,
            "batch": _ABLATION_BATCH,
            "steps": steps,
            "evaluate_every": steps,
            "warmup": 20,
            "average": 0.98,
        }
    )
    found = {}
    for density, count in _WEIGHTS:
        params = base.model_copy(update={"density_weight": density, "count_weight": count})
        val = trained(params, inputs=inputs, store=store).content["val"]
        found[f"density {density:g}, count {count:g}"] = (
            f"count error {val['count_error']:.2f}, exact {val['count_right']:.2f}, scale {val['count_scale']:.2f}, "
            f"cAcc {val['cAcc']:.3f} (detection view {val['plain_accuracy']:.3f}), ACD {val['ACD']:.2f}"
        )
    return found
