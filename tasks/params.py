"""The knobs of every stage, as frozen pydantic models. Import-light: a stage key needs neither torch nor OpenCV.

A params class names its stage and carries the stage's `version`: raise it whenever the stage's output changes
for the same inputs and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from storage.digest import JSON

Renderer = Literal["cyclegan", "fastcut", "colour", "fourier", "none"]
LEARNING_RENDERERS: tuple[Renderer, ...] = ("cyclegan", "fastcut")


class StageParams(BaseModel):
    """What every stage has: a name, a version and a seed. Unknown keys are refused.

    `own_process` stages train: they run in a child process, so that loaders may fork and memory returns at the end.
    Those with `many_processes` run in one a GPU where there are several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: ClassVar[str]
    version: ClassVar[int] = 1
    own_process: ClassVar[bool] = False
    many_processes: ClassVar[bool] = False
    # Settings that came later, at the values that mean what was done before them.
    later: ClassVar[Mapping[str, JSON]] = {}
    seed: int = Field(default=0, ge=0, description="seed of every random choice in this stage")

    @classmethod
    def in_key(cls, parameters: Mapping[str, JSON]) -> dict[str, JSON]:
        """What of parameters is a part of a stage's key: later settings only where they say something else.

        So nobody's trainings run again for a setting that they don't use.
        """
        return {name: value for name, value in parameters.items() if name not in cls.later or value != cls.later[name]}


class IngestParams(StageParams):
    """Reads and validates one split of a data set."""

    stage: ClassVar[str] = "ingest"
    version: ClassVar[int] = 3
    dataset: str = Field(description="folder of the data set: RPC layout, or one folder a SKU under catalog/")
    split: Literal["catalog", "pool", "val", "test", "boards"] = Field(
        description="which part of the data set; boards: the user's photos of the empty board"
    )
    pool_source: Literal["pool", "test"] = Field(
        default="pool", description="test: the unlabelled test photos are the pool (transductive, as in the paper)"
    )
    files_digest: str = Field(description="digest of the names, sizes and times of the split's files")
    skus: tuple[str, ...] = Field(default=(), description="catalog: products that are read; empty: all")
    copies: bool = Field(default=False, description="keep copies of the photos in the store")


class GatherParams(StageParams):
    """Rows of several manifests as one."""

    stage: ClassVar[str] = "gather"
    skus: tuple[str, ...] = Field(default=(), description="products whose rows are taken; empty: all rows")
    without: tuple[str, ...] = Field(default=(), description="products that are left out, as if they had never been")


class CoarseParams(StageParams):
    """Coarse masks of exemplars: backdrop model and GrabCut."""

    stage: ClassVar[str] = "coarse"
    version: ClassVar[int] = 4
    working_size: int = Field(default=160, ge=64, description="longer side of the window in the backdrop model, pixels")
    margin: float = Field(default=0.2, gt=0, le=1, description="backdrop seen around the box, share of its longer side")
    iterations: int = Field(default=2, ge=1, description="rounds of GrabCut")


