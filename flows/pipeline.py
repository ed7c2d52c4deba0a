"""The order of the stages: `prepare`, `synthesize`, `distill`, `evaluate_rung`, and `pipeline`, which is all of them.

Written against `Runner`, so that the same lines look results up, run locally, or run as Prefect tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import orjson

from flows.checkpoints import require_same_products
from flows.presets import Preset
from flows.renderers import chosen_renderer, rendered_photos
from flows.runner import Runner
from storage.digest import JSON
from storage.formats.dataset import own_boards
from storage.manifest import Manifest, columns_of
from storage.reviews import reviews_for
from tasks.ingest import dataset_root, files_digest
from tasks.params import GatherParams, IngestParams, View

RUNGS = ("source", "render", "image_level", "instance_level")


@dataclass(frozen=True, kw_only=True)
class DatasetChoice:
    """Which data set, whether its unlabelled test photos serve as the pool (the paper's transductive setting), the
    products whose exemplars are used (empty: all), and the version of the catalog (None: the data set's own)."""

    dataset: str
    pool_source: str = "pool"
    skus: tuple[str, ...] = ()
    catalog: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The photos of a data set. `pool_reviewed`: people have decided on pseudo-labels, a kind of label on the pool."""

    catalog: Manifest
    pool: Manifest
    val: Manifest
    test: Manifest
    pool_reviewed: bool = False

    @property
    def target_protocol(self) -> str:
        """What has been seen of the checkout: printed beside every figure."""
        return "labelled-target" if self.pool_reviewed else str(self.pool.content["target_protocol"])


@dataclass(frozen=True, kw_only=True)
class Prepared(Splits):
    """What `prepare` makes: the splits, the trained saliency network, the masks and the kept poses.

    `own_boards`: the user's photos of the empty board, where there are any.
    """

    coarse: Manifest
    network: Manifest
    masks: Manifest
    poses: Manifest
    own_boards: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class Synthesized:
    """What `synthesize` makes; without a pool nothing is rendered."""

    boards: Manifest
    synthetic: Manifest
    rendered: Manifest | None


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the ladder: a checkpoint, what it predicts on val and test, and its report."""

    checkpoint: Manifest
    val_predictions: Manifest
    test_predictions: Manifest
    report: dict[str, JSON]

    @property
    def val_rank(self) -> tuple[float, float]:
        """Better is larger: fewer wrong items on val, then cAcc there, as students' checkpoints are chosen."""
        averaged = self.report["val"]["averaged"]
        return -averaged["ACD"], averaged["cAcc"]


@dataclass(kw_only=True)
class Outcome:
    """Everything a finished run has to show."""

    prepared: Splits
    rungs: dict[str, Rung] = field(default_factory=dict)

    @property
    def champion(self) -> str:
        """The rung with the best averaged cAcc on val; the later one when they are equal."""
        return max(reversed(list(self.rungs)), key=lambda name: self.rungs[name].report["val"]["averaged"]["cAcc"])


def prepare(run: Runner, *, choice: DatasetChoice, preset: Preset) -> Prepared:
    """Ingest the four splits, cut the products out of their exemplars and keep the poses a checkout camera sees."""
    splits = ingest_splits(run, choice=choice)
    catalog, pool = splits.catalog, splits.pool
    if choice.skus:
        catalog = run.stage("gather.skus", GatherParams(skus=choice.skus), parts=[catalog])
    coarse = run.stage("coarse", preset.coarse, catalog=catalog)
    network = run.stage("saliency", preset.saliency, catalog=catalog, coarse=coarse)
    masks = run.stage("segment", preset.segment, catalog=catalog, coarse=coarse, network=network)
    reviews = reviewed(run, stage="prune")
    poses = run.stage("prune", preset.prune, catalog=catalog, masks=masks, pool=pool, network=network, **reviews)
    return Prepared(
        catalog=catalog,
        pool=pool,
        val=splits.val,
        test=splits.test,
        coarse=coarse,
        network=network,
        masks=masks,
        poses=poses,
        own_boards=_ingest_boards(run, choice=choice),
        pool_reviewed=splits.pool_reviewed,
    )


def reviewed(run: Runner, *, stage: str) -> dict[str, Manifest]:
    """The input `reviews` of a stage: what people decided in the inspector; none where nobody decided anything."""
    reviews = reviews_for(run.store, stage=stage)
    return {} if reviews is None else {"reviews": reviews}


def ingest_splits(run: Runner, *, choice: DatasetChoice) -> Splits:
    """The photos of a data set, checked.

    Raises:
        ValueError: a split that is needed has no usable photo, or test shares photos with val or with the pool.
    """
    if choice.catalog is None:
        catalog, known = run.stage("ingest.catalog", _ingest(choice, split="catalog")), {}
    else:
        # The version lies in the store already: under its name in the run stands a manifest that refers to its rows.
        catalog = run.stage("ingest.catalog", GatherParams(), parts=[choice.catalog])
        known = {"catalog": catalog}
    pool = run.stage("ingest.pool", _ingest(choice, split="pool"))
    val, test = (run.stage(f"ingest.{split}", _ingest(choice, split=split), **known) for split in ("val", "test"))
    _require(catalog, what="exemplars")
    _require(val, what="labelled val photos (the score threshold comes from them)")
    _require(test, what="labelled test photos (the report is about them)")
    _require_unseen(test, seen={"val": val} if choice.pool_source == "test" else {"val": val, "pool": pool})
    reviewed_pool = bool(reviewed(run, stage="select"))
    return Splits(catalog=catalog, pool=pool, val=val, test=test, pool_reviewed=reviewed_pool)


def _ingest_boards(run: Runner, *, choice: DatasetChoice) -> Manifest | None:
    """The photos of the empty board that came with the data set; None if there are none."""
    if not own_boards(dataset_root(choice.dataset)):
        return None
    boards = run.stage("ingest.boards", _ingest(choice, split="boards"))
    _require(boards, what="photos of the empty board in boards/")
    return boards


def _ingest(choice: DatasetChoice, *, split: str) -> IngestParams:
    root = dataset_root(choice.dataset)
    digest = files_digest(root, split=split, pool_source=choice.pool_source)
    return IngestParams.model_validate(
        {"dataset": str(root), "split": split, "pool_source": choice.pool_source, "files_digest": digest}
    )


def _require(manifest: Manifest, *, what: str) -> None:
    if not manifest.usable:
        reasons = sorted({row.reason for row in manifest.rows})[:3]
        raise ValueError(f"dataset: expected usable {what}, got none ({'; '.join(reasons) or 'nothing is listed'})")


def _require_unseen(test: Manifest, *, seen: Mapping[str, Manifest]) -> None:
    """Insist that no file of test is also one that a model learns from or a threshold is chosen on."""
    names = {digest: item for digest, item, status in _files_of(test) if status == "ok"}
    for split, manifest in seen.items():
        shared = [
            (item, names[digest]) for digest, item, status in _files_of(manifest) if digest in names and status == "ok"
        ]
        if shared:
            raise ValueError(
                f"test: expected photos that {split} doesn't have, got {len(shared)} that are in both, first"
                f" {' as '.join(shared[0])}; take them out of {split}"
            )


def _files_of(manifest: Manifest) -> list[tuple[Any, ...]]:
    return columns_of(manifest.rows, "digest", "item_id", "status")


def recovered_boards(run: Runner, *, prepared: Prepared, preset: Preset) -> Manifest:
    """The empty boards, recovered from the pool or the user's own."""
    own = {} if prepared.own_boards is None else {"own": prepared.own_boards}
    return run.stage("board", preset.board, pool=prepared.pool, network=prepared.network, **own)


def synthesize(run: Runner, *, prepared: Prepared, preset: Preset) -> Synthesized:
    """Recover the empty boards, compose synthetic photos and translate them to the look of the pool."""
    boards = recovered_boards(run, prepared=prepared, preset=preset)
    synthetic = run.stage(
        "compose", preset.compose, catalog=prepared.catalog, poses=prepared.poses, boards=boards, pool=prepared.pool
    )
    rendered = (
        rendered_photos(run, synthetic=synthetic, pool=prepared.pool, val=prepared.val, preset=preset)
        if prepared.pool.usable
        else None
    )
    return Synthesized(boards=boards, synthetic=synthetic, rendered=rendered)


def distill(run: Runner, *, prepared: Prepared, synthesized: Synthesized, preset: Preset) -> dict[str, Rung]:
    """Climb the ladder: source only, + rendered photos, + whole pool photos, + confident items of doubtful photos.

    The teacher of a round is the best rung by val up to there, and rounds on whole photos end where val gains nothing.
    """
    photos = [synthesized.synthetic]
    train = partial(train_rung, run, prepared=prepared, boards=synthesized.boards, preset=preset)
    rungs = {"source": train("source", level="source", photos=photos, init=None)}
    if synthesized.rendered is None:
        return rungs
    photos = [synthesized.synthetic, synthesized.rendered]
    rungs["render"] = train("render", level="render", photos=photos, init=rungs["source"])
    before, stopped, pseudo = "render", False, None
    for name in selection_rounds(preset):
        if stopped and name != "instance_level":
            continue
        level, rung = level_of(name), rungs[before]
        pseudo = select_round(
            run,
            name,
            level=level,
            checkpoint=rung.checkpoint,
            val_predictions=rung.val_predictions,
            prepared=prepared,
            boards=synthesized.boards,
            preset=preset,
            former=pseudo,
            # The first two rungs select nothing.
            number=len(rungs) - 2,
        )
        if preset.feedback and before == "render":
            render = chosen_renderer(preset.render, rendered=synthesized.rendered)
            anew = preset.model_copy(update={"render": render})
            photos = _composed_anew(run, prepared=prepared, synthesized=synthesized, pseudo=pseudo, preset=anew)
        pasted = paste_round(run, name, pseudo=pseudo, prepared=prepared, boards=synthesized.boards, preset=preset)
        rungs[name] = train(name, level=level, photos=[*photos, pseudo], init=rung, pasted=pasted)
        before = better_on_val(before, name, rungs=rungs)
        stopped = before != name
    return rungs


def better_on_val(before: str, name: str, *, rungs: Mapping[str, Rung]) -> str:
    """Which of two rungs goes on as the teacher: the later one only where it gains on val."""
    return name if rungs[name].val_rank > rungs[before].val_rank else before


def _composed_anew(
    run: Runner, *, prepared: Prepared, synthesized: Synthesized, pseudo: Manifest, preset: Preset
) -> list[Manifest]:
    """Synthetic and rendered photos of the views, sizes, light and layout that accepted pseudo-labels show: labels are
    better evidence than unnamed crops."""
    poses = run.stage(
        "prune.feedback",
        preset.prune,
        catalog=prepared.catalog,
        masks=prepared.masks,
        pool=prepared.pool,
        network=prepared.network,
        pseudo=pseudo,
        **reviewed(run, stage="prune"),
    )
    synthetic = run.stage(
        "compose.feedback",
        preset.compose,
        catalog=prepared.catalog,
        poses=poses,
        boards=synthesized.boards,
        pool=prepared.pool,
        pseudo=pseudo,
        composed=synthesized.synthetic,
        network=prepared.network,
    )
    return [synthetic, run.stage("render.feedback", preset.render, synthetic=synthetic, pool=prepared.pool)]


def image_rounds(preset: Preset) -> list[str]:
    """Names of the rounds of select and retrain on whole photos; the first is the ladder's rung `image_level`."""
    return ["image_level", *(f"image_level_{number}" for number in range(2, preset.image_rounds + 1))]


def select_round(
    run: Runner,
    name: str,
    *,
    level: str,
    checkpoint: Manifest,
    val_predictions: Manifest,
    prepared: Splits,
    boards: Manifest,
    preset: Preset,
    former: Manifest | None = None,
    number: int = 0,
) -> Manifest:
    """Pseudo-labels of the pool by a checkpoint, which sees each photo in several views.

    `former`: those of the round before; how far the two teachers disagree is told then. `number`: of the selection in
    its run, from 0.
    """

    def predictions(view: View, *, split: Literal["pool", "val"] = "pool") -> Manifest:
        parameters = preset.predict.model_copy(update={"view": view})
        photos = prepared.pool if split == "pool" else prepared.val
        return run.stage(f"predict.{name}.{split}{view.title}", parameters, checkpoint=checkpoint, photos=photos)

    return run.stage(
        f"select.{name}",
        preset.selection(level, number=number),
        pool=prepared.pool,
        predictions=predictions(View()),
        other_views=[predictions(view) for view in preset.other_views],
        boards=boards,
        val=prepared.val,
        val_predictions=val_predictions,
        val_other_views=[predictions(view, split="val") for view in preset.other_views],
        **({} if former is None else {"former": former}),
        **reviewed(run, stage="select"),
    )


def selection_rounds(preset: Preset) -> list[str]:
    """Names of the rungs that learn from selected pool photos, in their order."""
    return [*image_rounds(preset), "instance_level"]


def level_of(name: str) -> str:
    """The level of the ladder that a round belongs to: its parameters are those of the round."""
    return "instance_level" if name == "instance_level" else "image_level"


def reselect(
    run: Runner, *, choice: DatasetChoice, preset: Preset, checkpoint: Manifest, rounds: Sequence[str]
) -> Prepared:
    """The pseudo-labels that a given checkpoint selects by the rules of these rounds; nothing is trained.

    Raises:
        ValueError: the checkpoint knows other products.
    """
    prepared = prepare(run, choice=choice, preset=preset)
    require_same_products(checkpoint, val=prepared.val, store=run.store)
    boards = recovered_boards(run, prepared=prepared, preset=preset)
    for name in rounds:
        seen = run.stage(reselected_val(name), preset.predict, checkpoint=checkpoint, photos=prepared.val)
        select_round(
            run,
            name,
            level=level_of(name),
            checkpoint=checkpoint,
            val_predictions=seen,
            prepared=prepared,
            boards=boards,
            preset=preset,
            number=selection_rounds(preset).index(name),
        )
    return prepared


def reselected_val(name: str) -> str:
    """The name of the stage in which the given checkpoint of a round reads val, which calibrates it."""
    return f"predict.{name}.teacher.val"


def paste_round(
    run: Runner, name: str, *, pseudo: Manifest, prepared: Prepared, boards: Manifest, preset: Preset
) -> Manifest | None:
    """The accepted photos of a round with further items pasted on; None where the preset wants none."""
    if not preset.paste_share:
        return None
    return run.stage(
        f"paste.{name}",
        preset.paste,
        pseudo=pseudo,
        catalog=prepared.catalog,
        poses=prepared.poses,
        boards=boards,
        pool=prepared.pool,
        network=prepared.network,
    )


def train_rung(
    run: Runner,
    name: str,
    *,
    level: str,
    photos: list[Manifest],
    init: Rung | None,
    prepared: Prepared,
    boards: Manifest,
    preset: Preset,
    pasted: Manifest | None = None,
) -> Rung:
    """Train and evaluate a rung, from the checkpoint of `init` or from pretrained weights.

    `pasted`: the last of the photos with further items on them, which get a part of those photos' share.
    """
    params, synthesis = preset.train[level], None
    if pasted is not None:
        *others, last = params.mix
        mix = (*others, last * (1 - preset.paste_share), last * preset.paste_share)
        params, photos = params.model_copy(update={"mix": mix}), [*photos, pasted]
    if params.stream:
        params = params.model_copy(update={"synthesis": preset.compose})
        synthesis = [prepared.catalog, prepared.poses, boards, prepared.pool]
    checkpoint = run.stage(
        f"train.{name}",
        params,
        photos=photos,
        val=prepared.val,
        init=init.checkpoint if init else None,
        synthesis=synthesis,
    )
    return evaluate_rung(run, name, checkpoint=checkpoint, prepared=prepared, preset=preset)


def evaluate_rung(run: Runner, name: str, *, checkpoint: Manifest, prepared: Splits, preset: Preset) -> Rung:
    """Predict val and test with a checkpoint and report RPC's metrics at the threshold that val chose."""
    val, test = (
        run.stage(f"predict.{name}.{split}", preset.predict, checkpoint=checkpoint, photos=manifest)
        for split, manifest in (("val", prepared.val), ("test", prepared.test))
    )
    parameters = preset.evaluate.model_copy(update={"target_protocol": prepared.target_protocol})
    report = run.stage(
        f"evaluate.{name}",
        parameters,
        val=prepared.val,
        val_predictions=val,
        test=prepared.test,
        test_predictions=test,
    )
    content = orjson.loads(run.store.read(report.row("report")))
    return Rung(checkpoint=checkpoint, val_predictions=val, test_predictions=test, report=content)


def pipeline(run: Runner, *, choice: DatasetChoice, preset: Preset) -> Outcome:
    """The whole method, from photos to the ladder of reports."""
    prepared = prepare(run, choice=choice, preset=preset)
    synthesized = synthesize(run, prepared=prepared, preset=preset)
    rungs = distill(run, prepared=prepared, synthesized=synthesized, preset=preset)
    return Outcome(prepared=prepared, rungs=rungs)
