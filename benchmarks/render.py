"""Renderers: nearness to the pool, whether items stay, speed, tiles, resuming, and what each teaches a detector.

    python -m benchmarks.render [--dataset sample] [--preset cpu] [--store store] [--json] [PART …]

quality   kernel inception distance to pool photos that no renderer saw, before and after; how far items' edges moved
          and how many items pass the check
speed     photos/s of each renderer at 800 x 800 pixels on two threads, on the GPU too where there is one
tiles     the trained generator in tiles against a single pass
resume    CycleGAN training killed (SIGKILL) in the middle and run again against an uninterrupted one
print     a detector taught by synthetic photos, on synthetic photos and on the same ones rendered
detector  test cAcc of the same training on synthetic, rendered and both, for every renderer: some minutes a row
choice    what `auto` chooses by val out of those renderers and none, and the chosen one's figures on test beside none's

Without a name: the first four. `--steps` shortens the trainings of renderers, `--photos` says how many are rendered,
`--renderers` which ones (after the parts), `--seeds` how many trainings of each detector there are;
`--recipe paper` starts from photos as the paper's script composes them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
import orjson
import torch
from safetensors.torch import load

from benchmarks.compose import made_manifests
from benchmarks.compose_realism import kernel_inception_distance, photo_features
from benchmarks.render_resume import resumed_equals_uninterrupted
from benchmarks.stages import ingest_split, print_result, stage_arguments
from flows.endings import end_with_code
from flows.presets import PRESETS, Preset
from models.cyclegan import Generator
from storage.images import decode_rgb
from storage.manifest import Manifest, ManifestRow, referenced
from storage.store import Store
from tasks.choose import TABLE_ROW
from tasks.params import ChooseParams, PredictParams, Renderer, RenderParams, StageParams
from tasks.render_check import CheckLimits, drift_reason, item_scores
from tasks.render_photos import Photo
from tasks.renderers import PhotoRenderer, colour_renderer, fourier_renderer, generator_renderer
from tasks.stage import Input, execute

CHANGING: tuple[Renderer, ...] = ("colour", "fourier", "fastcut", "cyclegan")
_SIDE = 800


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every part works on: stages by name, parameters, and the store that keeps what was computed."""

    made: dict[str, Manifest]
    preset: Preset
    dataset: str
    store: Store
    workers: int
    steps: int
    photos: int
    recipe: str
    renderers: Sequence[Renderer]
    seeds: int

    def run(self, params: StageParams, **inputs: Input) -> Manifest:
        """A stage's result."""
        return execute(params, inputs=inputs, store=self.store, workers=self.workers)[0]

    def split(self, name: str) -> Manifest:
        """The photos of a split."""
        return ingest_split(self.dataset, split=name, store=self.store, workers=self.workers)

    def composed(self, *, photos: int, seed: int) -> Manifest:
        """Synthetic photos."""
        params = self.preset.compose.model_copy(update={"photos": photos, "seed": seed, "recipe": self.recipe})
        return self.run(params, **{name: self.made[name] for name in ("catalog", "poses", "boards", "pool")})

    def teaching(self) -> Manifest:
        """Synthetic photos that teach a detector: ten times as many as are compared, or as many as the preset has."""
        return self.composed(photos=min(10 * self.photos, self.preset.compose.photos), seed=0)

    def render_params(self, name: str) -> RenderParams:
        """The preset's parameters with a renderer's name."""
        steps = self.steps or self.preset.render.steps
        return self.preset.render.model_copy(update={"renderer": name, "steps": steps})

    def rendered(self, name: str, *, synthetic: Manifest) -> Manifest:
        """Synthetic photos as a renderer that saw half of the pool translates them."""
        return self.run(self.render_params(name), synthetic=synthetic, pool=self.half_of_pool(0))

    def rendered_alike(self, name: str, *, synthetic: Manifest) -> Manifest:
        """More synthetic photos by the same renderer: a generator is trained once."""
        first = self.rendered(name, synthetic=self.composed(photos=self.photos, seed=1))
        previous = first if "generator" in first.by_id else None
        return self.run(self.render_params(name), synthetic=synthetic, pool=self.half_of_pool(0), previous=previous)

    def half_of_pool(self, half: int) -> Manifest:
        """Every second pool photo: renderers learn from half 0, half 1 is what they are compared with."""
        pool = self.made["pool"]
        return self.subset(f"half{half}-{pool.key}", manifest=pool, rows=pool.ok[half::2])

    def subset(self, key: str, *, manifest: Manifest, rows: Sequence[ManifestRow]) -> Manifest:
        """Some rows of a manifest as a manifest of their own."""
        found = self.store.find("benchmark", key=key)
        if found is not None:
            return found
        publication = self.store.begin("benchmark", key=key)
        for row in rows:
            publication.add(referenced(row))
        return publication.commit(metadata={}, content=manifest.content)

    def photos_of(self, rows: Sequence[ManifestRow]) -> list[Photo]:
        """The decoded photos of rows, uint8 RGB."""
        return [decode_rgb(self.store.read(row)) for row in rows]


