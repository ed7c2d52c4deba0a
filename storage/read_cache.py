"""A local cache of remote artifacts, by digest: what was read once is not fetched again; the oldest make room.

Content is named by its digest, so that nothing in the cache can be out of date, and is compared with it when read.
Several processes share one folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from storage.digest import digest_bytes
from storage.files import make_folders, replace_file

FOLDER_VARIABLE, GIGABYTES_VARIABLE = "TALLY_CACHE", "TALLY_CACHE_GIGABYTES"
_DEFAULT_GIGABYTES = 20.0
# Making room goes on below the limit, so that not every file that comes in has to wait for it.
_LOW_WATER = 0.9


def cache_folder() -> Path:
    """The user's cache folder for Tally: $TALLY_CACHE, or ~/.cache/tally."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path("~/.cache/tally").expanduser())


class ReadCache:
    """Files named by their digests in a folder, `limit` bytes at most but for the files of a moment."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        """Use `folder`, which need not exist yet."""
        self._folder, self._limit = folder, limit
        # Bytes that may come in before the folder is looked at again: other processes add to it too.
        self._unseen = 0

    @staticmethod
    def of_environment() -> ReadCache:
        """The cache that the environment describes: $TALLY_CACHE_GIGABYTES (20), 0 for none.

        Raises:
            ValueError: the limit is no number.
        """
        text = os.environ.get(GIGABYTES_VARIABLE) or str(_DEFAULT_GIGABYTES)
        try:
            limit = round(float(text) * 2**30)
        except ValueError as error:
            raise ValueError(f"{GIGABYTES_VARIABLE}: expected a number of gigabytes, got {text!r}") from error
        return ReadCache(cache_folder() / "artifacts", limit=limit)

    def get(self, digest: str) -> bytes | None:
        """The bytes of that digest, or None. A hit counts as new."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if digest_bytes(data) != digest:
            path.unlink(missing_ok=True)
            return None
        try:
            os.utime(path)
        except FileNotFoundError:
            # Another process made room in this moment; the bytes are read.
            return data
        return data

    def put(self, digest: str, data: bytes) -> None:
        """Keep bytes, unless they are more than the whole cache may hold. Thread-safe."""
        if len(data) > self._limit:
            return
        path = self._path(digest)
        make_folders(path.parent, sync=False)
        replace_file(path, data, sync=False)
        self._unseen -= len(data)
        if self._unseen <= 0:
            self._make_room()

    def _make_room(self) -> None:
        files = sorted(self._files(), key=lambda pair: pair[0].st_mtime_ns)
        size = sum(state.st_size for state, _ in files)
        for state, path in files if size > self._limit else ():
            if size <= _LOW_WATER * self._limit:
                break
            path.unlink(missing_ok=True)
            size -= state.st_size
        self._unseen = min(self._limit - size, round((1 - _LOW_WATER) * self._limit))

    def _files(self) -> list[tuple[os.stat_result, Path]]:
        found = []
        for path in self._folder.glob("*/*"):
            # Another process may make room in this moment.
            with suppress(FileNotFoundError):
                found.append((path.stat(), path))
        return found

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
