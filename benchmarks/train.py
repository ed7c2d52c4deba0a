"""A training step and a prediction of DPSNet against torchvision's Faster R-CNN: same backbone, pyramid and heads.

    python -m benchmarks.train [--dataset sample] [--size 320] [--steps 7] [--json]

Both see the same labelled photos at the same size; their steps alternate and medians are compared, so that a busy
neighbour slows both. `fasterrcnn_mobilenet_v3_large_320_fpn` is what a user would otherwise take on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from models.dpsnet import DPSNet, DPSNetConfig
from storage.formats.rpc import read_split
from storage.images import decode_rgb
from tasks.detection import fit_photo, to_batch

Targets = list[dict[str, Tensor]]
Step = Callable[[], None]
_WHEN_MODE = [(when, mode) for when in ("pre", "post") for mode in ("train", "test")]


def labelled_batch(dataset: Path, *, size: int, batch: int) -> tuple[Tensor, Targets, int]:
    """The first labelled val photos as a batch with targets, and the number of products."""
    listing = read_split(dataset, split="val")
    label_of = {category.id: index for index, category in enumerate(listing.categories, start=1)}
    photos, targets = [], []
    for photo in listing.photos[:batch]:
        fitted, factor = fit_photo(decode_rgb(photo.path.read_bytes()), size=size)
        photos.append(fitted)
        targets.append(
            {
                "boxes": torch.tensor([item.box for item in photo.objects]) * factor,
                "labels": torch.tensor([label_of[item.category] for item in photo.objects]),
                "ignore": torch.zeros(0, 4),
                "seed": len(targets),
            }
        )
    return to_batch(photos), targets, len(label_of)


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


def training_step(network: nn.Module, photos: Tensor | list[Tensor], targets: Targets) -> Step:
    """Forward, backward and an optimiser's step."""
    network.train().to(memory_format=torch.channels_last)
    learning = [value for value in network.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=1e-6)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(network(photos, targets).values())).sum().backward()
        optimiser.step()

    return step


def prediction_step(network: nn.Module, photos: Tensor | list[Tensor]) -> Step:
    """One forward pass in evaluation mode."""
    network.eval().to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            network(photos)

    return step


def medians(steps: dict[str, Step], *, repeats: int) -> dict[str, float]:
    """Median seconds of each step; they take turns, after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(dataset: Path, *, size: int, batch: int, repeats: int, threads: int) -> dict[str, float]:
    """Seconds a photo in training and prediction, and DPSNet's ratios to the twin."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    photos, targets, classes = labelled_batch(dataset, size=size, batch=batch)
    config = DPSNetConfig(classes=classes, strides=(8, 16, 32), width=64, head_width=256, samples=64, proposals=200)
    listed = list(photos)
    mobile = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=classes + 1, min_size=size, max_size=size
    )
    dpsnet, rival = DPSNet(config, pretrained=False), twin(config, size=size)
    train = medians(
        {
            "dpsnet": training_step(dpsnet, photos, targets),
            "faster_rcnn": training_step(rival, listed, targets),
            "mobilenet_320": training_step(mobile, listed, targets),
        },
        repeats=repeats,
    )
    predict = medians(
        {
            "dpsnet": prediction_step(dpsnet, photos),
            "faster_rcnn": prediction_step(rival, listed),
            "mobilenet_320": prediction_step(mobile, listed),
        },
        repeats=repeats,
    )
    seconds = {
        f"{what}/{name}": value / batch
        for what, part in (("train", train), ("predict", predict))
        for name, value in part.items()
    }
    ratios = {
        f"{what} ratio": part["dpsnet"] / part["faster_rcnn"] for what, part in (("train", train), ("predict", predict))
    }
    return {**seconds, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=Path("sample"), help="a data set in RPC's layout")
    parser.add_argument("--size", type=int, default=320, help="longer side of a photo in the network, a multiple of 64")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = compare(
        options.dataset, size=options.size, batch=options.batch, repeats=options.steps, threads=options.threads
    )
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24s} {value:8.3f}" if "ratio" in name else f"{name:24s} {1e3 * value:8.1f} ms a photo")


if __name__ == "__main__":
    main()
