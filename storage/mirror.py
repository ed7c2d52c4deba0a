"""Copies of unfinished work in a remote store: where the machine is lost, another goes on from them.

A local folder (a training's checkpoints) is looked at from time to time, and files that changed are put into the store;
each was written in one step, so it is whole. A machine that starts with an empty folder first takes what is there.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Protocol, Self

_log = logging.getLogger("tally.mirror")


class MirrorStorage(Protocol):
    """What a mirror needs of a store."""

    def put_file(self, url: str, data: bytes) -> None:
        """Write a file, whole."""
        ...

    def list_files(self, url: str) -> list[str]:
        """Names of the files under a folder."""
        ...

    def read_url(self, url: str) -> bytes:
        """A file's bytes."""
        ...


class Mirror:
    """Keeps `<url>/<name>` like `folder/<name>` while it is entered."""

    def __init__(self, folder: Path, *, url: str, storage: MirrorStorage, every: float = 60.0) -> None:
        """`every`: seconds between two looks."""
        self._folder, self._url, self._storage, self._every = folder, url, storage, every
        self._copied: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def restore(self) -> list[str]:
        """Fill an empty folder with what the store has; returns the names of the files."""
        if self._folder.exists() and any(self._folder.iterdir()):
            return []
        names = self._storage.list_files(self._url)
        for name in names:
            data = self._storage.read_url(f"{self._url}/{name}")
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_bytes(data)
            self._copied[name] = self._state(self._folder / name)
        return names

    def copy(self) -> None:
        """Put the files that changed since the last time into the store."""
        for path in sorted(self._folder.iterdir()) if self._folder.exists() else ():
            try:
                state = self._state(path)
                if path.is_file() and not path.name.startswith(".") and self._copied.get(path.name) != state:
                    self._storage.put_file(f"{self._url}/{path.name}", path.read_bytes())
                    self._copied[path.name] = state
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
