"""Stage `train`: DPSNet on labelled photos, evaluated on val as it goes; the best checkpoint there is the result.

A step is a function of (seed, number of the step): which photos, how they are varied, which regions are sampled. What a
killed training needs to go on, bit for bit on a CPU, is therefore the state of `models.training.trainer.Trainer` alone.

Several processes train together when torch elastic starts them (`tasks.process` does where there are several GPUs):
each takes its share of every batch, the first one evaluates, saves and publishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.adaptive_norms import adapt_norms
from models.dpsnet import DPSNet, DPSNetConfig, DPSNetLosses, padded_size
from models.training.batches import Batch
from models.training.optimisation import Optimisation, rule_in_words, scaled, scaled_steps
from models.training.trainer import Phase, Trainer
from models.training.world import World, joined, world_of_environment
from storage.catalog import Category, categories_of
from storage.manifest import Manifest, ManifestRow
from tasks.anchors import box_sides, fitted_anchors, mean_best_iou
from tasks.confidence import UNTRAINED, ListConfidence
from tasks.context import StageContext
from tasks.detection import Detector, encode_config, load_detector, to_batch
from tasks.device import pick_device, pick_precision
from tasks.fitting import fit_photo
from tasks.kit import build_kit
from tasks.loading import batches
from tasks.mapping import by_threads
from tasks.params import TrainParams
from tasks.photo_source import PhotoSource, collated
from tasks.sprites import Kit
from tasks.stage import stage
from tasks.training import BEST_FILE, LOG_FILE, Evaluation, Plan, TrainingFolder, run_training
from tasks.val_result import evaluate_on_val, mean_rank, turned_views

_BATCH = 8


def network_config(params: TrainParams, *, categories: Sequence[Category], photos: Sequence[Manifest]) -> DPSNetConfig:
    """The network that the parameters describe, with anchors fitted to the photos' items if they say so."""
    same = ("backbone", "strides", "width", "head_width", "proposals", "samples", "norm", "frozen_stages", "nms_iou")
    anchors: dict[str, Any] = {}
    sides_N2 = box_sides(photos, image_size=params.image_size)
    if params.anchors == "fitted" and len(sides_N2):
        sizes, ratios = fitted_anchors(sides_N2, strides=(*params.strides, 2 * params.strides[-1]))
        anchors = {"anchor_sizes": sizes, "anchor_ratios": ratios}
    return DPSNetConfig(
        classes=len(categories),
        # With the choice left to val, what NMS a product leaves is what both kinds can be told from.
        nms="agnostic" if params.nms == "agnostic" else "product",
        count_channels=count_channels(params.counts, categories=categories),
        **anchors,
        **{name: getattr(params, name) for name in same},
    )


def count_channels(counts: str, *, categories: Sequence[Category]) -> tuple[int, ...]:
    """The density channel of each product: one for all, one a super-category, or one each."""
    if counts == "product":
        return tuple(range(len(categories)))
    names = ["" if counts == "total" else category.supercategory for category in categories]
    place = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return tuple(place[name] for name in names)


def start_network(
    context: StageContext,
    *,
    params: TrainParams,
    init: Manifest | None,
    categories: Sequence[Category],
    photos: Sequence[Manifest],
) -> DPSNet:
    """A network with ImageNet weights, or the one of the checkpoint `init`.

    Raises:
        ValueError: the checkpoint knows other products.
    """
    if init is None:
        config = network_config(params, categories=categories, photos=photos)
        # Layers draw their first weights from torch's global state: it is set here and nowhere else.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.torch_generator("weights").initial_seed())
            return DPSNet(config, pretrained=True)
    detector = load_detector(context.read(init.row("checkpoint")), context.read(init.row("config")))
    known = [category.sku for category in detector.categories]
    if known != [category.sku for category in categories]:
        raise ValueError(f"init: expected a checkpoint of the same {len(categories)} products, got {len(known)} others")
    return with_open_nms(detector.network) if params.nms == "val" else detector.network


def with_open_nms(network: DPSNet) -> DPSNet:
    """The network with NMS a product: what it leaves is what val can choose between both kinds of NMS from."""
    made = DPSNet(replace(network.config, nms="product"), pretrained=False)
    made.load_state_dict(network.state_dict())
    return made


def optimisation_of(params: TrainParams) -> Optimisation:
    """How the parameters change weights, for batches of `params.batch`."""
    same = ("steps", "learning_rate", "schedule", "backbone_share", "weight_decay", "warmup", "clip", "average")
    return Optimisation(kind=params.optimiser, **{name: getattr(params, name) for name in same})


