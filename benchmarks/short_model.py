"""A model with a preset's network after a short training, for measurements that need one that finds products.

    python -m benchmarks.short_model [--dataset sample] [--preset cpu] [--store store] --out FOLDER

The data stages are the preset's, with fewer synthetic photos and no renderer. Training begins at 256 pixels, where a
step is cheap, and ends with a few steps at the preset's own size: some tens of minutes on two cores in place of hours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.compose import made_manifests
from benchmarks.stages import ingest_split, stage_arguments
from flows.champion import load_champion
from flows.endings import end_with_code
from flows.outputs import write_champion
from flows.presets import PRESETS, Preset
from storage.manifest import Manifest
from storage.store import Store
from tasks.detection import Detector, load_detector
from tasks.params import TrainParams
from tasks.stage import Input, execute

_PHOTOS = 600
_FIRST_SIZE, _FIRST_STEPS, _LAST_STEPS, _BATCH = 256, 700, 150, 4


def short_trainings(preset: Preset, *, threads: int) -> tuple[TrainParams, TrainParams]:
    """The two trainings, one after the other, of the network of the preset's first rung."""
    base = preset.train["source"].model_copy(update={"mix": (1.0,), "batch": _BATCH, "threads": threads})
    first = base.model_copy(
        update={"image_size": _FIRST_SIZE, "steps": _FIRST_STEPS, "evaluate_every": _FIRST_STEPS, "warmup": 20}
    )
    last = base.model_copy(
        update={"steps": _LAST_STEPS, "evaluate_every": _LAST_STEPS, "learning_rate": 5e-4, "average": 0.98}
    )
    return first, last


def short_model(preset: Preset, *, dataset: str, store: Store, workers: int) -> Manifest:
    """The checkpoint's manifest; what the store has is taken from there."""
    preset = preset.model_copy(update={"compose": preset.compose.model_copy(update={"photos": _PHOTOS})})
    made = made_manifests(dataset, preset=preset, store=store, workers=workers)
    val = ingest_split(dataset, split="val", store=store, workers=workers)
    inputs = {name: made[name] for name in ("catalog", "poses", "boards", "pool")}
    photos = execute(preset.compose, inputs=inputs, store=store, workers=workers)[0]
    checkpoint: Manifest | None = None
    for params in short_trainings(preset, threads=workers):
        given: dict[str, Input] = {"photos": [photos], "val": val, "init": checkpoint}
        checkpoint = execute(params, inputs=given, store=store, workers=workers)[0]
    assert checkpoint is not None
    return checkpoint


def model_arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of the benchmarks that need a model."""
    parser = stage_arguments(description)
    parser.add_argument("--model", type=Path, help="a champion's folder; trained in short where it is not given")
    return parser


def model_of(options: argparse.Namespace) -> Detector:
    """The model that the options name, or one trained in short."""
    if options.model is not None:
        return load_champion(options.model)
    store = Store.open(options.store)
    checkpoint = short_model(PRESETS[options.preset](), dataset=options.dataset, store=store, workers=options.workers)
    return load_detector(store.read(checkpoint.row("checkpoint")), store.read(checkpoint.row("config")))


def main() -> None:
    """Train, and write the model's folder."""
    parser = stage_arguments(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.safetensors and model.json")
    options = parser.parse_args()
    store = Store.open(options.store)
    checkpoint = short_model(PRESETS[options.preset](), dataset=options.dataset, store=store, workers=options.workers)
    write_champion(checkpoint, store=store, folder=options.out)
    print(f"{options.out}: {checkpoint.metadata['metrics']}")


if __name__ == "__main__":
    end_with_code(main)
