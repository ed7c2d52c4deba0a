"""Stage `train`: DPSNet on labelled photos, evaluated on val as it goes; the best checkpoint by val cAcc is the result.

A step is a function of (seed, number of the step): which photos, how they are varied, which regions are sampled. What a
killed training needs to go on, bit for bit on a CPU, is therefore the state of `models.training.Trainer` alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from models.dpsnet import DPSNet, DPSNetConfig
from models.training import NonFiniteLossError, Optimisation, Trainer, to_device
from storage.catalog import Category, categories_of
from storage.digest import JSON
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest, ManifestRow
from storage.store import replace_file
from tasks.confidence import UNTRAINED, ListConfidence, fit_confidence
from tasks.context import StageContext
from tasks.detection import Detector, detect, encode_config, load_detector, to_batch
from tasks.evaluation_set import from_manifests
from tasks.fusion import count_scale, fused
from tasks.metrics import best_threshold, checkout_metrics, counts_at
from tasks.params import TrainParams
from tasks.photo_samples import LabelledPhoto, Variation, draw_sample, labelled_photo
from tasks.stage import stage

STATE_FILE, BEST_FILE, LOG_FILE = "state.safetensors", "best.safetensors", "train.jsonl"
_PREFETCH = 4
_EVALUATION_BATCH = 8


def pick_device(name: str) -> torch.device:
    """The device a parameter means: "auto" is the GPU where there is one.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a CUDA GPU, got none on this machine; use device = cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class PhotoSource:
    """Labelled photos of several manifests; decoded ones stay in memory up to a limit."""

    def __init__(
        self, context: StageContext, *, photos: Sequence[Manifest], categories: Sequence[Category], params: TrainParams
    ) -> None:
        """`params.mix` holds the share of the samples for each manifest, in their order."""
        if len(params.mix) != len(photos):
            raise ValueError(f"mix: expected one share for each of {len(photos)} inputs, got {list(params.mix)}")
        self._context = context
        self._rows = [[row for row in manifest.rows if row.status == "ok"] for manifest in photos]
        shares = np.array([share if rows else 0.0 for share, rows in zip(params.mix, self._rows, strict=True)])
        if shares.sum() <= 0:
            raise ValueError("photos: expected at least one labelled photo with a share above 0, got none")
        self._shares = shares / shares.sum()
        self._label_of = {category.id: index for index, category in enumerate(categories, start=1)}
        self._longest = round(params.image_size * params.zoom)
        self._cache: dict[str, LabelledPhoto] = {}
        self._room = params.cache_gigabytes * 2**30

    def draw(self, generator: np.random.Generator) -> LabelledPhoto:
        """A photo of one of the manifests, by their shares."""
        rows = self._rows[generator.choice(len(self._rows), p=self._shares)]
        return self._load(rows[generator.integers(len(rows))])

    def _load(self, row: ManifestRow) -> LabelledPhoto:
        found = self._cache.get(row.item_id)
        if found is None:
            photo_HW3 = decode_rgb(self._context.read(row))
            found = labelled_photo(row, photo_HW3, label_of=self._label_of, longest=self._longest)
            self._room -= found.photo_HW3.nbytes
            if self._room > 0:
                self._cache[row.item_id] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one step: photos uint8 [B, S, S, 3] and their targets as DPSNet wants them."""

    photos: list[np.ndarray]
    targets: list[dict[str, Tensor]]


def draw_batch(source: PhotoSource, *, params: TrainParams, generator: np.random.Generator) -> Batch:
    """The samples of one step."""
    variation = Variation(zoom=params.zoom, colour=params.colour)
    samples = [
        draw_sample(source.draw(generator), size=params.image_size, variation=variation, generator=generator)
        for _ in range(params.batch)
    ]
    return Batch(photos=[sample.photo_HW3 for sample in samples], targets=[_target(sample) for sample in samples])


def _target(sample: LabelledPhoto) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(sample.boxes_N4),
        "labels": torch.from_numpy(sample.labels_N),
        "ignore": torch.from_numpy(sample.ignore_M4),
    }


def batches(context: StageContext, source: PhotoSource, *, params: TrainParams, first: int) -> Iterator[Batch]:
    """The batches of steps `first`, `first` + 1, …, drawn ahead by one thread while the network works."""
    with ThreadPoolExecutor(1) as executor:

        def submit(step: int) -> Future[Batch]:
            generator = context.generator("batch", step)
            return executor.submit(draw_batch, source, params=params, generator=generator)

        waiting = [submit(step) for step in range(first, min(first + _PREFETCH, params.steps))]
        for step in range(first, params.steps):
            if step + _PREFETCH < params.steps:
                waiting.append(submit(step + _PREFETCH))
            yield waiting.pop(0).result()


def network_config(params: TrainParams, *, classes: int) -> DPSNetConfig:
    """The network that the parameters describe."""
    same = ("backbone", "strides", "width", "head_width", "proposals", "samples", "norm", "frozen_stages", "counts")
    return DPSNetConfig(
        classes=classes, nms=params.nms, nms_iou=params.nms_iou, **{name: getattr(params, name) for name in same}
    )


def start_network(
    context: StageContext, *, params: TrainParams, init: Manifest | None, categories: Sequence[Category]
) -> DPSNet:
    """A network with ImageNet weights, or the one of the checkpoint `init`.

    Raises:
        ValueError: the checkpoint knows other products.
    """
    if init is None:
        # Layers draw their first weights from torch's global state: it is set here and nowhere else.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.torch_generator("weights").initial_seed())
            return DPSNet(network_config(params, classes=len(categories)), pretrained=True)
    detector = load_detector(context.read(init.row("checkpoint")), context.read(init.row("config")))
    known = [category.sku for category in detector.categories]
    if known != [category.sku for category in categories]:
        raise ValueError(f"init: expected a checkpoint of the same {len(categories)} products, got {len(known)} others")
    return detector.network


def train_step(trainer: Trainer, batch: Batch, *, params: TrainParams, generator: torch.Generator) -> dict[str, float]:
    """One step on one batch; returns the losses by name."""
    network = trainer.network
    assert isinstance(network, DPSNet)
    network.seed_sampling(generator)
    device = next(network.parameters()).device
    losses = dict(network(to_batch(batch.photos, device=device), to_device(batch.targets, device=device)))
    losses["density"] = losses["density"] * params.density_weight
    losses["count"] = losses["count"] * params.count_weight
    return trainer.take_step(losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValResult:
    """What both views of a checkpoint reach on val at the best threshold there, and the counting view's mean error.

    `count_scale`: what the counting view's numbers are multiplied by so that they add up on val. `confidence`: how far
    lists can be trusted.
    """

    threshold: float
    count_scale: float
    confidence: ListConfidence
    metrics: dict[str, float]
    count_error: float

    def to_json(self) -> dict[str, JSON]:
        """All figures by name."""
        decision = {"threshold": self.threshold, "count_scale": self.count_scale}
        return {**self.metrics, **decision, "count_error": self.count_error, "confidence": self.confidence.to_json()}

    @property
    def rank(self) -> tuple[float, float]:
        """Better is larger: cAcc first, then fewer wrong items."""
        return self.metrics["cAcc"], -self.metrics["ACD"]


def evaluate_on_val(detector: Detector, *, photos: Sequence[np.ndarray], val: Manifest) -> ValResult:
    """RPC metrics of a detector on the decoded photos of `val.ok`, in their order."""
    rows, counts = [], []
    for first in range(0, len(photos), _EVALUATION_BATCH):
        found = detect(detector, photos[first : first + _EVALUATION_BATCH])
        for row, one in zip(val.ok[first : first + _EVALUATION_BATCH], found, strict=True):
            rows.append(ManifestRow(item_id=row.item_id, objects=one.objects))
            counts.append(one.count)
    predictions = Manifest(stage="predict", key="", url="", content_digest="", rows=tuple(rows))
    evaluated = from_manifests(val, predictions=predictions, categories=detector.categories, role="val")
    products_N = [len(row.objects) for row in val.ok]
    scale = count_scale(counts, products_N=products_N)
    counts_N = [scale * count for count in counts]
    evaluated = fused(evaluated, counts_N=counts_N)
    threshold = best_threshold(evaluated) if len(evaluated.found) else 0.5
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    return ValResult(
        threshold=float(threshold),
        count_scale=scale,
        confidence=fit_confidence(evaluated, counts_N=counts_N, threshold=threshold),
        metrics=checkout_metrics(found_NK, true_NK=true_NK),
        count_error=float(np.abs(np.subtract(counts, products_N)).mean()),
    )


class Progress:
    """The training's folder: saved state, the best averaged weights on val, the log."""

    def __init__(self, folder: Path, *, val_photos: Sequence[np.ndarray], val: Manifest) -> None:
        """Go on in `folder`, or start there."""
        self._folder, self._val_photos, self._val = folder, val_photos, val

    def resume(self, trainer: Trainer) -> None:
        """Take up the saved state, if there is one."""
        path = self._folder / STATE_FILE
        if path.exists():
            trainer.restore(load_file(path))
            kept = [line for line in self.log() if line["step"] <= trainer.step]
            self._write_log(kept)

    def save(self, trainer: Trainer) -> None:
        """Write the state, whole or not at all."""
        replace_file(self._folder / STATE_FILE, save(trainer.state()), sync=False)

    def evaluate(self, trainer: Trainer, *, detector: Detector) -> ValResult:
        """Evaluate the averaged weights on val; keep them when they are the best up to now."""
        detector.network.load_state_dict(trainer.averaged)
        detector.network.eval()
        result = evaluate_on_val(detector, photos=self._val_photos, val=self._val)
        before = [(line["val"]["cAcc"], -line["val"]["ACD"]) for line in self.log() if "val" in line]
        if result.rank > max(before, default=(-1.0, 0.0)):
            weights = {name: value.detach().cpu().contiguous() for name, value in trainer.averaged.items()}
            replace_file(self._folder / BEST_FILE, save(weights), sync=False)
        return result

    def log(self) -> list[dict]:
        """The log's lines up to now."""
        path = self._folder / LOG_FILE
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def add(self, line: dict) -> None:
        """Add one line to the log."""
        with (self._folder / LOG_FILE).open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")

    def _write_log(self, lines: Sequence[dict]) -> None:
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        replace_file(self._folder / LOG_FILE, data, sync=False)

    def read(self, name: str) -> bytes:
        """The bytes of one of the folder's files."""
        return (self._folder / name).read_bytes()