def quality(bench: Bench) -> dict[str, Any]:
    """Distance to the pool and drift of items, by renderer."""
    synthetic = bench.composed(photos=bench.photos, seed=1)
    pool_MD = photo_features(bench.photos_of(bench.half_of_pool(1).ok))
    before = kernel_inception_distance(photo_features(bench.photos_of(synthetic.ok)), pool_MD)
    result: dict[str, Any] = {"kid_none": before}
    for name in bench.renderers:
        rendered = bench.rendered(name, synthetic=synthetic)
        rows = [row for row in rendered.rows if row.item_id.startswith("rendered/")]
        after = kernel_inception_distance(photo_features(bench.photos_of(rows)), pool_MD)
        result |= {f"kid_{name}": after, f"kid_falls_{name}": 1 - after / before}
        result |= {f"{key}_{name}": value for key, value in _drift(bench, rows, synthetic=synthetic).items()}
    return result


def _drift(bench: Bench, rows: Sequence[ManifestRow], *, synthetic: Manifest) -> dict[str, float]:
    """Over all items: how far edges moved (mean, pixels), the share that passes the check, photos rejected."""
    params = bench.preset.render
    limits = CheckLimits(structure=params.min_structure, edges=params.min_edges, shift=params.max_shift)
    scores = []
    for row in rows:
        before_HW3, after_HW3 = bench.photos_of([synthetic.row(row.parents[0]), row])
        boxes_N4 = np.asarray([item.box for item in row.objects], np.float32).reshape(-1, 4)
        scores += item_scores(before_HW3, after_HW3, boxes_N4=boxes_N4)
    return {
        "moved_pixels": float(np.mean([one.shift for one in scores])),
        "items_pass": float(np.mean([not drift_reason([one], limits=limits) for one in scores])),
        "photos_rejected": sum(row.status == "rejected" for row in rows) / len(rows),
    }


def speed(bench: Bench) -> dict[str, float]:
    """Photos/s of each renderer at 800 x 800; generators untrained, which takes as long."""
    scene = bench.photos_of(bench.composed(photos=bench.photos, seed=1).ok[:4])
    photos = [np.asarray(cv2.resize(one, (_SIDE, _SIDE)), np.uint8) for one in scene]
    params = bench.preset.render
    renderers: dict[str, PhotoRenderer] = {
        "colour": colour_renderer(photos, photos),
        "fourier": fourier_renderer(photos, radius=params.fourier_radius),
        "cyclegan_or_fastcut": _untrained(params, device="cpu"),
    }
    torch.set_num_threads(1)
    result = {f"{name}_photos_per_second": _photos_a_second(one, photos) for name, one in renderers.items()}
    if torch.cuda.is_available():
        many = os.cpu_count() or 1
        on_gpu = _untrained(params, device="cuda")
        result["gpu_photos_per_second"] = _photos_a_second(on_gpu, photos * many, threads=many)
    return result


def _untrained(params: RenderParams, *, device: str) -> PhotoRenderer:
    network = Generator(channels=params.channels, blocks=params.blocks).to(memory_format=torch.channels_last).to(device)
    return generator_renderer(network, scale=params.scale, tile=params.tile)


def _photos_a_second(renderer: PhotoRenderer, photos: Sequence[Photo], *, threads: int = 2) -> float:
    mask_HW = np.zeros(photos[0].shape[:2], np.bool_)
    mask_HW[200:600, 200:600] = True
    rounds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(lambda photo: renderer(photo, mask_HW, np.random.default_rng(0)), photos))
            rounds.append(len(photos) / (time.perf_counter() - started))
    return median(rounds)


