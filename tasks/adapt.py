"""Stage `adapt`: a checkpoint without the products that left the catalog. Nothing is trained.

The rows of those products are taken out of the class head, everything else stays; val, read under the new catalog,
chooses the threshold anew.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from safetensors.torch import save

from storage.catalog import categories_of
from storage.manifest import Manifest
from tasks.context import StageContext
from tasks.mapping import by_threads
from tasks.params import AdaptParams
from tasks.retrain import extended, read_checkpoint
from tasks.stage import stage
from tasks.train import publish_checkpoint
from tasks.val_result import evaluate_on_val


@stage(AdaptParams)
def adapt(context: StageContext, *, params: AdaptParams, checkpoint: Manifest, val: Manifest) -> None:
    """The checkpoint for the products of `val`.

    Raises:
        ValueError: `val` has a product that the checkpoint does not know.
    """
    torch.set_num_threads(params.threads)
    champion, categories = read_checkpoint(context, checkpoint), categories_of(val)
    known = {category.sku for category in champion.categories}
    unknown = [category.sku for category in categories if category.sku not in known]
    if unknown:
        raise ValueError(f"checkpoint: expected one that knows all products, got none of {', '.join(unknown)}")
    network = extended(context, champion, categories=categories, photos=[], most=0)
    detector = replace(champion, network=network.to(memory_format=torch.channels_last).eval(), categories=categories)
    photos = by_threads(context.read_rgb, val.ok, workers=context.workers)
    (result,) = evaluate_on_val(detector, photos=photos, val=val, nms_choice=network.config.nms)
    publish_checkpoint(
        context,
        weights=save({name: value.contiguous() for name, value in network.state_dict().items()}),
        log=context.read(checkpoint.row("log")),
        decided=result.to_json(),
        config=network.config,
        categories=categories,
        image_size=champion.image_size,
    )
