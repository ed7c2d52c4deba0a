"""The artifact store: `artifacts/<stage>/<key>/…` under a URL, published by its manifest, which is written last.

A folder without `manifest.parquet` is garbage that a later run of the same key sweeps away; a reader never sees it.
Local files are fsynced before the manifest is moved into place; on object storage the manifest's put, which fails where
there is one already, is the commit. Remote artifacts that were read once stay in a local cache. What turns out to be
damaged is moved to `quarantine/<stage>/<key>/`, and its stage runs again.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import orjson
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from storage.digest import JSON, digest_bytes
from storage.files import (
    files_under,
    link_new_file,
    local_path,
    local_url,
    make_folders,
    replace_file,
    sync_path,
    sync_tree,
)
from storage.locks import Lease, file_lock
from storage.manifest import Manifest, ManifestRow, columns_of, decode_manifest, encode_manifest
from storage.mirror import Mirror
from storage.read_cache import ReadCache, cache_folder
from storage.service import answering

MANIFEST_NAME, USED_NAME = "manifest.parquet", ".used"
QUARANTINE = "quarantine"
# Objects of twice this size and more are uploaded in parts of it, several at once.
_PART_BYTES = 16 * 2**20
_ATTEMPTS = 8
# Seconds without an answer after which a request counts as failed.
_PATIENCE = {"connect_timeout": 20, "read_timeout": 60}


class DamagedArtifactError(RuntimeError):
    """A stored file is missing or its bytes are not those that were written; `url` is where it lies."""

    def __init__(self, url: str, *, problem: str) -> None:
        """Say what is wrong with the file at `url`."""
        super().__init__(f"{url}: {problem}; run its stage again")
        self.url, self.problem = url, problem


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """Size in bytes, and when it was changed in seconds since 1970."""

    size: int
    changed: float


def _file_of(info: Mapping[str, Any]) -> _File:
    # Local files have `mtime`, S3's objects `LastModified`; other file systems tell neither.
    changed = info.get("mtime") or info.get("LastModified") or 0.0
    return _File(size=int(info["size"]), changed=changed.timestamp() if isinstance(changed, datetime) else changed)


class _Own(NamedTuple):
    """What a row says of a file in its manifest's own folder."""

    item_id: str
    path: str
    bytes: int
    digest: str


