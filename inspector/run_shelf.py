"""The runs that can be looked at: every `run.json` under the folder of runs, and those of earlier runs in `history/`.

A run is asked for by its id: `name` for the last run of a name, `name@20260101T103000Z` for an earlier one. Ids are
looked up among what lies in the folder; no path is made out of one. Links that lead out of the folder don't count.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from storage.digest import JSON

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MOMENT = re.compile(r"\d{8}T\d{6}Z")
# Seconds; a stage that is slow on a busy machine says nothing for minutes.
_SILENT_AFTER = 600.0


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """One run as its record tells it. `problem` says what is wrong with the record where it can't be read.

    `progress` is what a running one is at: stage, done, total, what, time.
    """

    id: str
    name: str
    record: Mapping[str, JSON]
    problem: str = ""
    report: Path | None = None
    progress: Mapping[str, JSON] | None = None

    @property
    def state(self) -> str:
        """completed, running, interrupted (it says running, but its process is gone), failed, unreadable, …"""
        if self.problem:
            return "unreadable"
        state = str(self.record.get("state") or "unknown")
        return "interrupted" if state == "running" and not self._lives else state

    @property
    def _lives(self) -> bool:
        """Whether the process is there; of another machine, whether it has said something lately."""
        process = self.record.get("process")
        if self.record.get("host") == socket.gethostname() and isinstance(process, int):
            return _is_running(process)
        said = str((self.progress or {}).get("time") or self.record.get("started") or "")
        seconds = seconds_between(said, datetime.now(UTC).isoformat())
        return seconds is not None and seconds < _SILENT_AFTER

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken up to now."""
        finished = self.record.get("finished")
        if not finished and self.state == "running":
            finished = datetime.now(UTC).isoformat()
        return seconds_between(str(self.record.get("started") or ""), str(finished or ""))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def seconds_between(start: str, end: str) -> float | None:
    """Seconds from one ISO 8601 moment to another; None where one of them is none."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None


class RunShelf:
    """Finds the runs in a folder and remembers their records while the files stay as they are."""

    def __init__(self, runs: Path) -> None:
        """Look into the folder `runs`, which need not be there yet."""
        self._runs = runs
        self._known: dict[Path, tuple[tuple[int, int], RunEntry]] = {}

    def all(self) -> list[RunEntry]:
        """Every run, the one that started last first."""
        found = [self._entry(run_id, path) for run_id, path in self._files()]
        return sorted(found, key=lambda one: (str(one.record.get("started") or ""), one.id), reverse=True)

    def get(self, run_id: str) -> RunEntry | None:
        """The run with this id, None where there is none."""
        path = dict(self._files()).get(run_id)
        return None if path is None else self._entry(run_id, path)

    def _files(self) -> Iterator[tuple[str, Path]]:
        root = self._runs.resolve()
        for folder in sorted(self._runs.iterdir()) if self._runs.is_dir() else ():
            if not _NAME.fullmatch(folder.name):
                continue
            candidates = [(folder.name, folder / "run.json")]
            history = folder / "history"
            earlier = sorted(history.iterdir()) if history.is_dir() else []
            candidates += [(f"{folder.name}@{path.stem}", path) for path in earlier if _MOMENT.fullmatch(path.stem)]
            yield from ((name, path) for name, path in candidates if _inside(path, root=root))

    def _entry(self, run_id: str, path: Path) -> RunEntry:
        state = path.stat()
        version = (state.st_mtime_ns, state.st_size)
        known = self._known.get(path)
        if known is None or known[0] != version:
            known = self._known[path] = (version, _read_entry(run_id, path))
        entry = known[1]
        return entry if entry.record.get("state") != "running" else _with_progress(entry, folder=path.parent)


def _inside(path: Path, *, root: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root)


def _read_entry(run_id: str, path: Path) -> RunEntry:
    name = run_id.split("@", maxsplit=1)[0]
    try:
        record = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        return RunEntry(id=run_id, name=name, record={}, problem=f"its record can't be read ({error})")
    if not isinstance(record, dict):
        return RunEntry(id=run_id, name=name, record={}, problem="its record is no JSON object")
    report = path.parent / "report.html"
    # While a run goes on, the report that lies there is that of the run before.
    own = "@" not in run_id and record.get("state") == "completed"
    has_report = own and report.is_file() and not report.is_symlink()
    return RunEntry(id=run_id, name=name, record=record, report=report if has_report else None)


def _with_progress(entry: RunEntry, *, folder: Path) -> RunEntry:
    try:
        progress = orjson.loads((folder / "progress.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return entry
    return RunEntry(id=entry.id, name=entry.name, record=entry.record, report=entry.report, progress=progress)
