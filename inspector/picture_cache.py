"""Pictures made for pages, kept on disk: each is made once, whatever the number of visitors and restarts.

Names are digests of what the picture shows; nothing of a request becomes part of a path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from storage.digest import JSON, digest_json
from storage.files import replace_file

_SWEEP_EVERY = 2000
_log = logging.getLogger("tally.inspector")


class PictureCache:
    """A folder of pictures with a limit on its size; the ones made first go first."""

    def __init__(self, folder: Path, *, most_bytes: int = 2_000_000_000) -> None:
        """Keep pictures in `folder`, which is made when the first one is."""
        self._folder, self._most_bytes = folder, most_bytes
        self._made, self._lock = 0, threading.Lock()

    def get(self, identity: JSON, make: Callable[[], bytes]) -> bytes:
        """The picture that `identity` stands for, made by `make` if it is not there."""
        name = digest_json(identity)
        path = self._folder / name[:2] / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            data = make()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data, sync=False)
        except OSError as error:
            # The disk is full, or not ours to write: what a page shows does not depend on it.
            _log.warning("a picture is not kept: %s", error)
            return data
        with self._lock:
            self._made += 1
            due = self._made % _SWEEP_EVERY == 0
        if due:
            self.sweep()
        return data

    def sweep(self) -> None:
        """Remove the oldest pictures until the rest is within the limit."""
        states = [(path, path.stat()) for path in self._folder.glob("*/*") if path.is_file()]
        total = sum(state.st_size for _, state in states)
        for path, state in sorted(states, key=lambda one: one[1].st_mtime):
            if total <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= state.st_size