class Store:
    """Reads and publishes artifacts under one URL (`file:///…`, `s3://…`, or a plain local path)."""

    def __init__(self, url: str) -> None:
        """Open the store at `url`; nothing is created before the first write."""
        self.url = _absolute_url(url)
        self._fs, self._root = _file_system(self.url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache = None if self._local else ReadCache.of_environment()

    @staticmethod
    def open(url: str) -> Store:
        """The store at `url`."""
        return Store(url)

    @staticmethod
    def open_existing(url: str) -> Store:
        """The store at `url`, in which something lies. Raises ValueError where nothing does: it may be misspelt."""
        store = Store(url)
        if not store.list_folders(store.url):
            raise ValueError(f"store: expected a store, got {store.url}, which is empty or does not exist")
        return store

    def folder_url(self, stage: str, *, key: str) -> str:
        """Where the artifacts of a stage key lie."""
        return f"{self.url}/artifacts/{stage}/{key}"

    def manifest_url(self, stage: str, *, key: str) -> str:
        """Where the manifest of a stage key lies, or will lie."""
        return f"{self.folder_url(stage, key=key)}/{MANIFEST_NAME}"

    def find(self, stage: str, *, key: str) -> Manifest | None:
        """The sound result of a stage key, or None.

        Sound: the manifest is there and whole, and so is each of its own files. A file that was written before the
        manifest, as it should be, is compared by its size; one that changed afterwards by its digest.
        """
        url = self.manifest_url(stage, key=key)
        try:
            manifest = self.load(url)
        except (FileNotFoundError, ValueError):
            return None
        return None if self.damage(manifest) else manifest

    def take(self, stage: str, *, key: str) -> Manifest | None:
        """What `find` gives, marked as in use: garbage collection spares what was marked a short time ago.

        The mark comes first and the manifest is looked for again: either it is still there, and whoever would collect
        it sees the mark, or it is gone, and this is None.
        """
        found = self.find(stage, key=key)
        if found is None:
            return None
        try:
            self.put_file(f"{self.folder_url(stage, key=key)}/{USED_NAME}", b"", sync=False)
        except OSError as error:
            # A store that can't be written to is not collected from here either.
            if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
                raise
        return found if self.exists(found.url) else None

    def damage(self, manifest: Manifest) -> str:
        """What is wrong with the files in the manifest's own folder; empty when nothing is."""
        damaged = self.damaged(manifest)
        return _damage_told(damaged, rows=len(manifest.rows)) if damaged else ""

    def load(self, url: str) -> Manifest:
        """The manifest at `url`. Raises ValueError when it is broken, FileNotFoundError when there is none."""
        return decode_manifest(self.read_manifest(url), url=url)

    def read_manifest(self, url: str) -> bytes:
        """The file of the manifest at `url`, undecoded. Raises FileNotFoundError when there is none."""
        return bytes(self._fs.cat_file(self._path(url)))

    def damaged(self, manifest: Manifest) -> list[str]:
        """The item_ids whose file in the manifest's own folder is absent or not what was written; see `find`."""
        folder = manifest.url.rsplit("/", 1)[0]
        files = dict(self._walk(folder))
        published = files.get(MANIFEST_NAME, _File(size=0, changed=0.0)).changed
        wrong, later = list[_Own](), list[_Own]()
        for one in (_Own(*values) for values in columns_of(manifest.rows, *_Own._fields)):
            if not one.path or "://" in one.path:
                continue
            file = files.get(one.path)
            if file is None or file.size != one.bytes:
                wrong.append(one)
            elif file.changed > published:
                later.append(one)
        changed = [one for one in later if digest_bytes(self.read_url(f"{folder}/{one.path}")) != one.digest]
        if later and not changed and self._local:
            # A copied store: everything is right, and need not be read again the next time, if that can be noted.
            with suppress(OSError):
                os.utime(self._path(manifest.url))
        return [one.item_id for one in (*wrong, *changed)]

    def quarantine(self, url: str, *, problem: str) -> bool:
        """Set a damaged file at `url` aside, and the manifest that lists it, so that its stage runs again.

        Returns whether it was an artifact of this store; others (a data set's photos) can't be made again.
        """
        root = f"{self.url}/artifacts/"
        if not url.startswith(root):
            return False
        stage, key, _ = url.removeprefix(root).split("/", 2)
        self._set_aside(stage, key=key, urls=[url], problem=f"{url}: {problem}")
        return True

    def _set_aside(self, stage: str, *, key: str, urls: Iterable[str], problem: str) -> None:
        """Move the manifest of a stage key and some of its files into quarantine, and say why there."""
        manifest, aside = self.manifest_url(stage, key=key), f"{self.url}/{QUARANTINE}/{stage}/{key}"
        for url in (manifest, *(one for one in urls if one != manifest)):
            self._move(url, f"{aside}/{url.removeprefix(self.folder_url(stage, key=key) + '/')}")
        reason = {"url": manifest, "problem": problem, "time": time.time()}
        self.put_file(f"{aside}/reason.json", orjson.dumps(reason, option=orjson.OPT_INDENT_2))

    def quarantine_unsound(self, stage: str, *, key: str) -> str:
        """Set aside what is damaged under a stage key; returns what was wrong with it, empty where nothing was."""
        url = self.manifest_url(stage, key=key)
        try:
            manifest = self.load(url)
        except FileNotFoundError:
            return ""
        except ValueError as error:
            self.quarantine(url, problem=str(error))
            return str(error)
        damaged = self.damaged(manifest)
        if not damaged:
            return ""
        problem, paths = (
            _damage_told(damaged, rows=len(manifest.rows)),
            dict(columns_of(manifest.rows, "item_id", "path")),
        )
        files = (f"{self.folder_url(stage, key=key)}/{paths[item_id]}" for item_id in damaged)
        self._set_aside(stage, key=key, urls=files, problem=problem)
        return f"{url}: {problem}"

    def _move(self, url: str, target: str) -> None:
        """Move a file, where there is one."""
        if not self.exists(url):
            return
        if self._local:
            make_folders(local_path(target).parent, sync=True)
            local_path(url).replace(local_path(target))
            sync_path(local_path(url).parent)
        else:
            self._fs.mv(self._path(url), self._path(target))

    def verify(self, manifest: Manifest) -> list[str]:
        """The item_ids whose file is absent or whose bytes differ from their digest (reads everything)."""
        damaged = []
        for row in manifest.rows:
            try:
                if row.path:
                    self.read(row)
            except DamagedArtifactError:
                damaged.append(row.item_id)
        return damaged

    def read(self, row: ManifestRow) -> bytes:
        """The bytes of a loaded row's file, compared with its digest.

        Raises:
            DamagedArtifactError: the file is missing or has changed; running its stage again remakes it.
        """
        if not row.url:
            raise ValueError(f"{row.item_id}: expected a row with a file, got status {row.status!r} ({row.reason})")
        cache = None if self._cache is None or row.url.startswith("file:") else self._cache
        cached = cache.get(row.digest) if cache else None
        if cached is not None:
            return cached
        data = self.read_url(row.url)
        if digest_bytes(data) != row.digest:
            raise DamagedArtifactError(row.url, problem=f"its bytes are not those of {row.item_id}")
        if cache:
            cache.put(row.digest, data)
        return data

    def read_url(self, url: str) -> bytes:
        """The bytes at any URL. Raises DamagedArtifactError when there is nothing."""
        fs, path = _file_system(url)
        try:
            return bytes(fs.cat_file(path))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DamagedArtifactError(url, problem="the file is missing") from error

    def open_parquet(self, url: str, *, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """The Parquet file at `url`, opened; `footer` saves reading it again. Raises FileNotFoundError without one."""
        path = self._path(url)
        if self._local:
            return pq.ParquetFile(path, metadata=footer, memory_map=True, page_checksum_verification=True)
        file = self._fs.open(path, "rb")
        return pq.ParquetFile(file, metadata=footer, pre_buffer=True, page_checksum_verification=True)

    def exists(self, url: str) -> bool:
        """Whether there is a file at `url`."""
        return bool(self._fs.exists(self._path(url)))

    def version_of(self, url: str) -> str:
        """Changes when the file at `url` does: its size and time. Raises FileNotFoundError where there is none."""
        found = _file_of(self._fs.info(self._path(url)))
        return f"{found.size}-{found.changed}"

    def holds(self, url: str) -> bool:
        """Whether `url` lies inside this store, links followed."""
        if not self._local:
            return url.startswith(f"{self.url}/") and "/../" not in url
        return Path(self._path(url)).resolve().is_relative_to(Path(self._root).resolve())

    def begin(self, stage: str, *, key: str) -> Publication:
        """Start publishing a stage key: whatever lies there is swept away first, the manifest before its files."""
        self.withdraw(stage, key=key)
        self.remove_folder(self.folder_url(stage, key=key))
        return Publication(self, stage=stage, key=key)

    def withdraw(self, stage: str, *, key: str) -> None:
        """Take a manifest away, durably: no power cut brings it back beside files that are gone or others."""
        url = self.manifest_url(stage, key=key)
        if self.exists(url):
            self.remove_file(url)
            if self._local:
                sync_path(local_path(url).parent)

    def scratch(self, stage: str, *, key: str) -> Path:
        """A local folder for unfinished work of a stage key; it outlives a killed run."""
        root = Path(self._root) if self._local else cache_folder()
        folder = root / "scratch" / stage / key
        make_folders(folder, sync=False)
        return folder

    def clear_scratch(self, stage: str, *, key: str) -> None:
        """Remove the unfinished work of a stage key, here and where it was copied to."""
        shutil.rmtree(self.scratch(stage, key=key), ignore_errors=True)
        if not self._local:
            self.remove_folder(self._mirror_url(stage, key))

    def lock(self, stage: str, *, key: str, wait: bool = True) -> AbstractContextManager[bool]:
        """One process at a time computes a stage key: the others wait. A dead owner's lock becomes free.

        Without `wait` it gives False, and holds nothing, where the lock is another's.
        """
        if self._local:
            return file_lock(self.scratch("locks", key=stage) / f"{key}.lock", wait=wait)
        return Lease(storage=self, folder=f"{self.url}/locks/{stage}/{key}").held(wait=wait)

    def mirrored(self, stage: str, *, key: str, folder: str) -> AbstractContextManager[object]:
        """Keep copies of a folder of a key's scratch in a remote store, and take up those that are there.

        A local store needs none: its scratch lies beside it.
        """
        if self._local:
            return nullcontext()
        mirror = Mirror(self.scratch(stage, key=key) / folder, url=self._mirror_url(stage, key, folder), storage=self)
        mirror.restore()
        return mirror

    def _mirror_url(self, stage: str, key: str, folder: str = "") -> str:
        return f"{self.url}/scratch/{stage}/{key}/{folder}".rstrip("/")

    def put_file(self, url: str, data: bytes, *, sync: bool = True) -> None:
        """Write a file so that a reader sees it whole or not at all."""
        path = self._path(url)
        if not self._local:
            self._fs.pipe_file(path, data, chunksize=_PART_BYTES)
            return
        target = Path(path)
        make_folders(target.parent, sync=sync)
        replace_file(target, data, sync=sync)

    def create_file(self, url: str, data: bytes) -> bool:
        """Write a file if there is none at `url` yet, whole and in one step; returns whether it was written."""
        path = self._path(url)
        try:
            if self._local:
                make_folders(Path(path).parent, sync=True)
                link_new_file(Path(path), data)
            else:
                self._fs.pipe_file(path, data, mode="create", chunksize=_PART_BYTES)
        except FileExistsError:
            return False
        return True

    def remove_file(self, url: str) -> None:
        """Remove the file at `url`, where there is one."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(url))

    def remove_folder(self, url: str) -> None:
        """Remove a folder with everything in it, if it is there."""
        path = self._path(url)
        if self._fs.exists(path):
            self._fs.rm(path, recursive=True)

    def walk(self, url: str) -> Iterator[tuple[str, int, float]]:
        """Path under `url`, size in bytes and time of change (seconds since 1970) of all files there, at any depth."""
        for path, file in self._walk(url):
            yield path, file.size, file.changed

    def list_files(self, url: str) -> list[str]:
        """Names of the files directly under `url`, sorted; none where there is no such folder."""
        return self._names(url, kind="file")

    def list_folders(self, url: str) -> list[str]:
        """Names of the folders directly under `url`, sorted; none where there is no such folder."""
        return self._names(url, kind="directory")

    def _names(self, url: str, *, kind: str) -> list[str]:
        try:
            found = self._fs.ls(self._path(url), detail=True)
        except FileNotFoundError:
            return []
        names = (one["name"].rstrip("/").rsplit("/", 1)[-1] for one in found if one["type"] == kind)
        # A dot in front: a file that is being written.
        return sorted(name for name in names if not name.startswith("."))

    def _path(self, url: str) -> str:
        return str(local_path(url)) if self._local else str(self._fs._strip_protocol(url))

    def _walk(self, folder: str) -> Iterator[tuple[str, _File]]:
        root = self._path(folder).rstrip("/")
        if self._local:
            for path, state in files_under(Path(root)):
                yield path, _File(size=state.st_size, changed=state.st_mtime)
            return
        for path, info in self._fs.find(root, detail=True).items():
            yield path[len(root) + 1 :], _file_of(info)


def _damage_told(damaged: Sequence[str], *, rows: int) -> str:
    return f"{len(damaged)} of {rows} files gone or damaged, first {damaged[0]}"


class Publication:
    """The files and rows of one stage key on their way into the store; `commit` makes them visible."""

    def __init__(self, store: Store, *, stage: str, key: str) -> None:
        """Called by `Store.begin`."""
        self._store, self._stage, self._key = store, stage, key
        self._rows: list[ManifestRow] = []
        self._lock = threading.Lock()

    @property
    def rows(self) -> Sequence[ManifestRow]:
        """The rows added up to now, in no particular order."""
        return tuple(self._rows)

    def put(self, data: bytes, *, path: str, row: ManifestRow) -> ManifestRow:
        """Write a file of the stage and add its row, completed by path, digest and size. Thread-safe."""
        url = f"{self._store.folder_url(self._stage, key=self._key)}/{path}"
        self._store.put_file(url, data, sync=False)
        return self.add(_with_file(row, path=path, data=data, url=url))

    def add(self, row: ManifestRow) -> ManifestRow:
        """Add a row that has no file of its own, or whose file has been written already. Thread-safe."""
        with self._lock:
            self._rows.append(row)
        return row

    def detached(self) -> dict[str, str]:
        """What another process needs to write files of this stage key; see `Publication.attached`."""
        return {"store": self._store.url, "stage": self._stage, "key": self._key}

    @staticmethod
    def attached(place: Mapping[str, str]) -> Publication:
        """In another process: writes files of a stage key; the rows are for who called, who commits."""
        return Publication(Store.open(place["store"]), stage=place["stage"], key=place["key"])

    def taken(self) -> list[ManifestRow]:
        """The rows added since the last call, which are no longer this publication's."""
        with self._lock:
            rows, self._rows = self._rows, []
        return rows

    def commit(self, *, metadata: Mapping[str, JSON], content: Mapping[str, JSON] | None = None) -> Manifest:
        """Make everything durable, then publish the manifest in one step."""
        store = self._store
        url = store.manifest_url(self._stage, key=self._key)
        body = {**metadata, "stage": self._stage, "key": self._key}
        data = encode_manifest(self._rows, metadata=body, content=content)
        if store._local:
            folder = local_path(store.folder_url(self._stage, key=self._key))
            sync_tree(folder, root=local_path(store.url))
        if not store.create_file(url, data):
            # Somebody else computed the same key, though the lock should keep that from happening: theirs counts.
            return store.load(url)
        store.clear_scratch(self._stage, key=self._key)
        return decode_manifest(data, url=url)


def _with_file(row: ManifestRow, *, path: str, data: bytes, url: str) -> ManifestRow:
    return replace(row, path=path, digest=digest_bytes(data), bytes=len(data), url=url)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Requests to object storage are tried again when they fail."""
    if url.startswith("file://"):
        return fsspec.filesystem("file"), str(local_path(url))
    if not url.startswith(("s3://", "s3a://")):
        return fsspec.url_to_fs(url)
    # Listings are never taken from memory: other machines write too. Waits between the attempts grow.
    configuration = {"retries": {"max_attempts": _ATTEMPTS, "mode": "standard"}, **_PATIENCE}
    # fsspec keeps instances by their arguments: the service is one of them.
    service = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    fs, path = fsspec.url_to_fs(url, use_listings_cache=False, endpoint_url=service, config_kwargs=configuration)
    return answering(fs), path


def _absolute_url(url: str) -> str:
    return url.rstrip("/") if "://" in url else local_url(Path(url).expanduser().resolve())