class RefineParams(BaseModel):
    """How a soft mask is moved to the photo's edges."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(default=320, ge=64, description="longer side of the window in which this is done, pixels")
    doubt: float = Field(default=0.1, gt=0, lt=0.5, description="probabilities this near 0 or 1 are not cut again")
    trust: float = Field(default=0.4, ge=0, le=1, description="the network's share in the refined mask")
    radius: float = Field(default=0.015, gt=0, description="guided filter's radius, share of the window's longer side")
    epsilon: float = Field(default=1e-4, gt=0, description="guided filter's regulariser, squared colour in [0, 1]")


class SaliencyParams(StageParams):
    """The saliency network, trained on the coarse masks of the whole catalog."""

    stage: ClassVar[str] = "saliency"
    version: ClassVar[int] = 3
    own_process: ClassVar[bool] = True
    backbone: str = Field(default="efficientnet_lite0", description="pretrained backbone")
    width: int = Field(default=24, ge=4, multiple_of=4, description="channels of the side outputs")
    working_size: int = Field(default=192, ge=64, multiple_of=32, description="side of a training sample, pixels")
    rounds: int = Field(
        default=3, ge=1, description="trainings; before each later one the network labels the exemplars anew"
    )
    label_size: int = Field(
        default=320, ge=64, description="longer side of the window in the network when it labels, pixels"
    )
    refine: RefineParams = Field(default=RefineParams(), description="how the network's labels are moved to the edges")
    steps: int = Field(default=300, ge=1, description="training steps a round")
    batch: int = Field(default=8, ge=1, description="samples a step")
    learning_rate: float = Field(
        default=2e-3, gt=0, description="peak learning rate of the new layers; half of it in each later round"
    )
    backbone_share: float = Field(default=0.2, ge=0, le=1, description="the backbone's learning rate, as a share")
    collages: float = Field(default=0.4, ge=0, le=1, description="share of samples on invented backgrounds")
    doubt: float = Field(default=0.3, ge=0, le=1, description="weight of the doubtful pixels of a mask")
    coarse_quality: float = Field(default=0.75, ge=0, le=1, description="least quality of a coarse mask that teaches")
    exemplars: int = Field(default=6000, ge=1, description="most coarse masks used")
    retrain_growth: float = Field(default=0.25, ge=0, description="share of new products that asks for a new network")
    save_every: int = Field(default=50, ge=1, description="steps between two saved training states")
    loader_workers: int = Field(default=0, ge=0, description="processes that draw samples ahead; 0: none")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")
    threads: int = Field(
        default=2, ge=1, description="threads of the training; sums depend on it, so it is a parameter"
    )


class SegmentParams(StageParams):
    """Fine masks: the saliency network's forward pass and edge-aware refinement."""

    stage: ClassVar[str] = "segment"
    version: ClassVar[int] = 10
    working_size: int = Field(default=384, ge=64, description="longer side of the window in the network, pixels")
    second_size: int = Field(default=256, ge=64, description="the same when it looks again, mirrored, pixels")
    refine: RefineParams = Field(default=RefineParams(), description="how masks are moved to the photo's edges")
    rim: float = Field(
        default=0.006, gt=0, description="radius of the guided filter's last pass, share of the window's longer side"
    )
    least_quality: float = Field(default=0.7, ge=0, le=1, description="masks below are kept out and listed for review")


class PruneParams(StageParams):
    """Which views a camera above a counter can see."""

    stage: ClassVar[str] = "prune"
    version: ClassVar[int] = 5
    rule: Literal["evidence", "area", "keep_all"] = Field(default="evidence", description="what decides about a view")
    area_ratio: float = Field(default=0.45, ge=0, le=1, description="area: least share of the product's largest mask")
    share: float = Field(default=0.1, ge=0, description="evidence: least share of the product's mean evidence")
    least_views: int = Field(default=3, ge=1, description="evidence: views that every product keeps")
    backbone: str = Field(default="efficientnet_lite0", description="evidence: pretrained backbone of the embedding")
    sharpness: float = Field(
        default=30.0, gt=0, description="evidence: how fast a crop's say falls with a view's excess distance, relative"
    )
    distrust: float = Field(
        default=12.0, ge=0, description="evidence: how fast a crop's say falls beyond the median distance, relative"
    )
    photos: int = Field(default=600, ge=1, description="evidence: most pool photos looked at")
    crops: int = Field(default=2000, ge=1, description="evidence: most pieces of pool photos compared")
    working_size: int = Field(default=384, ge=64, description="evidence: longer side of a pool photo in the network")
    rotations: int = Field(default=24, ge=1, description="evidence: rotations of a pool crop that are compared")


class BoardParams(StageParams):
    """Empty boards recovered from the pool."""

    stage: ClassVar[str] = "board"
    version: ClassVar[int] = 4
    photos: int = Field(default=80, ge=2, description="most pool photos looked at, spread over the pool")
    boards: int = Field(default=3, ge=1, description="most boards told apart (camera moved, table changed)")
    working_size: int = Field(default=320, ge=64, description="longer side of a photo in the saliency network, pixels")
    plain_side: int = Field(default=800, ge=64, description="side of the plain board where there is no pool, pixels")


