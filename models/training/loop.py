"""The loop: one step after the other on the batches that come, each told of with the time it took.

Whoever iterates decides what happens between two steps (saving, evaluating, logging) and stops by not going on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from models.training.batches import Batch
from models.training.trainer import NonFiniteLossError, Trainer


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step that was taken: its number (from 1), the losses, the learning rate, and the seconds that it took in all
    and waiting for its batch."""

    step: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    waited: float


class FailedBatchError(NonFiniteLossError):
    """The batch at which training stopped, for inspection."""

    def __init__(self, message: str, *, batch: Batch) -> None:
        """`message` says at which step and why."""
        super().__init__(message)
        self.batch = batch


def train_steps(trainer: Trainer, batches: Iterable[Batch], *, clock: Callable[[], float]) -> Iterator[StepReport]:
    """Take a step on each of `batches` and tell of it; the trainer counts the steps.

    Raises:
        FailedBatchError: a loss or a gradient is NaN or infinite; holds the batch.
    """
    started = clock()
    for batch in batches:
        begun = clock()
        trainer.network.train()
        try:
            losses = trainer.take_step(batch)
        except NonFiniteLossError as error:
            raise FailedBatchError(str(error), batch=batch) from error
        ended = clock()
        yield StepReport(
            step=trainer.step,
            losses=losses,
            learning_rate=trainer.learning_rate,
            seconds=ended - started,
            waited=begun - started,
        )
        started = clock()
