"""The saliency network's stage: trains it on the coarse masks of the whole catalog, and the functions that use it.

Only confident masks teach, and in them mostly the confident pixels; the network, which has seen every product, then
corrects the rest: before each later round of training it labels the exemplars again, as finely as it can.
`load_saliency` and `predict_saliency` serve the stages that look for products in photos.

The network is kept while the catalog grows: given the `previous` result of this stage, it is trained again only when
the share of products it has not seen reaches `retrain_growth`; otherwise its bytes are passed on unchanged.

Shapes: N crops, S side of a crop, H×W pixels of a photo, h×w of a window in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.saliency import SaliencyNet
from models.training.half_precision import computes_bfloat16
from storage.boxes import mask_box
from storage.manifest import Manifest, ManifestRow
from tasks.backdrop import shrink_to
from tasks.coarse import (
    MAYBE_BACKDROP,
    MAYBE_PRODUCT,
    SURE_BACKDROP,
    SURE_PRODUCT,
    Box,
    CoarseMask,
    box_in_window,
    inside_box,
    product_window,
    read_coarse,
)
from tasks.mask_shapes import largest_pieces, piece_with_most
from tasks.params import SaliencyParams
from tasks.refine import refine
from tasks.saliency_samples import Crop, product_side, square_crop
from tasks.saliency_training import SampleSource, drawn, new_network, new_trainer, to_batch
from tasks.stage import stage
from tasks.training import Plan, TrainingFolder, mean_of_last, run_training, saved_step

if TYPE_CHECKING:
    from tasks.context import StageContext

_DOUBT = 0.1
_SURE = 0.75
WEIGHTS_ID, CONFIG_ID = "network/weights", "network/config"


def load_saliency(weights: bytes, config: bytes) -> SaliencyNet:
    """The network from its safetensors and JSON bytes, in inference mode.

    Raises:
        ValueError: the tensors are not those of the network that the JSON describes.
    """
    settings = orjson.loads(config)
    network = SaliencyNet(backbone=settings["backbone"], width=settings["width"], pretrained=False)
    network.backbone.fold_norms()
    try:
        network.load_state_dict(load_tensors(weights))
    except RuntimeError as error:
        raise ValueError(f"saliency weights: expected a network as {settings}, got other tensors ({error})") from error
    return for_inference(network)


def for_inference(network: SaliencyNet) -> SaliencyNet:
    """The network in inference mode, in bfloat16 where the processor computes in it: half the time, the same outlines.

    A map's probabilities then differ by about 0.01 at most (`benchmarks.segment` judges the masks).
    """
    dtype = torch.bfloat16 if computes_bfloat16(torch.device("cpu")) else torch.float32
    return network.eval().to(dtype).to(memory_format=torch.channels_last)


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
    fused, _ = network(to_batch([framed_HW3.astype(np.float32)]).to(next(network.parameters())))
    map_HW = fused.float().sigmoid()[0, 0].cpu().numpy()
    scaled_HW = cv2.resize(map_HW[: inner[1], : inner[0]], (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled_HW, np.float32)


def window_probability(
    network: SaliencyNet,
    photo_hw3: NDArray[np.uint8],
    level_HW: NDArray[np.uint8],
    *,
    box: Box | None,
    working_size: int,
) -> NDArray[np.float32]:
    """Probability of "product" in a product's window: the network's, kept to what is known already.

    Args:
        photo_hw3: the window, uint8 RGB.
        level_HW, box: as `kept_to_known` takes them.
    """
    return kept_to_known(predict_saliency(network, photo_hw3, working_size=working_size), level_HW, box=box)


def kept_to_known(
    probability_hw: NDArray[np.float32], level_HW: NDArray[np.uint8], *, box: Box | None
) -> NDArray[np.float32]:
    """The network's map of a product's window, changed in place where more is known.

    Args:
        level_HW: the window's coarse levels at any size; where they are sure of product, the probability is at least
            3/4.
        box: the annotated box in the window's pixels: beyond it the probability is 0. None: not annotated.
    """
    height, width = probability_hw.shape
    sure_HW = (level_HW == SURE_PRODUCT).astype(np.float32)
    sure_hw = cv2.resize(sure_HW, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    probability_hw[sure_hw] = np.maximum(probability_hw[sure_hw], _SURE)
    if box is not None:
        probability_hw[~inside_box(box, height=height, width=width)] = 0
    return probability_hw


def looked_at_again(
    network: SaliencyNet, photo_HW3: NDArray[np.uint8], coarse: CoarseMask, *, working_size: int
) -> CoarseMask:
    """A coarse mask whose box was only proposed, with the box that the network sees there.

    The network looks at three times the box's size; of the pieces that it finds, the one that shares most with the
    proposed box counts. The levels stay those of the coarse step, in the new window.
    """
    height, width = photo_HW3.shape[:2]
    wide = x0, y0, x1, y1 = product_window(coarse.box, height=height, width=width, margin=1.0)
    small_hw3 = shrink_to(photo_HW3[y0:y1, x0:x1], working_size)
    found_hw = predict_saliency(network, small_hw3, working_size=working_size) > 0.5
    size = found_hw.shape
    proposed_hw = inside_box(box_in_window(coarse.box, wide, size=size), height=size[0], width=size[1])
    own = mask_box(piece_with_most(found_hw, proposed_hw))
    if own is None:
        return coarse
    across, down = (x1 - x0) / size[1], (y1 - y0) / size[0]
    box = own[0] * across + x0, own[1] * down + y0, own[2] * across + x0, own[3] * down + y0
    return coarse.moved_to(box, height=height, width=width)


def fine_crop(
    network: SaliencyNet, photo_HW3: NDArray[np.uint8], coarse: CoarseMask, *, tight: bool, params: SaliencyParams
) -> Crop:
    """A training crop labelled by a trained network: its map, moved to the edges; sure where both agree.

    Args:
        photo_HW3: the exemplar, uint8 RGB.
        coarse: its coarse mask.
        tight: the box is annotated, so nothing outside of it is product; otherwise the network looks for a better one.
    """
    if not tight:
        coarse = looked_at_again(network, photo_HW3, coarse, working_size=params.label_size)
    small_hw3 = shrink_to(coarse.crop(photo_HW3), params.refine.size)
    box = coarse.box_in(small_hw3.shape[:2]) if tight else None
    probability_hw = window_probability(network, small_hw3, coarse.levels_HW, box=box, working_size=params.label_size)
    alpha_hw = refine(probability_hw, small_hw3, small_hw3, params=params.refine)
    mask_hw = largest_pieces(alpha_hw > 0.5)
    level_hw = np.where(mask_hw, MAYBE_PRODUCT, MAYBE_BACKDROP).astype(np.uint8)
    level_hw[mask_hw & (np.minimum(probability_hw, alpha_hw) > 1 - _DOUBT)] = SURE_PRODUCT
    level_hw[~mask_hw & (np.maximum(probability_hw, alpha_hw) < _DOUBT)] = SURE_BACKDROP
    return square_crop(small_hw3, level_hw, size=params.working_size)


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


def _label_crops(
    context: StageContext,
    rows: Sequence[ManifestRow],
    label: Callable[[NDArray[np.uint8], ManifestRow], Crop],
    *,
    catalog: Manifest,
    path: Path,
    size: int,
) -> NDArray[np.uint8]:
    """Labelled square crops of all teaching rows, [N, S, S, 4]; those in which no product is left are skipped.

    The crops are on disk and mapped: memory stays flat however large the catalog is.
    """
    crops_NSS4 = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(rows), size, size, 4))

    def crop(row: ManifestRow) -> Crop:
        return label(context.read_rgb(catalog.row(row.parents[0])), row)

    count = 0
    for made_SS4 in context.map(crop, rows, what="crops"):
        if product_side(made_SS4) > 0:
            crops_NSS4[count] = made_SS4
            count += 1
    return crops_NSS4[:count]


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
    network = new_network(params)
    for turn in range(params.rounds):
        _train_round(context, network, rows, turn=turn, catalog=catalog, params=params)
    config = {"backbone": params.backbone, "width": params.width, "working_size": params.working_size}
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    _publish(context, weights=save_tensors(tensors), config=orjson.dumps(config), products=products)


def _train_round(
    context: StageContext,
    network: SaliencyNet,
    rows: Sequence[ManifestRow],
    *,
    turn: int,
    catalog: Manifest,
    params: SaliencyParams,
) -> None:
    """Round `turn` in place: labels from the coarse masks or, later, from the network as the last round left it."""

    def label(photo_HW3: NDArray[np.uint8], row: ManifestRow) -> Crop:
        known = read_coarse(row, context.read_grey(row))
        if turn == 0:
            return square_crop(known.crop(photo_HW3), known.levels_HW, size=params.working_size)
        return fine_crop(network, photo_HW3, known, tight=not row.attributes["proposed"], params=params)

    folder = TrainingFolder(context.checkpoint_folder / f"round-{turn + 1}")
    folder.folder.mkdir(exist_ok=True)
    trainer = new_trainer(network, params=params, turn=turn)
    if saved_step(folder.folder) == params.steps:
        folder.resume(trainer)
        return
    path = context.scratch / "crops.npy"
    network.eval()
    crops_NSS4 = _label_crops(context, rows, label, catalog=catalog, path=path, size=params.working_size)
    source = SampleSource(crops_NSS4, params=params, turn=turn)
    run_training(
        context,
        trainer=trainer,
        plan=Plan(steps=params.steps, batch=params.batch, save_every=params.save_every),
        folder=folder,
        batches=lambda steps: drawn(source, params=params, steps=steps),
        what=f"steps of round {turn + 1}",
    )
    if saved_step(folder.folder) < params.steps:
        folder.save(trainer)
    losses = [line["losses"]["saliency"] for line in folder.log]
    context.report(**{f"loss_{turn + 1}": mean_of_last(losses, share=0.1)})
    path.unlink()
