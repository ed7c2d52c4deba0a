"""One process at a time: a file lock on one machine, a lease on object storage, where no lock of the system reaches.

A lease is a numbered object that its holder renews; the next number is created only if it is free, in one step, which
decides between those who wait. A holder that died stops renewing: who has watched its object stand still for a lease's
length takes the next number. Nobody's clock is compared with another's.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

_log = logging.getLogger("tally.locks")


class LeaseStorage(Protocol):
    """What a lease needs of a store."""

    def create_file(self, url: str, data: bytes) -> bool:
        """Write a file unless there is one; whether it was written."""
        ...

    def put_file(self, url: str, data: bytes) -> None:
        """Write a file, whole."""
        ...

    def list_files(self, url: str) -> list[str]:
        """Names of the files under a folder."""
        ...

    def read_url(self, url: str) -> bytes:
        """A file's bytes; raises RuntimeError where it is gone."""
        ...

    def remove_file(self, url: str) -> None:
        """Remove a file, if it is there."""
        ...


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a local file; a dead owner's lock is free (flock).

    Without `wait` it gives False, and holds nothing, where another has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@dataclass(kw_only=True)
class Lease:
    """The lease of one folder of a store. `length`: seconds without a sign of life after which it is another's."""

    storage: LeaseStorage
    folder: str
    length: float = 60.0
    poll: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    _owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _seen: tuple[str, bytes] = ("", b"")
    _since: float = 0.0

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[bool]:
        """Wait until the lease is free, hold and renew it, give it back at the end.

        Without `wait` it gives False, and holds nothing, where the lease is another's.
        """
        url = self._taken(wait=wait)
        if url is None:
            yield False
            return
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(url, stop), daemon=True)
        renewing.start()
        try:
            yield True
        finally:
            stop.set()
            renewing.join()
            self._put(url, held=False, problem="a lease could not be given back and has to run out")

    def _taken(self, *, wait: bool = True) -> str | None:
        while True:
            names = self.storage.list_files(self.folder)
            if not names or self._is_free(names[-1]):
                number = int(names[-1].split(".")[0]) + 1 if names else 1
                own = f"{number:09d}.json"
                if self._created(own):
                    for name in names:
                        self.storage.remove_file(f"{self.folder}/{name}")
                    return f"{self.folder}/{own}"
            elif wait:
                self.sleep(self.poll)
            else:
                return None

    def _created(self, own: str) -> bool:
        """Take a number; not where it is old: others went on, and swept it away, since the list was read."""
        url = f"{self.folder}/{own}"
        if not self.storage.create_file(url, self._body(held=True)):
            return False
        newest = self.storage.list_files(self.folder)[-1]
        if newest != own:
            self.storage.remove_file(url)
        return newest == own

    def _is_free(self, name: str) -> bool:
        """Whether the newest holder gave the lease back, or has stood still for too long."""
        try:
            body = self.storage.read_url(f"{self.folder}/{name}")
        except RuntimeError:
            # Its successor has swept it away: look again.
            return False
        if self._seen != (name, body):
            self._seen, self._since = (name, body), self.clock()
        return not orjson.loads(body)["held"] or self.clock() - self._since > self.length

    def _renew(self, url: str, stop: threading.Event) -> None:
        while not stop.wait(self.length / 4):
            # If it stays so, another takes over and computes the same; publishing decides which of both counts.
            self._put(url, held=True, problem="a lease could not be renewed")

    def _put(self, url: str, *, held: bool, problem: str) -> None:
        """Write the holder's object. That it fails must not hide how the work ended."""
        try:
            self.storage.put_file(url, self._body(held=held))
        except OSError as error:
            _log.warning("%s: %s", problem, error)

    def _body(self, *, held: bool) -> bytes:
        holder = {"owner": self._owner, "host": socket.gethostname(), "process": os.getpid()}
        return orjson.dumps({"held": held, "renewed": time.time(), **holder})
