"""Synthetic photos: speed, realism against the paper's recipe, board recovery, and what each part is worth.

    python -m benchmarks.compose [--dataset sample] [--preset demo] [--store store] [--json] [PART …]

Parts: speed, realism, board (these run by default) and detector, which trains the same detector on photos of each
recipe and takes hours on a CPU. Times are CPU seconds of one core, so that a busy machine does not change them much.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.stages import ingest_split, print_result, segmented, stage_arguments
from flows.presets import PRESETS, Preset
from models.backbones import build_backbone
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest, ManifestRow
from storage.store import Store
from tasks.blend import scale_sprite
from tasks.compose import compose_photo, encoded_photo
from tasks.context import StageContext
from tasks.empty_board import recover_board
from tasks.kit import build_kit
from tasks.light import light_gain
from tasks.params import ComposeParams, LevelParams, PredictParams, StageParams
from tasks.sprites import Kit
from tasks.stage import Input, load_stage, run_stage_locally

PARTS = ("shadow", "size", "layout", "light", "board")
Photo = NDArray[np.uint8]


def exactly(items: int) -> dict[str, LevelParams]:
    """Levels that ask for so many items in every photo."""
    return {"hard": LevelParams(share=1, skus=(1, items), items=(items, items))}


def cpu_seconds(function: Callable[[], Any], *, least: float = 1.0) -> float:
    """CPU seconds of one call, from enough calls to fill `least` seconds."""
    function()
    calls, started = 0, time.process_time()
    while time.process_time() - started < least:
        function()
        calls += 1
    return (time.process_time() - started) / calls


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


def composing_speed(kit: Kit, *, params: ComposeParams) -> dict[str, float]:
    """Photos a CPU second with and without JPEG, bytes, items, and the ratio to encoding alone."""
    indices = iter(range(10**9))
    rows: list[tuple[bytes, ManifestRow]] = []
    whole = cpu_seconds(lambda: rows.append(encoded_photo(next(indices), kit=kit, params=params)), least=3.0)
    photos = [decode_rgb(data) for data, _ in rows[:8]]
    encoding = cpu_seconds(lambda: [encode_jpeg(photo, quality=kit.jpeg_quality) for photo in photos]) / len(photos)
    return {
        "side": float(photos[0].shape[0]),
        "items": float(np.mean([len(row.objects) for _, row in rows])),
        "photos_per_cpu_second": 1 / whole,
        "photos_per_second_2_cores": 2 / whole,
        "bytes": float(np.mean([len(data) for data, _ in rows])),
        "jpeg_alone_ms": 1000 * encoding,
        "times_jpeg_limit": whole / encoding,
    }


def paper_script_photo(sprites: Sequence[Photo], board_HW3: Photo, generator: np.random.Generator) -> Photo:
    """One photo as the paper's script makes it: resized, turned and tried until the boxes overlap little.

    Each cut-out is scaled by 0.4 to 0.7 and turned by any angle on a canvas that holds it, then pasted with a hard edge
    on a float copy of the photo.
    """
    photo_HW3 = board_HW3.copy()
    boxes: list[tuple[int, int, int, int]] = []
    for sprite_hw4 in sprites:
        scale = generator.uniform(0.4, 0.7)
        small_hw4 = cv2.resize(sprite_hw4, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        side = int(np.ceil(np.hypot(*small_hw4.shape[:2])))
        matrix_23 = cv2.getRotationMatrix2D(
            (small_hw4.shape[1] / 2, small_hw4.shape[0] / 2), generator.uniform(0, 360), 1
        )
        matrix_23[:, 2] += [(side - small_hw4.shape[1]) / 2, (side - small_hw4.shape[0]) / 2]
        turned_hw4 = cv2.warpAffine(small_hw4, matrix_23, (side, side), flags=cv2.INTER_CUBIC)
        rows, columns = np.nonzero(turned_hw4[..., 3] > 127)
        turned_hw4 = turned_hw4[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        x, y = _free_corner(turned_hw4.shape[:2], photo_HW3.shape[:2], boxes, generator)
        mask_HW = np.zeros(photo_HW3.shape[:2], np.float64)
        layer_HW3 = np.zeros(photo_HW3.shape, np.float64)
        window = slice(y, y + turned_hw4.shape[0]), slice(x, x + turned_hw4.shape[1])
        mask_HW[window] = turned_hw4[..., 3] > 127
        layer_HW3[window] = turned_hw4[..., :3]
        photo_HW3 = (photo_HW3 * (1 - mask_HW[..., None]) + layer_HW3 * mask_HW[..., None]).astype(np.uint8)
        boxes.append((x, y, x + turned_hw4.shape[1], y + turned_hw4.shape[0]))
    return photo_HW3


def _free_corner(
    size: tuple[int, ...], room: tuple[int, ...], boxes: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int]:
    """A corner whose box covers less than half of any earlier one, or the last of 20 tries."""
    for _ in range(20):
        x, y = int(rng.integers(0, room[1] - size[1])), int(rng.integers(0, room[0] - size[0]))
        shared = [
            max(0, min(x + size[1], x1) - max(x, x0))
            * max(0, min(y + size[0], y1) - max(y, y0))
            / (x1 - x0)
            / (y1 - y0)
            for x0, y0, x1, y1 in boxes
        ]
        if max(shared, default=0.0) < 0.5:
            break
    return x, y


def speed(made: dict[str, Manifest], *, preset: Preset, store: Store) -> dict[str, Any]:
    """Speed at 800 and 1815 pixels, growth with items and size, memory, and the paper's script on the same core."""
    board = made["boards"].row("board/00")
    factor = 800 / max(board.width or 800, board.height or 800)
    result: dict[str, Any] = {}
    cv2.setNumThreads(1)
    for name, side, items in (("800", 800, 12), ("800_24_items", 800, 24), ("400", 400, 12), ("1815", 1815, 11)):
        params = preset.compose.model_copy(update={"scale": factor * side / 800, "levels": exactly(items)})
        kit = kit_for(made, params=params, store=store)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result |= {f"{name}_{key}": value for key, value in composing_speed(kit, params=params).items()}
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        result[f"{name}_memory_grown_mib"] = grown / 1024
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
    return cpu_seconds(lambda: encode_jpeg(paper_script_photo(large, board_HW3, generator)), least=4.0)


