"""The order of the stages of `retrain`: a champion that follows its catalog, touching what changed and nothing else.

New products are cut out, composed with old ones and learnt from the champion on, with replay of old photos; then a
round on the pool. Products that left the catalog are taken out of the model without training. In the end the challenger
is compared with the champion (`flows.promotion` acts on it). Written against `Runner`, as `flows.pipeline` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from flows.pipeline import Rung, Splits, evaluate_rung, reviewed, select_round
from flows.presets import Preset
from flows.renderers import same_renderer
from flows.runner import Runner
from storage.catalog import categories_of
from storage.champions import ChampionRecord
from storage.manifest import Manifest
from tasks.params import AdaptParams, GatherParams, RetrainParams

# How many retrainings' compositions are replayed, besides that of the whole run before them.
_REPLAYED = 4
_COMPOSED = ("compose", "render")


@dataclass(frozen=True, kw_only=True)
class Change:
    """How the catalog differs from what the champion knows, in SKUs."""

    new: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(kw_only=True)
class Retrained:
    """What a retraining leaves: the challenger, and the manifests that the next retraining builds on, by stage."""

    change: Change
    rung: Rung
    stages: dict[str, Manifest]


def change_since(champion: Manifest, *, catalog: Manifest, run: Runner) -> Change:
    """What is new in the catalog and what left it since a checkpoint was trained."""
    known = [one["sku"] for one in orjson.loads(run.store.read(champion.row("config")))["categories"]]
    skus = [category.sku for category in categories_of(catalog)]
    return Change(
        new=tuple(sku for sku in skus if sku not in known), gone=tuple(sku for sku in known if sku not in skus)
    )


def retrain(run: Runner, *, splits: Splits, record: ChampionRecord, preset: Preset) -> Retrained:
    """The challenger that follows a champion to the present catalog and pool.

    Raises:
        ValueError: new products can't be learnt, because the champion's run left nothing to build on.
    """
    champion = run.store.load(record.checkpoint)
    before = {name: run.store.load(url) for name, url in record.stages.items()}
    change = change_since(champion, catalog=splits.catalog, run=run)
    if change.gone and not change.new:
        adapted = run.stage("adapt", AdaptParams(seed=preset.predict.seed), checkpoint=champion, val=splits.val)
        rung = evaluate_rung(run, "adapted", checkpoint=adapted, prepared=splits, preset=preset)
        return Retrained(change=change, rung=rung, stages=without_products(run, before, gone=change.gone))
    stages = prepare_new(run, splits=splits, before=before, change=change, preset=preset)
    photos = new_photos(run, splits=splits, stages=stages, change=change, preset=preset) if change.new else []
    start = None
    if photos:
        replay = replayed(stages)
        params = mixed(preset.retrain["new"], new=len(photos), replay=len(replay), pool=0)
        start = run.stage(
            "retrain.new", params, photos=[*photos, *replay], val=splits.val, champion=champion, init=None
        )
    best = after_pool_round(
        run, splits=splits, champion=champion, start=start, photos=photos, stages=stages, preset=preset
    )
    if photos:
        stages = with_composition(stages, photos=photos)
    rung = evaluate_rung(run, "challenger", checkpoint=best, prepared=splits, preset=preset)
    return Retrained(change=change, rung=rung, stages=stages)


def without_products(run: Runner, before: dict[str, Manifest], *, gone: Sequence[str]) -> dict[str, Manifest]:
    """The stages that have rows of products, without the gone ones; the others as they are."""
    stages = dict(before)
    for name in ("coarse", "segment", "prune"):
        there = {row.sku for row in stages[name].rows} if name in stages else set()
        left = tuple(sku for sku in gone if sku in there)
        if left:
            stages[name] = run.stage(f"gather.{name}.kept", GatherParams(without=left), parts=[stages[name]])
    return stages


def prepare_new(
    run: Runner, *, splits: Splits, before: dict[str, Manifest], change: Change, preset: Preset
) -> dict[str, Manifest]:
    """Coarse masks, network, masks, sprites and boards for the present catalog: only new products are cut out."""
    missing = [name for name in ("coarse", "saliency", "segment", "prune", "board") if name not in before]
    if missing:
        raise ValueError(f"champion: expected one whose run left {', '.join(missing)}, got none; `tally run` makes one")
    stages = without_products(run, before, gone=change.gone)
    if not change.new:
        stages["board"] = run.stage("board", preset.board, pool=splits.pool, network=stages["saliency"])
        return stages
    fresh = run.stage("gather.new", GatherParams(skus=change.new), parts=[splits.catalog])
    coarse = run.stage("coarse", preset.coarse, catalog=fresh)
    stages["coarse"] = run.stage("gather.coarse", GatherParams(), parts=[stages["coarse"], coarse])
    stages["saliency"] = run.stage(
        "saliency", preset.saliency, catalog=splits.catalog, coarse=stages["coarse"], previous=stages["saliency"]
    )
    masks = run.stage("segment", preset.segment, catalog=fresh, coarse=coarse, network=stages["saliency"])
    stages["segment"] = run.stage("gather.segment", GatherParams(), parts=[stages["segment"], masks])
    stages["prune"] = run.stage(
        "prune",
        preset.prune,
        catalog=splits.catalog,
        masks=stages["segment"],
        pool=splits.pool,
        network=stages["saliency"],
        previous=stages["prune"],
        **reviewed(run, stage="prune"),
    )
    stages["board"] = run.stage("board", preset.board, pool=splits.pool, network=stages["saliency"])
    return stages


def new_photos(
    run: Runner, *, splits: Splits, stages: dict[str, Manifest], change: Change, preset: Preset
) -> list[Manifest]:
    """Photos composed of new and old products mixed, and their rendering by the generator that there is."""
    params = preset.compose_new(change.new, products=len(categories_of(splits.catalog)))
    synthetic = run.stage(
        "compose.new",
        params,
        catalog=splits.catalog,
        poses=stages["prune"],
        boards=stages["board"],
        pool=splits.pool,
    )
    if not splits.pool.ok:
        return [synthetic]
    previous = stages.get("render")
    render = preset.render if previous is None else same_renderer(preset.render, rendered=previous)
    rendered = run.stage("render.new", render, synthetic=synthetic, pool=splits.pool, previous=previous)
    return [synthetic, rendered]


def replayed(stages: dict[str, Manifest]) -> list[Manifest]:
    """The compositions that the champion learnt from, each with its rendering where there is one, the first first."""
    names = sorted(name for name in stages if name.split(".")[0] in _COMPOSED)
    return [stages[name] for name in names]


def with_composition(stages: dict[str, Manifest], *, photos: Sequence[Manifest]) -> dict[str, Manifest]:
    """The stages with new photos under a number of their own; of what was composed before, the first and the latest."""
    taken = sorted(int(name.split(".")[1]) for name in stages if name.startswith("compose."))
    dropped = {f"{kind}.{number}" for number in taken[: -(_REPLAYED - 1)] for kind in _COMPOSED}
    number = max(taken, default=0) + 1
    added = {f"{kind}.{number}": one for kind, one in zip(_COMPOSED, photos, strict=False)}
    return {name: one for name, one in stages.items() if name not in dropped} | added


def mixed(params: RetrainParams, *, new: int, replay: int, pool: int) -> RetrainParams:
    """The parameters with a share for each input that there is: new photos, replayed ones, pool photos."""
    fresh, old, unlabelled = sum(params.mix[:2]), sum(params.mix[2:4]), sum(params.mix[4:])
    shares = [fresh / new] * new if new else []
    shares += [old / replay] * replay if replay else []
    shares += [unlabelled / pool] * pool if pool else []
    return params.model_copy(update={"mix": tuple(round(share, 6) for share in shares)})


def after_pool_round(
    run: Runner,
    *,
    splits: Splits,
    champion: Manifest,
    start: Manifest | None,
    photos: Sequence[Manifest],
    stages: dict[str, Manifest],
    preset: Preset,
) -> Manifest:
    """The checkpoint that a round on the pool makes of `start` (of the champion, if None), or `start` if that is better
    on val, or if the pool teaches nothing."""
    begin = start or champion
    if not splits.pool.ok:
        return begin
    on_val = run.stage("predict.new.val", preset.predict, checkpoint=begin, photos=splits.val)
    pseudo = select_round(
        run,
        "pool",
        level="image_level",
        checkpoint=begin,
        val_predictions=on_val,
        prepared=splits,
        boards=stages["board"],
        preset=preset,
    )
    replay = replayed(stages)
    if not pseudo.ok:
        return begin
    params = mixed(preset.retrain["pool"], new=len(photos), replay=len(replay), pool=1)
    learnt = run.stage(
        "retrain.pool",
        params,
        photos=[*photos, *replay, pseudo],
        val=splits.val,
        champion=champion,
        init=start,
    )
    return learnt if start is None else max((start, learnt), key=_rank)


def _rank(checkpoint: Manifest) -> tuple[float, float]:
    """What a checkpoint reached on val when it was trained; larger is better."""
    reached = checkpoint.content["val"]
    return reached["cAcc"], -reached["ACD"]
