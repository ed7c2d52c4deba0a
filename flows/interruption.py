"""How Ctrl-C or a request to end stops a command that may be waiting for processes, threads and services.

Ctrl-C reaches every process of the terminal, Prefect's temporary server too, and Prefect then asks the dead server
again and again for minutes. So what has not ended after a while is left: nothing half-written is ever read.
"""

from __future__ import annotations

import os
import signal
from threading import Timer
from types import FrameType

from rich.console import Console

from tasks.process import stop_children

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; run the same command again to go on from here"
_PATIENCE_SECONDS = 10.0


def end_on_signals() -> None:
    """From here on Ctrl-C and SIGTERM end this process: in order if that is soon done, the second one at once."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, _end)


def _end(number: int, frame: FrameType | None) -> None:
    """Stages that train run in processes of their own, which a signal to this one does not reach."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: _leave())
    stop_children()
    patience = Timer(_PATIENCE_SECONDS, _leave)
    patience.daemon = True
    patience.start()
    raise KeyboardInterrupt


def _leave() -> None:
    Console().show_cursor()
    Console(stderr=True).print(INTERRUPTED)
    os._exit(EXIT_INTERRUPTED)
