"""A finished run as the pages need it: its manifests by the names of its stages, and lookups between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow
from storage.store import DamagedArtifactError, Store

RUNGS = {
    "source": "source only",
    "render": "+ rendered",
    "image_level": "+ image level",
    "instance_level": "+ instance level",
}
LEVELS = ("easy", "medium", "hard", "averaged")
METRICS = ("cAcc", "ACD", "mCCD", "mCIoU", "mAP50", "mmAP")
LOWER_IS_BETTER = frozenset({"ACD", "mCCD"})


def rung_name(rung: str) -> str:
    """A rung as people call it; further rounds have a number."""
    return RUNGS.get(rung, rung.replace("_", " "))


def _place(rung: str) -> tuple[int, int]:
    """Where a rung stands on the ladder: rounds on whole photos follow each other before the last rung."""
    if rung in RUNGS:
        return list(RUNGS).index(rung), 0
    number = rung.rsplit("_", 1)[-1]
    return list(RUNGS).index("image_level"), int(number) if number.isdigit() else 0


@dataclass(frozen=True)
class RunData:
    """The content of a `run.json` and the store that holds its manifests."""

    run: Mapping[str, JSON]
    store: Store

    @property
    def stages(self) -> list[Mapping[str, JSON]]:
        """The stages in the order they ran."""
        return list(self.run.get("stages") or [])

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """The manifests that are still there, by the stage's name in the run."""
        return {stage["name"]: found for stage in self.stages if (found := self._load(stage["manifest"]))}

    def _load(self, url: str) -> Manifest | None:
        try:
            return self.store.load(url)
        except FileNotFoundError:
            # Swept by garbage collection: the page shows what is left.
            return None

    @property
    def ladder(self) -> dict[str, Mapping[str, JSON]]:
        """Figures by rung and level, in the ladder's order, of the rungs and rounds that the run reached."""
        ladder = self.run.get("ladder") or {}
        return {rung: ladder[rung] for rung in sorted(ladder, key=_place)}

    @property
    def champion(self) -> str | None:
        """The promoted rung."""
        return self.run.get("champion")

    @cached_property
    def report(self) -> dict[str, Any]:
        """The champion's evaluation report, {} where there is none."""
        manifest = self.manifests.get(f"evaluate.{self.champion}")
        if manifest is None or "report" not in manifest.by_id:
            return {}
        try:
            return dict(orjson.loads(self.store.read(manifest.row("report"))))
        except DamagedArtifactError:
            return {}

    def parent(self, row: ManifestRow, *, stage: str) -> ManifestRow | None:
        """The row of another stage that `row` was made from."""
        manifest = self.manifests.get(stage)
        found = (manifest.by_id.get(parent) for parent in row.parents) if manifest else ()
        return next((one for one in found if one is not None), None)


def spread(rows: Iterable[ManifestRow], *, count: int) -> list[ManifestRow]:
    """`count` rows, evenly spaced, so that examples come from everywhere in the list."""
    listed = list(rows)
    if len(listed) <= count:
        return listed
    return [listed[index * len(listed) // count] for index in range(count)]


def one_per_sku(rows: Iterable[ManifestRow], *, count: int) -> list[ManifestRow]:
    """The middle row of each SKU, for `count` SKUs spread over the catalog."""
    by_sku: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_sku.setdefault(row.sku or "", []).append(row)
    return spread((listed[len(listed) // 2] for listed in by_sku.values()), count=count)
