"""A limit on the time that a run takes: stages stop at their next sign of life, and a silent training is ended.

Prefect's own limit can't interrupt native code and leaves training processes behind; this one does neither.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storage.digest import JSON
from tasks.context import EventSink
from tasks.process import stop_children

_GRACE = 60.0


class TimeLimitError(RuntimeError):
    """A run took longer than it was allowed; what it finished is kept, the next one goes on from there."""


@contextmanager
def time_limit(
    hours: float, *, events: EventSink, clock: Callable[[], float] = time.monotonic, grace: float = _GRACE
) -> Iterator[EventSink]:
    """A sink like `events` that ends the run after so many hours; 0: never.

    Raises:
        TimeLimitError: the time is over.
    """
    if hours <= 0:
        yield events
        return
    end = clock() + 3600 * hours
    over = TimeLimitError(f"time_limit: {hours:g} hours are over; the next run goes on from here")

    def limited(event: dict[str, JSON]) -> None:
        if clock() > end:
            raise over
        events(event)

    ended = threading.Event()

    def end_silent_training() -> None:
        ended.set()
        stop_children()

    timer = threading.Timer(3600 * hours + grace, end_silent_training)
    timer.daemon = True
    timer.start()
    try:
        yield limited
    except RuntimeError as error:
        # A training that was ended reports a failure of its own, and this is why.
        if ended.is_set() and error is not over:
            raise over from error
        raise
    finally:
        timer.cancel()
