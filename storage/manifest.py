"""Manifests: the Parquet table that lists a stage's artifacts, one row each. Typed, versioned, readable by anything.

`content_digest` identifies the content: all rows without their paths, and `content`, small facts about the whole. Equal
content gives the equal digest wherever the store or the data set lies. Times, tool versions and locations are metadata
and are not part of it. The seal is about the file: one bit changed anywhere in it is found.

Schema versions: those of version 1 may have no seal. Manifests of every version are read.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import JSON, canonical_json, digest_lines
from storage.seal import seal, sealed

SCHEMA_VERSION = 2
_SEALED_SINCE = 2
# Rows that are read together: a page of a long manifest needs one or two groups of them.
ROW_GROUP = 1024
_AT_ONCE = 64
_BOX = pa.list_(pa.float32(), 4)
_POINT = pa.list_(pa.float32(), 2)
OBJECT_TYPE = pa.struct(
    [
        pa.field("category", pa.int32(), nullable=False),
        pa.field("sku", pa.string(), nullable=False),
        pa.field("box", _BOX, nullable=False),
        pa.field("amodal_box", _BOX),
        pa.field("centre", _POINT),
        pa.field("score", pa.float32()),
        pa.field("visible_fraction", pa.float32()),
        pa.field("mask_rle", pa.string()),
        pa.field("source", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sku", pa.string()),
        pa.field("split", pa.string()),
        pa.field("level", pa.string()),
        pa.field("parents", pa.list_(pa.string()), nullable=False),
        pa.field("objects", pa.list_(OBJECT_TYPE), nullable=False),
        pa.field("quality", pa.float32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
    ]
)
_METADATA_KEY = b"tally"
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestObject:
    """One product in a photo. Boxes are xyxy in pixels; `mask_rle` has the size of the photo.

    `status` is "ok", or "ignore" for a region that must teach nothing (training masks its losses there).
    """

    category: int
    sku: str
    box: Box
    amodal_box: Box | None = None
    centre: tuple[float, float] | None = None
    score: float | None = None
    visible_fraction: float | None = None
    mask_rle: str | None = None
    source: str | None = None
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One artifact, or one item that has no file because it was dropped or quarantined (then `reason` says why).

    `path` is relative to the manifest's folder, or a full URL for a file that lives elsewhere. `url` is not stored: it
    is the absolute location, filled when a manifest is loaded.
    """

    item_id: str
    path: str = ""
    digest: str = ""
    bytes: int = 0
    media_type: str = ""
    width: int | None = None
    height: int | None = None
    sku: str | None = None
    split: str | None = None
    level: str | None = None
    parents: tuple[str, ...] = ()
    objects: tuple[ManifestObject, ...] = ()
    quality: float | None = None
    status: str = "ok"
    reason: str = ""
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    url: str = ""


