"""A manifest opened for looking at: columns when they are asked for, rows by their numbers, never the whole in memory.

`Store.load` reads a manifest whole and checks its digest, as a stage must; pages that show sixty of a hundred thousand
rows can't wait for that. What is read here is as good as its file: pictures are still compared with their digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.digest import JSON
from storage.manifest import SCHEMA, ManifestRow, decode_row, manifest_metadata
from storage.store import Store

Numbers = NDArray[np.int64]
# Few bytes a row: what lists, filters and sorting need.
LIGHT = ("item_id", "path", "media_type", "sku", "split", "level", "quality", "status", "reason")
_CATEGORY, _SKU = "objects.list.element.category", "objects.list.element.sku"


@dataclass(frozen=True)
class ManifestTable:
    """A manifest's footer, and the way to the rest. Rows are numbered from 0 in the order of their item_id."""

    store: Store
    url: str
    footer: pq.FileMetaData
    metadata: Mapping[str, JSON]

    @property
    def key(self) -> str:
        """The stage key."""
        return str(self.metadata.get("key", ""))

    @property
    def content(self) -> Mapping[str, JSON]:
        """Small facts about the whole, such as the categories."""
        return dict(self.metadata["content"])

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.footer.num_rows)

    @cached_property
    def light(self) -> pa.Table:
        """The columns `LIGHT` of all rows."""
        return self._read(list(LIGHT))

    @cached_property
    def object_counts(self) -> pa.ChunkedArray:
        """How many objects each row has, int32."""
        return pc.list_value_length(self._read([_CATEGORY]).column(0))

    def number_of(self, item_id: str) -> int | None:
        """The number of the row `item_id`, None where there is none."""
        found = pc.index(self.light.column("item_id"), pa.scalar(item_id)).as_py()
        return None if found < 0 else int(found)

    def among(self, item_ids: Sequence[str]) -> Numbers:
        """The numbers of the rows whose ids are among `item_ids`."""
        found = pc.is_in(self.light.column("item_id"), value_set=pa.array(item_ids, pa.string()))
        return np.flatnonzero(found.to_numpy(zero_copy_only=False))

    def row(self, item_id: str) -> ManifestRow | None:
        """The row `item_id`, None where there is none."""
        number = self.number_of(item_id)
        return None if number is None else self.rows([number])[0]

    def rows(self, numbers: Sequence[int] | Numbers, *, without: Sequence[str] = ()) -> list[ManifestRow]:
        """The rows of these numbers, in this order; columns `without` are not read and stay empty."""
        columns = [name for name in SCHEMA.names if name not in without]
        base = self.url.rsplit("/", 1)[0]
        wanted = np.asarray(numbers, np.int64)
        made: dict[int, ManifestRow] = {}
        for group, first, last in self._groups():
            inside = np.unique(wanted[(wanted >= first) & (wanted < last)])
            if inside.size:
                table = self._file().read_row_group(group, columns=columns).take(pa.array(inside - first))
                records = ({**_EMPTY, **record} for record in table.to_pylist())
                made |= {int(at): decode_row(one, base=base) for at, one in zip(inside, records, strict=True)}
        return [made[int(number)] for number in wanted]

    def with_parents(self, item_ids: Sequence[str]) -> Numbers:
        """The numbers of the rows made from any of these items."""
        return self._matching("parents", pa.array(item_ids, pa.string()))

    def with_objects(self, sku: str) -> Numbers:
        """The numbers of the rows that show a product among their objects."""
        return self._matching(_SKU, pa.array([sku], pa.string()))

    def _matching(self, column: str, values: pa.Array) -> Numbers:
        """Numbers of the rows whose list in `column` holds one of `values`; read group by group."""
        found = []
        for group, first, _ in self._groups():
            for chunk in self._file().read_row_group(group, columns=[column]).column(0).chunks:
                inner = chunk.flatten()
                inner = inner.field("sku") if column == _SKU else inner
                rows = pc.filter(pc.list_parent_indices(chunk), pc.is_in(inner, value_set=values))
                found.append(np.unique(rows.to_numpy(zero_copy_only=False)) + first)
                first += len(chunk)
        return np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)

    def _groups(self) -> Iterator[tuple[int, int, int]]:
        """(number, first row, end) of each row group."""
        first = 0
        for group in range(self.footer.num_row_groups):
            last = first + self.footer.row_group(group).num_rows
            yield group, first, last
            first = last

    def _read(self, columns: list[str]) -> pa.Table:
        return self._file().read(columns=columns)

    def _file(self) -> pq.ParquetFile:
        # One a read: a ParquetFile is not made for several threads.
        return self.store.open_parquet(self.url, footer=self.footer)


_EMPTY: Mapping[str, JSON] = {"objects": [], "parents": [], "attributes": "{}"}


def open_manifest_table(store: Store, url: str) -> ManifestTable:
    """The manifest at `url`, of which only the footer is read.

    Raises:
        ValueError: it is broken, or of a newer schema.
        FileNotFoundError: there is none.
    """
    try:
        footer = store.open_parquet(url).metadata
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{url}: expected a Parquet manifest, got a broken file ({error})") from error
    schema = footer.schema.to_arrow_schema()
    metadata = manifest_metadata(schema, url=url)
    missing = [name for name in SCHEMA.names if name not in schema.names]
    if missing:
        raise ValueError(f"{url}: expected the columns of a manifest, got none named {', '.join(missing)}")
    return ManifestTable(store, url, footer, metadata)
