"""How Ctrl-C or a request to end stops a command that may be waiting for processes, threads and services.

Ctrl-C reaches every process of the terminal, as a service manager's SIGTERM reaches every process of the service, so
Prefect's temporary server too, and Prefect then asks the dead server again and again for minutes. So what has not ended
after a while is left: nothing half-written is ever read.
"""

from __future__ import annotations

import os
import signal
from threading import Thread, Timer
from types import FrameType

from rich.console import Console

from tasks.process import stop_children

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; run the same command again to go on from here"
_PATIENCE_SECONDS = 10.0
_KINDS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """From here on Ctrl-C and SIGTERM end this process: in order if that is soon done, the second one at once."""
    for kind in _KINDS:
        signal.signal(kind, _end)
    # A flow puts Prefect's own handler of SIGTERM in the place of this one; what is written here is told all the same.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    Thread(target=_watch, args=(reading,), daemon=True).start()


def _watch(reading: int) -> None:
    """Wait for the first signal; stages that train run in processes of their own, which it does not reach."""
    while os.read(reading, 1)[0] not in _KINDS:
        continue
    patience = Timer(_PATIENCE_SECONDS, _leave)
    patience.daemon = True
    patience.start()
    stop_children()


def _end(number: int, frame: FrameType | None) -> None:
    for kind in _KINDS:
        signal.signal(kind, lambda number, frame: _leave())
    raise KeyboardInterrupt


def _leave() -> None:
    Console().show_cursor()
    Console(stderr=True).print(INTERRUPTED)
    os._exit(EXIT_INTERRUPTED)