def run_training(
    context: StageContext,
    *,
    trainer: Trainer,
    source: PhotoSource,
    progress: Progress,
    detector: Detector,
    params: TrainParams,
) -> None:
    """Take the steps that are left, saving and evaluating at their times."""
    steps = range(trainer.step, params.steps)
    drawn = batches(context, source, params=params, first=trainer.step)
    started = time.perf_counter()
    for step, batch in zip(context.progress(steps, what="steps"), drawn, strict=True):
        trainer.network.train()
        try:
            losses = train_step(trainer, batch, params=params, generator=context.torch_generator("regions", step))
        except NonFiniteLossError:
            _keep_batch(batch, folder=context.scratch)
            raise
        done = step + 1
        line: dict = {"step": done, "losses": losses}
        if done % params.evaluate_every == 0 or done == params.steps:
            result = progress.evaluate(trainer, detector=detector)
            line["val"] = result.to_json()
            rate = (done - steps.start) * params.batch / (time.perf_counter() - started)
            context.log(f"step {done}: val cAcc {result.metrics['cAcc']:.3f}, {rate:.1f} photos/s")
        progress.add(line)
        if done % params.save_every == 0:
            progress.save(trainer)


def _keep_batch(batch: Batch, *, folder: Path) -> None:
    for index, photo_HW3 in enumerate(batch.photos):
        replace_file(folder / f"non-finite-{index}.jpg", encode_jpeg(photo_HW3))