def scaled_plan(params: TrainParams) -> tuple[Optimisation, Plan, str]:
    """Optimisation and plan for batches of `params.global_batch` photos by the linear rule, and what it changed."""
    batch = params.global_batch or params.batch
    factor = batch / params.batch
    before = optimisation_of(params)
    after = before if factor == 1 else scaled(before, factor=factor)
    plan = Plan(
        steps=after.steps,
        batch=batch,
        save_every=scaled_steps(params.save_every, factor=factor),
        evaluate_every=scaled_steps(params.evaluate_every, factor=factor),
        patience=params.patience,
    )
    return after, plan, "" if factor == 1 else rule_in_words(before, after=after, factor=factor)


def network_losses(network: DPSNet, *, params: TrainParams) -> DPSNetLosses:
    """The losses of a DPSNet under the parameters' weights."""
    return DPSNetLosses(
        network, size=params.image_size, density_weight=params.density_weight, count_weight=params.count_weight
    )


def make_trainer(
    network: DPSNet, *, losses: nn.Module, how: Optimisation, params: TrainParams, world: World
) -> Trainer:
    """The trainer of a DPSNet by its losses."""
    if params.compile:
        # The heads work on as many boxes as there happen to be: compiling them again and again would take longer.
        network.backbone.compile()
        network.pyramid.compile()
    device = pick_device(params.device, local_rank=world.local_rank)
    return Trainer(
        network=network,
        phases=[Phase(name="dpsnet", module=losses, learns=[network], optimisation=how)],
        device=device,
        precision=pick_precision(params.precision, device=device),
        world=world,
    )


def _second_detector(trainer: Trainer, *, image_size: int, categories: tuple[Category, ...]) -> Detector:
    """A second network for the averaged weights, so that evaluating does not touch the one in training."""
    assert isinstance(trainer.network, DPSNet)
    other = DPSNet(trainer.network.config, pretrained=False).to(trainer.device).to(memory_format=torch.channels_last)
    return Detector(
        network=other.eval(),
        image_size=image_size,
        categories=categories,
        threshold=0.5,
        count_scale=1.0,
        confidence=UNTRAINED,
    )


def _kit(context: StageContext, *, params: TrainParams, synthesis: Sequence[Manifest] | None) -> Kit | None:
    if params.stream == 0:
        return None
    if params.synthesis is None or synthesis is None:
        raise ValueError("stream: expected `synthesis` and its inputs to compose photos from, got none")
    catalog, poses, boards, pool = synthesis
    return build_kit(context, params=params.synthesis, catalog=catalog, poses=poses, boards=boards, pool=pool)


@stage(TrainParams)
def train(
    context: StageContext,
    *,
    params: TrainParams,
    photos: Sequence[Manifest],
    val: Manifest,
    init: Manifest | None,
    synthesis: Sequence[Manifest] | None = None,
) -> None:
    """Train DPSNet on `photos` (starting from `init`, if given) and publish its best checkpoint on val.

    `synthesis`: what photos are composed of on the fly: catalog, poses, boards and pool.
    """
    torch.set_num_threads(params.threads)
    world = world_of_environment()
    with joined(world, device=pick_device(params.device, local_rank=world.local_rank)):
        _train(context, params=params, photos=photos, val=val, init=init, synthesis=synthesis, world=world)


def _train(
    context: StageContext,
    *,
    params: TrainParams,
    photos: Sequence[Manifest],
    val: Manifest,
    init: Manifest | None,
    synthesis: Sequence[Manifest] | None,
    world: World,
) -> None:
    network = start_network(context, params=params, init=init, categories=categories_of(val), photos=photos)
    if params.adapt:
        adapt_to_pool(context, network, params=params, photos=photos)
    losses = network_losses(network, params=params)
    learn(
        context,
        network=network,
        losses=losses,
        params=params,
        photos=photos,
        val=val,
        synthesis=synthesis,
        world=world,
        judge_start=init is not None,
    )


def adapt_to_pool(context: StageContext, network: DPSNet, *, params: TrainParams, photos: Sequence[Manifest]) -> None:
    """Bring the backbone's statistics on pool photos to those on the other photos; without either it stays as it is.

    Pool photos are those with pseudo-labels, of which only the pixels are read here.
    """
    rows = [row for manifest in photos for row in manifest.ok if row.objects]
    pool, others = ([row for row in rows if (row.split == "pseudo") == wanted] for wanted in (True, False))
    if not pool or not others:
        return
    source, target = (
        _fitted_photos(context, _spread(some, most=params.adapt_photos), size=params.image_size)
        for some in (others, pool)
    )
    network.eval()

    def forward(photos_B3HW: Tensor) -> object:
        return network.pyramid_maps(photos_B3HW)

    layers = adapt_norms(
        network.backbone.body, source=source.split(_BATCH), target=target, forward=forward, strength=params.adapt
    )
    network.train()
    context.log(f"statistics of {layers} layers adapted to {len(target)} pool photos")