def _in_order(ends: tuple[int, int]) -> tuple[int, int]:
    if ends[0] > ends[1]:
        raise ValueError(f"expected the least first and then the most, got {ends[0]} and {ends[1]}")
    return ends


# An item's label in a photo is a byte, and 0 is the board.
_Few = Annotated[int, Field(ge=1, le=255)]
LeastAndMost = Annotated[tuple[_Few, _Few], AfterValidator(_in_order)]


class LevelParams(BaseModel):
    """One level of clutter: its share of the photos, how many products it mixes and how many items lie there."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    share: float = Field(ge=0, description="share of the photos; shares are relative to each other")
    skus: LeastAndMost = Field(description="least and most different products")
    items: LeastAndMost = Field(description="least and most items; a photo can hold 255")


class ComposeParams(StageParams):
    """Synthetic checkout photos out of sprites."""

    stage: ClassVar[str] = "compose"
    version: ClassVar[int] = 9
    photos: int = Field(default=4000, ge=1, description="number of synthetic photos")
    skus: tuple[str, ...] = Field(default=(), description="products to show; empty: every product that has a sprite")
    levels: dict[str, LevelParams] = Field(
        default={
            "easy": LevelParams(share=1, skus=(3, 5), items=(3, 10)),
            "medium": LevelParams(share=1, skus=(5, 8), items=(10, 15)),
            "hard": LevelParams(share=1, skus=(8, 10), items=(15, 20)),
        },
        description="levels of clutter, as RPC publishes them",
    )
    scale: float = Field(default=1.0, gt=0, le=4, description="size of the photos relative to the board's")
    jpeg_quality: int = Field(default=0, ge=0, le=100, description="of the photos; 0: that of the pool's files")
    scale_photos: int = Field(default=16, ge=0, description="pool photos searched for sprites to find their scale")
    min_visible: float = Field(default=0.5, ge=0, le=1, description="least visible fraction of an item's mask")
    arrangements: dict[Literal["pool", "pile", "uniform"], float] = Field(
        default={"pool": 0.6, "pile": 0.25, "uniform": 0.15}, description="shares of where items gather"
    )
    row_share: float = Field(default=0.6, ge=0, le=1, description="chance that items of one product lie side by side")
    overlap_share: float = Field(default=0.25, ge=0, le=1, description="share of items that may lie on others")
    mate_share: float = Field(default=0.3, ge=0, le=1, description="chance that a product brings its look-alike along")
    size_jitter: float = Field(default=0.03, ge=0, le=0.5, description="spread of an item's size, log")
    tilt: float = Field(default=0.05, ge=0, le=0.5, description="most foreshortening by a turn out of the plane")
    blends: dict[Literal["soft", "feather", "hard", "poisson"], float] = Field(
        default={"soft": 0.5, "feather": 0.3, "hard": 0.2, "poisson": 0.0}, description="shares of edge blendings"
    )
    views_per_sku: int = Field(default=0, ge=0, description="most sprites of a product held in memory; 0: all")
    view_shares: Literal["weight", "equal"] = Field(
        default="weight",
        description="how often each kept view of a product is seen; weight: by its evidence in the pool",
    )
    sku_weights: dict[str, float] = Field(
        default={}, description="how often products are seen, relative to 1 for those that are not named"
    )
    lit_boards: int = Field(default=48, ge=1, description="most differently lit boards held in memory")
    recipe: Literal["life", "paper"] = Field(default="life", description="paper: pasted as in the paper's script")
    without: tuple[Literal["shadow", "size", "layout", "light", "board"], ...] = Field(
        default=(), description="parts left out, to measure what each is worth"
    )

    def left_out(self, part: Literal["shadow", "size", "layout", "light", "board"]) -> bool:
        """Whether a part of the realism is switched off; the paper's recipe has none of them."""
        return self.recipe == "paper" or part in self.without


