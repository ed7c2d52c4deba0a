"""Photos through a trained DPSNet: loading a checkpoint and reading boxes, scores, SKUs and counts in photo pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from models.dpsnet import COUNT_STRIDE, DPSNet, DPSNetConfig, padded_size
from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.confidence import ListConfidence
from tasks.fitting import fit_photo
from tasks.params import View

FORMAT = "tally-dpsnet-4"
AS_IT_IS = View()
_LEAST_SIDE = 1.0


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A network ready to predict, with what its checkpoint's JSON says."""

    network: DPSNet
    image_size: int
    categories: tuple[Category, ...]
    threshold: float
    count_scale: float
    confidence: ListConfidence


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoDetections:
    """What was found in one photo, best score first, and the density map [C, h, w] whose integral is the count."""

    objects: tuple[ManifestObject, ...]
    density_Chw: NDArray[np.float32]

    @property
    def count(self) -> float:
        """The counting view's number of products."""
        return float(self.density_Chw.sum())


def encode_config(
    config: DPSNetConfig,
    *,
    image_size: int,
    categories: Sequence[Category],
    threshold: float,
    count_scale: float,
    confidence: ListConfidence,
) -> bytes:
    """The JSON beside a checkpoint's weights; threshold, count scale and confidence are those that val chose."""
    body = {
        "format": FORMAT,
        "network": asdict(config),
        "image_size": image_size,
        "threshold": threshold,
        "count_scale": count_scale,
        "confidence": confidence.to_json(),
        "categories": [asdict(category) for category in categories],
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2)


def decode_config(config: bytes) -> dict[str, Any]:
    """The content of a checkpoint's JSON.

    Raises:
        ValueError: it is not the JSON of a DPSNet checkpoint.
    """
    try:
        body = orjson.loads(config)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"model.json: expected JSON, got broken text ({error})") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError(f"model.json: expected the format {FORMAT}, got another file")
    body["network"] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in body["network"].items()
    }
    return body


def load_detector(weights: bytes, config: bytes, *, device: str = "cpu") -> Detector:
    """A detector from a checkpoint's safetensors and JSON.

    Raises:
        ValueError: the JSON is not that of a checkpoint, or the weights do not fit it.
    """
    body = decode_config(config)
    network = DPSNet(DPSNetConfig(**body["network"]), pretrained=False)
    try:
        network.load_state_dict(load(weights))
    except RuntimeError as error:
        raise ValueError(
            f"model.safetensors: expected the weights of model.json's network, got others: {error}"
        ) from error
    return Detector(
        network=network.to(device).to(memory_format=torch.channels_last).eval(),
        image_size=body["image_size"],
        categories=tuple(Category(**category) for category in body["categories"]),
        threshold=body["threshold"],
        count_scale=body["count_scale"],
        confidence=ListConfidence.from_json(body["confidence"]),
    )


def to_batch(photos: Sequence[Picture], *, device: torch.device | str = "cpu") -> Tensor:
    """uint8 photos [H, W, 3] of one size as float32 [B, 3, H, W] in [0, 1], channels last in memory."""
    stacked_BHW3 = torch.from_numpy(np.stack(photos)).to(device)
    return stacked_BHW3.permute(0, 3, 1, 2).float().div_(255)


@torch.inference_mode()
def detect(detector: Detector, photos: Iterable[Picture], *, view: View = AS_IT_IS) -> list[PhotoDetections]:
    """Products in photos (uint8 [H, W, 3], any sizes): boxes in each photo's own pixels, all above the score floor.

    Whatever `view` of the photos the network has, boxes and density come back in the photos' own frames.
    """
    seen = [np.rot90(photo_HW3[:, ::-1] if view.mirrored else photo_HW3, view.turns) for photo_HW3 in photos]
    size = round(view.zoom * detector.image_size)
    side = padded_size(size)
    fitted = [fit_photo(np.ascontiguousarray(photo_HW3), size=size, side=side) for photo_HW3 in seen]
    device = next(detector.network.parameters()).device
    detections, density_BChw = detector.network(to_batch([photo for photo, _ in fitted], device=device))
    read = []
    for found, density_Chw, (_, factor), photo_HW3 in zip(detections, density_BChw, fitted, seen, strict=True):
        shown = _Shown(shape=photo_HW3.shape, factor=factor, turns=view.turns, mirrored=view.mirrored)
        objects = _objects(found, shown=shown, categories=detector.categories)
        read.append(PhotoDetections(objects=objects, density_Chw=_density(density_Chw, shown=shown)))
    return read


def turn_back(boxes_N4: NDArray[np.float32], *, turns: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Boxes found in a photo of `shape` (H, W, …) that is turned by `turns` quarters, in the frame before the turns."""
    height, width = shape[:2]
    for _ in range(turns % 4):
        # One quarter back (clockwise): what was at (x, y) is at (height - y, x).
        boxes_N4 = np.stack([height - boxes_N4[:, 3], boxes_N4[:, 0], height - boxes_N4[:, 1], boxes_N4[:, 2]], axis=1)
        height, width = width, height
    return boxes_N4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A photo as the network saw it: of `shape` (H, W, …) after turning, then scaled by `factor`."""

    shape: tuple[int, ...]
    factor: float
    turns: int
    mirrored: bool


def _density(density_Chw: Tensor, *, shown: _Shown) -> NDArray[np.float32]:
    """The map's cells that lie on the photo, not on its frame, turned back."""
    rows, columns = (math.ceil(side * shown.factor / COUNT_STRIDE) for side in shown.shape[:2])
    turned_Chw = np.rot90(density_Chw[:, :rows, :columns].cpu().numpy(), -shown.turns, axes=(1, 2))
    return np.ascontiguousarray(turned_Chw[..., ::-1] if shown.mirrored else turned_Chw)


def _objects(found: dict[str, Tensor], *, shown: _Shown, categories: Sequence[Category]) -> tuple[ManifestObject, ...]:
    height, width = shown.shape[:2]
    boxes_N4 = np.clip((found["boxes"] / shown.factor).cpu().numpy(), 0, np.array([width, height] * 2, np.float32))
    # What was found beside the photo, on the frame that makes it square, is no product.
    on_photo_N = (boxes_N4[:, 2:] - boxes_N4[:, :2] >= _LEAST_SIDE).all(axis=1)
    boxes_N4 = turn_back(boxes_N4, turns=shown.turns, shape=shown.shape)[on_photo_N]
    if shown.mirrored:
        across = height if shown.turns % 2 else width
        boxes_N4 = np.stack([across - boxes_N4[:, 2], boxes_N4[:, 1], across - boxes_N4[:, 0], boxes_N4[:, 3]], axis=1)
    scores_N, labels_N = (found[name].cpu().numpy()[on_photo_N].tolist() for name in ("scores", "labels"))
    return tuple(
        ManifestObject(
            category=categories[label - 1].id,
            sku=categories[label - 1].sku,
            box=(box[0], box[1], box[2], box[3]),
            centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
            score=score,
        )
        for box, score, label in zip(boxes_N4.tolist(), scores_N, labels_N, strict=True)
    )
