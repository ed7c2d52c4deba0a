"""The saliency network's stage: trains it on the coarse masks of the whole catalog, and the functions that use it.

Only confident masks teach, and in them mostly the confident pixels; the network, which has seen every product, then
corrects the rest: before each later round of training it labels the crops again. `load_saliency` and
`predict_saliency` serve the stages that look for products in photos.

The network is kept while the catalog grows: given the `previous` result of this stage, it is trained again only when
the share of products it has not seen reaches `retrain_growth`; otherwise its bytes are passed on unchanged.

Shapes: B batch, N crops, S side of a crop, H×W pixels of a photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional

from models.backbones import IMAGENET_MEAN, IMAGENET_STD
from models.saliency import SaliencyNet, saliency_loss
from storage.manifest import Manifest, ManifestRow
from tasks.coarse import (
    MAYBE_BACKDROP,
    MAYBE_PRODUCT,
    SURE_BACKDROP,
    SURE_PRODUCT,
    Box,
    Window,
    cut_where_doubtful,
    inside_box,
    largest_pieces,
)
from tasks.params import SaliencyParams
from tasks.saliency_samples import UNKNOWN, Sample, collage_sample, exemplar_sample, product_side, square_crop
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

_DOUBT = 0.1
WEIGHTS_ID, CONFIG_ID = "network/weights", "network/config"


def load_saliency(weights: bytes, config: bytes) -> SaliencyNet:
    """The network from its safetensors and JSON bytes, in inference mode.

    Raises:
        ValueError: the tensors are not those of the network that the JSON describes.
    """
    settings = orjson.loads(config)
    network = SaliencyNet(backbone=settings["backbone"], width=settings["width"], pretrained=False)
    try:
        network.load_state_dict(load_tensors(weights))
    except RuntimeError as error:
        raise ValueError(f"saliency weights: expected a network as {settings}, got other tensors ({error})") from error
    return network.eval().to(memory_format=torch.channels_last)


def read_network(context: StageContext, network: Manifest) -> SaliencyNet:
    """The network out of the saliency stage's manifest."""
    return load_saliency(context.read(network.row(WEIGHTS_ID)), context.read(network.row(CONFIG_ID)))


@torch.inference_mode()
def predict_saliency(network: SaliencyNet, photo_HW3: NDArray[np.uint8], *, working_size: int) -> NDArray[np.float32]:
    """Probability of "product" for every pixel of a photo, float32 [H, W] in [0, 1].

    Args:
        network: as `load_saliency` returns it.
        photo_HW3: uint8 RGB.
        working_size: the photo's longer side inside the network, in pixels (scaled up or down to it).
    """
    height, width = photo_HW3.shape[:2]
    ratio = working_size / max(height, width)
    inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    small_HW3 = cv2.resize(photo_HW3, inner, interpolation=way)
    framed_HW3 = cv2.copyMakeBorder(small_HW3, 0, -inner[1] % 32, 0, -inner[0] % 32, cv2.BORDER_REPLICATE)
    fused, _ = network(to_batch([framed_HW3.astype(np.float32)]))
    map_HW = functional.interpolate(fused, scale_factor=2, mode="bilinear", align_corners=False).sigmoid()[0, 0].numpy()
    scaled_HW = cv2.resize(map_HW[: inner[1], : inner[0]], (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled_HW, np.float32)


def to_batch(photos: Sequence[NDArray[np.float32]]) -> Tensor:
    """Photos of one size, float32 RGB in [0, 255], as the backbone takes them: [B, 3, H, W], normalised as ImageNet."""
    mean_3, scale_3 = 255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD)
    return (
        ((torch.from_numpy(np.stack(photos)) - mean_3) / scale_3)
        .permute(0, 3, 1, 2)
        .contiguous(memory_format=torch.channels_last)
    )


def draw_sample(
    crops_NSS4: NDArray[np.uint8], *, size: int, doubt: float, collages: float, generator: np.random.Generator
) -> Sample:
    """One training sample: a collage with probability `collages`, otherwise an exemplar crop."""
    if generator.random() >= collages:
        return exemplar_sample(
            crops_NSS4[generator.integers(len(crops_NSS4))], size=size, doubt=doubt, generator=generator
        )
    chosen = generator.integers(len(crops_NSS4), size=int(generator.integers(1, 9)))
    return collage_sample([crops_NSS4[index] for index in chosen], size=size, doubt=doubt, generator=generator)


