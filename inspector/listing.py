"""Which rows of a manifest a page shows, and in which order: filters, facets, sorting, paging. Arrow, no pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.manifest_table import ManifestTable, Numbers

PAGE_SIZE = 60
SORTS = {
    "item": "item",
    "quality": "quality, worst first",
    "-quality": "quality, best first",
    "-objects": "most objects first",
    "objects": "fewest objects first",
    "sku": "SKU",
    "status": "status",
}
_NUMBER = r"[0-9]+(\.[0-9]+)?"
_FACET_LIMIT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a page is asked to show; empty values ask for everything. `parent`: rows made from this item."""

    sku: str = ""
    level: str = ""
    status: str = ""
    reason: str = ""
    low: float | None = None
    high: float | None = None
    find: str = ""
    parent: str = ""
    sort: str = "item"
    view: str = "gallery"

    def query(self, **changes: str | float | None) -> str:
        """The query string that asks for the same with `changes`; what is left at its default is left out."""
        values = {field.name: changes.get(field.name, getattr(self, field.name)) for field in fields(self)}
        values |= {name: value for name, value in changes.items() if name not in values}
        defaults = {field.name: field.default for field in fields(self)} | {"page": 1}
        told = {
            name: value for name, value in values.items() if value not in (None, "") and value != defaults.get(name)
        }
        return urlencode(told)

    @property
    def active(self) -> dict[str, str]:
        """The filters in use by name, as text."""
        told = {name: getattr(self, name) for name in ("sku", "level", "status", "reason", "find", "parent")}
        span = {"low": self.low, "high": self.high}
        return {name: str(value) for name, value in {**told, **span}.items() if value not in (None, "")}


@dataclass(frozen=True, slots=True)
class Facet:
    """One value that a filter can be set to, and how many rows of the whole manifest have it."""

    value: str
    count: int


class Listing:
    """A manifest's rows as pages need them; what it works out once it keeps."""

    def __init__(self, table: ManifestTable) -> None:
        """Show the rows of `table`."""
        self.table = table

    def facets(self, name: str) -> list[Facet]:
        """The values of sku, level, status or reason that occur, most frequent first (SKUs and levels by name)."""
        return self._facets[name]

    @cached_property
    def _facets(self) -> dict[str, list[Facet]]:
        light = self.table.light
        return {
            "sku": sorted(_counted(light.column("sku")), key=lambda one: one.value),
            "level": sorted(_counted(light.column("level")), key=lambda one: one.value),
            "status": _counted(light.column("status")),
            "reason": _counted(self.reason_kinds)[:40],
        }

    @cached_property
    def reason_kinds(self) -> pa.ChunkedArray:
        """Every row's reason with its numbers replaced by #, so that reasons of one kind are one."""
        return pc.replace_substring_regex(self.table.light.column("reason"), pattern=_NUMBER, replacement="#")

    @cached_property
    def object_skus(self) -> bool:
        """Whether rows carry their products in their objects and not as their own SKU."""
        return not self.facets("sku") and len(self.table) > 0

    @cached_property
    def has_quality(self) -> bool:
        """Whether any row has a quality."""
        return self.table.light.column("quality").null_count < len(self.table)

    def numbers(self, filters: Filters) -> Numbers:
        """The numbers of the rows that pass the filters, in the order asked for."""
        light, chosen = self.table.light, np.ones(len(self.table), np.bool_)
        for name in ("level", "status"):
            if wanted := getattr(filters, name):
                chosen &= _equal(light.column(name), wanted)
        if filters.reason:
            chosen &= _equal(self.reason_kinds, filters.reason)
        if filters.find:
            found = pc.match_substring(light.column("item_id"), filters.find, ignore_case=True)
            chosen &= found.to_numpy(zero_copy_only=False)
        if filters.low is not None or filters.high is not None:
            chosen &= self._within(filters.low, filters.high)
        if filters.sku:
            chosen &= self._shows(filters.sku)
        if filters.parent:
            chosen &= self._only(self.table.with_parents([filters.parent]))
        return self._sorted(np.flatnonzero(chosen), sort=filters.sort)

    def _within(self, low: float | None, high: float | None) -> np.ndarray:
        quality_N = self.table.light.column("quality").to_numpy(zero_copy_only=False).astype(np.float64)
        least, most = (-np.inf if low is None else low), (np.inf if high is None else high)
        return np.isfinite(quality_N) & (quality_N >= least) & (quality_N <= most)

    def _shows(self, sku: str) -> np.ndarray:
        own = _equal(self.table.light.column("sku"), sku)
        return own if own.any() else self._only(self.table.with_objects(sku))

    def _only(self, numbers: Numbers) -> np.ndarray:
        chosen = np.zeros(len(self.table), np.bool_)
        chosen[numbers] = True
        return chosen

    def _sorted(self, numbers: Numbers, *, sort: str) -> Numbers:
        """Stable, so that rows of equal rank stay in the order of their ids; rows without a value come last."""
        name = sort.removeprefix("-")
        if name == "item" or not len(numbers):
            return numbers
        values = self.table.object_counts if name == "objects" else self.table.light.column(name)
        order = "descending" if sort.startswith("-") else "ascending"
        taken = pa.table({"value": values.take(pa.array(numbers)), "number": pa.array(numbers)})
        indices = pc.sort_indices(taken, sort_keys=[("value", order), ("number", "ascending")])
        return numbers[indices.to_numpy()]


def _equal(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)


def _counted(column: pa.ChunkedArray) -> list[Facet]:
    counted = pc.value_counts(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    pairs = [(one["values"], one["counts"]) for one in counted.to_pylist()]
    ranked = sorted((pair for pair in pairs if pair[0]), key=lambda pair: (-pair[1], pair[0]))
    return [Facet(value, count) for value, count in ranked[:_FACET_LIMIT]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of numbered rows: which it is, how many there are, and where its first row stands among all."""

    number: int
    pages: int
    start: int
    total: int

    @property
    def end(self) -> int:
        """The place after the last row."""
        return min(self.start + PAGE_SIZE, self.total)


def page_of(total: int, *, number: int) -> Page:
    """Page `number` (from 1) of `total` rows; beyond the last one it is the last."""
    pages = max(1, -(-total // PAGE_SIZE))
    number = min(max(number, 1), pages)
    return Page(number, pages, (number - 1) * PAGE_SIZE, total)
