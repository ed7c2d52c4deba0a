"""Local files: the one place that writes them. Nobody ever sees half a file under its name.

What must outlast a power cut is synced: a file's data before its name, then the folder that holds the name, and the
folders above that were made for it. Every change is one call of `os` (or of pathlib, which calls it) and nothing is
buffered: each single operation can be watched, refused or cut off from outside.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

_SCHEME = "file://"
_SYNCED_AT_ONCE = 16
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


def local_url(path: Path) -> str:
    """The URL of a local file. Its absolute path stands in it as it is: nothing is escaped, as in fsspec."""
    return f"{_SCHEME}{path.absolute()}"


def local_path(url: str) -> Path:
    """The local file at a `file://` URL (or a plain path)."""
    return Path(url.removeprefix(_SCHEME))


def replace_file(target: Path, data: bytes, *, sync: bool = True) -> None:
    """Write `data` beside `target` and move it into place: readers see the old file or the new one, never a part."""
    with _temporary_file(target, data, sync=sync) as temporary:
        temporary.replace(target)
    if sync:
        sync_path(target.parent)


def link_new_file(target: Path, data: bytes) -> None:
    """Write a new file, whole and durably. Raises FileExistsError where there is one already."""
    with _temporary_file(target, data, sync=True) as temporary:
        try:
            # A link, unlike a rename, fails when its name is taken.
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: two at the same moment could both succeed.
            if target.exists():
                raise FileExistsError(target) from error
            temporary.replace(target)
    sync_path(target.parent)


def make_folders(folder: Path, *, sync: bool) -> None:
    """Make a folder and those above it, where they are missing; with `sync` they outlast a power cut."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir()
        if sync:
            sync_path(one.parent)


def files_under(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path under `folder` and state of every file in it, at any depth; none where there is no such folder.

    What vanishes meanwhile is left out, and links to folders are not followed. Raises OSError where a folder can't be
    read: nobody must take its files for gone.
    """
    waiting = [(os.fspath(folder), "")]
    while waiting:
        path, name = waiting.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{name}{entry.name}/"))
                    continue
                with suppress(FileNotFoundError):
                    yield f"{name}{entry.name}", entry.stat()


@contextmanager
def _temporary_file(target: Path, data: bytes, *, sync: bool) -> Iterator[Path]:
    """A file beside `target` that holds `data`; it is gone afterwards, unless it was moved."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, data, sync=sync)
        yield temporary
    finally:
        # Where even this fails, what went wrong before is what to tell.
        with suppress(OSError):
            temporary.unlink()


def _write_new(path: Path, data: bytes, *, sync: bool) -> None:
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        left = memoryview(data)
        while left:
            # A write may take less than it was given: on a full disk, at 2 GiB, over a network.
            left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A file's descriptor. Errors of what is done with it name the file, which those of the system don't."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path, *, root: Path) -> None:
    """Make a folder durable: everything in it, its own name, and the names of the folders above it up to `root`."""
    above = [path for path in folder.parents if path.is_dir() and path.is_relative_to(root)]
    # A dot in front: a file that somebody is writing at this moment. It is theirs, and may be gone by now.
    files = (path for path in folder.rglob("*") if not path.name.startswith("."))
    inside = (*files, folder) if folder.exists() else ()
    # Side by side the file system does many at a time.
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as executor:
        deque(executor.map(sync_path, (*inside, *above)), maxlen=0)
    # The name of `root` itself; whoever may not read the folder above did not make it either.
    with suppress(PermissionError):
        sync_path(root.parent)


def sync_path(path: Path) -> None:
    """Make a file's data, or the names in a folder, outlast a power cut."""
    with _opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
