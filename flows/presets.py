"""Presets: one function each, returning every stage's parameters. A variant changes what differs and nothing else.

`micro` proves in a minute that everything fits together, `demo` shows the method on the sample in a quarter of an hour,
`cpu` and `gpu` are for real use, `paper` is the published schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from tasks.params import (
    BoardParams,
    CoarseParams,
    CompareParams,
    ComposeParams,
    EvaluateParams,
    PasteParams,
    PredictParams,
    PruneParams,
    RefineParams,
    Renderer,
    RenderParams,
    RetrainParams,
    SaliencyParams,
    SegmentParams,
    SelectParams,
    StageParams,
    TrainParams,
    View,
)

# Learning rate of the training on new products relative to that of the later rungs; how often a retraining's moving
# average forgets the weights it began with (e-fold).
_NEW_RATE, _FORGOTTEN = 2.0, 8.0
# Shares of a retraining's samples: new synthetic and rendered photos, old ones of both kinds (replay), pool photos.
RETRAIN_MIX = {"new": (0.35, 0.35, 0.15, 0.15), "pool": (0.2, 0.2, 0.1, 0.1, 0.4)}

# The published thresholds of the detections' scores by round of selection; the last one stays.
PAPER_THRESHOLDS = (0.80, 0.85, 0.90, 0.95)

# What a student learns from pool photos by: a stronger view than its teacher's, and rare products as often as others.
# It begins with the best of several checkpoints by val, whose figure there flatters it: by the photos that are right in
# every line, few in a shop's val, a better student is thrown away for not reaching that.
STUDENT = {"strong": 1.4, "erase": 0.2, "balance": 0.5, "best_by": "ACD"}


class Preset(BaseModel):
    """The parameters of every stage of a run; `train` and `select` by the rung of the ladder they serve.

    `image_rounds`: how often whole photos are selected and learnt from. `other_views`: in which other views photos of
    pool and val are predicted again; all views vote on what selection trusts. `thresholds`: the score from which
    items are trusted by round of selection, where that decides about whole photos and not their expected precision.
    `paste_share`: how many of the samples of pool photos are of those with further items pasted on; 0: none are
    made. `feedback`: whether views are weighed, and photos composed and rendered, once more by what the first
    round's pseudo-labels show. `renderers`: what the renderer `auto` tries, each judged by `trials` trainings of
    `trial_steps` steps at no more than `trial_size` pixels. `retrain_share`: how much of the whole ladder's photos
    and steps a retraining takes when the catalog or the pool has changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    coarse: CoarseParams = CoarseParams()
    saliency: SaliencyParams = SaliencyParams()
    segment: SegmentParams = SegmentParams()
    prune: PruneParams = PruneParams()
    board: BoardParams = BoardParams()
    compose: ComposeParams = ComposeParams()
    render: RenderParams = RenderParams()
    renderers: tuple[Renderer, ...] = Field(default=("none", "colour", "fourier", "fastcut", "cyclegan"), min_length=1)
    trials: int = Field(default=3, ge=1)
    trial_steps: int = Field(default=800, ge=1)
    trial_size: int = Field(default=256, ge=64)
    train: dict[str, TrainParams]
    select: dict[str, SelectParams]
    predict: PredictParams = PredictParams()
    image_rounds: int = Field(default=1, ge=1)
    other_views: tuple[View, ...] = (View(turns=1), View(turns=2), View(turns=3), View(zoom=0.8))
    thresholds: tuple[float, ...] = ()
    paste: PasteParams = PasteParams()
    paste_share: float = Field(default=0.0, ge=0, lt=1)
    feedback: bool = False
    evaluate: EvaluateParams = EvaluateParams()
    retrain_share: float = Field(default=0.12, gt=0, le=1)
    compare: CompareParams = CompareParams()

    @property
    def trial(self) -> TrainParams:
        """The short training that judges a renderer: the first rung's, shorter and on smaller photos."""
        source = self.train["source"]
        return source.model_copy(
            update={
                "steps": self.trial_steps,
                "evaluate_every": self.trial_steps,
                "image_size": min(self.trial_size, source.image_size),
                "stream": 0.0,
                "mix": (1.0,),
            }
        )

    def selection(self, level: str, *, number: int) -> SelectParams:
        """The parameters of selection number `number` (from 0) of a run, for a rung of this level."""
        params = self.select[level]
        if not self.thresholds:
            return params
        threshold = self.thresholds[min(number, len(self.thresholds) - 1)]
        doubtful = min(params.doubtful_score, threshold)
        return params.model_copy(update={"confident_score": threshold, "doubtful_score": doubtful, "precision": 0.0})

    def seeded(self, seed: int) -> Preset:
        """The same preset with `seed` in every stage."""
        return self.model_copy(update={name: _seeded(getattr(self, name), seed) for name in type(self).model_fields})

    @property
    def retrain(self) -> dict[str, RetrainParams]:
        """The two trainings of a champion that goes on: "new" with new products, "pool" with pool photos."""
        rungs = {"new": ("source", "render"), "pool": ("image_level", "instance_level")}
        return {name: self._retraining(name, of=of) for name, of in rungs.items()}

    def _retraining(self, name: str, *, of: tuple[str, ...]) -> RetrainParams:
        steps = max(1, round(self.retrain_share * sum(self.train[rung].steps for rung in of)))
        base = self.train["image_level"].model_dump()
        # Photos composed on the fly know nothing of what is new: it is all in the stored ones.
        stored = {"stream": 0.0, "synthesis": None}
        # Few steps: what is new is learnt faster, and the average must not remember the champion for longer than them.
        rate = self.train["render"].learning_rate * (_NEW_RATE if name == "new" else 1.0)
        pace = {"learning_rate": rate, "average": min(base["average"], max(0.0, 1 - _FORGOTTEN / steps))}
        changed = {"steps": steps, "evaluate_every": max(1, steps // 2), "mix": RETRAIN_MIX[name], **pace, **stored}
        return RetrainParams.model_validate({**base, **changed})

    def compose_new(self, skus: Sequence[str], *, products: int) -> ComposeParams:
        """The composition of a retraining: fewer photos, half of them sure to show a new product among old ones."""
        photos = max(4, round(self.retrain_share * self.compose.photos))
        weight = max(1.0, (products - len(skus)) / max(1, len(skus)))
        return self.compose.model_copy(update={"photos": photos, "sku_weights": dict.fromkeys(skus, weight)})


def _seeded(value: object, seed: int) -> object:
    if isinstance(value, StageParams):
        return value.model_copy(update={"seed": seed})
    if isinstance(value, dict):
        return {name: _seeded(one, seed) for name, one in value.items()}
    return value


def _rungs(
    base: TrainParams,
    *,
    steps: tuple[int, int, int, int],
    later_rate: float,
    whole_rate: float | None = None,
    evaluations: int = 4,
) -> dict[str, TrainParams]:
    """Training of the four rungs: `steps` each; the later ones start from a checkpoint and learn at `later_rate`, that
    of photos taken whole at `whole_rate` if that is given.

    Photos taken whole are few and easy: their rung is a short one, and makes the teacher of the last a better one. At
    the rate of the others a short rung first unlearns more than its end makes up for.
    Each rung is evaluated on val `evaluations` times, and its best checkpoint kept.
    Synthetic, rendered and pool photos are mixed so that the newest source gives the larger share.
    """
    # What is composed on the fly is for the first rung: the later ones learn from photos nearer to the pool's.
    later = base.model_copy(update={"learning_rate": later_rate, "stream": 0.0})
    shares = {
        "source": (1.0,),
        "render": (0.5, 0.5),
        "image_level": (0.1, 0.2, 0.7),
        "instance_level": (0.1, 0.15, 0.75),
    }
    every = {name: max(1, count // evaluations) for name, count in zip(shares, steps, strict=True)}
    student = later.model_copy(update=STUDENT)
    whole = student.model_copy(update={"learning_rate": whole_rate or later_rate})
    bases = {"source": base, "render": later, "image_level": whole, "instance_level": student}
    return {
        name: bases[name].model_copy(update={"steps": count, "mix": shares[name], "evaluate_every": every[name]})
        for name, count in zip(shares, steps, strict=True)
    }


def _selections(**shared: float) -> dict[str, SelectParams]:
    base = SelectParams().model_copy(update=shared)
    return {f"{mode}_level": base.model_copy(update={"mode": mode}) for mode in ("image", "instance")}


def micro() -> Preset:
    """Everything real and far too short: for tests of how the stages fit together."""
    train = TrainParams(
        image_size=128, width=32, head_width=64, proposals=50, samples=32, batch=2, warmup=2, save_every=4, stream=0.3
    )
    return Preset(
        name="micro",
        saliency=SaliencyParams(steps=60, rounds=1, batch=4, working_size=96, width=8),
        segment=SegmentParams(working_size=96, second_size=64, refine=RefineParams(size=128), least_quality=0.0),
        prune=PruneParams(photos=4, crops=12, working_size=160, rotations=4),
        board=BoardParams(photos=6, working_size=96),
        compose=ComposeParams(photos=12, scale=0.5, scale_photos=2),
        render=RenderParams(steps=4, photos=6, batch=1, crop=48, channels=4, blocks=1, critic_channels=4, save_every=2),
        trials=1,
        trial_steps=2,
        train=_rungs(train, steps=(6, 4, 4, 4), later_rate=5e-4),
        other_views=(View(turns=2),),
        paste=PasteParams(photos=4, working_size=96, confident_score=0, synthesis=ComposeParams(scale_photos=2)),
        paste_share=0.3,
        select=_selections(confident_score=0.02, doubtful_score=0.02, precision=0, tolerance=99, stray_area=99),
        evaluate=EvaluateParams(resamplings=50, pictures=2),
    )


def demo() -> Preset:
    """The whole method on the sample in about a quarter of an hour on two cores."""
    # Measured on two cores: many small steps at 256 pixels learn more a minute than fewer at 320 or of larger batches.
    # The sample's val has 30 photos: seen one way they can take a worse checkpoint for the better one.
    train = TrainParams(image_size=256, width=64, frozen_stages=4, batch=4, warmup=20, save_every=100, val_turns=4)
    return Preset(
        name="demo",
        saliency=SaliencyParams(steps=160, working_size=160),
        compose=ComposeParams(photos=900, scale=0.75),
        render=RenderParams(steps=200, channels=12, blocks=2, critic_channels=16, crop=96, batch=2, photos=300),
        trials=1,
        trial_steps=200,
        train=_rungs(train, steps=(800, 250, 120, 380), later_rate=5e-4, whole_rate=2e-4, evaluations=1),
        select=_selections(tolerance=1.0),
    )


def cpu() -> Preset:
    """A working model for some hundred products on a machine without a GPU: an hour of training on two cores."""
    train = TrainParams(image_size=384, batch=4, precision="auto")
    # A shop's val is small: the best of many looks at it flatters a rung, and the next one, better in truth, is thrown
    # away for not reaching that.
    rungs = _rungs(train, steps=(3000, 1500, 800, 2000), later_rate=5e-4, whole_rate=2e-4, evaluations=2)
    # Photos taken whole are few and easy: with further items on them they teach more.
    return Preset(name="cpu", train=rungs, select=_selections(), paste_share=0.5)


def gpu() -> Preset:
    """One GPU: ResNet-50 at 800 pixels with the whole pyramid."""
    train = TrainParams(
        backbone="resnet50",
        strides=(4, 8, 16, 32),
        width=256,
        head_width=1024,
        proposals=1000,
        samples=256,
        frozen_stages=3,
        image_size=832,
        batch=16,
        learning_rate=2e-4,
        average=0.999,
        precision="bf16",
        augment="device",
        stream=0.3,
        loader_workers=8,
        cache_gigabytes=32,
        threads=8,
    )
    return Preset(
        name="gpu",
        saliency=SaliencyParams(steps=4000, batch=32),
        compose=ComposeParams(photos=20000),
        render=RenderParams(steps=40000, channels=64, blocks=9, critic_channels=64, crop=256, scale=1.0, photos=4000),
        trial_steps=4000,
        trial_size=512,
        train=_rungs(train, steps=(30000, 15000, 5000, 15000), later_rate=1e-4),
        select=_selections(),
    )


def paper() -> Preset:
    """The published schedule: ResNet-101 at 800 pixels, batch 8, 180,000 steps, then 14 rounds of 10,000."""
    base = gpu()
    image = base.select["image_level"].model_copy(update={"rule": "paper"})
    train = base.train["source"].model_copy(
        update={
            "backbone": "resnet101",
            "batch": 8,
            "optimiser": "sgd",
            "schedule": "steps",
            "learning_rate": 0.01,
            "backbone_share": 1.0,
            "warmup": 500,
            "precision": "fp32",
            "stream": 0.0,
        }
    )
    return base.model_copy(
        update={
            "name": "paper",
            "image_rounds": 14,
            "select": {**base.select, "image_level": image},
            "thresholds": PAPER_THRESHOLDS,
            "prune": PruneParams(rule="area"),
            "compose": ComposeParams(photos=100000, recipe="paper"),
            "train": _rungs(train, steps=(180000, 10000, 10000, 10000), later_rate=1e-3),
        }
    )


PRESETS: dict[str, Callable[[], Preset]] = {one.__name__: one for one in (micro, demo, cpu, gpu, paper)}
