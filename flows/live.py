"""What others can see of a run that goes on: `run.json` grows stage by stage, `progress.json` tells what it is at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flows.runs import PROGRESS_FILE, RunRecord, now, write_json
from storage.digest import JSON
from tasks.context import EventSink

_SECONDS_BETWEEN = 1.0


class LiveRun:
    """An event sink that passes events on and writes, at most once a second, how far the run has come."""

    def __init__(
        self, events: EventSink, *, flow_run: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Pass events on to `events`; `flow_run` is the run's id in Prefect."""
        self._events, self._flow_run, self._clock = events, flow_run, clock
        self._record: RunRecord | None = None
        self._folder = Path()
        self._written = {"record": float("-inf"), "progress": float("-inf")}
        self._lock = threading.Lock()

    def follow(self, record: RunRecord, *, folder: Path) -> None:
        """From now on events belong to this run, which starts here."""
        record.flow_run = self._flow_run
        self._record, self._folder = record, folder
        record.write(folder)

    def end(self) -> None:
        """The run is over: nothing is at work any more."""
        with self._lock:
            self._record = None
            (self._folder / PROGRESS_FILE).unlink(missing_ok=True)

    def __call__(self, event: dict[str, JSON]) -> None:
        """Take one event of a stage. Called from several threads."""
        self._events(event)
        with self._lock:
            if self._record is None or event["kind"] not in ("start", "progress"):
                return
            if event["kind"] == "start" and self._due("record"):
                self._record.write(self._folder)
            # The first and the last word on a stage are written whenever they come.
            edge = event["kind"] == "start" or event["done"] == event["total"]
            if self._due("progress", anyway=edge):
                write_json(self._folder / PROGRESS_FILE, _progress(event))

    def _due(self, what: str, *, anyway: bool = False) -> bool:
        if not anyway and self._clock() - self._written[what] < _SECONDS_BETWEEN:
            return False
        self._written[what] = self._clock()
        return True


def _progress(event: dict[str, JSON]) -> dict[str, JSON]:
    """The stage at work, how many of what are done, and when that was so."""
    told = {name: event.get(name) for name in ("done", "total", "what")}
    return {"stage": event.get("name", event.get("stage")), "cached": bool(event.get("cached")), **told, "time": now()}
