"""A run as pages look at it: its stages in their order, their manifests, and which stage is made from which.

Manifests are found by stage and key in the store that the inspector was given, wherever that store now lies; what a
stage was made from is told by content digests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from inspector.listing import Listing
from inspector.run_shelf import RunEntry
from inspector.table_shelf import TableShelf
from storage.digest import JSON
from storage.manifest import ManifestRow
from storage.manifest_table import ManifestTable
from storage.store import DamagedArtifactError, Store

PHOTO_TYPES = ("image/jpeg", "image/png")
_CUTS = ("mask/", "coarse/", "pose/")
_SAFE = re.compile(r"[A-Za-z0-9_-]+")


class BrokenStageError(Exception):
    """A stage's manifest can't be shown; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntry:
    """A stage as the run's record lists it. `seconds` is what its result took to compute, cached or not."""

    name: str
    stage: str
    key: str
    rows: int = 0
    quarantined: int = 0
    cached: bool = False
    seconds: float = 0.0
    content_digest: str = ""


@dataclass(frozen=True)
class RunView:
    """One run, the store that holds its results, and the manifests that are open."""

    entry: RunEntry
    store: Store
    tables: TableShelf

    @property
    def id(self) -> str:
        """What the run is called in addresses."""
        return self.entry.id

    @property
    def record(self) -> Mapping[str, JSON]:
        """The content of its run.json."""
        return self.entry.record

    @cached_property
    def stages(self) -> dict[str, StageEntry]:
        """The stages by name, in the order they ran; entries that make no sense are left out."""
        listed = [one for one in self.record.get("stages") or [] if isinstance(one, dict)]
        return {made.name: made for one in listed if (made := _stage_entry(one))}

    def listing(self, name: str) -> Listing:
        """The rows of a stage.

        Raises:
            KeyError: the run has no such stage.
            BrokenStageError: its manifest is gone or broken.
        """
        one = self.stages[name]
        try:
            return self.tables.listing(one.stage, key=one.key)
        except FileNotFoundError as error:
            problem = "Its manifest is not in the store: it was swept away, or another store was meant."
            raise BrokenStageError(problem) from error
        except ValueError as error:
            raise BrokenStageError(f"Its manifest is broken: {error}") from error

    def table(self, name: str) -> ManifestTable:
        """The manifest of a stage; raises as `listing` does."""
        return self.listing(name).table

    def find(self, name: str) -> ManifestTable | None:
        """The manifest of a stage, None where the run has no such stage or it can't be shown."""
        try:
            return self.table(name)
        except (KeyError, BrokenStageError):
            return None

    @cached_property
    def inputs(self) -> dict[str, dict[str, list[str]]]:
        """For each stage the names of its inputs with the stages of this run that they are."""
        by_digest: dict[str, list[str]] = {}
        for one in self.stages.values():
            by_digest.setdefault(one.content_digest, []).append(one.name)
        found: dict[str, dict[str, list[str]]] = {}
        for name in self.stages:
            table = self.find(name)
            recorded = table.metadata.get("inputs") if table else {}
            found[name] = {
                given: [source for digest in _digests(value) for source in by_digest.get(digest, [])[:1]]
                for given, value in (recorded or {}).items()
            }
        return found

    def sources(self, name: str) -> list[str]:
        """The stages that a stage was made from, each once, in the order they ran."""
        given = {source for sources in self.inputs.get(name, {}).values() for source in sources}
        return [one for one in self.stages if one in given]

    def consumers(self, name: str) -> list[str]:
        """The stages that were made from a stage, in the order they ran."""
        return [one for one in self.stages if name in self.sources(one)]

    @property
    def ladder(self) -> dict[str, Mapping[str, Mapping[str, float]]]:
        """Figures on test by rung and level, in the order they were climbed."""
        return dict(self.record.get("ladder") or {})

    @property
    def val_ladder(self) -> dict[str, Mapping[str, Mapping[str, float]]]:
        """The same on val."""
        return dict(self.record.get("val_ladder") or {})

    @property
    def rungs(self) -> list[str]:
        """The rungs that were evaluated."""
        return [name.removeprefix("evaluate.") for name in self.stages if name.startswith("evaluate.")]

    @property
    def champion(self) -> str:
        """The rung that won on val; the last one evaluated where the run did not get that far."""
        known = str(self.record.get("champion") or "")
        return known if known in self.rungs else (self.rungs or [""])[-1]

    def report(self, rung: str) -> dict[str, Any]:
        """A rung's evaluation report; empty where there is none to be read."""
        data = self.artifact(f"evaluate.{rung}", item_id="report")
        try:
            return dict(orjson.loads(data)) if data else {}
        except orjson.JSONDecodeError:
            return {}

    def evaluation(self, rung: str, *, table: str) -> list[dict[str, Any]]:
        """The rows of one of a rung's evaluation tables (photos, skus, confusions, mistakes); none where it is gone."""
        data = self.artifact(f"evaluate.{rung}", item_id=f"table/{table}")
        try:
            return list(pq.read_table(pa.BufferReader(data)).to_pylist()) if data else []
        except pa.ArrowInvalid:
            return []

    def artifact(self, stage: str, *, item_id: str) -> bytes | None:
        """The bytes of a stage's file, None where there is none, or a damaged one."""
        table = self.find(stage)
        row = table.row(item_id) if table else None
        try:
            return self.store.read(row) if row and row.url else None
        except DamagedArtifactError:
            return None

    def photo_of(self, stage: str, row: ManifestRow) -> tuple[str, ManifestRow] | None:
        """The photo that a row is about, with the name of its stage: the row itself, or the nearest it was made from.

        A mask, a sprite or a prediction is about the photo it was made from.
        """
        if row.url and row.media_type in PHOTO_TYPES and not is_cut(row):
            return stage, row
        return next(
            (
                (source, found)
                for parent in row.parents
                for source in self.sources(stage)
                if (found := self.row(source, parent)) and found.url and found.media_type in PHOTO_TYPES
                if not is_cut(found)
            ),
            None,
        )

    def row(self, stage: str, item_id: str) -> ManifestRow | None:
        """A row of a stage by its id."""
        table = self.find(stage)
        return table.row(item_id) if table else None


def is_cut(row: ManifestRow) -> bool:
    """Whether a row's picture is a mask or a sprite, which only shows part of a photo."""
    return row.item_id.startswith(_CUTS)


def _stage_entry(one: Mapping[str, JSON]) -> StageEntry | None:
    texts = {name: str(one.get(name) or "") for name in ("name", "stage", "key", "content_digest")}
    if not (texts["name"] and _SAFE.fullmatch(texts["stage"]) and _SAFE.fullmatch(texts["key"])):
        return None
    return StageEntry(
        **texts,
        rows=int(one.get("rows") or 0),
        quarantined=int(one.get("quarantined") or 0),
        cached=bool(one.get("cached")),
        seconds=float(one.get("seconds") or 0.0),
    )


def _digests(value: JSON) -> Sequence[str]:
    if value is None:
        return []
    return [str(one.get("content_digest", "")) for one in (value if isinstance(value, list) else [value])]
