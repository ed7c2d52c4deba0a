"""What changes a store, killed, refused or without power at every single file operation; then looked at and done again.

The works are: a first commit, a commit over a sound result (a refresh), one over what a killed run left, a record, the
note of a run, setting damage aside, and a garbage collection.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults_files import ERRORS, SHORT, killed_at, operations_of, refused_at
from benchmarks.faults_power import crash_states, read_tree, write_tree
from flows.refusals import trouble
from storage.files import local_path
from storage.garbage import find_garbage, sweep
from storage.journal import append_record, read_records
from storage.manifest import ManifestRow
from storage.roots import kept_runs, note_run
from storage.store import Store
from storage.verify import verify

STAGE, KEY, OTHER = "stage", "key", "other"
_FILES = {"a.bin": b"a" * 100, "sub/b.bin": b"b" * 300}


class UnsoundError(AssertionError):
    """A store after a fault is not as it should be."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A change of a store: what is there before, what is done, and what must be true however far it came.

    `check(store, finished)` raises UnsoundError; `again` does the work once more, after which it must be finished.
    """

    name: str
    prepare: Callable[[Store], object]
    work: Callable[[Store], object]
    check: Callable[[Store, bool], None]


def publish(store: Store, *, key: str = KEY) -> str:
    """Publish two files and a row without one; returns the content digest."""
    publication = store.begin(STAGE, key=key)
    for path, data in _FILES.items():
        publication.put(data, path=path, row=ManifestRow(item_id=path))
    publication.add(ManifestRow(item_id="none", status="quarantined", reason="a test"))
    return publication.commit(metadata={"inputs": {}}).content_digest


def _half(store: Store) -> None:
    store.begin(STAGE, key=KEY).put(b"left", path="left.bin", row=ManifestRow(item_id="left"))


def _require(true: object, what: str) -> None:
    if not true:
        raise UnsoundError(what)


def _check_commit(store: Store, finished: bool) -> None:
    """All or nothing: no manifest, or a sound one whose every file reads as it was written."""
    found = store.find(STAGE, key=KEY)
    _require(found is not None or not finished, "what was committed is gone")
    if found is not None:
        rows = {row.item_id: store.read(row) for row in found.ok}
        _require(rows == _FILES and len(found.rows) == 3, f"a result of other files: {sorted(rows)}")
    _require(not verify(store).damage, f"damage: {verify(store).damage}")


def _append(store: Store) -> None:
    append_record(store, "log", body=lambda number: {"number": number})


def _check_record(store: Store, finished: bool) -> None:
    numbers = [one["number"] for one in read_records(store, "log")]
    _require(numbers in ([1], [1, 2], [1, 2, 3]) and (not finished or len(numbers) > 1), f"records {numbers}")


def _note(store: Store, *, manifests: tuple[str, ...]) -> None:
    note_run(store, folder=local_path(store.url), manifests=manifests, time="t")


def _check_note(store: Store, finished: bool) -> None:
    noted = [run.manifests for run in kept_runs(store)]
    _require(noted in ([("a",)], [("b", "c")]) and (not finished or noted == [("b", "c")]), f"notes {noted}")


def _damage(store: Store) -> None:
    publish(store)
    local_path(f"{store.folder_url(STAGE, key=KEY)}/a.bin").write_bytes(b"A" * 100)


def _set_aside(store: Store) -> None:
    store.quarantine(f"{store.folder_url(STAGE, key=KEY)}/a.bin", problem="a test")


def _check_aside(store: Store, finished: bool) -> None:
    damage, there = verify(store).damage, store.exists(store.manifest_url(STAGE, key=KEY))
    _require(bool(damage) == there and not (finished and there), f"damage {damage}, manifest there: {there}")


def _collect(store: Store) -> None:
    sweep(store, find_garbage(store, older_than=0.0, now=float("inf")))


def _two_results(store: Store) -> None:
    publish(store)
    publish(store, key=OTHER)
    _note(store, manifests=(store.manifest_url(STAGE, key=OTHER),))


def _check_collected(store: Store, finished: bool) -> None:
    kept = store.find(STAGE, key=OTHER)
    _require(kept is not None and [store.read(row) for row in kept.ok], "what a run needs is gone")
    _require(not (finished and store.find(STAGE, key=KEY)), "garbage is still there")
    _require(not verify(store).damage, f"damage: {verify(store).damage}")


WORKS = (
    Work(name="first commit", prepare=lambda store: None, work=publish, check=_check_commit),
    Work(name="commit after a kill", prepare=_half, work=publish, check=_check_commit),
    Work(name="refresh", prepare=publish, work=publish, check=_check_commit),
    Work(name="record", prepare=_append, work=_append, check=_check_record),
    Work(
        name="note of a run",
        prepare=lambda store: _note(store, manifests=("a",)),
        work=lambda store: _note(store, manifests=("b", "c")),
        check=_check_note,
    ),
    Work(name="quarantine", prepare=_damage, work=_set_aside, check=_check_aside),
    Work(name="collection", prepare=_two_results, work=_collect, check=_check_collected),
)


@contextmanager
def _prepared(work: Work, *, folder: Path) -> Iterator[Store]:
    """A store in a folder of its own with what is there before the work; gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = Path(made) / "store"
        root.mkdir()
        store = Store.open(str(root))
        work.prepare(store)
        yield store


