"""How fast DPSNet trains and predicts beside torchvision's detectors: medians of steps that take turns.

`twin` is torchvision's Faster R-CNN with DPSNet's own backbone, pyramid and heads; `mobilenet_320` what a user would
otherwise take on a CPU; `reference` torchvision's Faster R-CNN with ResNet-50, for GPUs. All see the same photos at the
same size.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from flows.presets import Preset
from models.dpsnet import DPSNet, DPSNetConfig, padded_size
from models.training.half_precision import keep_depthwise_whole
from storage.catalog import Category
from storage.formats.rpc import read_split
from storage.images import decode_rgb
from tasks.fitting import fit_photo
from tasks.params import TrainParams
from tasks.train import network_config

Targets = list[dict[str, Tensor]]
Step = Callable[[], None]
_WHEN_MODE = [(when, mode) for when in ("pre", "post") for mode in ("train", "test")]
_MEGABYTE = 2**20


def labelled_batch(dataset: Path, *, size: int, batch: int) -> tuple[Tensor, Targets, list[Category]]:
    """The first labelled val photos as a batch [B, 3, H, W] in [0, 1] with targets, and the products."""
    listing = read_split(dataset, split="val")
    label_of = {category.id: index for index, category in enumerate(listing.categories, start=1)}
    photos, targets = [], []
    for index in range(batch):
        photo = listing.photos[index % len(listing.photos)]
        fitted, factor = fit_photo(decode_rgb(photo.path.read_bytes()), size=size, side=padded_size(size))
        photos.append(torch.from_numpy(fitted).permute(2, 0, 1).float() / 255)
        targets.append(
            {
                "boxes": torch.tensor([item.box for item in photo.objects]) * factor,
                "labels": torch.tensor([label_of[item.category] for item in photo.objects]),
                "ignore": torch.zeros(0, 4),
                "seed": torch.tensor(index),
            }
        )
    return torch.stack(photos), targets, [Category(id=one.id, sku=one.sku) for one in listing.categories]


class _Pyramid(nn.Module):
    """DPSNet's backbone and pyramid as torchvision's detectors want them."""

    def __init__(self, network: DPSNet) -> None:
        super().__init__()
        self.backbone, self.pyramid = network.backbone, network.pyramid
        self.out_channels = network.config.width

    def forward(self, photos_B3HW: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(photos_B3HW)
        return self.pyramid({str(index): one for index, one in enumerate(maps)})


def twin(config: DPSNetConfig, *, size: int) -> FasterRCNN:
    """torchvision's Faster R-CNN with the parts and numbers of DPSNet's detection view."""
    network = DPSNet(config, pretrained=False)
    names = [str(index) for index in range(len(config.strides))]
    kept = {f"rpn_{when}_nms_top_n_{mode}": config.proposals * (2 if when == "pre" else 1) for when, mode in _WHEN_MODE}
    return FasterRCNN(
        _Pyramid(network),
        min_size=size,
        max_size=size,
        image_mean=list(network.backbone.mean),
        image_std=list(network.backbone.std),
        rpn_anchor_generator=network.proposals.anchor_generator,
        box_roi_pool=MultiScaleRoIAlign(names, 7, config.roi_samples),
        box_head=TwoMLPHead(config.width * 49, config.head_width),
        box_predictor=FastRCNNPredictor(config.head_width, config.classes + 1),
        rpn_batch_size_per_image=2 * config.samples,
        box_batch_size_per_image=config.samples,
        **kept,
    )


def mobilenet_320(classes: int, *, size: int) -> FasterRCNN:
    """`fasterrcnn_mobilenet_v3_large_320_fpn` at `size` pixels as it is fine-tuned by default: three trainable layers,
    frozen normalisation, torchvision's numbers; without its weights, which cost no time."""
    backbone = mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=True, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    anchors = AnchorGenerator(((32, 64, 128, 256, 512),) * 3, ((0.5, 1.0, 2.0),) * 3)
    return FasterRCNN(
        backbone,
        num_classes=classes + 1,
        rpn_anchor_generator=anchors,
        min_size=size,
        max_size=size,
        rpn_pre_nms_top_n_test=150,
        rpn_post_nms_top_n_test=150,
        rpn_score_thresh=0.05,
    )


def reference(classes: int, *, size: int) -> FasterRCNN:
    """torchvision's ResNet-50 detector at `size` pixels, as it is fine-tuned by default."""
    return fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=classes + 1, min_size=size, max_size=size
    )


def training_step(network: nn.Module, photos: Tensor | list[Tensor], targets: Targets, *, half: bool = False) -> Step:
    """Forward, backward and an optimiser's step on [B, 3, H, W]; `half` computes in bfloat16."""
    network.train().to(memory_format=torch.channels_last)
    learning = [value for value in network.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=1e-6)
    device = learning[0].device.type

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            losses = network(photos, targets)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        optimiser.step()

    return step