def train_saliency(
    network: SaliencyNet,
    crops_NSS4: NDArray[np.uint8],
    *,
    params: SaliencyParams,
    rate: float,
    generator: np.random.Generator,
) -> Iterator[float]:
    """Trains the network in place for `params.steps` steps with the peak learning rate `rate`; yields each step's loss.

    Batch statistics of the backbone stay those of ImageNet: the batches are small.
    """
    network.train().to(memory_format=torch.channels_last)
    network.backbone.eval()
    rates = [rate * params.backbone_share, rate]
    parts = [list(network.backbone.parameters()), [*network.sides.parameters(), *network.fuse.parameters()]]
    if params.backbone_share == 0:
        network.backbone.requires_grad_(False)
        rates, parts = rates[1:], parts[1:]
    optimiser = torch.optim.AdamW([{"params": part} for part in parts], weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=params.steps, pct_start=0.15)
    for _ in range(params.steps):
        samples = [
            draw_sample(
                crops_NSS4, size=params.working_size, doubt=params.doubt, collages=params.collages, generator=generator
            )
            for _ in range(params.batch)
        ]
        photos, targets, weights = zip(*samples, strict=True)
        fused, maps = network(to_batch(photos))
        loss = saliency_loss(fused, maps, target_B1HW=_planes(targets), weight_B1HW=_planes(weights))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        yield float(loss.detach())


def relabelled(network: SaliencyNet, crop_SS4: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A crop with levels from a trained network: its map, cut to the colour edges; sure where both agree.

    Nothing outside of the product's `box` (in the crop's pixels) becomes product, and what the coarse step was sure of
    as product stays so, unless the cut is of another opinion.
    """
    size = crop_SS4.shape[0]
    photo_SS3, level_SS = np.ascontiguousarray(crop_SS4[..., :3]), crop_SS4[..., 3]
    probability_SS = predict_saliency(network, photo_SS3, working_size=size)
    probability_SS[~inside_box(box, height=size, width=size)] = 0
    mask_SS = largest_pieces(cut_where_doubtful(photo_SS3, probability_SS, doubt=_DOUBT))
    new_SS = np.where(mask_SS, MAYBE_PRODUCT, MAYBE_BACKDROP).astype(np.uint8)
    new_SS[mask_SS & ((probability_SS > 1 - _DOUBT) | (level_SS == SURE_PRODUCT))] = SURE_PRODUCT
    new_SS[~mask_SS & (probability_SS < _DOUBT)] = SURE_BACKDROP
    new_SS[level_SS == UNKNOWN] = UNKNOWN
    return np.dstack([photo_SS3, new_SS])


def box_in_crop(box: Box, window: Window, *, size: int) -> Box:
    """A box of the photo in the pixels of the square crop that `square_crop` makes of `window`."""
    across, down = window[2] - window[0], window[3] - window[1]
    ratio = size / max(across, down)
    left, top = (size - round(across * ratio)) // 2, (size - round(down * ratio)) // 2
    x0, x1 = ((x - window[0]) * ratio + left for x in box[::2])
    y0, y1 = ((y - window[1]) * ratio + top for y in box[1::2])
    return x0, y0, x1, y1


def _planes(planes: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(planes)[:, None])


def new_network(params: SaliencyParams, *, seed: int) -> SaliencyNet:
    """A network with pretrained backbone and seeded new layers; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SaliencyNet(backbone=params.backbone, width=params.width, pretrained=True)


def teaching_rows(coarse: Manifest, *, quality: float, most: int, generator: np.random.Generator) -> list[ManifestRow]:
    """The coarse maps that teach: of good quality, at most `most`, evenly over the products if there are more."""
    good = [row for row in coarse.ok if (row.quality or 0) >= quality]
    order = generator.permutation(len(good))
    places: dict[str | None, int] = {}
    ranked = []
    for index in order:
        places[good[index].sku] = places.get(good[index].sku, 0) + 1
        ranked.append((places[good[index].sku], int(index)))
    return [good[index] for index in sorted(index for _, index in sorted(ranked)[:most])]