class PasteParams(StageParams):
    """Further items on accepted pool photos: sprites, and items cut out of other pool photos."""

    stage: ClassVar[str] = "paste"
    version: ClassVar[int] = 4
    versions: int = Field(default=2, ge=1, description="photos made of each accepted one")
    photos: int = Field(default=2000, ge=1, description="most photos made; accepted ones are spread over then")
    skus: LeastAndMost = Field(default=(1, 4), description="least and most different products added to a photo")
    items: LeastAndMost = Field(default=(1, 6), description="least and most items added; fewer where no place is left")
    pool_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="how much of a product comes from pool photos, where it was cut out of some",
    )
    confident_score: float = Field(default=0.9, ge=0, le=1, description="score from which an item is cut out")
    cutouts: int = Field(default=32, ge=0, description="most cut-outs of a product, those of the highest score")
    working_size: int = Field(default=640, ge=64, description="longer side of a photo in the saliency network, pixels")
    quality: int = Field(default=92, ge=1, le=100, description="JPEG quality")
    synthesis: ComposeParams = Field(
        default=ComposeParams(min_visible=0.6),
        description="how items are drawn and laid; its numbers of photos and items and its scale do not count",
    )


class RenderParams(StageParams):
    """Translation of synthetic photos to the look of the pool.

    Lengths are pixels at working size, which is `scale` times the photo's; the last three limits decide which rendered
    photos are rejected because an item in them drifted.
    """

    stage: ClassVar[str] = "render"
    version: ClassVar[int] = 6
    own_process: ClassVar[bool] = True
    renderer: Literal[Renderer, "auto"] = Field(
        default="cyclegan", description="what translates; auto: the candidate whose photos teach a detector best"
    )
    scale: float = Field(default=0.5, gt=0, le=1, description="working size as a fraction of the photo's")
    photos: int = Field(default=1000, ge=1, description="most photos of each domain held in memory to learn from")
    steps: int = Field(default=3000, ge=1, description="training steps of the CycleGAN or the FastCUT")
    batch: int = Field(default=2, ge=1, description="crops of each domain per step")
    crop: int = Field(default=128, ge=48, multiple_of=4, description="side of a training crop")
    channels: int = Field(default=16, ge=4, description="channels of a generator at full resolution (paper: 64)")
    blocks: int = Field(default=4, ge=1, description="residual blocks of a generator (paper: 6 or 9)")
    critic_channels: int = Field(default=24, ge=4, description="channels of a critic's first layer (paper: 64)")
    learning_rate: float = Field(default=1e-3, gt=0, description="of critics (Adam); constant, then linearly to 0")
    generator_share: float = Field(default=0.2, gt=0, description="the generators' rate, as a share of the critics'")
    cycle_weight: float = Field(default=5.0, ge=0, description="of the cycle loss (paper: 10)")
    identity_weight: float = Field(default=1.0, ge=0, description="of the identity loss (paper: 5)")
    contrast_weight: float = Field(default=10.0, ge=0, description="of FastCUT's contrastive loss (paper: 10)")
    content_weight: float = Field(default=10.0, ge=0, description="of the loss that keeps detail inside products")
    slope_weight: float = Field(default=5e-4, ge=0, description="of R1, the loss that keeps a critic from being steep")
    save_every: int = Field(default=100, ge=1, description="steps between two saved training states")
    threads: int = Field(default=2, ge=1, description="CPU threads of the training; sums depend on it")
    tile: int = Field(default=1024, ge=256, description="longest side that the generator sees at once")
    fourier_radius: float = Field(default=0.01, gt=0, lt=0.5, description="exchanged frequencies, cycles per pixel")
    jpeg_quality: int = Field(default=92, ge=1, le=100, description="of the rendered photos")
    min_structure: float = Field(default=0.75, description="least structure similarity of an item")
    min_edges: float = Field(default=0.75, description="least edge agreement of an item")
    max_shift: float = Field(default=1.0, description="largest displacement of an item's edges, photo pixels")

    @classmethod
    def in_key(cls, parameters: Mapping[str, JSON]) -> dict[str, JSON]:
        """As for every stage; without what came later and concerns renderers that learn, for the others."""
        known = super().in_key(parameters)
        if parameters.get("renderer") in LEARNING_RENDERERS:
            return known
        return {name: value for name, value in known.items() if name not in ("generator_share", "slope_weight")}


