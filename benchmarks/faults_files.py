"""The file operations of a piece of work under a folder: watched, refused one by one, or cut off by SIGKILL.

Every change of the file system by this process that goes through `os` (as all of the store's does) is an `Operation`.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What is refused with which error; SHORT writes half of what it was given, and then the disk is full.
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
SHORT = "short write"
_NAMES = ("open", "close", "write", "fsync", "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir")
_ALIKE = {"replace": "rename", "remove": "unlink"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change: create, write, sync, link, rename, unlink, mkdir or rmdir; `other`: the second path of a pair."""

    kind: str
    path: str
    other: str = ""
    data: bytes = b""


@dataclass(kw_only=True)
class Watch:
    """The operations under `root` up to now; `before(number, operation)` is called ahead of each and may raise.

    It may also return how many bytes a write takes at most.
    """

    root: str
    before: Callable[[int, Operation], int | None] = lambda number, operation: None
    log: list[Operation] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def tell(self, operation: Operation) -> int | None:
        """An operation is about to be done."""
        with self._lock:
            if operation.path != self.root and not operation.path.startswith(f"{self.root}/"):
                return None
            self.log.append(operation)
            return self.before(len(self.log), operation)

    def path(self, name: object, folder: int | None = None) -> str:
        """The absolute path of a name, in an opened folder where there is one."""
        text = os.fspath(name)  # type: ignore[call-overload]
        return os.path.join(self._paths.get(folder, "?") if folder is not None else Path.cwd(), text)  # noqa: PTH118

    def opened(self, descriptor: int, path: str) -> None:
        """A descriptor stands for a path from now on."""
        self._paths[descriptor] = path

    def path_of(self, descriptor: int) -> str:
        """What a descriptor stands for."""
        return self._paths.get(descriptor, "?")

    def closed(self, descriptor: int) -> None:
        """A descriptor stands for nothing any more."""
        self._paths.pop(descriptor, None)


@contextmanager
def watched(watch: Watch) -> Iterator[Watch]:
    """Within it, every operation under the watch's root goes through the watch."""
    real = {name: getattr(os, name) for name in _NAMES}
    made = _functions(watch, real)
    for name, function in made.items():
        setattr(os, name, function)
    try:
        yield watch
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _functions(watch: Watch, real: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    def opens(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: ANN401 - as os.open
        where = watch.path(path, dir_fd)
        if flags & os.O_CREAT:
            watch.tell(Operation(kind="create", path=where))
        descriptor = int(real["open"](path, flags, mode, dir_fd=dir_fd))
        watch.opened(descriptor, where)
        return descriptor

    def closes(descriptor: int) -> None:
        watch.closed(descriptor)
        real["close"](descriptor)

    def writes(descriptor: int, data: Any) -> int:  # noqa: ANN401 - as os.write
        most = watch.tell(Operation(kind="write", path=watch.path_of(descriptor), data=bytes(data)))
        return int(real["write"](descriptor, data if most is None else data[:most]))

    def syncs(descriptor: int) -> None:
        watch.tell(Operation(kind="sync", path=watch.path_of(descriptor)))
        real["fsync"](descriptor)

    def pair(name: str) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:  # noqa: ANN401 - as os.link
            kind = _ALIKE.get(name, name)
            watch.tell(Operation(kind=kind, path=watch.path(source), other=watch.path(target)))
            real[name](source, target, **options)

        return call

    def single(name: str) -> Callable[..., None]:
        def call(path: Any, *rest: Any, dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os.unlink
            watch.tell(Operation(kind=_ALIKE.get(name, name), path=watch.path(path, dir_fd)))
            real[name](path, *rest, dir_fd=dir_fd)

        return call

    pairs = {name: pair(name) for name in ("link", "rename", "replace")}
    singles = {name: single(name) for name in ("unlink", "remove", "mkdir", "rmdir")}
    return {"open": opens, "close": closes, "write": writes, "fsync": syncs, **pairs, **singles}


def operations_of(work: Callable[[], object], *, root: Path) -> list[Operation]:
    """The operations of a piece of work under `root`, which it does."""
    with watched(Watch(root=str(root))) as watch:
        work()
    return watch.log


def killed_at(work: Callable[[], object], *, root: Path, number: int) -> bool:
    """Do a piece of work in a forked process that kills itself before its operation `number` (from 1).

    Returns whether it came so far.
    """

    def before(reached: int, operation: Operation) -> None:
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        code = 1
        try:
            with watched(Watch(root=str(root), before=before)):
                work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed before it was killed"
    return False


@contextmanager
def refused_at(number: int, *, error: str, root: Path) -> Iterator[Watch]:
    """Within it operation `number` under `root` (from 1) fails with an error, or is a write cut short and then fails.

    All later ones work, as on a disk where somebody made room.
    """
    cut: list[str] = []

    def before(reached: int, operation: Operation) -> int | None:
        if error == SHORT and reached == number and operation.kind == "write":
            cut.append(operation.path)
            return len(operation.data) // 2
        full = error == SHORT and operation.kind == "write" and operation.path in cut
        if full or (error != SHORT and reached == number):
            code = errno.ENOSPC if full else ERRORS[error]
            cut.clear()
            # As the system tells it: calls on a descriptor don't name the file.
            named = () if operation.kind in ("write", "sync") else (operation.path,)
            raise OSError(code, os.strerror(code), *named)
        return None

    with watched(Watch(root=str(root), before=before)) as watch:
        yield watch
