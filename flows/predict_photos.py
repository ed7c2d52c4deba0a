"""`tally predict`: photos of a file, a folder, a glob or a watched folder, to annotated photos and shopping lists.

A photo that can't be read is reported and skipped; the others go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from threading import Event

from flows.serving import Served
from storage.files import replace_file
from storage.formats.dataset import pictures_in
from tasks.context import EventSink
from tasks.list_files import decode_json, list_files
from tasks.list_reader import ListReader
from tasks.photo_lists import PhotoFile, PhotoLister, PhotoResult
from tasks.shopping_list import NEEDS_REVIEW, ShoppingList

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_WRITING_SHARE = 0.1
State = tuple[int, int]


@dataclass(kw_only=True)
class PredictedPhotos:
    """The lists by photo, why photos were skipped, and how many were read in how many seconds (from disk to list)."""

    lists: dict[str, ShoppingList] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    read: int = 0
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """What to say at the end: lists, how many want a review, what they come to, throughput."""
        review = sum(one.state == NEEDS_REVIEW for one in self.lists.values())
        totals = [one.total for one in self.lists.values() if one.total is not None]
        parts = [f"{len(self.lists)} shopping lists, {review} need a review"]
        parts += [f"{len(totals)} receipts of {sum(totals):.2f} altogether"] if totals else []
        parts += [f"{len(self.skipped)} photos skipped"] if self.skipped else []
        parts += [f"{self.read / self.seconds:.1f} photos/s"] if self.read else []
        return ", ".join(parts)


def find_photos(photos: str) -> list[PhotoFile]:
    """The photo, the photos of the folder, or the files that match the glob ("**" goes into folders), by their names.

    Photos of several folders are called by their paths below the folder that holds them all.

    Raises:
        ValueError: there is nothing of that name.
    """
    path = Path(photos).expanduser()
    if path.is_dir():
        found = pictures_in(path)
    elif path.is_file():
        found = [path]
    else:
        # A glob may be absolute, which Path.glob refuses: it is taken relative to its root.
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        found = sorted(one for one in matches if one.is_file())
    if not found:
        raise ValueError(f"photos: expected a photo, a folder of photos or a glob, got nothing for {photos!r}")
    top = os.path.commonpath([one.parent for one in found])
    return [PhotoFile(path=one, name=Path(os.path.relpath(one, top)).as_posix()) for one in found]


def predict_photos(files: list[PhotoFile], *, lister: PhotoLister, out: Path, events: EventSink) -> PredictedPhotos:
    """Read all photos; write `out`/photos/ and `out`/shopping_lists.csv, .json and .parquet."""
    done = PredictedPhotos()
    events({"kind": "start", "stage": "predict", "cached": False})
    _read(files, lister=lister, out=out, done=done, events=events, total=len(files))
    _write_lists(done, out=out)
    return done


def watch_photos(
    folder: Path,
    *,
    refreshed: Callable[[], PhotoLister],
    out: Path,
    events: EventSink,
    stop: Event,
    every: float = 1.0,
) -> PredictedPhotos:
    """Read the photos of `folder` and those that come, until `stop` is set; those that `out` has lists of are left out.

    Args:
        refreshed: gives the lister for the next round, so that a new model takes over between two rounds.
        every: seconds between two looks. A photo is read once it has stayed the same from one look to the next.

    Raises:
        ValueError: there is no such folder, or `out` holds lists of another form.
    """
    if not folder.is_dir():
        raise ValueError(f"photos: expected a folder to watch, got {folder}")
    known = out / "shopping_lists.json"
    lists = decode_json(known.read_bytes()) if known.is_file() else []
    done = PredictedPhotos(lists={one.photo: one for one in lists})
    watched = _Watched(folder=folder, known=set(done.lists))
    events({"kind": "start", "stage": "predict", "cached": False})
    written, due = 0, 0.0
    while not stop.is_set():
        files = watched.settled()
        if files:
            _read(files, lister=refreshed(), out=out, done=done, events=events, total=None, stop=stop)
        if done.read > written and time.monotonic() >= due:
            started = time.monotonic()
            _write_lists(done, out=out)
            # All lists are written anew each time: the more there are, the more seldom.
            written, due = done.read, time.monotonic() + (time.monotonic() - started) / _WRITING_SHARE
        if not files:
            stop.wait(every)
    _write_lists(done, out=out)
    return done


def refreshing(served: Served, *, lister_of: Callable[[ListReader], PhotoLister]) -> Callable[[], PhotoLister]:
    """What gives the lister of the model in service, looking for a newer one each time.

    Raises (when called):
        ValueError: there is no model, and never was.
    """
    made: tuple[ListReader, PhotoLister] | None = None

    def refreshed() -> PhotoLister:
        nonlocal made
        served.refresh()
        if served.reader is None:
            raise ValueError(served.problem)
        if made is None or made[0] is not served.reader:
            made = served.reader, lister_of(served.reader)
        return made[1]

    return refreshed


@dataclass(kw_only=True)
class _Watched:
    """A folder that photos come into; photos in `known` have been read before. One that was replaced is a new one."""

    folder: Path
    known: set[str]
    _seen: dict[Path, State] = field(default_factory=dict)
    _taken: dict[Path, State] = field(default_factory=dict)

    def settled(self) -> list[PhotoFile]:
        """The photos that have come or were replaced, and have stayed the same since the last look; each once."""
        now = {path: state for path in pictures_in(self.folder) if (state := _state(path)) is not None}
        before = {path: state for path, state in now.items() if path.name in self.known}
        self.known -= {path.name for path in before}
        taken = {path: state for path, state in self._taken.items() if path in now} | before
        new = [path for path, state in now.items() if state == self._seen.get(path) and state != taken.get(path)]
        self._seen, self._taken = now, taken | {path: now[path] for path in new}
        return [PhotoFile(path=path, name=path.name) for path in new]


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        # It was taken away between listing and looking.
        return None
    return found.st_size, found.st_mtime_ns


def _read(
    files: list[PhotoFile],
    *,
    lister: PhotoLister,
    out: Path,
    done: PredictedPhotos,
    events: EventSink,
    total: int | None,
    stop: Event | None = None,
) -> None:
    started = time.perf_counter()
    wanted = files if stop is None else takewhile(lambda _: not stop.is_set(), files)
    for result in lister(wanted):
        _take(result, done=done, out=out, events=events)
        events({"kind": "progress", "stage": "predict", "what": "photos", "done": done.read, "total": total})
    done.seconds += time.perf_counter() - started


def _take(result: PhotoResult, *, done: PredictedPhotos, out: Path, events: EventSink) -> None:
    name = result.file.name
    done.read += 1
    if result.found is None:
        done.skipped[name] = result.problem
        events({"kind": "log", "stage": "predict", "message": f"skipped {name}: {result.problem}"})
        return
    done.lists[name] = result.found
    if result.drawn:
        # Two photos may differ in their suffix alone: what is no JPEG keeps its own before the new one.
        drawn = name if name.lower().endswith(_JPEG_SUFFIXES) else f"{name}.jpg"
        _write(out / "photos" / drawn, result.drawn)


def _write_lists(done: PredictedPhotos, *, out: Path) -> None:
    for name, data in list_files(list(done.lists.values())).items():
        _write(out / name, data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data, sync=False)