class ChooseParams(StageParams):
    """The choice of the renderer whose photos taught a detector best; `renderers` in the order of the inputs."""

    stage: ClassVar[str] = "choose"
    version: ClassVar[int] = 3
    renderers: tuple[Renderer, ...] = Field(min_length=1, description="what was tried")


class TrainParams(StageParams):
    """Training of DPSNet on labelled photos, starting from ImageNet weights or from a checkpoint.

    The network's own knobs (backbone to nms_iou) count only without a checkpoint to start from; else its network stays.
    Rate, steps, warm-up and intervals are those for batches of `batch`; another `global_batch` changes them by the
    linear rule.
    """

    stage: ClassVar[str] = "train"
    version: ClassVar[int] = 13
    own_process: ClassVar[bool] = True
    many_processes: ClassVar[bool] = True
    later: ClassVar[Mapping[str, JSON]] = {"best_by": "cAcc", "val_turns": 1}
    backbone: str = Field(default="efficientnet_lite0", description="a name that models.backbones knows")
    strides: tuple[int, ...] = Field(
        default=(8, 16, 32), description="pyramid levels; (4, 8, 16, 32) adds the finest, P2"
    )
    width: int = Field(default=96, ge=8, description="channels of the pyramid")
    head_width: int = Field(default=256, ge=8, description="units of the detection head's layers")
    proposals: int = Field(default=200, ge=10, description="region proposals kept a photo")
    samples: int = Field(default=64, ge=8, description="regions a photo that the detection head learns from")
    norm: Literal["frozen", "trainable", "group"] = Field(
        default="frozen", description="the backbone's normalisation: its own, kept or learning, or groups of channels"
    )
    frozen_stages: int = Field(default=3, ge=0, description="first parts of the backbone that keep their weights")
    anchors: Literal["fitted", "strides"] = Field(
        default="fitted", description="fitted to sizes and shapes of the photos' items, or four strides of each level"
    )
    counts: Literal["total", "supercategory", "product"] = Field(
        default="total", description="one density map, one a super-category, or one a product"
    )
    nms: Literal["val", "agnostic", "product"] = Field(
        default="val",
        description="across products, or each on its own; val: across, unless val is clearly better the other way",
    )
    nms_iou: float = Field(default=0.5, gt=0, le=1, description="IoU from which two detections are one")
    image_size: int = Field(default=448, ge=64, multiple_of=64, description="longer side of a photo in the network")
    steps: int = Field(default=6000, ge=1, description="training steps")
    batch: int = Field(default=8, ge=1, description="photos a step, for which the rate and the steps are meant")
    global_batch: int = Field(
        default=0, ge=0, description="photos a step over all devices, by the linear rule; 0: as batch"
    )
    optimiser: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd: with momentum 0.9")
    schedule: Literal["cosine", "steps"] = Field(
        default="cosine", description="of the rate: half a cosine, or a tenth after 2/3 and after 8/9 of the steps"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak rate of everything but the backbone")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the optimiser")
    clip: float = Field(default=10.0, ge=0, description="largest norm of the gradients; 0: any")
    backbone_share: float = Field(default=0.3, ge=0, le=1, description="the backbone's learning rate, as a share")
    warmup: int = Field(default=50, ge=1, description="steps in which the rate rises")
    average: float = Field(default=0.995, ge=0, lt=1, description="decay of the weights' moving average; 0: none")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="fp32", description="of most of the computation; auto: bf16 where the device has instructions for it"
    )
    compile: bool = Field(default=False, description="compile backbone and pyramid (minutes at the start)")
    stream: float = Field(default=0.0, ge=0, le=1, description="share of the samples that are composed on the fly")
    synthesis: ComposeParams | None = Field(default=None, description="how they are composed")
    mix: tuple[float, ...] = Field(default=(1.0,), description="share of the samples from each input, in their order")
    zoom: float = Field(default=1.25, ge=1, description="largest change of size of a sample, either way")
    colour: float = Field(default=1.0, ge=0, description="strength of the changes of light")
    strong: float = Field(
        default=1.0, ge=0, description="the same in pool photos, relative to the others: the student's strong view"
    )
    erase: float = Field(
        default=0.0, ge=0, le=1, description="chance that a part of an item in a pool photo is covered"
    )
    balance: float = Field(
        default=0.0, ge=0, le=1, description="how far pool photos of rare products are drawn more often; 1: inversely"
    )
    adapt: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how far the backbone takes over the statistics of pool photos at the start",
    )
    adapt_photos: int = Field(default=24, ge=1, description="pool photos that these statistics are taken from")
    augment: Literal["loader", "device"] = Field(
        default="loader", description="where samples are varied: while they are drawn, or in batches on the device"
    )
    density_weight: float = Field(default=0.5, ge=0, description="of the counting view's density loss")
    count_weight: float = Field(default=0.5, ge=0, description="of the counting view's count loss")
    evaluate_every: int = Field(default=1000, ge=1, description="steps between two evaluations on val")
    best_by: Literal["cAcc", "ACD"] = Field(
        default="cAcc",
        description="figure on val by which the best checkpoint is chosen; the other one decides between equals. ACD "
        "(wrong items a photo) tells small differences on few photos better",
    )
    val_turns: Literal[1, 2, 4] = Field(
        default=1,
        description="quarter turns, evenly spread, in which val is seen for that choice: a few photos then tell more",
    )
    patience: int = Field(default=0, ge=0, description="evaluations without a better one that end it early; 0: none do")
    save_every: int = Field(default=250, ge=1, description="steps between two saved training states")
    cache_gigabytes: float = Field(default=4.0, ge=0, description="most memory for decoded photos")
    loader_workers: int = Field(default=1, ge=0, description="processes that draw samples ahead; 0: none, no overlap")
    threads: int = Field(default=2, ge=1, description="CPU threads; sums depend on it, so it is a parameter")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")