def tiles(bench: Bench) -> dict[str, float]:
    """Largest and mean difference, in grey levels, of a photo rendered in tiles to one rendered in a single pass."""
    synthetic = bench.composed(photos=bench.photos, seed=1)
    row = bench.rendered("cyclegan", synthetic=synthetic).row("generator")
    network = Generator(channels=int(row.attributes["channels"]), blocks=int(row.attributes["blocks"]))
    network.load_state_dict(load(bench.store.read(row)))
    photo_HW3 = bench.photos_of(synthetic.ok[:1])[0]
    mask_HW, generator = np.zeros(photo_HW3.shape[:2], np.bool_), np.random.default_rng(0)
    least = 2 * network.receptive_radius + 64
    whole, tiled = (
        generator_renderer(network, scale=1.0, tile=tile)(photo_HW3, mask_HW, generator).astype(int)
        for tile in (4096, least)
    )
    return {
        "tile": least,
        "rendering_changes_mean": float(np.abs(whole - photo_HW3).mean()),
        "largest_difference": float(np.abs(whole - tiled).max()),
        "mean_difference": float(np.abs(whole - tiled).mean()),
    }


def resume(bench: Bench) -> dict[str, float]:
    """1 where the weights of a killed and resumed training equal those of an uninterrupted one, bit for bit."""
    synthetic = bench.composed(photos=bench.photos, seed=1)
    params = bench.render_params("cyclegan").model_copy(update={"steps": 40, "save_every": 10})
    equal, killed_at = resumed_equals_uninterrupted(params, synthetic=synthetic, pool=bench.half_of_pool(0))
    return {"killed_after_step": killed_at, "equal": float(equal)}


def readable(bench: Bench) -> dict[str, float]:
    """cAcc, threshold from val, of a detector taught by synthetic photos: on others, and on the same ones rendered."""
    synthetic = bench.composed(photos=bench.photos, seed=1)
    checkpoint = _taught(bench, [bench.teaching()], mix=(1.0,))
    result: dict[str, float] = {}
    for name in bench.renderers:
        rendered = bench.rendered(name, synthetic=synthetic)
        ok = [row for row in rendered.ok if row.item_id.startswith("rendered/")]
        both = {
            "rendered": bench.subset(f"ok-{rendered.key}", manifest=synthetic, rows=ok),
            "synthetic": bench.subset(
                f"ok-{rendered.key}-synthetic", manifest=synthetic, rows=[synthetic.row(row.parents[0]) for row in ok]
            ),
        }
        reached = {key: _judged(bench, checkpoint, test=photos)["cAcc"] for key, photos in both.items()}
        result |= {f"cAcc_{key}_{name}": value for key, value in reached.items()}
        result[f"points_lost_{name}"] = 100 * (reached["synthetic"] - reached["rendered"])
    return result


def detector(bench: Bench) -> dict[str, Any]:
    """Averaged figures on test, and cAcc on val, of the same trainings on synthetic, rendered and both."""
    synthetic = bench.teaching()
    rows: dict[str, tuple[list[Manifest], tuple[float, ...]]] = {"synthetic": ([synthetic], (1.0,))}
    for name in bench.renderers:
        rendered = bench.rendered_alike(name, synthetic=synthetic)
        rows |= {f"rendered_{name}": ([rendered], (1.0,)), f"both_{name}": ([synthetic, rendered], (0.5, 0.5))}
    result: dict[str, Any] = {}
    for row, (photos, mix) in rows.items():
        result |= {f"{figure}_{row}": value for figure, value in _over_seeds(bench, photos, mix=mix).items()}
        print(f"{row}: {result[f'cAcc_{row}']:.3f}", file=sys.stderr, flush=True)
    return result


def choice(bench: Bench) -> dict[str, Any]:
    """What is chosen on val by all seeds' detectors, and by each seed's alone; what it and none reach on test."""
    synthetic = bench.teaching()
    photos: dict[Renderer, Manifest] = {"none": synthetic}
    photos |= {name: bench.rendered_alike(name, synthetic=synthetic) for name in bench.renderers}
    taught = {
        name: [_taught(bench, [one], mix=(1.0,), seed=seed) for seed in range(bench.seeds)]
        for name, one in photos.items()
    }
    table = _table(bench, photos=photos, taught=taught)
    result: dict[str, Any] = {f"val_{name}": f"cAcc {row['cAcc']:.3f}, ACD {row['ACD']:.2f}" for name, row in table}
    chosen = next(name for name, row in table if row["chosen"])
    test = bench.split("test")
    for figure in ("cAcc", "ACD"):
        before, after = (
            mean(_judged(bench, one, test=test)[figure] for one in taught[name]) for name in ("none", chosen)
        )
        result |= {f"test_{figure}_none": before, f"test_{figure}_chosen": after}
    for seed in range(bench.seeds if bench.seeds > 1 else 0):
        alone = _table(bench, photos=photos, taught={name: [of[seed]] for name, of in taught.items()})
        result[f"chosen_by_seed_{seed}"] = next(name for name, row in alone if row["chosen"])
    return {"chosen": chosen, **result}


