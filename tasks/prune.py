"""Keeps the views of each product that a camera above a counter can see, cuts them out, and weighs them for sampling.

Three rules. `area`: the paper's, mask area over the product's largest. `keep_all`. `evidence` (default): what the pool
shows (`tasks.evidence`). Every exemplar gets a row with its score, its reason and the nearest pool crops.

Shapes: H×W pixels, N views, M pool crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.digest import JSON
from storage.images import encode_png
from storage.manifest import Manifest, ManifestObject, ManifestRow, referenced
from storage.reviews import verdicts_of
from tasks.cutouts import mask_in_box, neutral_patch, product_candidates, product_mask, turned
from tasks.evidence import (
    Floats,
    PoolCrop,
    best_apart,
    channel_scale,
    claims,
    distances,
    embed,
    evidence,
    vectors,
)
from tasks.params import PruneParams
from tasks.reviewed import BAD_MASK, mask_verdict, pose_verdict, refused_masks, touched_products, usable_masks
from tasks.stage import stage

if TYPE_CHECKING:
    from models.embedding import CutoutEmbedding
    from tasks.context import StageContext

_NEAREST = 3
_DISTANCES = "distances.npy"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one view: `score` is what the rule looked at, `weight` how often compose should draw it."""

    kept: bool
    score: float
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Near:
    """A pool crop that a view was compared with, and how far it is."""

    crop: PoolCrop
    distance: float

    def to_json(self) -> dict[str, JSON]:
        """Photo, box (xyxy, pixels), distance and, where a pseudo-label named it, SKU."""
        named = {"sku": self.crop.sku} if self.crop.sku else {}
        return {"photo": self.crop.photo, "box": list(self.crop.box), "distance": round(self.distance, 4), **named}


def area_rule(areas_N: Sequence[float], *, ratio: float) -> list[Decision]:
    """The paper's rule for one product: a view stays when its mask has more than `ratio` of the largest one's area."""
    largest = max(areas_N)
    scores = [area / largest if largest > 0 else 0.0 for area in areas_N]
    return [Decision(score > ratio, score, 1.0, f"area {score:.2f} of the largest, rule > {ratio}") for score in scores]


def keep_all_rule(count: int) -> list[Decision]:
    """Every view is kept with the same weight."""
    return [Decision(True, 1.0, 1.0, "keep all")] * count


def evidence_rule(evidence_N: Sequence[float], *, share: float, least_views: int) -> list[Decision]:
    """One product's views by the pool's evidence: kept from `share` of their mean on; `least_views` always stay.

    The sampling weight is the evidence, with mean 1 over the kept views.
    """
    values_N = np.asarray(evidence_N, np.float64)
    scores_N = values_N / values_N.mean() if values_N.sum() > 0 else np.ones_like(values_N)
    kept_N = scores_N >= share
    kept_N[np.argsort(-scores_N, kind="stable")[:least_views]] = True
    weights_N = np.maximum(scores_N, 0.05)
    weights_N = weights_N / weights_N[kept_N].mean()
    return [
        Decision(
            bool(kept), float(score), float(weight), f"evidence {score:.2f} of the product's mean, rule >= {share}"
        )
        for kept, score, weight in zip(kept_N, scores_N, weights_N, strict=True)
    ]