class RetrainParams(TrainParams):
    """Training that goes on from a champion when the catalog has new products.

    The network's own knobs stay those of the champion. `mix` has a share for each input: new photos, then old ones.
    """

    stage: ClassVar[str] = "retrain"
    version: ClassVar[int] = 8
    teacher_weight: float = Field(default=1.0, ge=0, description="of keeping the champion's opinion on old products")
    teacher_box_weight: float = Field(default=0.5, ge=0, description="of keeping the champion's boxes")
    embedded_photos: int = Field(default=64, ge=0, description="photos of new products that their rows are made from")


class AdaptParams(StageParams):
    """A checkpoint without the products that left the catalog."""

    stage: ClassVar[str] = "adapt"
    own_process: ClassVar[bool] = True
    threads: int = Field(default=2, ge=1, description="CPU threads; sums depend on it, so it is a parameter")


class CompareParams(StageParams):
    """Champion and challenger on val, and the decision."""

    stage: ClassVar[str] = "compare"
    decision: Literal["both views", "detection view"] = Field(
        default="both views", description="what decides which detections count, as in evaluate"
    )
    margin: float = Field(
        default=0.005, ge=0, le=1, description="least gain in averaged cAcc on val that promotes a challenger"
    )
    tolerance: float = Field(
        default=0.0, ge=0, le=1, description="loss in cAcc on val, on a level or on old products, that is no loss"
    )
    required: bool = Field(
        default=False, description="products left the catalog: the challenger is promoted unless it is worse"
    )


