"""Copies of unfinished work in a remote store: where the machine is lost, another goes on from them.

A local folder (a training's checkpoints) is looked at from time to time, and files that changed are put into the store;
each was written in one step, so it is whole. A machine that starts takes what is there first, unless what it has itself
was written later: where another machine went on in the meantime, its work counts.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

_log = logging.getLogger("tally.mirror")


class MirrorStorage(Protocol):
    """What a mirror needs of a store."""

    def put_file(self, url: str, data: bytes) -> None:
        """Write a file, whole."""
        ...

    def walk(self, url: str) -> Iterator[tuple[str, int, float]]:
        """Path, size and time of change of all files under a folder, at any depth."""
        ...

    def read_url(self, url: str) -> bytes:
        """A file's bytes."""
        ...


class Mirror:
    """Keeps `<url>/<path>` like `folder/<path>` while it is entered."""

    def __init__(self, folder: Path, *, url: str, storage: MirrorStorage, every: float = 60.0) -> None:
        """`every`: seconds between two looks."""
        self._folder, self._url, self._storage, self._every = folder, url, storage, every
        self._copied: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def restore(self) -> list[str]:
        """Put what the store has in the folder's place, all of it, where it is later than what is here.

        Returns the paths of the files; none where the folder stays as it is.
        """
        changed = {name: when for name, _, when in self._storage.walk(self._url)}
        if not changed or max(changed.values()) <= self._written():
            return []
        names = sorted(changed)
        coming = self._folder.with_name(f".{self._folder.name}")
        shutil.rmtree(coming, ignore_errors=True)
        for name in names:
            (coming / name).parent.mkdir(parents=True, exist_ok=True)
            (coming / name).write_bytes(self._storage.read_url(f"{self._url}/{name}"))
        # A part of it would look like a training that has only begun, and be copied over what the store has.
        shutil.rmtree(self._folder, ignore_errors=True)
        coming.replace(self._folder)
        self._copied = {name: self._state(self._folder / name) for name in names}
        return names

    def copy(self) -> None:
        """Put the files that changed since the last time into the store."""
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            try:
                state = self._state(path)
                if path.is_file() and not path.name.startswith(".") and self._copied.get(name) != state:
                    self._storage.put_file(f"{self._url}/{name}", path.read_bytes())
                    self._copied[name] = state
            except FileNotFoundError:
                # Replaced or removed in this moment: the next look sees what is there then.
                continue

    def __enter__(self) -> Self:
        """Start looking."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _written(self) -> float:
        """When a file of the folder was last written, in seconds since 1970; 0 where there is none."""
        return max((path.stat().st_mtime for path in self._folder.rglob("*") if path.is_file()), default=0.0)

    def _work(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.copy()
            except OSError as error:
                _log.warning("checkpoints could not be copied to the store: %s", error)

    @staticmethod
    def _state(path: Path) -> tuple[int, int]:
        found = path.stat()
        return found.st_size, found.st_mtime_ns