class StoredRows(Sequence[ManifestRow]):
    """The rows of a manifest's file, decoded when the first one is asked for. `base`: URL of the manifest's folder."""

    def __init__(self, data: bytes, *, footer: pq.FileMetaData, base: str) -> None:
        """Of an intact file: whatever is read of it later is as it was written."""
        self._data, self._footer, self._base = data, footer, base

    @cached_property
    def _decoded(self) -> tuple[ManifestRow, ...]:
        # Records of all rows at once would take half as much again as the rows.
        batches = self._file().iter_batches(batch_size=ROW_GROUP)
        return tuple(decode_row(record, base=self._base) for batch in batches for record in batch.to_pylist())

    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(io.BytesIO(self._data), metadata=self._footer)

    def columns(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Some columns of all rows, without decoding the others."""
        table = self._file().read(columns=list(names))
        return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))

    def __len__(self) -> int:
        """The number of rows."""
        return int(self._footer.num_rows)

    @overload
    def __getitem__(self, index: int) -> ManifestRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ManifestRow, ...]: ...
    def __getitem__(self, index: int | slice) -> ManifestRow | tuple[ManifestRow, ...]:
        """A row, or some of them."""
        return self._decoded[index]

    def __iter__(self) -> Iterator[ManifestRow]:
        """All rows."""
        return iter(self._decoded)

    def __eq__(self, other: object) -> bool:
        """Whether these are the same rows as another sequence's."""
        return self._decoded == tuple(other) if isinstance(other, (tuple, StoredRows)) else NotImplemented

    def __hash__(self) -> int:
        """None: rows hold mappings."""
        raise TypeError("rows of a manifest have no hash")

    def __reduce__(self) -> tuple[type[tuple[Any, ...]], tuple[tuple[ManifestRow, ...]]]:
        """To other processes they go decoded."""
        return tuple, (self._decoded,)


def columns_of(rows: Sequence[ManifestRow], *names: str) -> list[tuple[Any, ...]]:
    """The values of some flat columns, a tuple a row; rows that are not decoded yet stay so."""
    if isinstance(rows, StoredRows):
        return rows.columns(names)
    return [tuple(getattr(row, name) for name in names) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A stage's result: its rows (sorted by item_id) and what made them."""

    stage: str
    key: str
    url: str
    content_digest: str
    rows: Sequence[ManifestRow]
    content: Mapping[str, JSON] = field(default_factory=dict)
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    @cached_property
    def ok(self) -> tuple[ManifestRow, ...]:
        """The rows with status "ok"."""
        return tuple(row for row in self.rows if row.status == "ok")

    @cached_property
    def usable(self) -> bool:
        """Whether any row has status "ok"."""
        return any(status == "ok" for (status,) in columns_of(self.rows, "status"))

    @cached_property
    def by_id(self) -> dict[str, ManifestRow]:
        """All rows by their item_id."""
        return {row.item_id: row for row in self.rows}

    def row(self, item_id: str) -> ManifestRow:
        """The row `item_id`. Raises KeyError with the manifest's location and a few ids that exist."""
        found = self.by_id.get(item_id)
        if found is None:
            known = ", ".join(list(self.by_id)[:3])
            raise KeyError(f"no item {item_id!r} in {self.url} ({len(self.rows)} rows: {known}, …)")
        return found


def content_digest(rows: Iterable[ManifestRow], *, content: Mapping[str, JSON]) -> str:
    """SHA-256 over `content` and all rows in the order of their item_id, without `path` and `url`.

    Raises:
        ValueError: two rows have the same item_id.
    """
    records = (_record(row) for row in sorted_rows(rows))
    return digest_lines(chain([canonical_json(dict(content))], map(_digested, records)))


def _digested(record: Mapping[str, Any]) -> bytes:
    """What of a record the content digest is taken of."""
    return canonical_json({name: value for name, value in record.items() if name != "path"})


def sorted_rows(rows: Iterable[ManifestRow]) -> tuple[ManifestRow, ...]:
    """Rows in the order of their item_id, each id once.

    Raises:
        ValueError: two rows have the same item_id.
    """
    ordered = sorted(rows, key=lambda row: row.item_id)
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.item_id == after.item_id:
            raise ValueError(f"manifest: expected unique item ids, got {after.item_id!r} twice")
    return tuple(ordered)


def encode_manifest(
    rows: Iterable[ManifestRow], *, metadata: Mapping[str, JSON], content: Mapping[str, JSON] | None = None
) -> bytes:
    """The Parquet file of `rows`, sealed, with `metadata`, `content` and the content digest in the file's metadata."""
    content, ordered, tables = content or {}, sorted_rows(rows), [SCHEMA.empty_table()]

    def lines() -> Iterator[bytes]:
        yield canonical_json(dict(content))
        # Records of all rows at once would take several times what the rows do.
        for start in range(0, len(ordered), _AT_ONCE):
            records = [_record(row) for row in ordered[start : start + _AT_ONCE]]
            tables.append(pa.Table.from_pylist(records, schema=SCHEMA))
            yield from map(_digested, records)

    digest = digest_lines(lines())
    table = pa.concat_tables(tables).combine_chunks()
    body = {**metadata, "content": content, "schema_version": SCHEMA_VERSION, "content_digest": digest}
    return seal(encode_table(table.replace_schema_metadata({_METADATA_KEY: canonical_json(body)})))


def encode_table(table: pa.Table) -> bytes:
    """The Parquet file of a manifest's rows as Arrow has them, its schema's metadata included."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    return buffer.getvalue()


def decode_manifest(data: bytes, *, url: str) -> Manifest:
    """The manifest of a Parquet file that lies at `url`.

    Raises:
        ValueError: not a manifest, of a newer schema, or its content does not match its own digest.
    """
    intact, footer = _intact(data, url=url), _footer_of(data, url=url)
    metadata = manifest_metadata(footer.schema.to_arrow_schema(), url=url)
    base = url.rsplit("/", 1)[0]
    rows: Sequence[ManifestRow]
    _check_seal(metadata, intact=intact, url=url)
    if intact:
        rows = StoredRows(data, footer=footer, base=base)
    else:
        rows = _rows_of(read_manifest_table(data, url=url), url=url, base=base)
        digest = content_digest(rows, content=metadata["content"])
        if digest != metadata["content_digest"]:
            raise ValueError(
                f"{url}: expected content {metadata['content_digest']}, got {digest}; the file was changed"
            )
    return Manifest(
        stage=metadata.get("stage", ""),
        key=metadata.get("key", ""),
        url=url,
        content_digest=metadata["content_digest"],
        rows=rows,
        content=metadata["content"],
        metadata=metadata,
    )


def _rows_of(table: pa.Table, *, url: str, base: str) -> tuple[ManifestRow, ...]:
    """The rows of a table that nothing vouches for."""
    if not table.schema.remove_metadata().equals(SCHEMA):
        raise ValueError(f"{url}: expected the columns of a manifest, got others: {', '.join(table.schema.names)}")
    try:
        return tuple(decode_row(record, base=base) for record in table.to_pylist())
    except (ValueError, TypeError) as error:
        raise _broken(url, error) from error


def _intact(data: bytes, *, url: str) -> bool:
    try:
        return sealed(data)
    except ValueError as error:
        raise ValueError(f"{url}: {error}; the file was changed") from error


def _check_seal(metadata: Mapping[str, JSON], *, intact: bool, url: str) -> None:
    if not intact and metadata["schema_version"] >= _SEALED_SINCE:
        raise ValueError(f"{url}: expected a sealed manifest, got one without its seal; the file was changed")


def _footer_of(data: bytes, *, url: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(io.BytesIO(data))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken(url, error) from error


def _broken(url: str, error: Exception) -> ValueError:
    return ValueError(f"{url}: expected a Parquet manifest, got a broken file ({error})")


def read_manifest_table(data: bytes, *, url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file that lies at `url` as Arrow has them. Raises ValueError when it is broken."""
    try:
        return pq.read_table(io.BytesIO(data), columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken(url, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a manifest refers to: the URLs of its rows' files, and those of the manifests that it was made from."""

    files: tuple[str, ...]
    inputs: tuple[str, ...]


def decode_references(data: bytes, *, url: str) -> References:
    """The references of a manifest, without decoding its rows.

    Raises:
        ValueError: not a manifest.
    """
    intact, table = _intact(data, url=url), read_manifest_table(data, url=url, columns=["path"])
    metadata = manifest_metadata(table.schema, url=url)
    _check_seal(metadata, intact=intact, url=url)
    paths = [path for path in table.column("path").to_pylist() if path]
    base = url.rsplit("/", 1)[0]
    return References(
        files=tuple(path if "://" in path else f"{base}/{path}" for path in paths),
        inputs=_inputs_of(metadata, url=url),
    )


def _inputs_of(metadata: Mapping[str, Any], *, url: str) -> tuple[str, ...]:
    """The URLs of the manifests that one was made from; ValueError where nothing vouched for what is recorded."""
    recorded = metadata.get("inputs", {})
    values = recorded.values() if isinstance(recorded, dict) else [recorded]
    listed = [one for value in values for one in (value if isinstance(value, list) else [value]) if one]
    manifests = (one.get("manifest") if isinstance(one, dict) else None for one in listed)
    named = tuple(one for one in manifests if isinstance(one, str))
    if len(named) < len(listed):
        raise ValueError(f"{url}: expected the manifests that it was made from, got {recorded!r:.200}")
    return named


def manifest_metadata(schema: pa.Schema, *, url: str) -> dict[str, Any]:
    """What a manifest's Parquet schema records beside the columns.

    Raises:
        ValueError: not a manifest, or of a newer schema.
    """
    raw = (schema.metadata or {}).get(_METADATA_KEY)
    if raw is None:
        raise ValueError(f"{url}: expected a Tally manifest, got a Parquet file without its metadata")
    try:
        metadata: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _broken(url, error) from error
    needed = {"schema_version": int, "content": dict, "content_digest": str}
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(name), kind) for name, kind in needed.items()):
        raise ValueError(f"{url}: expected a Tally manifest, got metadata without {', '.join(needed)}")
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise ValueError(f"{url}: schema {metadata['schema_version']} is newer than this program's {SCHEMA_VERSION}")
    return metadata


def _float32(value: float | None) -> float | None:
    # A float goes into the file as float32: rounding before the digest makes written and read rows equal.
    return None if value is None else float(np.float32(value))


def _floats(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else np.asarray(values, np.float32).tolist()


def _object_record(item: ManifestObject) -> dict[str, Any]:
    return {
        "category": int(item.category),
        "sku": item.sku,
        "box": _floats(item.box),
        "amodal_box": _floats(item.amodal_box),
        "centre": _floats(item.centre),
        "score": _float32(item.score),
        "visible_fraction": _float32(item.visible_fraction),
        "mask_rle": item.mask_rle,
        "source": item.source,
        "status": item.status,
        "reason": item.reason,
    }


def _record(row: ManifestRow) -> dict[str, Any]:
    return {
        "item_id": row.item_id,
        "path": row.path,
        "digest": row.digest,
        "bytes": int(row.bytes),
        "media_type": row.media_type,
        "width": row.width,
        "height": row.height,
        "sku": row.sku,
        "split": row.split,
        "level": row.level,
        "parents": list(row.parents),
        "objects": [_object_record(item) for item in row.objects],
        "quality": _float32(row.quality),
        "status": row.status,
        "reason": row.reason,
        "attributes": canonical_json(dict(row.attributes)).decode(),
    }


def _tuple(values: list[float] | None) -> Any:  # noqa: ANN401 - a box or a point, by the column's fixed length
    return None if values is None else tuple(values)


def decode_row(record: dict[str, Any], *, base: str) -> ManifestRow:
    """The row of a record as Arrow gives it, of a manifest in the folder `base`."""
    objects = tuple(
        ManifestObject(
            **{
                **item,
                "box": tuple(item["box"]),
                "amodal_box": _tuple(item["amodal_box"]),
                "centre": _tuple(item["centre"]),
            }
        )
        for item in record["objects"]
    )
    path = record["path"]
    url = path if "://" in path or not path else f"{base}/{path}"
    values = {
        **record,
        "parents": tuple(record["parents"]),
        "objects": objects,
        "attributes": orjson.loads(record["attributes"]),
    }
    return ManifestRow(**values, url=url)


def referenced(row: ManifestRow, **changes: Any) -> ManifestRow:  # noqa: ANN401 - any field of the row
    """A row for another manifest that points at the same file as `row`, with some fields changed."""
    return replace(row, **{"path": row.url, **changes})
