"""render: synthetic photos in the look of the unlabelled pool, every label still true.

A CycleGAN or a FastCUT is trained on unpaired crops of both (or a renderer without training is taken), every synthetic
photo is translated, and each result is compared with what it came from: a photo in which an item drifted is rejected,
with the reason, and teaches nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from safetensors.torch import load, save

from models.cyclegan import Generator
from storage.digest import JSON
from storage.images import encode_jpeg
from storage.manifest import Manifest, ManifestRow, referenced
from tasks.context import StageContext
from tasks.device import pick_device
from tasks.params import RenderParams
from tasks.render_check import CheckLimits, ItemScores, drift_reason, item_scores
from tasks.render_generator import trained_generator
from tasks.render_photos import Mask, Photo, TrainingPhotos, item_mask, shrink, shrink_mask
from tasks.renderers import PhotoRenderer, chained, colour_renderer, fourier_renderer, generator_renderer
from tasks.stage import stage


def rendered_row(row: ManifestRow, *, scores: Sequence[ItemScores], limits: CheckLimits) -> ManifestRow:
    """The row of a rendered photo: the synthetic row's labels, its verdict, and the worst scores of its items."""
    reason = drift_reason(scores, limits=limits)
    structure = min((item.structure for item in scores), default=1.0)
    worst = {
        "structure": round(structure, 4),
        "edges": round(min((item.edges for item in scores), default=1.0), 4),
        "shift": round(max((item.shift for item in scores), default=0.0), 3),
    }
    return replace(
        _same_labels(row),
        media_type="image/jpeg",
        quality=structure,
        status="rejected" if reason else "ok",
        reason=reason,
        attributes={**row.attributes, "render": worst},
    )


def _same_labels(row: ManifestRow) -> ManifestRow:
    stem = row.item_id.rsplit("/", 1)[-1]
    return replace(row, item_id=f"rendered/{stem}", parents=(row.item_id,))


def _check_inputs(synthetic: Sequence[ManifestRow], pool: Sequence[ManifestRow]) -> None:
    for name, rows in (("synthetic", synthetic), ("pool", pool)):
        if not rows:
            raise ValueError(f"render: expected photos in the input {name!r}, got none with status ok")


def _photos_of(manifest: Manifest) -> list[ManifestRow]:
    return [row for row in manifest.ok if row.media_type.startswith("image/")]


def _some(rows: Sequence[ManifestRow], *, most: int, generator: np.random.Generator) -> list[ManifestRow]:
    """At most `most` rows, drawn evenly, in their order."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index] for index in sorted(generator.choice(len(rows), size=most, replace=False))]


def _read_small(context: StageContext, row: ManifestRow, *, scale: float) -> tuple[Photo, Mask]:
    photo_HW3 = context.read_rgb(row)
    mask_HW = item_mask(row, height=photo_HW3.shape[0], width=photo_HW3.shape[1])
    return shrink(photo_HW3, scale=scale), shrink_mask(mask_HW, scale=scale)


def _read_to_side(context: StageContext, row: ManifestRow, *, side: float) -> Photo:
    photo_HW3 = context.read_rgb(row)
    return shrink(photo_HW3, scale=min(1.0, side / max(photo_HW3.shape)))


def _read_training_photos(
    context: StageContext, *, params: RenderParams, synthetic: Sequence[ManifestRow], pool: Sequence[ManifestRow]
) -> TrainingPhotos:
    chosen = _some(synthetic, most=params.photos, generator=context.generator("synthetic"))
    read = partial(_read_small, context, scale=params.scale)
    photos, masks = zip(*context.map(read, chosen, what="synthetic photos read"), strict=True)
    others = _some(pool, most=params.photos, generator=context.generator("pool"))
    # Products must be of one size in both domains: what differs would be learnt as a difference of looks.
    side = float(np.median([max(photo_HW3.shape) for photo_HW3 in photos]))
    read_pool = partial(_read_to_side, context, side=side)
    return TrainingPhotos(
        synthetic=photos, masks=masks, pool=list(context.map(read_pool, others, what="pool photos read"))
    )


def _keep_training(context: StageContext, network: Generator, *, params: RenderParams) -> None:
    """Rows for what is no photo to learn from, and has the status "artifact" so that nobody does."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    row = ManifestRow(
        item_id="generator",
        media_type="application/safetensors",
        status="artifact",
        attributes=_kind(params),
    )
    context.put(save(tensors), path="generator.safetensors", row=row)
    for picture in sorted(context.checkpoint_folder.glob("*.png")):
        row = ManifestRow(item_id=f"progress/{picture.stem}", media_type="image/png", status="artifact")
        context.put(picture.read_bytes(), path=f"progress/{picture.name}", row=row)