def photo_features(photos: Sequence[Photo], *, side: int = 320) -> NDArray[np.float64]:
    """Frozen ImageNet features: means and standard deviations of EfficientNet-Lite0 maps at strides 4 to 32."""
    network = build_backbone("efficientnet_lite0", pretrained=True, out_strides=(4, 8, 16, 32)).eval()
    rows = []
    for photo_HW3 in photos:
        small_HW3 = cv2.resize(photo_HW3, (side, side), interpolation=cv2.INTER_AREA)
        batch_13HW = torch.from_numpy(small_HW3).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            maps = network((batch_13HW - 0.5) / 0.5)
        rows.append(torch.cat([value for one in maps for value in (one.mean((0, 2, 3)), one.std((0, 2, 3)))]).numpy())
    return np.asarray(rows, np.float64)


def separation(own_ND: NDArray[np.float64], pool_MD: NDArray[np.float64], *, folds: int = 5) -> float:
    """AUC on held-out photos of a logistic regression (L2, standardised features) told to tell the two sets apart."""
    features = np.concatenate([own_ND, pool_MD])
    labels = np.repeat([0.0, 1.0], [len(own_ND), len(pool_MD)])
    order = np.random.default_rng(0).permutation(len(labels))
    scores = np.zeros(len(labels))
    for fold in range(folds):
        held = np.isin(np.arange(len(labels)), order[fold::folds])
        middle, spread = features[~held].mean(0), features[~held].std(0) + 1e-6
        weights = _fit_logistic((features[~held] - middle) / spread, labels[~held])
        scores[held] = (features[held] - middle) / spread @ weights[:-1] + weights[-1]
    ranks = scores.argsort().argsort() + 1
    positive = labels == 1
    pairs = positive.sum() * (~positive).sum()
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)


