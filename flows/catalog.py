"""A catalog that changes: products are added from folders or removed, each change is a version that stays.

Only what is new is looked at: its photos are validated and copied into the store, the manifest of the new version
refers to them and to those of the version before. What follows from a change is `flows.retrain`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flows.runner import LocalRunner
from flows.runs import now
from storage.catalog import RETIRED, categories_of
from storage.catalogs import CatalogDiff, CatalogVersion, catalog_diff, catalog_version, record_version
from storage.journal import checked_name
from storage.manifest import Manifest, ManifestRow
from storage.store import Store
from tasks.context import EventSink, discard_event
from tasks.ingest import catalog_root, dataset_root, files_digest, read_catalog
from tasks.params import GatherParams, IngestParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Which catalog, and how work on it is done. `name` is that of the data set's folder when empty."""

    dataset: str
    store: Store
    name: str = ""
    workers: int = 1
    events: EventSink = discard_event

    def __post_init__(self) -> None:
        """Raises ValueError when the name is none."""
        object.__setattr__(self, "name", checked_name(self.name or catalog_name(self.dataset), what="catalog"))

    @property
    def run(self) -> LocalRunner:
        """What runs the few small stages of a change."""
        return LocalRunner(store=self.store, workers=self.workers, events=self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChange:
    """What became of a wish to change a catalog.

    `version` is the newest version, `changed` the products it was made for (empty: nothing was to be done, and it is
    the one that there was). `known` were there before, `refused` has the reason for each product that can't be used,
    `quarantined` the photos that can't.
    """

    version: CatalogVersion
    changed: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    quarantined: tuple[ManifestRow, ...] = ()


def catalog_name(dataset: str) -> str:
    """What the catalog of a data set is called: as its folder, with only the characters that a name may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(dataset).expanduser().resolve().name).lstrip(".") or "catalog"


def newest_version(catalog: Catalog) -> CatalogVersion:
    """The newest version of a catalog; the first one is made of the data set's own exemplars."""
    while True:
        newest = catalog_version(catalog.store, catalog=catalog.name)
        if newest is not None:
            return newest
        root = dataset_root(catalog.dataset)
        params = IngestParams(dataset=str(root), split="catalog", files_digest=files_digest(root, split="catalog"))
        made = catalog.run.stage("ingest.catalog", params)
        skus = tuple(category.sku for category in categories_of(made))
        first = _version(catalog, made, number=1, action="created", skus=skus, dataset=str(root), source=str(root))
        record_version(catalog.store, first)


def add_products(folder: str, *, catalog: Catalog, skus: Sequence[str] = ()) -> CatalogChange:
    """Add the products that a folder shows and the catalog does not know yet; of `skus` only, where any are named.

    Raises:
        ValueError: the folder holds no product, or none of the new ones can be used.
    """
    root = catalog_root(folder)
    wanted = _wanted([category.sku for category in read_catalog(root).categories], skus=skus)
    return _changed(catalog, lambda before, known: _added(before, known, root=root, wanted=wanted, catalog=catalog))


def remove_products(skus: Sequence[str], *, catalog: Catalog) -> CatalogChange:
    """Make a version without the named products; those that the catalog does not know count as removed.

    Raises:
        ValueError: nothing would be left.
    """
    return _changed(catalog, lambda before, known: _removed(before, known, skus=skus, catalog=catalog))


def _changed(catalog: Catalog, change: Callable[[CatalogVersion, Manifest], CatalogChange]) -> CatalogChange:
    """Change the newest version; once more if somebody else did meanwhile."""
    while True:
        before = newest_version(catalog)
        made = change(before, catalog.store.load(before.manifest))
        if not made.changed or record_version(catalog.store, made.version):
            return made


def _added(
    before: CatalogVersion, present: Manifest, *, root: Path, wanted: Sequence[str], catalog: Catalog
) -> CatalogChange:
    known = {category.sku for category in categories_of(present)}
    there, new = tuple(sku for sku in wanted if sku in known), [sku for sku in wanted if sku not in known]
    if not new:
        return CatalogChange(version=before, known=there)
    found = catalog.run.stage("ingest.new", _ingest_of(root, skus=new))
    refused = refusals(found, present=present, skus=new)
    added = tuple(sku for sku in new if sku not in refused)
    if not added:
        raise ValueError("catalog: expected new products that can be used, got none: " + "; ".join(refused.values()))
    usable = catalog.run.stage("ingest.usable", _ingest_of(root, skus=added)) if refused else found
    made = catalog.run.stage("gather.catalog", GatherParams(), parts=[present, usable])
    version = _version(
        catalog,
        made,
        number=before.number + 1,
        action="added",
        skus=added,
        dataset=before.dataset,
        source=str(root),
    )
    bad = tuple(row for row in found.rows if row.status == "quarantined")
    return CatalogChange(version=version, changed=added, known=there, refused=refused, quarantined=bad)


def _removed(before: CatalogVersion, present: Manifest, *, skus: Sequence[str], catalog: Catalog) -> CatalogChange:
    known = [category.sku for category in categories_of(present)]
    gone = tuple(sku for sku in known if sku in set(skus))
    if not gone:
        return CatalogChange(version=before)
    if len(gone) == len(known):
        raise ValueError(f"sku: expected at least one product to stay in the catalog, got all {len(known)}")
    made = catalog.run.stage("gather.catalog", GatherParams(without=gone), parts=[present])
    version = _version(
        catalog, made, number=before.number + 1, action="removed", skus=gone, dataset=before.dataset, source=""
    )
    return CatalogChange(version=version, changed=gone)


def refusals(found: Manifest, *, present: Manifest, skus: Sequence[str]) -> dict[str, str]:
    """Why products can't be added, by SKU: no usable photo, a photo of another product, a name that is taken."""
    owners = {row.digest: row.item_id for row in present.ok}
    reasons: dict[str, str] = {}
    for row in found.ok:
        if row.digest in owners:
            reasons[str(row.sku)] = f"{row.sku}: {row.item_id} has the same bytes as {owners[row.digest]}"
        elif row.item_id in present.by_id:
            reasons[str(row.sku)] = f"{row.sku}: expected file names that are new, got {row.item_id} again"
    usable = {row.sku for row in found.ok}
    for sku in skus:
        if sku not in usable:
            bad = sorted({row.reason for row in found.rows if row.sku == sku})
            reasons[sku] = f"{sku}: expected at least one usable photo, got none" + (f" ({bad[0]})" if bad else "")
    return reasons


def difference(store: Store, *, name: str, before: int, after: int) -> CatalogDiff:
    """What version `after` has more or less than version `before`; 0 is the newest.

    Raises:
        ValueError: there is no such version.
    """
    versions = [catalog_version(store, catalog=name, number=number) for number in (before, after)]
    manifests = [store.load(version.manifest) for version in versions if version is not None]
    if len(manifests) < 2:
        raise ValueError(f"catalog: expected versions of {name!r}, got none yet; `tally catalog add` makes the first")
    return catalog_diff(*manifests)


def retired_products(present: Manifest) -> frozenset[str]:
    """Products that were in the catalog once and are no longer."""
    return frozenset(present.content.get(RETIRED, {}))


def _wanted(listed: Sequence[str], *, skus: Sequence[str]) -> list[str]:
    missing = sorted(set(skus) - set(listed))
    if missing:
        raise ValueError(f"sku: expected products of the folder ({', '.join(listed[:10])}), got {', '.join(missing)}")
    return [sku for sku in listed if not skus or sku in skus]


def _ingest_of(root: Path, *, skus: Sequence[str]) -> IngestParams:
    digest = files_digest(root, split="catalog")
    return IngestParams(dataset=str(root), split="catalog", files_digest=digest, skus=tuple(sorted(skus)), copies=True)


def _version(
    catalog: Catalog,
    made: Manifest,
    *,
    number: int,
    action: Literal["created", "added", "removed"],
    skus: tuple[str, ...],
    dataset: str,
    source: str,
) -> CatalogVersion:
    return CatalogVersion(
        catalog=catalog.name,
        number=number,
        action=action,
        skus=skus,
        products=len(categories_of(made)),
        photos=len(made.ok),
        dataset=dataset,
        source=source,
        time=now(),
        manifest=made.url,
        content_digest=made.content_digest,
    )
