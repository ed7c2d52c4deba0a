"""Keeps the views of each product that a camera above a counter can see, cuts them out, and weighs them for sampling.

Three rules. `area`: the paper's, mask area over the product's largest. `keep_all`. `evidence` (default): what the pool
shows (`tasks.evidence`). Every exemplar gets a row with its score, its reason and the nearest pool crops.

Shapes: H×W pixels, N views, M pool crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import encode_png
from storage.manifest import Manifest, ManifestRow
from tasks.evidence import (
    PoolCrop,
    best_apart,
    describe,
    distances,
    evidence,
    neutralised,
    product_candidates,
    product_mask,
)
from tasks.params import PruneParams
from tasks.stage import stage

if TYPE_CHECKING:
    from models.saliency import SaliencyNet
    from tasks.context import StageContext


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one view: `score` is what the rule looked at, `weight` how often compose should draw it."""

    kept: bool
    score: float
    weight: float
    reason: str


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


def pool_crops(
    network: SaliencyNet, photo_HW3: NDArray[np.uint8], *, photo: str, working_size: int, rotations: int
) -> list[PoolCrop]:
    """What may be single products of one pool photo, found by the saliency network, with their descriptors."""
    from tasks.saliency import predict_saliency

    probability_HW = predict_saliency(network, photo_HW3, working_size=working_size)
    crops = []
    for mask_HW in product_candidates(probability_HW):
        x, y, across, down = cv2.boundingRect(mask_HW.astype(np.uint8))
        ring = max(3, max(across, down) // 12)
        left, top = max(0, x - ring - 1), max(0, y - ring - 1)
        part = np.s_[top : y + down + ring + 1, left : x + across + ring + 1]
        plain_hw3 = neutralised(photo_HW3[part], mask_HW[part], ring=ring)
        crops.append(
            PoolCrop(photo, (x, y, x + across, y + down), describe(plain_hw3, mask_HW[part], rotations=rotations))
        )
    return crops


def view_descriptor(photo_HW3: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Descriptor of an exemplar's cut-out, as pool crops have one for every rotation: float32 [D]."""
    x, y, across, down = cv2.boundingRect(mask_HW.astype(np.uint8))
    ring = max(3, max(across, down) // 12)
    part = np.s_[max(0, y - ring - 1) : y + down + ring + 1, max(0, x - ring - 1) : x + across + ring + 1]
    return describe(neutralised(photo_HW3[part], mask_HW[part], ring=ring), mask_HW[part], rotations=1)[0]


def _collect_crops(context: StageContext, *, params: PruneParams, pool: Manifest, network: Manifest) -> list[PoolCrop]:
    import torch

    from tasks.saliency import read_network

    torch.set_num_threads(1)
    net = read_network(context, network)
    chosen = context.generator("pool").permutation(len(pool.ok))[: params.photos]

    def crops_of(row: ManifestRow) -> list[PoolCrop]:
        return pool_crops(
            net, context.read_rgb(row), photo=row.item_id, working_size=params.working_size, rotations=params.rotations
        )

    rows = [pool.ok[int(index)] for index in sorted(chosen)]
    return [crop for crops in context.map(crops_of, rows, what="pool photos") for crop in crops][: params.crops]


def _decide_by_evidence(
    context: StageContext,
    masks: Sequence[ManifestRow],
    *,
    params: PruneParams,
    catalog: Manifest,
    crops: list[PoolCrop],
) -> tuple[dict[str, Decision], dict[str, list[int]]]:
    """Decisions of all views, and for each its nearest pool crops."""

    def descriptor(row: ManifestRow) -> NDArray[np.float32]:
        return view_descriptor(context.read_rgb(catalog.row(row.parents[0])), product_mask(context.read_grey(row)))

    descriptors_ND = np.stack(list(context.map(descriptor, masks, what="views")))
    names = sorted({row.sku or "" for row in masks})
    skus_N = np.array([names.index(row.sku or "") for row in masks])
    distance_NM = distances(descriptors_ND, crops)
    apart = best_apart(distance_NM, crops)
    distance_NM = distance_NM[:, apart]
    evidence_N = evidence(distance_NM, skus_N)
    decisions: dict[str, Decision] = {}
    for index in range(len(names)):
        views = np.flatnonzero(skus_N == index)
        made = evidence_rule(evidence_N[views].tolist(), share=params.share, least_views=params.least_views)
        decisions.update({masks[int(view)].item_id: one for view, one in zip(views, made, strict=True)})
    nearest_N3 = np.argsort(distance_NM, axis=1, kind="stable")[:, :3]
    return decisions, {row.item_id: [apart[one] for one in near] for row, near in zip(masks, nearest_N3, strict=True)}


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


@stage(PruneParams)
def prune(
    context: StageContext,
    *,
    params: PruneParams,
    catalog: Manifest,
    masks: Manifest,
    pool: Manifest | None = None,
    network: Manifest | None = None,
) -> None:
    """One row a mask, `pose/<stem>`: the sprite's RGBA PNG with its weight, or "dropped" with the reason."""
    crops: list[PoolCrop] = []
    if params.rule == "evidence" and pool is not None and network is not None:
        crops = _collect_crops(context, params=params, pool=pool, network=network)
        context.report(pool_crops=len(crops))
        if not crops:
            context.log("the pool shows no single product: every view is kept")
    nearest: dict[str, list[int]] = {}
    if crops and masks.ok:
        decisions, nearest = _decide_by_evidence(context, masks.ok, params=params, catalog=catalog, crops=crops)
    else:
        decisions = _decide_alone(masks.ok, params=params)

    def make(row: ManifestRow) -> None:
        near = [{"photo": crops[index].photo, "box": list(crops[index].box)} for index in nearest.get(row.item_id, [])]
        _publish(
            context, row, decisions[row.item_id], exemplar=catalog.row(row.parents[0]), rule=params.rule, near=near
        )

    for _ in context.map(make, masks.ok, what="views"):
        pass


def _publish(
    context: StageContext, row: ManifestRow, decision: Decision, *, exemplar: ManifestRow, rule: str, near: list[dict]
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
            "nearest": near,
            **{name: exemplar.attributes.get(name) for name in ("camera", "view", "placement")},
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