def _table(
    bench: Bench, *, photos: Mapping[Renderer, Manifest], taught: Mapping[Renderer, Sequence[Manifest]]
) -> list[tuple[Renderer, Mapping[str, Any]]]:
    """The table by which `auto` chooses, a line a renderer."""
    val, reports = bench.split("val"), []
    for checkpoint in (one for of in taught.values() for one in of):
        seen = bench.run(bench.preset.predict, checkpoint=checkpoint, photos=val)
        reports.append(bench.run(bench.preset.evaluate, val=val, val_predictions=seen, test=val, test_predictions=seen))
    params = ChooseParams(renderers=tuple(photos))
    made = bench.run(params, rendered=list(photos.values()), reports=reports)
    return list(zip(photos, made.row(TABLE_ROW).attributes["table"], strict=True))


def _over_seeds(bench: Bench, photos: Sequence[Manifest], *, mix: tuple[float, ...]) -> dict[str, Any]:
    """Means of the figures over the trainings, and the range of cAcc where there are several."""
    test = bench.split("test")
    seeds = [_judged(bench, _taught(bench, photos, mix=mix, seed=seed), test=test) for seed in range(bench.seeds)]
    result: dict[str, Any] = {figure: mean(one[figure] for one in seeds) for figure in seeds[0]}
    if bench.seeds > 1:
        least, most = (bound(one["cAcc"] for one in seeds) for bound in (min, max))
        result["range_of_cAcc"] = f"{least:.3f} to {most:.3f}"
    return result


def _taught(bench: Bench, photos: Sequence[Manifest], *, mix: tuple[float, ...], seed: int = 0) -> Manifest:
    params = bench.preset.trial.model_copy(update={"mix": mix, "threads": bench.workers, "seed": seed})
    return bench.run(params, photos=list(photos), val=bench.split("val"), init=None, synthesis=None)


def _judged(bench: Bench, checkpoint: Manifest, *, test: Manifest) -> dict[str, float]:
    """Averaged honest figures of a checkpoint on labelled photos at the threshold that val chose, and val's cAcc."""
    val = bench.split("val")
    seen, seen_val = (bench.run(PredictParams(), checkpoint=checkpoint, photos=photos) for photos in (test, val))
    report = bench.run(bench.preset.evaluate, val=val, val_predictions=seen_val, test=test, test_predictions=seen)
    told = orjson.loads(bench.store.read(report.row("report")))
    figures = {name: float(told["honest"]["averaged"][name]) for name in ("cAcc", "ACD", "mAP50")}
    return {**figures, "val_cAcc": float(told["val"]["averaged"]["cAcc"])}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "quality": quality,
    "speed": speed,
    "tiles": tiles,
    "resume": resume,
    "print": readable,
    "detector": detector,
    "choice": choice,
}


def _arguments() -> argparse.Namespace:
    parser = stage_arguments(__doc__)
    parser.add_argument("parts", nargs="*", default=["quality", "speed", "tiles", "resume"], help="what is measured")
    parser.add_argument("--steps", type=int, default=0, help="training steps of renderers; 0: the preset's")
    parser.add_argument("--photos", type=int, default=120, help="photos that are rendered and compared")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each detector that `detector` compares")
    parser.add_argument("--recipe", choices=("life", "paper"), default="life", help="how photos are composed")
    parser.add_argument("--renderers", nargs="+", choices=CHANGING, default=CHANGING, help="which are compared")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"expected parts out of {', '.join(PARTS)}, got {', '.join(unknown)}")
    return arguments


def main() -> None:
    """Measure what the command line asks for, and print it."""
    arguments = _arguments()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    made = made_manifests(arguments.dataset, preset=preset, store=store, workers=arguments.workers)
    bench = Bench(
        made=made,
        preset=preset,
        dataset=arguments.dataset,
        store=store,
        workers=arguments.workers,
        steps=arguments.steps,
        photos=arguments.photos,
        recipe=arguments.recipe,
        renderers=arguments.renderers,
        seeds=arguments.seeds,
    )
    result = {f"{part}.{key}": value for part in arguments.parts for key, value in PARTS[part](bench).items()}
    print_result(result, as_json=arguments.json, title=f"render on {arguments.dataset}, preset {preset.name}")


if __name__ == "__main__":
    end_with_code(main)