def needs_training(products: set[str], previous: Manifest | None, *, growth: float) -> bool:
    """Whether the share of products that the previous network has not seen reaches `growth`."""
    if previous is None:
        return True
    seen = set(previous.content["products"])
    return len(products - seen) >= growth * max(1, len(seen))


def _collect_crops(
    context: StageContext, rows: Sequence[ManifestRow], *, catalog: Manifest, size: int, folder: Path
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Square crops of all teaching rows and the products' boxes in them.

    The crops are on disk and mapped: memory stays flat however large the catalog is.
    """
    shape = (len(rows), size, size, 4)
    crops_NSS4 = np.lib.format.open_memmap(folder / "crops.npy", mode="w+", dtype=np.uint8, shape=shape)

    def crop(row: ManifestRow) -> tuple[NDArray[np.uint8], Box]:
        x0, y0, x1, y1 = row.attributes["window"]
        photo_HW3 = np.ascontiguousarray(context.read_rgb(catalog.row(row.parents[0]))[y0:y1, x0:x1])
        made_SS4 = square_crop(photo_HW3, context.read_grey(row), size=size)
        return made_SS4, box_in_crop(tuple(row.attributes["box"]), (x0, y0, x1, y1), size=size)

    boxes: list[Box] = []
    for made_SS4, box in context.map(crop, rows, what="crops"):
        if product_side(made_SS4) > 0:
            crops_NSS4[len(boxes)] = made_SS4
            boxes.append(box)
    return crops_NSS4[: len(boxes)], boxes


def _relabel(context: StageContext, network: SaliencyNet, crops_NSS4: NDArray[np.uint8], boxes: Sequence[Box]) -> None:
    """Replaces the levels of all crops by the network's, in place and one after the other."""
    network.eval()
    for index, box in enumerate(context.progress(boxes, what="crops labelled again")):
        crops_NSS4[index] = relabelled(network, crops_NSS4[index], box)


def _publish(context: StageContext, *, weights: bytes, config: bytes, products: set[str]) -> None:
    context.put(
        weights,
        path="saliency.safetensors",
        row=ManifestRow(item_id=WEIGHTS_ID, media_type="application/x-safetensors"),
    )
    context.put(config, path="saliency.json", row=ManifestRow(item_id=CONFIG_ID, media_type="application/json"))
    context.content["products"] = sorted(products)


@stage(SaliencyParams)
def saliency(
    context: StageContext,
    *,
    params: SaliencyParams,
    catalog: Manifest,
    coarse: Manifest,
    previous: Manifest | None = None,
) -> None:
    """Publishes saliency.safetensors and saliency.json, newly trained unless the previous network still serves."""
    products = {row.sku for row in coarse.ok if row.sku}
    if previous is not None and not needs_training(products, previous, growth=params.retrain_growth):
        context.log("the catalog has grown by less than retrain_growth: the previous network is kept")
        kept = {name: context.read(previous.row(name)) for name in (WEIGHTS_ID, CONFIG_ID)}
        _publish(context, weights=kept[WEIGHTS_ID], config=kept[CONFIG_ID], products=set(previous.content["products"]))
        return
    torch.set_num_threads(params.threads)
    rows = teaching_rows(
        coarse, quality=params.coarse_quality, most=params.exemplars, generator=context.generator("rows")
    )
    if not rows:
        raise ValueError(
            f"saliency: expected coarse masks of quality >= {params.coarse_quality}, got none of {len(coarse.rows)}"
        )
    crops_NSS4, boxes = _collect_crops(context, rows, catalog=catalog, size=params.working_size, folder=context.scratch)
    network = new_network(params, seed=params.seed)
    for turn in range(params.rounds):
        if turn > 0:
            _relabel(context, network, crops_NSS4, boxes)
        steps = train_saliency(
            network,
            crops_NSS4,
            params=params,
            rate=params.learning_rate / 2**turn,
            generator=context.generator("samples", turn),
        )
        losses = list(context.progress(steps, total=params.steps, what=f"steps of round {turn + 1}"))
        context.report(**{f"loss_{turn + 1}": float(np.mean(losses[-max(1, len(losses) // 10) :]))})
    (context.scratch / "crops.npy").unlink()
    config = {"backbone": params.backbone, "width": params.width, "working_size": params.working_size}
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    _publish(context, weights=save_tensors(tensors), config=orjson.dumps(config), products=products)
