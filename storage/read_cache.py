"""A local cache of remote artifacts, by digest: what was read once is not fetched again; the oldest make room.

Content is named by its digest, so that nothing in the cache can be out of date, and is compared with it when read.
Several processes share one folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from storage.digest import digest_bytes

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
        self._added = 0
        self._size: int | None = None

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
        """Keep bytes, unless they are more than the whole cache may hold."""
        if len(data) > self._limit:
            return
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{digest}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
        self._make_room(len(data))

    def _make_room(self, added: int) -> None:
        self._size = self._measured() if self._size is None else self._size + added
        if self._size <= self._limit:
            return
        # Other processes add and remove too: measure before anything goes.
        files = sorted(((path.stat(), path) for path in self._files()), key=lambda pair: pair[0].st_mtime_ns)
        self._size = sum(state.st_size for state, _ in files)
        for state, path in files:
            if self._size <= _LOW_WATER * self._limit:
                break
            path.unlink(missing_ok=True)
            self._size -= state.st_size

    def _measured(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob("*/*") if path.is_file()]

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