def sprite(photo_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """RGBA cut-out cropped to its mask, and the crop's upper left corner in the photo (x, y).

    In the soft rim the exemplar's colour is half backdrop: there the colour of the nearest opaque pixels is spread out.
    """
    x, y, across, down = cv2.boundingRect((alpha_HW > 0).astype(np.uint8))
    photo_hw3 = photo_HW3[y : y + down, x : x + across].astype(np.float32)
    alpha_hw = alpha_HW[y : y + down, x : x + across]
    solid_hw = cv2.erode((alpha_hw >= 250).astype(np.float32), np.ones((3, 3), np.uint8))
    spread_hw3 = cv2.GaussianBlur(photo_hw3 * solid_hw[..., None], (0, 0), 2.0)
    total_hw = cv2.GaussianBlur(solid_hw, (0, 0), 2.0)
    rim_hw = (solid_hw == 0) & (total_hw > 1e-3)
    photo_hw3[rim_hw] = spread_hw3[rim_hw] / total_hw[rim_hw][:, None]
    rgba_hw4 = np.dstack([np.clip(np.round(photo_hw3), 0, 255).astype(np.uint8), alpha_hw])
    return rgba_hw4, (x, y)


@dataclass(frozen=True, kw_only=True)
class PoolViews:
    """The pool's crops, ready for comparison: `turned_MRD` are their vectors at every rotation, float16."""

    crops: list[PoolCrop]
    turned_MRD: NDArray[np.float16]
    scale_C: Floats


def pool_crops(
    photo_HW3: NDArray[np.uint8],
    *,
    probability_HW: NDArray[np.float32],
    embedding: CutoutEmbedding,
    photo: str,
    rotations: int,
    labels: Sequence[ManifestObject] | None = None,
) -> list[PoolCrop]:
    """What may be single products of a pool photo by its saliency map; given pseudo-labels, what they say is there."""
    if labels is None:
        found: list[tuple[NDArray[np.bool_], str | None]] = [
            (mask_HW, None) for mask_HW in product_candidates(probability_HW)
        ]
    else:
        cut = [(mask_in_box(probability_HW, item.box), item.sku) for item in labels]
        found = [(mask_HW, sku) for mask_HW, sku in cut if mask_HW is not None]
    crops = []
    for mask_HW, sku in found:
        x, y, across, down = cv2.boundingRect(mask_HW.astype(np.uint8))
        maps = list(embed(embedding, turned(neutral_patch(photo_HW3, mask_HW), rotations=rotations)))
        crops.append(PoolCrop(photo, (x, y, x + across, y + down), np.stack(maps), sku))
    return crops


def accepted_labels(pseudo: Manifest) -> dict[str, list[ManifestObject]]:
    """The trusted detections of `select`, by pool photo; photos that were not taken are left out."""
    return {row.parents[0]: [item for item in row.objects if item.status == "ok"] for row in pseudo.ok}


def _collect_crops(
    context: StageContext,
    *,
    params: PruneParams,
    pool: Manifest,
    network: Manifest,
    pseudo: Manifest | None,
    embedding: CutoutEmbedding,
) -> list[PoolCrop]:
    from tasks.saliency import predict_saliency, read_network

    net = read_network(context, network)
    labels = None if pseudo is None else accepted_labels(pseudo)
    usable = [row for row in pool.ok if labels is None or labels.get(row.item_id)]
    chosen = context.generator("pool").permutation(len(usable))[: params.photos]

    def crops_of(row: ManifestRow) -> list[PoolCrop]:
        photo_HW3 = context.read_rgb(row)
        return pool_crops(
            photo_HW3,
            probability_HW=predict_saliency(net, photo_HW3, working_size=params.working_size),
            embedding=embedding,
            photo=row.item_id,
            rotations=params.rotations,
            labels=None if labels is None else labels[row.item_id],
        )

    # In random order: when there are more crops than are compared, they come from all over the pool.
    made = context.map(crops_of, [usable[int(index)] for index in chosen], what="pool photos")
    return list(islice(chain.from_iterable(made), params.crops))


def _pool_views(crops: list[PoolCrop]) -> PoolViews:
    scale_C = channel_scale(crops)
    turned_MRD = np.stack([vectors(crop.maps_RCGG, scale_C=scale_C).astype(np.float16) for crop in crops])
    return PoolViews(crops=crops, turned_MRD=turned_MRD, scale_C=scale_C)


def _measure(
    context: StageContext,
    rows_by_sku: Mapping[str, Sequence[ManifestRow]],
    *,
    catalog: Manifest,
    views: PoolViews,
    embedding: CutoutEmbedding,
) -> NDArray[np.float32]:
    """Distances [N, M] of all views, product after product; on disk: memory is flat however long the catalog is."""
    count = sum(map(len, rows_by_sku.values()))
    shape = (count, len(views.crops))
    distance_NM = np.lib.format.open_memmap(context.scratch / _DISTANCES, mode="w+", dtype=np.float32, shape=shape)

    def measure(rows: Sequence[ManifestRow]) -> NDArray[np.float32]:
        patches = (
            turned(
                neutral_patch(context.read_rgb(catalog.row(row.parents[0])), product_mask(context.read_grey(row))),
                rotations=1,
            )[0]
            for row in rows
        )
        maps_NCGG = np.stack(list(embed(embedding, patches)))
        return distances(vectors(maps_NCGG, scale_C=views.scale_C), views.turned_MRD)

    start = 0
    for block_NM in context.map(measure, list(rows_by_sku.values()), what="products compared"):
        distance_NM[start : start + len(block_NM)] = block_NM
        start += len(block_NM)
    return distance_NM


def _decide_by_evidence(
    context: StageContext,
    rows_by_sku: Mapping[str, Sequence[ManifestRow]],
    *,
    params: PruneParams,
    views: PoolViews,
    distance_NM: NDArray[np.float32],
) -> dict[str, tuple[Decision, list[Near]]]:
    """Decisions of all views by item_id, each with its nearest pool crops."""
    ends = np.cumsum([len(rows) for rows in rows_by_sku.values()])
    spans = [slice(end - len(rows), end) for end, rows in zip(ends, rows_by_sku.values(), strict=True)]
    best_KM = np.stack([distance_NM[span].min(axis=0) for span in spans])
    apart = best_apart(best_KM.min(axis=0), views.crops)
    names = {sku: index for index, sku in enumerate(rows_by_sku)}
    owners_M = np.array([names.get(views.crops[index].sku or "", -1) for index in apart], np.int64)
    claim_KM = claims(best_KM[:, apart], owners_M=owners_M, sharpness=params.sharpness, distrust=params.distrust)
    context.report(pool_crops=len(apart), candidates=len(views.crops))
    decided: dict[str, tuple[Decision, list[Near]]] = {}
    for rows, span, claim_M in zip(rows_by_sku.values(), spans, claim_KM, strict=True):
        block_NM = distance_NM[span][:, apart]
        evidence_N = evidence(block_NM, claim_M, sharpness=params.sharpness)
        made = evidence_rule(evidence_N.tolist(), share=params.share, least_views=params.least_views)
        order_N3 = np.argsort(block_NM, axis=1, kind="stable")[:, :_NEAREST]
        for row, one, block_M, order_3 in zip(rows, made, block_NM, order_N3, strict=True):
            near = [Near(crop=views.crops[apart[index]], distance=float(block_M[index])) for index in order_3]
            decided[row.item_id] = (one, near)
    return decided


def _by_evidence(
    context: StageContext,
    masks: Sequence[ManifestRow],
    *,
    params: PruneParams,
    catalog: Manifest,
    pool: Manifest,
    network: Manifest,
    pseudo: Manifest | None,
) -> dict[str, tuple[Decision, list[Near]]] | None:
    """Decisions by what the pool shows, or None if it shows nothing."""
    import torch

    from models.embedding import CutoutEmbedding

    # Photos go to the workers one by one: a row must not depend on how many there are.
    torch.set_num_threads(1)
    embedding = CutoutEmbedding(backbone=params.backbone)
    crops = _collect_crops(context, params=params, pool=pool, network=network, pseudo=pseudo, embedding=embedding)
    if not crops or not masks:
        context.log("the pool shows no single product: every view is kept")
        return None
    by_sku: dict[str, list[ManifestRow]] = {}
    for row in masks:
        by_sku.setdefault(row.sku or "", []).append(row)
    views = _pool_views(crops)
    distance_NM = _measure(context, by_sku, catalog=catalog, views=views, embedding=embedding)
    decided = _decide_by_evidence(context, by_sku, params=params, views=views, distance_NM=distance_NM)
    (context.scratch / _DISTANCES).unlink()
    return decided


def _decide_alone(masks: Sequence[ManifestRow], *, params: PruneParams) -> dict[str, Decision]:
    """Decisions of the rules that need no pool, product by product."""
    by_sku: dict[str | None, list[ManifestRow]] = {}
    for row in masks:
        by_sku.setdefault(row.sku, []).append(row)
    decisions: dict[str, Decision] = {}
    for rows in by_sku.values():
        areas = [float(row.attributes["area"]) for row in rows]
        made = area_rule(areas, ratio=params.area_ratio) if params.rule == "area" else keep_all_rule(len(rows))
        decisions.update({row.item_id: one for row, one in zip(rows, made, strict=True)})
    return decisions


def overruled(decision: Decision, *, verdict: str | None) -> Decision:
    """The decision after a person's say on the view; a view that a person vouches for counts as an average one does."""
    if verdict is None:
        return decision
    reason = f"a person marked the view as {verdict}; {decision.reason}"
    weight = max(decision.weight, 1.0) if verdict == "good" else decision.weight
    return replace(decision, kept=verdict == "good", weight=weight, reason=reason)


def unchanged_products(masks: Sequence[ManifestRow], previous: Manifest) -> set[str | None]:
    """Products whose masks are those that an earlier result of this stage decided on: their rows can stay."""
    earlier: dict[str, set[tuple[str, str]]] = {}
    for row in previous.rows:
        earlier.setdefault(row.sku or "", set()).add((row.parents[1], str(row.attributes["mask"])))
    now: dict[str, set[tuple[str, str]]] = {}
    for row in masks:
        now.setdefault(row.sku or "", set()).add((row.item_id, row.digest))
    return {sku for sku, views in now.items() if earlier.get(sku) == views}


@stage(PruneParams)
def prune(
    context: StageContext,
    *,
    params: PruneParams,
    catalog: Manifest,
    masks: Manifest,
    pool: Manifest | None = None,
    network: Manifest | None = None,
    pseudo: Manifest | None = None,
    previous: Manifest | None = None,
    reviews: Manifest | None = None,
) -> None:
    """One row a mask, `pose/<stem>`: the sprite's RGBA PNG with its weight, or "dropped" with the reason.

    `pseudo`, a result of `select`, weighs views by accepted pseudo-labels in place of unnamed crops. With `previous`,
    this stage's result on a shorter catalog, the products decided there keep their rows and files; new ones compete
    with all of them. `reviews` are people's decisions on masks and views: they overrule the rule.
    """
    verdicts = verdicts_of(reviews)
    usable = usable_masks(masks, verdicts=verdicts)
    decided = None
    if params.rule == "evidence" and pool is not None and network is not None:
        decided = _by_evidence(
            context, usable, params=params, catalog=catalog, pool=pool, network=network, pseudo=pseudo
        )
    if decided is None:
        decided = {name: (one, []) for name, one in _decide_alone(usable, params=params).items()}
    refused = refused_masks(masks, verdicts=verdicts)
    decided |= {row.item_id: (Decision(False, 0.0, 0.0, BAD_MASK), []) for row in refused}
    settled: set[str | None] = set()
    if previous is not None:
        touched = touched_products(masks, previous, exemplars=catalog, verdicts=verdicts)
        settled = unchanged_products([*usable, *refused], previous) - touched

    def make(row: ManifestRow) -> None:
        if previous is not None and row.sku in settled:
            _pass_on(context, previous.row(f"pose/{row.item_id.removeprefix('mask/')}"))
            return
        one, near = decided[row.item_id]
        exemplar = catalog.row(row.parents[0])
        verdict = pose_verdict(row.item_id.removeprefix("mask/"), exemplar=exemplar, verdicts=verdicts)
        said = mask_verdict(row, verdicts=verdicts)
        one = one if said == "bad" else overruled(one, verdict=verdict)
        _publish(context, row, one, exemplar=exemplar, rule=params.rule, near=near, reviewed=verdict or said)

    for _ in context.map(make, [*usable, *refused], what="views"):
        pass


def _pass_on(context: StageContext, row: ManifestRow) -> None:
    """A view that stays as it was decided before; its sprite lies where it lay."""
    context.add(referenced(row))


def _publish(
    context: StageContext,
    row: ManifestRow,
    decision: Decision,
    *,
    exemplar: ManifestRow,
    rule: str,
    near: Sequence[Near],
    reviewed: str | None,
) -> None:
    stem = row.item_id.removeprefix("mask/")
    out = ManifestRow(
        item_id=f"pose/{stem}",
        sku=row.sku,
        split=row.split,
        parents=(exemplar.item_id, row.item_id),
        objects=row.objects,
        quality=row.quality,
        reason=decision.reason,
        attributes={
            "rule": rule,
            "score": round(decision.score, 4),
            "weight": round(decision.weight, 4),
            "nearest": [one.to_json() for one in near],
            "mask": row.digest,
            **{name: exemplar.attributes.get(name) for name in ("camera", "view", "placement")},
            **({"reviewed": reviewed} if reviewed else {}),
        },
    )
    if not decision.kept:
        context.add(replace(out, status="dropped"))
        return
    rgba_hw4, origin = sprite(context.read_rgb(exemplar), context.read_grey(row))
    out = replace(
        out,
        width=rgba_hw4.shape[1],
        height=rgba_hw4.shape[0],
        media_type="image/png",
        attributes={**out.attributes, "origin": list(origin)},
    )
    context.put(encode_png(rgba_hw4), path=f"{stem}.png", row=out)
