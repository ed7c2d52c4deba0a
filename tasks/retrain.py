"""Stage `retrain`: a champion learns products that are new in the catalog, and keeps what it knows of the old ones.

Its class head gets rows for the new products, made from how its own head sees their cut-outs in composed photos
(`models.extension`). It trains on new photos, in which new and old products lie together, and on old ones (replay);
where a region shows no new product, the champion's own opinion is part of the loss (`models.distillation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.distillation import DistilledLosses
from models.dpsnet import DPSNet, padded_size
from models.extension import Embeddings, region_features, with_products
from models.training.world import joined, world_of_environment
from storage.catalog import Category, categories_of
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.context import StageContext
from tasks.detection import Detector, load_detector, to_batch
from tasks.device import pick_device
from tasks.fitting import fit_photo
from tasks.params import RetrainParams
from tasks.stage import stage
from tasks.train import learn, network_losses, start_network, with_open_nms

_BATCH = 8


def places_of(known: Sequence[Category], *, categories: Sequence[Category]) -> list[int | None]:
    """The place among `categories` of each known product, by SKU; None for one that left the catalog."""
    places = {category.sku: place for place, category in enumerate(categories)}
    return [places.get(category.sku) for category in known]


def extended_channels(
    channels: Sequence[int], *, known: Sequence[Category], categories: Sequence[Category]
) -> tuple[int, ...]:
    """The density channels of the new catalog in the manner of the old one: one for all, one each, or one a group."""
    if not channels or max(channels) == 0:
        return ()
    if len(set(channels)) == len(known):
        return tuple(range(len(categories)))
    groups = {category.supercategory: channel for category, channel in zip(known, channels, strict=True)}
    for category in categories:
        groups.setdefault(category.supercategory, max(groups.values()) + 1)
    return tuple(groups[category.supercategory] for category in categories)


def of_catalog(manifest: Manifest, *, categories: Sequence[Category]) -> Manifest:
    """Photos in which products that are not in the catalog teach nothing: their regions are ignored."""
    known = {category.id for category in categories}

    def item_of(item: ManifestObject) -> ManifestObject:
        return item if item.category in known else replace(item, status="ignore", reason="left the catalog")

    rows = (replace(row, objects=tuple(map(item_of, row.objects))) for row in manifest.rows)
    return replace(manifest, rows=tuple(rows))


def showing(photos: Sequence[Manifest], *, skus: set[str], most: int) -> list[ManifestRow]:
    """At most `most` photos that show one of the products, spread over all of them."""
    found = [row for manifest in photos for row in manifest.ok if any(item.sku in skus for item in row.objects)]
    if len(found) <= most:
        return found
    return [found[index * len(found) // most] for index in range(most)]


def embeddings_of(
    context: StageContext, champion: Detector, *, rows: Sequence[ManifestRow], categories: Sequence[Category]
) -> Embeddings:
    """What the champion's head sees in the labelled regions of photos."""
    place = {category.sku: index for index, category in enumerate(categories)}
    network = champion.network.eval()
    features, products = [torch.zeros(0, network.config.head_width)], []
    for photos, boxes, skus in _fitted(context, rows, size=champion.image_size):
        features.append(region_features(network, to_batch(photos), boxes))
        products += [place[sku] for sku in skus]
    return Embeddings(features_NH=torch.cat(features), product_N=torch.tensor(products, dtype=torch.int64))


def _fitted(
    context: StageContext, rows: Sequence[ManifestRow], *, size: int
) -> Iterator[tuple[list[np.ndarray], list[Tensor], list[str]]]:
    """Batches of photos at the network's size with the boxes [n, 4] and SKUs of their items."""
    for first in range(0, len(rows), _BATCH):
        photos, boxes, skus = [], [], []
        for row in rows[first : first + _BATCH]:
            photo_HW3, factor = fit_photo(context.read_rgb(row), size=size, side=padded_size(size))
            shown = [item for item in row.objects if item.status == "ok"]
            photos.append(photo_HW3)
            boxes.append(torch.tensor([item.box for item in shown]).reshape(-1, 4) * factor)
            skus += [item.sku for item in shown]
        yield photos, boxes, skus


def extended(
    context: StageContext,
    champion: Detector,
    *,
    categories: Sequence[Category],
    photos: Sequence[Manifest],
    most: int,
) -> DPSNet:
    """The champion's network for another catalog."""
    known = [category.sku for category in champion.categories]
    before = [known.index(category.sku) if category.sku in known else None for category in categories]
    fresh = {category.sku for category, old in zip(categories, before, strict=True) if old is None}
    seen = embeddings_of(
        context, champion, rows=showing(photos, skus=fresh, most=most) if fresh else [], categories=categories
    )
    channels = extended_channels(
        champion.network.config.count_channels, known=champion.categories, categories=categories
    )
    return with_products(champion.network, before=before, count_channels=channels, seen=seen)


def read_checkpoint(context: StageContext, checkpoint: Manifest) -> Detector:
    """The detector of a checkpoint's manifest, on the CPU."""
    return load_detector(context.read(checkpoint.row("checkpoint")), context.read(checkpoint.row("config")))


@stage(RetrainParams)
def retrain(
    context: StageContext,
    *,
    params: RetrainParams,
    photos: Sequence[Manifest],
    val: Manifest,
    champion: Manifest,
    init: Manifest | None = None,
) -> None:
    """Train on `photos`, from the champion with an extended class head or from `init`; see the module's docstring.

    The products are those of `val`, which is read under the new catalog.
    """
    torch.set_num_threads(params.threads)
    world = world_of_environment()
    with joined(world, device=pick_device(params.device, local_rank=world.local_rank)):
        categories = categories_of(val)
        photos = [of_catalog(one, categories=categories) for one in photos]
        teacher = read_checkpoint(context, champion)
        if init is None:
            network = extended(context, teacher, categories=categories, photos=photos, most=params.embedded_photos)
            network = with_open_nms(network) if params.nms == "val" else network
        else:
            network = start_network(context, params=params, init=init, categories=categories, photos=photos)
        losses = DistilledLosses(
            network_losses(network, params=params),
            teacher=teacher.network,
            places=places_of(teacher.categories, categories=categories),
            weight=params.teacher_weight,
            box_weight=params.teacher_box_weight,
        )
        learn(
            context, network=network, losses=losses, params=params, photos=photos, val=val, synthesis=None, world=world
        )