def _again(work: Work, store: Store) -> None:
    """Done once more without a fault, the work is finished, and nothing half is in its way."""
    work.work(store)
    work.check(store, True)


def kills(folder: Path, *, works: tuple[Work, ...] = WORKS) -> dict[str, Any]:
    """SIGKILL before every file operation of every work."""
    counts = {}
    for work in works:
        number, killed = 1, True
        while killed:
            with _prepared(work, folder=folder) as store:
                killed = killed_at(partial(work.work, store), root=local_path(store.url), number=number)
                _checked(work, store, finished=not killed, what=f"killed before operation {number}")
            number += 1
        counts[work.name] = number - 2

    return {**{f"{name}, operations": count for name, count in counts.items()}, "kills": sum(counts.values())}


def _checked(work: Work, store: Store, *, finished: bool, what: str) -> None:
    try:
        work.check(store, finished)
        _again(work, store)
    except Exception as error:
        raise UnsoundError(f"{work.name}, {what}: {error!r}") from error


def refusals(
    folder: Path, *, works: tuple[Work, ...] = WORKS, errors: tuple[str, ...] = (*ERRORS, SHORT)
) -> dict[str, Any]:
    """Every file operation of every work refused with each error, fsync among them; writes also cut short.

    The work must raise an OSError that names a file, or do without; afterwards the store is sound and the work can be
    done again.
    """
    found = {"refused": 0, "told": 0, "done without": 0}
    for work in works:
        with _prepared(work, folder=folder) as store:
            count = len(operations_of(partial(work.work, store), root=local_path(store.url)))
        for error in errors:
            for number in range(1, count + 1):
                with _prepared(work, folder=folder) as store:
                    told = _refused(work, store, number=number, error=error)
                found["refused"] += 1
                found["told" if told else "done without"] += 1
    return found


def _refused(work: Work, store: Store, *, number: int, error: str) -> bool:
    """Whether the work told of the fault; raises UnsoundError where it told it badly or left something half."""
    what, told = f"operation {number} refused with {error}", False
    try:
        with refused_at(number, error=error, root=local_path(store.url)):
            work.work(store)
    except OSError as raised:
        told = True
        if str(local_path(store.url)) not in trouble(raised):
            raise UnsoundError(f"{work.name}, {what}: {trouble(raised)!r} names no file") from raised
    except Exception as raised:
        raise UnsoundError(f"{work.name}, {what}: raised {raised!r}") from raised
    _checked(work, store, finished=not told, what=what)
    return told


def power_cuts(folder: Path, *, works: tuple[Work, ...] = WORKS, share: float = 1.0) -> dict[str, Any]:
    """Every state that a disk may hold after a power cut in a work (`benchmarks.faults_power`), or a share of them."""
    states = 0
    for work in works:
        with _prepared(work, folder=folder) as store:
            root = local_path(store.url)
            start = read_tree(root)
            log = operations_of(partial(work.work, store), root=root)
            legal = list(crash_states(start, log))
            for done, tree in legal[:: max(1, round(1 / share))]:
                shutil.rmtree(root)
                root.mkdir()
                write_tree(tree)
                cut = f"power cut after operation {done} of {len(log)}"
                _checked(work, store, finished=done == len(log), what=cut)
                states += 1
    return {"states": states}
