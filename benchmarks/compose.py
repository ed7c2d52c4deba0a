"""Synthetic photos: speed, realism against the paper's recipe, board recovery, and what each part is worth.

    python -m benchmarks.compose [--dataset sample] [--preset demo] [--store store] [--json] [PART …]

Parts: speed, realism, board (these run by default) and detector, which trains the same detector on photos of each
recipe, some ten minutes a row on a core.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.compose_realism import photo_features, realism
from benchmarks.compose_speed import (
    breakdown,
    composing_speed,
    memory_grown,
    paper_script_photo,
    photos_a_second,
    thread_ms,
)
from benchmarks.stages import ingest_split, print_result, segmented, stage_arguments
from flows.endings import end_with_code
from flows.presets import PRESETS, Preset
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest
from storage.store import Store
from tasks.blend import scale_sprite
from tasks.compose import compose_photo, encoded_photo
from tasks.context import StageContext
from tasks.empty_board import recover_board
from tasks.kit import build_kit
from tasks.light import light_gain
from tasks.params import ComposeParams, LevelParams, PredictParams, StageParams
from tasks.sprites import Kit
from tasks.stage import Input, execute, load_stage, run_stage_locally

_SPEEDS = (("800", 800, 12), ("800_6_items", 800, 6), ("800_24_items", 800, 24), ("400", 400, 12), ("1815", 1815, 11))
PARTS = ("shadow", "size", "layout", "light", "board")
Photo = NDArray[np.uint8]


def exactly(items: int) -> dict[str, LevelParams]:
    """Levels that ask for so many items in every photo."""
    return {"hard": LevelParams(share=1, skus=(1, items), items=(items, items))}


def made_manifests(dataset: str, *, preset: Preset, store: Store, workers: int) -> dict[str, Manifest]:
    """Everything that `compose` reads, by the stages themselves."""
    made = segmented(preset, dataset=dataset, store=store, workers=workers)
    made["pool"] = ingest_split(dataset, split="pool", store=store, workers=workers)

    def run(name: str, **inputs: Manifest) -> Manifest:
        return run_stage_locally(load_stage(name), getattr(preset, name), store=store, workers=workers, **inputs)

    network = made["network"]
    made["poses"] = run("prune", catalog=made["catalog"], masks=made["masks"], pool=made["pool"], network=network)
    made["boards"] = run("board", pool=made["pool"], network=network)
    return made


def kit_for(made: dict[str, Manifest], *, params: ComposeParams, store: Store) -> Kit:
    """The kit of these parameters, read from the store."""
    context = StageContext(
        stage="benchmark",
        seed=params.seed,
        store=store,
        publication=store.begin("benchmark", key="compose"),
        scratch=Path(),
    )
    inputs = {name: made[name] for name in ("catalog", "poses", "boards", "pool")}
    return build_kit(context, params=params, **inputs)


def speed(made: dict[str, Manifest], *, preset: Preset, store: Store) -> dict[str, Any]:
    """Speed at 800 and 1815 pixels, growth with items and size, memory, and the paper's script on the same core."""
    board = made["boards"].row("board/00")
    factor = 1 / max(board.width or 800, board.height or 800)
    result: dict[str, Any] = {}
    cv2.setNumThreads(1)
    for name, side, items in _SPEEDS:
        params = preset.compose.model_copy(update={"scale": factor * side, "levels": exactly(items)})
        kit = kit_for(made, params=params, store=store)
        measured = composing_speed(kit, params=params)
        if name == "800":
            measured |= breakdown(kit, params=params)
            measured["photos_per_second_2_threads"] = photos_a_second(kit, params=params, threads=2)
            measured["memory_grown_mib_300_photos"] = memory_grown(kit, params=params)
        result |= {f"{name}_{key}": value for key, value in measured.items()}
    script = _script_seconds(made, store=store)
    result["paper_script_1815_seconds"] = script
    result["1815_times_faster_than_script"] = script * result["1815_photos_per_cpu_second"]
    return result


