"""The folder of a run, `runs/<name>/`: `run.json` says which stages made it, under which keys, from where.

Written as the run goes on, so that a run that failed tells how far it came. What earlier runs of the name left there
stays in `history/`, and `progress.json` says what a running one is at.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from flows.runner import results_json
from storage.digest import JSON
from storage.files import replace_file
from storage.roots import note_run
from storage.store import Store
from tasks.stage import StageResult

RUN_FILE, PROGRESS_FILE, HISTORY = "run.json", "progress.json", "history"
_KEPT_RECORDS, _COMPARABLE = 200, 3


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


@dataclass(kw_only=True)
class RunRecord:
    """What `run.json` holds.

    Attributes:
        ladder, val_ladder: honest figures on test and on val by rung and level.
        checkpoints: stage, key and content digest of each rung's checkpoint.
        decision: whether the model was promoted: action, number of the decision and of the champion, reasons.
        command: the command that makes the run again; `options` its options one by one.
        outputs: the files that the run left beside this one, and a digest of what they were made from.
        flow_run: the flow run's id in Prefect, where Prefect runs it.
        host, process: where it runs, so that others can see whether it still lives.
    """

    name: str
    dataset: str
    preset: str
    store: str
    parameters: Mapping[str, JSON]
    catalog: str = ""
    catalog_version: int = 0
    command: str = ""
    options: Mapping[str, JSON] = field(default_factory=dict)
    flow_run: str | None = None
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    state: str = "running"
    started: str = field(default_factory=now)
    finished: str | None = None
    error: str | None = None
    target_protocol: str | None = None
    champion: str | None = None
    checkpoints: Mapping[str, JSON] = field(default_factory=dict)
    decision: Mapping[str, JSON] | None = None
    outputs: Mapping[str, JSON] = field(default_factory=dict)
    ladder: dict[str, JSON] = field(default_factory=dict)
    val_ladder: dict[str, JSON] = field(default_factory=dict)
    results: Mapping[str, StageResult] = field(default_factory=dict)

    def to_json(self) -> dict[str, JSON]:
        """The record as a JSON object; its stages in the order they ran."""
        names = ("name", "dataset", "catalog", "catalog_version", "preset", "store", "state", "started", "finished")
        later = (
            "error",
            "command",
            "target_protocol",
            "champion",
            "checkpoints",
            "decision",
            "ladder",
            "val_ladder",
            "parameters",
            "options",
        )
        where = ("outputs", "flow_run", "host", "process")
        return {
            **{name: getattr(self, name) for name in names},
            "stages": results_json(self.results),
            **{name: getattr(self, name) for name in (*later, *where)},
        }

    def write(self, folder: Path) -> None:
        """Put `run.json` into `folder`, whole or not at all; that of an earlier run moves into the history first.

        It is noted in its store, which keeps what it is made of, also while it goes on: a training may take days.
        """
        _keep_earlier(folder, started=self.started)
        write_json(folder / RUN_FILE, self.to_json())
        note_kept(
            Store.open(self.store),
            folder=folder,
            manifests=[result.manifest for result in self.results.values()],
            time=self.finished or now(),
        )


def note_kept(store: Store, *, folder: Path, manifests: Sequence[str], time: str) -> None:
    """Note in the store what the run in `folder` keeps there: its own manifests, and those it can be compared with."""
    kept = {*manifests, *_compared_manifests(folder)}
    if kept:
        note_run(store, folder=folder, manifests=sorted(kept), time=time)


def _compared_manifests(folder: Path) -> set[str]:
    """The manifests of the last earlier runs of the name, so that the run can be compared with them for a while."""
    earlier = sorted((folder / HISTORY).glob("*.json"))[-_COMPARABLE:]
    return {str(one["manifest"]) for path in earlier for one in orjson.loads(path.read_bytes())["stages"]}


def _keep_earlier(folder: Path, *, started: str) -> None:
    try:
        earlier = orjson.loads((folder / RUN_FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return
    if earlier.get("started") in (None, started):
        return
    write_json(folder / HISTORY / f"{moment_id(earlier['started'])}.json", earlier)
    for old in sorted((folder / HISTORY).glob("*.json"))[:-_KEPT_RECORDS]:
        old.unlink()


def moment_id(moment: str) -> str:
    """A moment (ISO 8601) as letters and digits, in whose order moments follow each other: 20260101T103000Z."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def write_json(path: Path, value: JSON) -> None:
    """Write indented JSON so that a reader sees it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY), sync=False)


def read_run(folder: Path) -> dict[str, JSON]:
    """The content of a run's `run.json`.

    Raises:
        ValueError: there is none in `folder`, or it is broken.
    """
    path = folder / RUN_FILE
    try:
        return dict(orjson.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ValueError(
            f"run: expected {path}, got no such file; `tally run --name {folder.name} …` makes it"
        ) from error
    except orjson.JSONDecodeError as error:
        raise ValueError(f"run: expected JSON in {path}, got broken text ({error})") from error


def last_run(runs: Path) -> Path:
    """The folder of the run that wrote its `run.json` last.

    Raises:
        ValueError: there is no run yet.
    """
    found = sorted(runs.glob(f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise ValueError(f"runs: expected a run under {runs}/, got none; start one with `tally run` or `make demo`")
    return found[-1].parent