def _spread(rows: Sequence[ManifestRow], *, most: int) -> list[ManifestRow]:
    count = min(most, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def _fitted_photos(context: StageContext, rows: Sequence[ManifestRow], *, size: int) -> Tensor:
    """Photos as the network sees them, float32 [B, 3, S, S] in [0, 1]."""
    return to_batch([fit_photo(context.read_rgb(row), size=size, side=padded_size(size))[0] for row in rows])


def learn(
    context: StageContext,
    *,
    network: DPSNet,
    losses: nn.Module,
    params: TrainParams,
    photos: Sequence[Manifest],
    val: Manifest,
    synthesis: Sequence[Manifest] | None,
    world: World,
    judge_start: bool = False,
) -> None:
    """Train a network by its losses and publish the checkpoint that was best on val.

    `judge_start`: the network it begins with is one of those that are compared.
    """
    categories = categories_of(val)
    how, plan, rule = scaled_plan(params)
    plan = replace(plan, judge_start=judge_start)
    _tell(context, network=network, photos=photos, params=params, world=world, rule=rule)
    trainer = make_trainer(network, losses=losses, how=how, params=params, world=world)
    kit = _kit(context, params=params, synthesis=synthesis)
    source = PhotoSource(
        context.store, photos=photos, categories=categories, params=params, kit=kit, workers=params.loader_workers
    )
    detector = _second_detector(trainer, image_size=params.image_size, categories=categories)

    def drawn(steps: range) -> Iterator[Batch]:
        pinned = trainer.device.type == "cuda"
        return batches(
            source,
            collate=collated,
            batch=plan.batch,
            steps=steps,
            world=world,
            workers=params.loader_workers,
            pinned=pinned,
        )

    def evaluate() -> Evaluation:
        detector.network.load_state_dict(trainer.averaged)
        seen = by_threads(context.read_rgb, val.ok, workers=context.workers)
        views = turned_views(params.val_turns)
        results = evaluate_on_val(detector, photos=seen, val=val, nms_choice=params.nms, views=views)
        shown = results[0]
        context.log(f"step {trainer.step}: val cAcc {shown.metrics['cAcc']:.3f}, count error {shown.count_error:.2f}")
        return Evaluation(rank=mean_rank(results, best_by=params.best_by), figures=shown.to_json())

    folder = TrainingFolder(context.checkpoint_folder)
    run_training(context, trainer=trainer, plan=plan, folder=folder, batches=drawn, evaluate=evaluate)
    if world.leads:
        best = folder.best
        publish_checkpoint(
            context,
            weights=folder.read(BEST_FILE),
            log=folder.read(LOG_FILE),
            decided=best["val"],
            config=network.config,
            categories=categories,
            image_size=params.image_size,
        )
        context.report(step=best["step"])


def _tell(
    context: StageContext,
    *,
    network: DPSNet,
    photos: Sequence[Manifest],
    params: TrainParams,
    world: World,
    rule: str,
) -> None:
    config = network.config
    sides_N2 = box_sides(photos, image_size=params.image_size)
    if config.anchor_sizes and len(sides_N2):
        fit = mean_best_iou(sides_N2, sizes=config.anchor_sizes, ratios=config.anchor_ratios)
        context.log(f"anchors {config.anchor_sizes} x {config.anchor_ratios}: mean best IoU {fit:.2f}")
    if rule:
        context.log(rule)
    if world.size > 1:
        batch = params.global_batch or params.batch
        context.log(f"{world.size} processes, {world.share_of(batch)} of {batch} photos of a step each")


def publish_checkpoint(
    context: StageContext,
    *,
    weights: bytes,
    log: bytes,
    decided: Mapping[str, Any],
    config: DPSNetConfig,
    categories: Sequence[Category],
    image_size: int,
) -> None:
    """Put a checkpoint's weights, its JSON with what val decided (see `tasks.val_result`), and its log."""
    body = encode_config(
        replace(config, nms=decided["nms"]),
        image_size=image_size,
        categories=categories,
        threshold=decided["threshold"],
        count_scale=decided["count_scale"],
        confidence=ListConfidence.from_json(decided["confidence"]),
    )
    files = {
        "checkpoint": ("model.safetensors", "application/x-safetensors", weights),
        "config": ("model.json", "application/json", body),
        "log": (LOG_FILE, "application/jsonl", log),
    }
    for item_id, (path, media_type, data) in files.items():
        context.put(data, path=path, row=ManifestRow(item_id=item_id, media_type=media_type))
    context.content["val"] = dict(decided)
    context.report(**{name: one for name, one in decided.items() if isinstance(one, float)})
