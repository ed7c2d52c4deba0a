"""The knobs of every stage, as frozen pydantic models. Import-light: a stage key needs neither torch nor OpenCV.

A params class names its stage and carries the stage's `version`: raise it whenever the stage's output changes
for the same inputs and parameters.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class StageParams(BaseModel):
    """What every stage has: a name, a version and a seed. Unknown keys are refused.

    `own_process` stages train: they run in a child process, so that loaders may fork and memory returns at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: ClassVar[str]
    version: ClassVar[int] = 1
    own_process: ClassVar[bool] = False
    seed: int = Field(default=0, ge=0, description="seed of every random choice in this stage")


class IngestParams(StageParams):
    """Reads and validates one split of a data set."""

    stage: ClassVar[str] = "ingest"
    dataset: str = Field(description="folder of the data set: RPC layout, or one folder a SKU under catalog/")
    split: Literal["catalog", "pool", "val", "test"] = Field(description="which part of the data set")
    pool_source: Literal["pool", "test"] = Field(
        default="pool", description="test: the unlabelled test photos are the pool (transductive, as in the paper)"
    )
    files_digest: str = Field(description="digest of the names, sizes and times of the split's files")


class CoarseParams(StageParams):
    """Coarse masks of exemplars: backdrop model and GrabCut."""

    stage: ClassVar[str] = "coarse"


class SaliencyParams(StageParams):
    """The saliency network, trained on the coarse masks of the whole catalog."""

    stage: ClassVar[str] = "saliency"
    own_process: ClassVar[bool] = True


class SegmentParams(StageParams):
    """Fine masks: the saliency network's forward pass and edge-aware refinement."""

    stage: ClassVar[str] = "segment"


class PruneParams(StageParams):
    """Which views a camera above a counter can see."""

    stage: ClassVar[str] = "prune"


class BoardParams(StageParams):
    """Empty boards recovered from the pool."""

    stage: ClassVar[str] = "board"


class ComposeParams(StageParams):
    """Synthetic checkout photos out of sprites."""

    stage: ClassVar[str] = "compose"


class RenderParams(StageParams):
    """Translation of synthetic photos to the look of the pool."""

    stage: ClassVar[str] = "render"
    own_process: ClassVar[bool] = True


class TrainParams(StageParams):
    """Training of DPSNet."""

    stage: ClassVar[str] = "train"
    own_process: ClassVar[bool] = True


class PredictParams(StageParams):
    """Detections and counts for photos."""

    stage: ClassVar[str] = "predict"


class SelectParams(StageParams):
    """Pseudo-labels chosen from predictions on the pool."""

    stage: ClassVar[str] = "select"


class EvaluateParams(StageParams):
    """RPC metrics on val and test."""

    stage: ClassVar[str] = "evaluate"
