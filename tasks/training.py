"""What every training leaves on disk and tells: resumable state, best weights, logs; saving, evaluating, early stop.

    state.safetensors     everything that changes, and JSON with the step; a killed training goes on from it
    best.safetensors      the averaged weights that were best on val
    train.jsonl           a line a step: losses, and figures on val where it was evaluated. The same on every machine
    failed/               the batch at which a loss became NaN or infinite
    <store>/scratch/tensorboard/<stage>/<key>   learning curves: `tensorboard --logdir <store>/scratch/tensorboard`

Only the leading one of several processes writes. Shared by the trainings of the saliency network, the renderers and
DPSNet; what they learn from and how they are evaluated is theirs.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from models.training.batches import Batch
from models.training.loop import FailedBatchError, StepReport, train_steps
from models.training.trainer import Trainer
from storage.digest import JSON
from storage.files import replace_file
from storage.images import encode_jpeg
from tasks.context import StageContext

STATE_FILE, BEST_FILE, LOG_FILE, FAILED_FOLDER = "state.safetensors", "best.safetensors", "train.jsonl", "failed"
_CURVE_EVERY = 10
_MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a training is and what happens on the way, in steps. `patience`: it ends after so many evaluations
    without a better one (0: never before its time). `judge_start`: the weights are evaluated before the first step, so
    that those that are kept are never worse than those it began with."""

    steps: int
    batch: int
    save_every: int
    evaluate_every: int = 0
    patience: int = 0
    judge_start: bool = False

    def evaluates_at(self, step: int) -> bool:
        """Whether the weights are evaluated after `step` steps."""
        return bool(self.evaluate_every) and (step % self.evaluate_every == 0 or step == self.steps)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What weights reach: `rank` compares (larger is better), `figures` are kept in the log."""

    rank: tuple[float, ...]
    figures: dict[str, JSON]


class TrainingFolder:
    """The files of one training; `log` is its log in memory."""

    def __init__(self, folder: Path) -> None:
        """Go on in `folder`, or start there."""
        self.folder = folder
        self.log: list[dict[str, Any]] = []

    def resume(self, trainer: Trainer) -> None:
        """Take up the saved state, if there is one, in every process of the trainer's world."""
        path = self.folder / STATE_FILE
        kept = path.read_bytes() if trainer.world.leads and path.exists() else b""
        state = trainer.world.from_leader(kept, device=trainer.device)
        if state:
            trainer.restore(load(state))
        if trainer.world.leads:
            self.log = [line for line in self._read_log() if line["step"] <= trainer.step]
            replace_file(self.folder / LOG_FILE, b"".join(map(_encoded, self.log)), sync=False)

    def _read_log(self) -> list[dict[str, Any]]:
        path = self.folder / LOG_FILE
        # A line that was cut off by the end of its process is not ended.
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        return [orjson.loads(line) for line in whole.splitlines()]

    def save(self, trainer: Trainer) -> None:
        """Write the state, whole or not at all."""
        header = {"training": json.dumps({"step": trainer.step})}
        replace_file(self.folder / STATE_FILE, save(trainer.state(), metadata=header), sync=False)

    def add(self, line: dict[str, Any]) -> None:
        """Add one line to the log."""
        self.log.append(line)
        with (self.folder / LOG_FILE).open("ab") as file:
            file.write(_encoded(line))

    def keep_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep these weights as the best up to now."""
        body = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        replace_file(self.folder / BEST_FILE, save(body), sync=False)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The log's lines at which the weights were evaluated."""
        return [line for line in self.log if "val" in line]

    @property
    def best(self) -> dict[str, Any]:
        """The line of the best evaluation, of equals the one that has learnt for longest."""
        return max(reversed(self.evaluations), key=lambda line: line["rank"])

    def since_better(self) -> int:
        """How many evaluations there were after the one that first reached the best rank."""
        ranks = [line["rank"] for line in self.evaluations]
        return len(ranks) - 1 - ranks.index(max(ranks)) if ranks else 0

    def read(self, name: str) -> bytes:
        """The bytes of one of the folder's files."""
        return (self.folder / name).read_bytes()

    def keep_failed(self, batch: Batch) -> Path:
        """Save a batch for inspection: its tensors, and its photos as pictures."""
        folder = self.folder / FAILED_FOLDER
        folder.mkdir(exist_ok=True)
        replace_file(folder / "batch.safetensors", save(dict(_flat(batch))), sync=False)
        photos = batch[0]
        if isinstance(photos, Tensor) and photos.dtype == torch.uint8:
            for index, photo_HW3 in enumerate(photos.cpu().numpy()):
                replace_file(folder / f"{index:03d}.jpg", encode_jpeg(np.ascontiguousarray(photo_HW3)), sync=False)
        return folder