def _script_seconds(made: dict[str, Manifest], *, store: Store, items: int = 11) -> float:
    """CPU seconds of the paper's script for one photo with RPC-sized sprites (600 pixels) on a board of 1815 x 1815."""
    context = StageContext(stage="b", seed=0, store=store, publication=store.begin("b", key="b"), scratch=Path())
    rows = made["poses"].ok[:: max(1, len(made["poses"].ok) // items)][:items]
    sprites = [context.read_rgba(row) for row in rows]
    large = [scale_sprite(one, factor=600 / max(one.shape[:2])) for one in sprites]
    board_HW3 = np.full((1815, 1815, 3), 170, np.uint8)
    generator = np.random.default_rng(0)
    return statistics.median(
        thread_ms(lambda: encode_jpeg(paper_script_photo(large, board_HW3, generator))) / 1000 for _ in range(12)
    )


def compare_realism(made: dict[str, Manifest], *, preset: Preset, store: Store, photos: int = 120) -> dict[str, Any]:
    """AUCs and KID against the pool of ours, the paper's recipe, ours without each part, and other pool photos."""
    context = StageContext(stage="b", seed=0, store=store, publication=store.begin("b", key="b"), scratch=Path())
    rows = made["pool"].ok[: 2 * photos]
    features = photo_features([context.read_rgb(row) for row in rows])
    pool_MD, others_ND = features[::2], features[1::2]
    result: dict[str, Any] = {f"{key}_pool": value for key, value in realism(others_ND, pool_MD).items()}
    for name, changes in recipes().items():
        params = preset.compose.model_copy(update={"scale": 1.0, **changes})
        kit = kit_for(made, params=params, store=store)
        drawn = [decode_rgb(encoded_photo(index, kit=kit, params=params)[0]) for index in range(len(pool_MD))]
        result |= {f"{key}_{name}": value for key, value in realism(photo_features(drawn), pool_MD).items()}
    return result


def board_recovery(made: dict[str, Manifest], *, preset: Preset, store: Store) -> dict[str, Any]:
    """Errors, in grey levels, of the board that is recovered from composed photos, and of a plain median of them.

    Every photo lies on one board, each under another light of the pool's; the empty boards are known. Ours is compared
    under the light that was found for each photo, the median with the median of the empty boards. ghost: the largest
    error that is wider than two pixels.
    """
    params = preset.compose.model_copy(update={"scale": 1.0})
    kit = kit_for(made, params=params, store=store)
    kits = [replace(kit, boards=[board]) for board in kit.boards]
    composed = [compose_photo(one, params=params, index=index).photo_HW3 for index, one in enumerate(kits)]
    photos_PHW3 = np.stack([decode_rgb(encode_jpeg(one, quality=kit.jpeg_quality)) for one in composed])
    found = recover_board(photos_PHW3)
    true_PHW3 = np.stack([board.canvas_HW3 for board in kit.boards]).astype(np.float32)
    height, width = true_PHW3.shape[1:3]
    lit = (found.board_HW3 * light_gain(light_C6, height=height, width=width) for light_C6 in found.lights_PC6)
    errors = {
        "ours": [one_HW3 - true_HW3 for one_HW3, true_HW3 in zip(lit, true_PHW3, strict=True)],
        "median": [np.median(photos_PHW3, axis=0) - np.median(true_PHW3, axis=0)],
    }
    result: dict[str, Any] = {"photos": len(composed), "holes": found.holes}
    for name, differences in errors.items():
        smooth = [np.abs(cv2.GaussianBlur(np.asarray(one, np.float32), (0, 0), 2)).max() for one in differences]
        result[f"{name}_mean_absolute_error"] = float(np.mean([np.abs(one).mean() for one in differences]))
        result[f"{name}_ghost"] = float(max(smooth))
    return result


def recipes() -> dict[str, dict[str, Any]]:
    """Changes of `ComposeParams` by the name of a row: ours, the paper's script, and ours without each part."""
    return {"ours": {}, "paper": {"recipe": "paper"}} | {f"without_{part}": {"without": (part,)} for part in PARTS}


def detector(
    made: dict[str, Manifest], *, trained: Preset, dataset: str, store: Store, workers: int, rows: Sequence[str]
) -> dict[str, Any]:
    """Averaged test cAcc (threshold from val), ACD and mAP50 of one detector, trained alike on photos of each recipe.

    `trained`: the preset that says how many photos and which training. What the store has is taken from there, so a
    measurement that was broken off goes on.
    """
    val, test = (ingest_split(dataset, split=split, store=store, workers=workers) for split in ("val", "test"))
    training = trained.train["source"].model_copy(update={"threads": workers})
    result: dict[str, Any] = {}

    def run(params: StageParams, **inputs: Input) -> Manifest:
        return execute(params, inputs=inputs, store=store, workers=workers)[0]

    inputs = {name: made[name] for name in ("catalog", "poses", "boards", "pool")}
    for name in rows:
        photos = run(trained.compose.model_copy(update=recipes()[name]), **inputs)
        checkpoint = run(training, photos=[photos], val=val, init=None)
        seen = {
            split: run(PredictParams(), checkpoint=checkpoint, photos=part)
            for split, part in (("val", val), ("test", test))
        }
        report = run(trained.evaluate, val=val, val_predictions=seen["val"], test=test, test_predictions=seen["test"])
        figures = orjson.loads(store.read(report.row("report")))["honest"]["averaged"]
        result |= {f"{metric}_{name}": float(figures[metric]) for metric in ("cAcc", "ACD", "mAP50")}
        print(
            f"{name}: cAcc {figures['cAcc']:.3f}, ACD {figures['ACD']:.2f}, mAP50 {figures['mAP50']:.3f}",
            file=sys.stderr,
        )
    return result


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = stage_arguments(__doc__)
    parser.set_defaults(preset="demo")
    parser.add_argument("parts", nargs="*", default=["speed", "realism", "board"], help="what is measured")
    parser.add_argument("--trained", default="demo", choices=sorted(PRESETS), help="detector: whose training it gets")
    parser.add_argument("--rows", nargs="+", default=list(recipes()), choices=list(recipes()), help="detector: recipes")
    arguments = parser.parse_args()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    made = made_manifests(arguments.dataset, preset=preset, store=store, workers=arguments.workers)
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(made, preset=preset, store=store),
        "realism": lambda: compare_realism(made, preset=preset, store=store),
        "board": lambda: board_recovery(made, preset=preset, store=store),
        "detector": lambda: detector(
            made,
            trained=PRESETS[arguments.trained](),
            dataset=arguments.dataset,
            store=store,
            workers=arguments.workers,
            rows=arguments.rows,
        ),
    }
    unknown = sorted(set(arguments.parts) - set(measured))
    if unknown:
        parser.error(f"expected parts out of {', '.join(measured)}, got {', '.join(unknown)}")
    result = {f"{part}.{key}": value for part in arguments.parts for key, value in measured[part]().items()}
    print_result(result, as_json=arguments.json, title=f"compose on {arguments.dataset}, preset {preset.name}")


if __name__ == "__main__":
    end_with_code(main)