def prediction_step(network: nn.Module, photos: Tensor | list[Tensor]) -> Step:
    """One forward pass on [B, 3, H, W] in evaluation mode."""
    network.eval().to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            network(photos)

    return step


def medians(steps: dict[str, Step], *, repeats: int, wait: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Median seconds of each step; they take turns, after one warm-up each. `wait`: until the device is done."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            wait()
            started = time.perf_counter()
            step()
            wait()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def _networks(params: TrainParams, *, categories: list[Category], size: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    config = network_config(params, categories=categories, photos=[])
    return {
        "dpsnet": DPSNet(config, pretrained=False),
        "twin": twin(config, size=size),
        "mobilenet_320": mobilenet_320(len(categories), size=size),
    }


def _other_ways(params: TrainParams, *, categories: list[Category]) -> dict[str, DPSNet]:
    """DPSNet with regions pooled by torchvision's operator, and one that is to compute in bfloat16."""
    config = network_config(params, categories=categories, photos=[])
    plain, half = (DPSNet(config, pretrained=False) for _ in range(2))
    pool = plain.roi_heads.box_roi_pool
    plain.roi_heads.box_roi_pool = MultiScaleRoIAlign(pool.featmap_names, pool.output_size, pool.sampling_ratio)
    keep_depthwise_whole(half)
    return {"dpsnet, torchvision's pooling": plain, "dpsnet, bfloat16": half}


def speed(preset: Preset, *, dataset: Path, repeats: int) -> dict[str, float]:
    """Milliseconds a photo in training and prediction on the CPU with the preset's network, size and batch; ratios."""
    params = preset.train["source"]
    torch.set_num_threads(params.threads)
    size = padded_size(params.image_size)
    photos, targets, categories = labelled_batch(dataset, size=size, batch=params.batch)
    networks = _networks(params, categories=categories, size=size)
    given = {name: photos if name == "dpsnet" else list(photos) for name in networks}
    steps = {name: training_step(one, given[name], targets) for name, one in networks.items()}
    steps |= {
        name: training_step(one, photos, targets, half=name.endswith("bfloat16"))
        for name, one in _other_ways(params, categories=categories).items()
    }
    train = medians(steps, repeats=repeats)
    predict = medians({name: prediction_step(one, given[name]) for name, one in networks.items()}, repeats=repeats)
    found = {
        f"{what}, {name}, ms a photo": 1e3 * seconds / params.batch
        for what, part in (("train", train), ("predict", predict))
        for name, seconds in part.items()
    }
    return {
        **found,
        "train, dpsnet / twin (<= 1.10)": train["dpsnet"] / train["twin"],
        "predict, dpsnet / twin (<= 1.10)": predict["dpsnet"] / predict["twin"],
        "train, dpsnet / with torchvision's pooling": train["dpsnet"] / train["dpsnet, torchvision's pooling"],
        "train, dpsnet in bfloat16 / in float32": train["dpsnet, bfloat16"] / train["dpsnet"],
        "train, photos/s of dpsnet / mobilenet_320 (>= 1)": train["mobilenet_320"] / train["dpsnet"],
    }


def gpu_speed(preset: Preset, *, dataset: Path, repeats: int) -> dict[str, float | str]:
    """Photos a second and peak memory of the `gpu` preset's training step in bfloat16, and its ratio to the plain fp32
    throughput of torchvision's ResNet-50 detector at the same size and batch."""
    if not torch.cuda.is_available():
        return {"gpu": "no GPU at hand: not measured"}
    params, device = preset.train["source"], torch.device("cuda")
    size = padded_size(params.image_size)
    photos, targets, categories = labelled_batch(dataset, size=size, batch=params.batch)
    photos = photos.to(device, memory_format=torch.channels_last)
    targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
    config = network_config(params, categories=categories, photos=[])
    made = {
        "dpsnet": partial(DPSNet, config, pretrained=False),
        "reference": partial(reference, len(categories), size=size),
    }
    found: dict[str, float | str] = {"gpu": torch.cuda.get_device_name()}
    steps: dict[str, Step] = {}
    for name, make in made.items():
        network = make().to(device)
        given = photos if name == "dpsnet" else list(photos)
        steps[name] = training_step(network, given, targets, half=name == "dpsnet")
        torch.cuda.reset_peak_memory_stats()
        steps[name]()
        found[f"{name}, peak megabytes"] = torch.cuda.max_memory_allocated() / _MEGABYTE
    times = medians(steps, repeats=repeats, wait=torch.cuda.synchronize)
    found |= {f"{name}, photos/s": params.batch / seconds for name, seconds in times.items()}
    return {**found, "dpsnet bf16 / reference fp32 (>= 1.5)": times["reference"] / times["dpsnet"]}


def peak_megabytes() -> float:
    """The largest memory of this process up to now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