class View(BaseModel):
    """How the network sees a photo: swapped, then turned, then scaled."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mirrored: bool = Field(default=False, description="left and right swapped; print can't be read then")
    turns: Literal[0, 1, 2, 3] = Field(default=0, description="quarter turns anticlockwise")
    zoom: float = Field(default=1.0, ge=0.25, le=4, description="size in the network, relative to that of training")

    @property
    def title(self) -> str:
        """The view in a stage's name, ".turned2.zoomed80"; "" for the photo as it is."""
        parts = (
            ".mirrored" if self.mirrored else "",
            f".turned{self.turns}" if self.turns else "",
            f".zoomed{round(100 * self.zoom)}" if self.zoom != 1 else "",
        )
        return "".join(parts)


class PredictParams(StageParams):
    """Detections and counts for photos."""

    stage: ClassVar[str] = "predict"
    batch: int = Field(default=8, ge=1, description="photos that go through the network together")
    threads: int = Field(default=2, ge=1, description="CPU threads; sums depend on it, so it is a parameter")
    view: View = Field(default=View(), description="how the network sees the photos")
    keep_density: int = Field(default=8, ge=0, description="first photos whose density map is kept as .npy")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")


class SelectParams(StageParams):
    """Pseudo-labels chosen from predictions on the pool."""

    stage: ClassVar[str] = "select"
    version: ClassVar[int] = 10
    mode: Literal["image", "instance"] = Field(
        default="instance", description="image: whole photos only; instance: also the confident items of the others"
    )
    rule: Literal["views", "paper", "all"] = Field(
        default="views",
        description="which photos are taken whole: those on which all views agree; those where as many detections "
        "reach the score as the counting view says (the paper's rule); or all, without a choice",
    )
    most: int | None = Field(default=None, ge=0, description="most photos taken, drawn evenly of them; none: no limit")
    precision: float = Field(
        default=0.9, ge=0, le=1, description="least expected share of right items in a photo taken whole"
    )
    confident_score: float = Field(
        default=0.5, ge=0, le=1, description="score, the mean of all views, from which an item is trusted"
    )
    doubtful_score: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="score below which a detection is ignored, and a doubtful place, by the mean of all views, is so "
        "faint that it is taken for none",
    )
    agreement: float = Field(
        default=0.5, ge=0, le=1, description="least share of all views that must show an item for it to be trusted"
    )
    tolerance: float = Field(
        default=0.5, ge=0, description="difference of trusted detections and the counting view's count that is none"
    )
    count_errors: float = Field(
        default=2.0,
        ge=0,
        description="standard errors of the counting view, as val shows them for so many products, that its count may "
        "differ by, if that is more than the tolerance",
    )
    nms: float = Field(default=0.5, gt=0, le=1, description="IoU of two detections, of any SKU, that are one product")
    stray_area: float = Field(
        default=0.1, gt=0, description="least area of something unexplained, relative to the photo's median item"
    )
    stray_contrast: float = Field(
        default=0.06, gt=0, description="least departure in colour from the board, as a log ratio, of something on it"
    )
    emphasis: float = Field(
        default=10.0,
        ge=0,
        description="how much more often a student sees photos in which the votes of all views put the plain view "
        "right: by 1 + emphasis times such mistakes, as a share of the trusted items",
    )
    margin: float = Field(default=0.08, ge=0, description="erased around a doubtful box, relative to its longer side")
    quality: int = Field(default=92, ge=1, le=100, description="JPEG quality of repainted photos")


class EvaluateParams(StageParams):
    """RPC metrics on val and test."""

    stage: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 5
    decision: Literal["both views", "detection view"] = Field(
        default="both views", description="what decides which detections count; both: the count moves the scores"
    )
    target_protocol: Literal["exemplars-only", "unlabelled-target", "transductive", "labelled-target"] = Field(
        default="unlabelled-target", description="what training has seen of the target domain; printed beside figures"
    )
    resamplings: int = Field(default=1000, ge=1, description="bootstrap resamplings for the intervals")
    pictures: int = Field(default=8, ge=0, description="most confused SKU pairs shown with pictures")
