"""Garbage collection as an operator sees it: what would go or has gone, by stage, and how much room that makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.table import Table

from flows.options import GcOptions
from flows.runs import RUN_FILE, note_kept, now, read_run
from storage.garbage import Garbage, find_garbage, sweep
from storage.store import Store
from tasks.context import EventSink, discard_event


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What can go or, where it was asked for, has gone: all of it but what somebody began to use meanwhile."""

    store: str
    garbage: tuple[Garbage, ...]

    @property
    def bytes(self) -> int:
        """How much room it takes."""
        return sum(one.bytes for one in self.garbage)

    def summary(self, *, deleted: bool) -> str:
        """One line: what happened, and what to do next."""
        if not self.garbage:
            return f"no garbage in {self.store}"
        what = f"{len(self.garbage)} folders, {self.bytes / 1e6:.1f} MB"
        return f"removed {what}" if deleted else f"{what} can go; --delete removes them"


def collect(options: GcOptions, *, events: EventSink = discard_event) -> Collection:
    """Find garbage, and remove it if the options say so; `events` hears of each folder, and may end it by raising."""
    store = Store.open(options.store)
    for folder, manifests in _runs_in(Path(options.runs), store=store):
        # A run of an older program may not be noted in the store yet.
        note_kept(store, folder=folder, manifests=manifests, time=now())
    found = find_garbage(store, older_than=options.older_than * 3600, now=time.time())
    if options.delete:
        found = sweep(store, found, before=_told(events, total=len(found)))
    return Collection(store=store.url, garbage=tuple(found))


def _told(events: EventSink, *, total: int) -> Callable[[Garbage], None]:
    """Tells how many folders have been looked at."""
    done = count()

    def tell(one: Garbage) -> None:
        events({"kind": "progress", "stage": "gc", "what": "folders", "done": next(done), "total": total})

    return tell


def _runs_in(runs: Path, *, store: Store) -> Iterator[tuple[Path, Sequence[str]]]:
    for path in sorted(runs.glob(f"*/{RUN_FILE}")):
        record = read_run(path.parent)
        if record["store"] == store.url:
            yield path.parent, [str(one["manifest"]) for one in record["stages"]]


def collection_table(found: Collection) -> Table:
    """What goes, a line for each stage and reason."""
    table = Table("what", "reason", "folders", "files", "MB")
    for name, reason, folders in by_stage(found):
        size = sum(one.bytes for one in folders) / 1e6
        table.add_row(name, reason, str(len(folders)), str(sum(one.files for one in folders)), f"{size:.1f}")
    return table


def by_stage(found: Collection) -> Iterator[tuple[str, str, list[Garbage]]]:
    """The garbage of each stage and reason, the largest first."""
    grouped: dict[tuple[str, str], list[Garbage]] = {}
    for one in found.garbage:
        grouped.setdefault((one.stage, one.reason), []).append(one)
    ranked = sorted(grouped.items(), key=lambda pair: -sum(one.bytes for one in pair[1]))
    yield from ((stage, reason, folders) for (stage, reason), folders in ranked)