def saved_step(folder: Path) -> int:
    """The step of the state that is saved in `folder`; 0 where there is none."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    with safe_open(str(path), framework="pt") as file:
        return int(json.loads(file.metadata()["training"])["step"])


def _encoded(line: Mapping[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"


def _flat(value: Any, name: str = "part") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401 - tensors, however nested
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().contiguous()
    elif isinstance(value, (int, float)):
        yield name, torch.tensor(value)
    else:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in pairs:
            yield from _flat(one, f"{name}/{key}")


class Curves:
    """Learning curves for TensorBoard."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Go on in `folder` after `step`; what a killed training wrote beyond it is hidden."""
        # Imported here: it costs a second, and only the leading process draws.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, report: StepReport, *, batch: int, figures: Mapping[str, JSON]) -> None:
        """Add a step, every so often, and figures on val whenever there are some."""
        if figures or report.step % _CURVE_EVERY == 0:
            values = {f"loss/{name}": value for name, value in report.losses.items()}
            values |= {"rate/learning rate": report.learning_rate, "rate/photos a second": batch / report.seconds}
            values |= {"rate/waiting for data": report.waited / report.seconds}
            values |= {f"val/{name}": value for name, value in figures.items() if isinstance(value, float)}
            for name, value in values.items():
                self._writer.add_scalar(name, value, report.step)

    def add_picture(self, picture_HW3: NDArray[np.uint8], *, step: int) -> None:
        """Add an RGB picture of what the training has come to."""
        self._writer.add_image("progress", picture_HW3, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def run_training(
    context: StageContext,
    *,
    trainer: Trainer,
    plan: Plan,
    folder: TrainingFolder,
    batches: Callable[[range], Iterator[Batch]],
    evaluate: Callable[[], Evaluation] | None = None,
    picture: Callable[[StepReport], NDArray[np.uint8] | None] | None = None,
    what: str = "steps",
) -> None:
    """Take the steps that are left of a training, saving, evaluating and logging on the way.

    Args:
        batches: this process's batches of a range of steps.
        evaluate: judges the trainer's averaged weights; the best are kept.
        picture: drawn after each step, in the leading process; what is not None is kept in the curves too.

    Raises:
        FailedBatchError: a loss or a gradient is NaN or infinite; the batch is in the training's folder.
    """
    folder.resume(trainer)
    if trainer.step:
        context.log(f"going on at step {trainer.step} of {plan.steps}")
    left = range(trainer.step, plan.steps)
    if not left or _is_over(folder, plan=plan, trainer=trainer):
        return
    watch = _Watch(context, trainer=trainer, plan=plan, folder=folder)
    if plan.judge_start and not trainer.step and evaluate is not None:
        watch.judge_start(evaluate)
    steps = train_steps(trainer, batches(left), clock=time.perf_counter)
    try:
        for report in context.progress(steps, total=len(left), what=what):
            watch.tell(report, evaluate=evaluate)
            if picture is not None:
                watch.show(report, picture=picture)
            if plan.evaluates_at(report.step) and _is_over(folder, plan=plan, trainer=trainer):
                context.log(f"step {report.step}: no better for {plan.patience} evaluations, training ends")
                break
    except FailedBatchError as error:
        kept = folder.keep_failed(error.batch)
        raise FailedBatchError(f"{error}; the batch is in {kept}", batch=error.batch) from error
    finally:
        watch.close()


def _is_over(folder: TrainingFolder, *, plan: Plan, trainer: Trainer) -> bool:
    over = trainer.world.leads and bool(plan.patience) and folder.since_better() >= plan.patience
    return bool(trainer.world.largest(int(over), device=trainer.device))


class _Watch:
    """What the leading process does beside training."""

    def __init__(self, context: StageContext, *, trainer: Trainer, plan: Plan, folder: TrainingFolder) -> None:
        self._context, self._trainer, self._plan, self._folder = context, trainer, plan, folder
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0
        curves = context.store.scratch("tensorboard", key=context.stage) / context.scratch.name
        self._curves = Curves(curves, step=trainer.step) if trainer.world.leads else None

    def judge_start(self, evaluate: Callable[[], Evaluation]) -> None:
        if self._curves is None or self._folder.evaluations:
            return
        evaluation = evaluate()
        self._folder.keep_best(self._trainer.averaged)
        line = {"step": 0, "losses": {}, "val": evaluation.figures, "rank": list(evaluation.rank)}
        self._folder.add(line)

    def tell(self, report: StepReport, *, evaluate: Callable[[], Evaluation] | None) -> None:
        if self._curves is None:
            return
        self._seconds, self._waited = self._seconds + report.seconds, self._waited + report.waited
        self._steps += 1
        line: dict[str, Any] = {"step": report.step, "losses": report.losses}
        figures: dict[str, JSON] = {}
        if evaluate is not None and self._plan.evaluates_at(report.step):
            evaluation = evaluate()
            figures = evaluation.figures
            line |= {"val": figures, "rank": list(evaluation.rank)}
        self._folder.add(line)
        if figures and self._folder.best is line:
            self._folder.keep_best(self._trainer.averaged)
        self._curves.add(report, batch=self._plan.batch, figures=figures)
        # The best weights and the log must not be ahead of the state: a GPU that takes these steps again judges anew.
        if figures or report.step % self._plan.save_every == 0:
            self._folder.save(self._trainer)

    def show(self, report: StepReport, *, picture: Callable[[StepReport], NDArray[np.uint8] | None]) -> None:
        picture_HW3 = None if self._curves is None else picture(report)
        if self._curves is not None and picture_HW3 is not None:
            self._curves.add_picture(picture_HW3, step=report.step)

    def close(self) -> None:
        if self._curves is None or not self._steps:
            return
        self._curves.close()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEGABYTE
        if self._trainer.device.type == "cuda":
            self._context.report(peak_gpu_megabytes=torch.cuda.max_memory_allocated() / _MEGABYTE)
        self._context.report(
            photos_per_second=self._steps * self._plan.batch / self._seconds,
            waiting_for_data=self._waited / self._seconds,
            peak_megabytes=peak,
            pieces=self._trainer.parts,
            processes=self._trainer.world.size,
        )


def mean_of_last(losses: Sequence[float], *, share: float) -> float:
    """The mean of the last `share` of `losses`, at least one."""
    return float(np.mean(losses[-max(1, round(len(losses) * share)) :]))