def _fit_logistic(
    features_ND: NDArray[np.float64], labels_N: NDArray[np.float64], *, decay: float = 1.0
) -> NDArray[np.float64]:
    signs_N = 2 * labels_N - 1
    inputs = np.column_stack([features_ND, np.ones(len(features_ND))])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs_N * (inputs @ weights)
        penalised = np.append(weights[:-1], 0)
        gradient = -inputs.T @ (signs_N / (1 + np.exp(np.clip(margins, -50, 50)))) + decay * penalised
        return float(np.logaddexp(0, -margins).sum() + decay / 2 * penalised @ penalised), gradient

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x, np.float64)


def kernel_inception_distance(own_ND: NDArray[np.float64], pool_MD: NDArray[np.float64]) -> float:
    """Unbiased squared MMD with the cubic kernel (Binkowski et al., ICLR 2018), features standardised by the pool."""
    middle, spread = pool_MD.mean(0), pool_MD.std(0) + 1e-6
    own, pool = (own_ND - middle) / spread, (pool_MD - middle) / spread

    def kernel(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return (left @ right.T / left.shape[1] + 1) ** 3

    inside = [
        (kernel(one, one).sum() - np.trace(kernel(one, one))) / (len(one) * (len(one) - 1)) for one in (own, pool)
    ]
    return float(sum(inside) - 2 * kernel(own, pool).mean())


def realism(made: dict[str, Manifest], *, preset: Preset, store: Store, photos: int = 120) -> dict[str, Any]:
    """AUC and KID against the pool of ours, of the paper's recipe, and of ours without each part."""
    context = StageContext(stage="b", seed=0, store=store, publication=store.begin("b", key="b"), scratch=Path())
    rows = made["pool"].ok[:photos]
    pool_MD = photo_features([context.read_rgb(row) for row in rows])
    recipes: dict[str, dict[str, Any]] = {"ours": {}, "paper": {"recipe": "paper"}}
    recipes |= {f"without_{part}": {"without": (part,)} for part in PARTS}
    result: dict[str, Any] = {}
    for name, changes in recipes.items():
        params = preset.compose.model_copy(update={"scale": 1.0, **changes})
        kit = kit_for(made, params=params, store=store)
        drawn = [decode_rgb(encoded_photo(index, kit=kit, params=params)[0]) for index in range(len(rows))]
        own_ND = photo_features(drawn)
        result |= {
            f"auc_{name}": separation(own_ND, pool_MD),
            f"kid_{name}": kernel_inception_distance(own_ND, pool_MD),
        }
    return result


def board_recovery(made: dict[str, Manifest], *, preset: Preset, store: Store) -> dict[str, Any]:
    """Error of the recovered boards on composed photos, whose boards are known, and that of a plain median.

    Each lit board is used once, and compared with the recovered board under the light that was found for its photo. The
    plain median has no light; the median light of the photos is taken out of its error.
    """
    params = preset.compose.model_copy(update={"scale": 1.0})
    kit = kit_for(made, params=params, store=store)
    kits = [replace(kit, boards=[board]) for board in kit.boards]
    composed = [compose_photo(one, params=params, index=index).photo_HW3 for index, one in enumerate(kits)]
    photos_PHW3 = np.stack([decode_rgb(encode_jpeg(one, quality=kit.jpeg_quality)) for one in composed])
    found = recover_board(photos_PHW3)
    height, width = found.board_HW3.shape[:2]
    plain_HW3 = np.median(photos_PHW3, axis=0)
    errors: dict[str, list[NDArray[np.float32]]] = {"ours": [], "median": []}
    for board, light_C6 in zip(kit.boards, found.lights_PC6, strict=True):
        lit_HW3 = found.board_HW3 * light_gain(light_C6, height=height, width=width)
        errors["ours"].append(np.asarray(lit_HW3 - board.canvas_HW3, np.float32))
        ratio_3 = np.median(np.log(np.maximum(board.canvas_HW3, 1)) - np.log(plain_HW3), axis=(0, 1))
        errors["median"].append(np.asarray(plain_HW3 * np.exp(ratio_3) - board.canvas_HW3, np.float32))
    result: dict[str, Any] = {"holes": found.holes}
    for name, maps in errors.items():
        middle_HW3 = cv2.GaussianBlur(np.median(maps, axis=0), (0, 0), 2)
        result[f"{name}_mean_absolute_error"] = float(np.mean([np.abs(one).mean() for one in maps]))
        result[f"{name}_ghost"] = float(np.abs(middle_HW3).max())
    return result


def detector(
    made: dict[str, Manifest], *, preset: Preset, dataset: str, store: Store, workers: int, ablations: bool = True
) -> dict[str, Any]:
    """Averaged test cAcc of the same detector, trained for the same steps on photos of each recipe."""
    val, test = (ingest_split(dataset, split=split, store=store, workers=workers) for split in ("val", "test"))
    recipes: dict[str, dict[str, Any]] = {"ours": {}, "paper": {"recipe": "paper"}}
    recipes |= {f"without_{part}": {"without": (part,)} for part in PARTS} if ablations else {}
    result: dict[str, Any] = {}

    def run(name: str, params: StageParams, **inputs: Input) -> Manifest:
        return run_stage_locally(load_stage(name), params, store=store, workers=workers, **inputs)

    inputs = {name: made[name] for name in ("catalog", "poses", "boards", "pool")}
    for name, changes in recipes.items():
        photos = run("compose", preset.compose.model_copy(update=changes), **inputs)
        checkpoint = run("train", preset.train["source"], photos=[photos], val=val, init=None)
        seen = {
            split: run("predict", PredictParams(), checkpoint=checkpoint, photos=part)
            for split, part in (("val", val), ("test", test))
        }
        report = run(
            "evaluate", preset.evaluate, val=val, val_predictions=seen["val"], test=test, test_predictions=seen["test"]
        )
        context = StageContext(stage="b", seed=0, store=store, publication=store.begin("b", key="b"), scratch=Path())
        result[f"cAcc_{name}"] = _averaged_accuracy(context, report)
    return result


def _averaged_accuracy(context: StageContext, report: Manifest) -> float:
    figures = orjson.loads(context.read(report.row("report")))
    return float(figures["test"]["averaged"]["cAcc"])


def main() -> None:
    parser = stage_arguments(__doc__)
    parser.set_defaults(preset="demo")
    parser.add_argument("parts", nargs="*", default=["speed", "realism", "board"], help="what is measured")
    arguments = parser.parse_args()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    made = made_manifests(arguments.dataset, preset=preset, store=store, workers=arguments.workers)
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(made, preset=preset, store=store),
        "realism": lambda: realism(made, preset=preset, store=store),
        "board": lambda: board_recovery(made, preset=preset, store=store),
        "detector": lambda: detector(
            made, preset=preset, dataset=arguments.dataset, store=store, workers=arguments.workers
        ),
    }
    unknown = sorted(set(arguments.parts) - set(measured))
    if unknown:
        parser.error(f"expected parts out of {', '.join(measured)}, got {', '.join(unknown)}")
    result = {f"{part}.{key}": value for part in arguments.parts for key, value in measured[part]().items()}
    print_result(result, as_json=arguments.json, title=f"compose on {arguments.dataset}, preset {preset.name}")


if __name__ == "__main__":
    main()
