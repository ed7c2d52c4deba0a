"""Pictures that threads ask for one by one, computed together: a GPU is fast with batches only.

Nobody waits for a batch to fill: whoever has the turn takes what waits at that moment, so that batches grow with the
number of threads and with how busy the device is, up to what its memory holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor


@dataclass(slots=True)
class _Request:
    picture_CHW: Tensor
    answer_CHW: Tensor | None = None


@dataclass(kw_only=True)
class Gathered:
    """`function`, [B, C, H, W] to [B, …], called by threads with one picture [C, H, W] each.

    `largest` is the most pictures of a batch; it is halved whenever memory was too short for that many.
    """

    function: Callable[[Tensor], Tensor]
    largest: int = 64
    _waiting: list[_Request] = field(default_factory=list)
    _list: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, picture_CHW: Tensor) -> Tensor:
        """The picture's result, without its batch axis.

        Raises:
            torch.OutOfMemoryError: one picture alone is too large for the device.
        """
        request = _Request(picture_CHW)
        with self._list:
            self._waiting.append(request)
        with self._turn:
            # Who had the turn before may have computed this one along with its own.
            if request.answer_CHW is None:
                self._answer_all_like(request)
        assert request.answer_CHW is not None
        return request.answer_CHW

    def __reduce__(self) -> tuple[Callable[[], Gathered], tuple[()]]:
        """To another process goes what it computes, not who waits here."""
        return partial(Gathered, function=self.function, largest=self.largest), ()

    def _answer_all_like(self, request: _Request) -> None:
        """Answer a request, and with it others of the same shape that wait."""
        batch = self._taken_with(request)
        while True:
            try:
                answers = self.function(torch.stack([one.picture_CHW for one in batch[: self.largest]]))
                break
            except torch.OutOfMemoryError:
                if self.largest == 1 or len(batch) == 1:
                    raise
            torch.cuda.empty_cache()
            self.largest = max(1, min(self.largest, len(batch)) // 2)
        # What memory was too short for waits on: its own thread computes it.
        for one, answer_CHW in zip(batch, answers, strict=False):
            one.answer_CHW = answer_CHW

    def _taken_with(self, request: _Request) -> list[_Request]:
        with self._list:
            self._waiting = [one for one in self._waiting if one.answer_CHW is None and one is not request]
            alike = [one for one in self._waiting if one.picture_CHW.shape == request.picture_CHW.shape]
        return [request, *alike[: self.largest - 1]]
