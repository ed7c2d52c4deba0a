"""The products of a run's catalog: exemplars, kept views, the pool's evidence, how well they are found, look-alikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from inspector.run_view import RunView
from storage.catalogs import catalog_versions
from storage.store import Store

FEW_VIEWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One SKU in a run. `evidence` is the largest share of the pool's evidence that a view of it has, relative to its
    mean view; `rivals` are (other SKU, how often they were taken for each other on test)."""

    sku: str
    name: str
    supercategory: str
    exemplars: int
    quarantined: int
    kept: int
    dropped: int
    masks_to_review: int
    evidence: float | None
    products: int | None
    precision: float | None
    recall: float | None
    rivals: tuple[tuple[str, int], ...]

    @property
    def flagged(self) -> bool:
        """Whether so few views were kept that composed photos show it from too few sides."""
        return self.kept < FEW_VIEWS


def products_of(run: RunView, *, rung: str) -> list[Product]:
    """Every product of the catalog, in the order of the SKUs, with figures of a rung's model."""
    exemplars = _counted(run, "ingest.catalog")
    masks, poses = _counted(run, "segment"), _counted(run, "prune")
    figures = {str(one["sku"]): one for one in run.evaluation(rung, table="skus")}
    rivals = rivals_of(run.evaluation(rung, table="confusions"))
    evidence = _best_evidence(run)
    return [
        Product(
            sku=(sku := str(one["sku"])),
            name=str(one.get("name") or ""),
            supercategory=str(one.get("supercategory") or ""),
            exemplars=exemplars[sku, "ok"],
            quarantined=exemplars[sku, "quarantined"],
            kept=poses[sku, "ok"],
            dropped=poses[sku, "dropped"],
            masks_to_review=masks[sku, "review"],
            evidence=evidence.get(sku),
            products=figures.get(sku, {}).get("products"),
            precision=figures.get(sku, {}).get("precision"),
            recall=figures.get(sku, {}).get("recall"),
            rivals=tuple(rivals.get(sku, [])),
        )
        for one in sorted(categories_of(run), key=lambda one: str(one["sku"]))
    ]


def categories_of(run: RunView) -> list[dict[str, Any]]:
    """The categories of the run's catalog; none where its manifest is gone."""
    table = run.find("ingest.catalog")
    return list(table.content.get("categories") or []) if table else []


def _counted(run: RunView, stage: str) -> Counter[tuple[str, str]]:
    """How many rows of a stage each (SKU, status) has."""
    table = run.find(stage)
    if table is None:
        return Counter()
    grouped = table.light.select(["sku", "status"]).group_by(["sku", "status"]).aggregate([([], "count_all")])
    return Counter({(str(one["sku"]), str(one["status"])): int(one["count_all"]) for one in grouped.to_pylist()})


def rivals_of(confusions: Iterable[dict[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """For each SKU those it was taken for or that were taken for it, most often first."""
    pairs: Counter[tuple[str, str]] = Counter()
    for one in confusions:
        true, found, times = str(one["true_sku"]), str(one["found_sku"]), int(one["times"])
        pairs[true, found] += times
        pairs[found, true] += times
    rivals: dict[str, list[tuple[str, int]]] = {}
    for (sku, other), times in sorted(pairs.items(), key=lambda one: (-one[1], one[0])):
        rivals.setdefault(sku, []).append((other, times))
    return rivals


def _best_evidence(run: RunView) -> dict[str, float]:
    """The score of each product's best view, where the evidence rule decided."""
    table = run.find("prune")
    if table is None or not len(table):
        return {}
    rows = table.rows(np.arange(len(table)), without=("objects", "parents"))
    best: dict[str, float] = {}
    for row in rows:
        if row.sku and row.attributes.get("rule") == "evidence":
            best[row.sku] = max(best.get(row.sku, 0.0), float(row.attributes.get("score") or 0.0))
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVersion:
    """A content of the catalog with the run that first had it (or the number of the version that was recorded), and
    what it added to the one before."""

    digest: str
    run: str = ""
    number: int = 0
    time: str
    products: int
    exemplars: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


def recorded_versions(store: Store, *, catalog: str) -> list[SeenVersion]:
    """The versions of a catalog that products were added to or removed from, the first one first.

    Raises:
        ValueError: the name is none, or a record is broken.
    """
    return [
        SeenVersion(
            digest=one.content_digest,
            number=one.number,
            time=one.time,
            products=one.products,
            exemplars=one.photos,
            added=() if one.action == "removed" else one.skus,
            removed=one.skus if one.action == "removed" else (),
        )
        for one in catalog_versions(store, catalog=catalog)
    ]


def seen_versions(runs: Sequence[RunView]) -> list[SeenVersion]:
    """The contents that the catalog had over runs (in the order of time), each once, the first one first."""
    found: list[SeenVersion] = []
    before: set[str] = set()
    for run in runs:
        entry, table = run.stages.get("ingest.catalog"), run.find("ingest.catalog")
        if entry is None or table is None or entry.content_digest in {one.digest for one in found}:
            continue
        skus = set(pc.unique(table.light.column("sku")).to_pylist()) - {None}
        found.append(
            SeenVersion(
                digest=entry.content_digest,
                run=run.id,
                time=str(run.record.get("started") or ""),
                products=len(skus),
                exemplars=len(table),
                added=tuple(sorted(skus - before)),
                removed=tuple(sorted(before - skus)),
            )
        )
        before = skus
    return found