def _make_renderer(
    context: StageContext,
    *,
    params: RenderParams,
    synthetic: Sequence[ManifestRow],
    pool: Sequence[ManifestRow],
    previous: Manifest | None,
) -> PhotoRenderer | None:
    """The renderer that the parameters name; None for the one that changes nothing."""
    assert params.renderer != "auto", "the pipeline tries the candidates and asks for one of them"
    if params.renderer == "none":
        return None
    photos = _read_training_photos(context, params=params, synthetic=synthetic, pool=pool)
    if params.renderer == "fourier":
        return fourier_renderer(photos.pool, radius=params.fourier_radius)
    measured = partial(context.map, what="photos measured")
    colour = colour_renderer(photos.synthetic, photos.pool, mapped=measured)
    if params.renderer == "colour":
        return colour
    network = _known_generator(context, previous, params=params)
    if network is None:
        # Training starts where matched colours end: few steps then go into what statistics can't say.
        matched = replace(photos, synthetic=_rendered_all(context, colour, photos=photos))
        network = trained_generator(context, params=params, photos=matched)
    _keep_training(context, network, params=params)
    return chained(colour, generator_renderer(network, scale=params.scale, tile=params.tile))


def _known_generator(context: StageContext, previous: Manifest | None, *, params: RenderParams) -> Generator | None:
    """The generator of an earlier result, if that is of the same kind."""
    row = None if previous is None else previous.by_id.get("generator")
    if row is None or dict(row.attributes) != _kind(params):
        return None
    network = Generator(channels=params.channels, blocks=params.blocks)
    network.load_state_dict(load(context.read(row)))
    context.log("the generator of the earlier result is used: nothing is trained")
    return network.to(pick_device("auto"))


def _kind(params: RenderParams) -> dict[str, JSON]:
    return {"channels": params.channels, "blocks": params.blocks, "scale": params.scale}


def _rendered_all(context: StageContext, renderer: PhotoRenderer, *, photos: TrainingPhotos) -> list[Photo]:
    def rendered(number: int) -> Photo:
        generator = context.generator("training photo", str(number))
        return renderer(photos.synthetic[number], photos.masks[number], generator)

    return list(context.map(rendered, range(len(photos.synthetic)), what="photos in the pool's colours"))


def _render_one(
    row: ManifestRow, *, context: StageContext, renderer: PhotoRenderer, params: RenderParams
) -> ManifestRow:
    before_HW3 = context.read_rgb(row)
    mask_HW = item_mask(row, height=before_HW3.shape[0], width=before_HW3.shape[1])
    after_HW3 = renderer(before_HW3, mask_HW, context.generator("photo", row.item_id))
    boxes_N4 = np.asarray([item.box for item in row.objects], np.float32).reshape(-1, 4)
    limits = CheckLimits(structure=params.min_structure, edges=params.min_edges, shift=params.max_shift)
    made = rendered_row(row, scores=item_scores(before_HW3, after_HW3, boxes_N4=boxes_N4), limits=limits)
    data = encode_jpeg(after_HW3, quality=params.jpeg_quality)
    return context.put(data, path=f"{made.item_id}.jpg", row=made)


@stage(RenderParams)
def render(
    context: StageContext,
    *,
    params: RenderParams,
    synthetic: Manifest,
    pool: Manifest,
    previous: Manifest | None = None,
) -> None:
    """Render every synthetic photo as "rendered/<stem>"; "generator" and "progress/<step>" show what was learnt.

    With `previous`, an earlier result of this stage, its generator is used in place of a newly trained one.
    Rejected photos keep their file (to look at) and say why. The renderer "none" refers to the synthetic files.

    Raises:
        ValueError: no photo in one of the inputs, or photos smaller than a crop.
    """
    synthetic_rows, pool_rows = _photos_of(synthetic), _photos_of(pool)
    _check_inputs(synthetic_rows, pool_rows)
    renderer = _make_renderer(context, params=params, synthetic=synthetic_rows, pool=pool_rows, previous=previous)
    if renderer is None:
        for row in synthetic_rows:
            context.add(referenced(row, item_id=_same_labels(row).item_id, parents=(row.item_id,)))
        return
    # Photos go to the workers one by one: a photo's bytes must not depend on how many there are.
    torch.set_num_threads(1)
    one = partial(_render_one, context=context, renderer=renderer, params=params)
    made = list(context.spread(one, synthetic_rows, what="photos rendered"))
    rejected = sum(row.status == "rejected" for row in made)
    context.report(rendered=len(made), rejected=rejected)
    context.log(f"{rejected} of {len(made)} rendered photos rejected because an item drifted")