@stage(TrainParams)
def train(
    context: StageContext, *, params: TrainParams, photos: Sequence[Manifest], val: Manifest, init: Manifest | None
) -> None:
    """Train DPSNet on `photos` (starting from `init`, if given) and publish its best checkpoint on val."""
    torch.set_num_threads(params.threads)
    categories = categories_of(val)
    network = start_network(context, params=params, init=init, categories=categories)
    network = network.to(pick_device(params.device)).to(memory_format=torch.channels_last)
    trainer = Trainer(network=network, optimisation=_optimisation(params))
    val_photos = [context.read_rgb(row) for row in val.ok]
    progress = Progress(context.checkpoint_folder, val_photos=val_photos, val=val)
    progress.resume(trainer)
    source = PhotoSource(context, photos=photos, categories=categories, params=params)
    detector = _second_detector(network, image_size=params.image_size, categories=categories)
    run_training(context, trainer=trainer, source=source, progress=progress, detector=detector, params=params)
    _publish(context, progress=progress, config=network.config, categories=categories, params=params)


def _optimisation(params: TrainParams) -> Optimisation:
    names = ("steps", "learning_rate", "backbone_share", "warmup", "average")
    return Optimisation(**{name: getattr(params, name) for name in names})


def _second_detector(network: DPSNet, *, image_size: int, categories: tuple[Category, ...]) -> Detector:
    """A second network for the averaged weights, so that evaluating does not touch the one in training."""
    device = next(network.parameters()).device
    other = DPSNet(network.config, pretrained=False).to(device).to(memory_format=torch.channels_last)
    return Detector(
        network=other,
        image_size=image_size,
        categories=categories,
        threshold=0.5,
        count_scale=1.0,
        confidence=UNTRAINED,
    )


def _publish(
    context: StageContext,
    *,
    progress: Progress,
    config: DPSNetConfig,
    categories: Sequence[Category],
    params: TrainParams,
) -> None:
    evaluations = [line for line in progress.log() if "val" in line]
    best = max(evaluations, key=lambda line: (line["val"]["cAcc"], -line["val"]["ACD"]))
    body = encode_config(
        config,
        image_size=params.image_size,
        categories=categories,
        threshold=best["val"]["threshold"],
        count_scale=best["val"]["count_scale"],
        confidence=ListConfidence.from_json(best["val"]["confidence"]),
    )
    files = {
        "checkpoint": ("model.safetensors", "application/x-safetensors", progress.read(BEST_FILE)),
        "config": ("model.json", "application/json", body),
        "log": (LOG_FILE, "application/jsonl", progress.read(LOG_FILE)),
    }
    for item_id, (path, media_type, data) in files.items():
        context.put(data, path=path, row=ManifestRow(item_id=item_id, media_type=media_type))
    context.content["val"] = best["val"]
    context.report(step=best["step"], **{name: value for name, value in best["val"].items() if name != "confidence"})
