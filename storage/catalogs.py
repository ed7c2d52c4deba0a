"""The versions of a catalog: `<store>/catalogs/<name>/000001.json` and on, append-only. Each names its manifest.

A version is never changed: adding or removing products makes the next one, whose manifest refers to the photos of those
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from storage.catalog import categories_of
from storage.digest import JSON
from storage.journal import checked_name, create_record, read_records
from storage.manifest import Manifest
from storage.store import Store

FOLDER = "catalogs"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogVersion:
    """One version of a catalog.

    Attributes:
        catalog: its name.
        number: from 1.
        action: created from a data set's own exemplars, or products were added or removed.
        skus: the products that were added or removed; all of them when it was created.
        products: how many there are now, and `photos` how many exemplars show them.
        dataset: folder of the data set that the catalog belongs to.
        source: the folder that the products came from; empty when products were removed.
        time: UTC, ISO 8601.
        manifest: URL of the manifest of all exemplars; `content_digest` is its content digest.
    """

    catalog: str
    number: int
    action: Literal["created", "added", "removed"]
    skus: tuple[str, ...]
    products: int
    photos: int
    dataset: str
    source: str
    time: str
    manifest: str
    content_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogDiff:
    """What a later version has more or less than an earlier one: SKUs, and photos of the products in both."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def record_version(store: Store, version: CatalogVersion) -> bool:
    """Append a version to its catalog; returns False where somebody else made one of its number meanwhile."""
    return create_record(store, _folder(version.catalog), number=version.number, body=asdict(version))


def catalog_versions(store: Store, *, catalog: str) -> tuple[CatalogVersion, ...]:
    """All versions of a catalog, the first one first; none where it has only its data set's own exemplars."""
    return tuple(_version(body) for body in read_records(store, _folder(catalog)))


def catalog_version(store: Store, *, catalog: str, number: int = 0) -> CatalogVersion | None:
    """Version `number` of a catalog, or its newest (0); None where it has no versions and none is asked for.

    Raises:
        ValueError: there is no version of that number.
    """
    versions = catalog_versions(store, catalog=catalog)
    if number == 0:
        return versions[-1] if versions else None
    if number > len(versions):
        there = f"at most {len(versions)}" if versions else "0: it has only its data set's own exemplars"
        raise ValueError(f"catalog_version: expected {there}, for catalog {catalog!r}, got {number}")
    return versions[number - 1]


def catalog_names(store: Store) -> list[str]:
    """Names of the catalogs that have versions."""
    return store.list_folders(f"{store.url}/{FOLDER}")


def catalog_diff(before: Manifest, after: Manifest) -> CatalogDiff:
    """What changed from one catalog manifest to another."""
    old, new = _digests_by_sku(before), _digests_by_sku(after)
    return CatalogDiff(
        added=tuple(sorted(set(new) - set(old))),
        removed=tuple(sorted(set(old) - set(new))),
        changed=tuple(sorted(sku for sku in set(old) & set(new) if old[sku] != new[sku])),
    )


def _digests_by_sku(manifest: Manifest) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {category.sku: set() for category in categories_of(manifest)}
    for row in manifest.ok:
        found.setdefault(str(row.sku), set()).add(row.digest)
    return found


def _version(body: Mapping[str, JSON]) -> CatalogVersion:
    known = {one.name for one in fields(CatalogVersion)}
    values = {name: value for name, value in body.items() if name in known}
    return CatalogVersion(**{**values, "skus": tuple(values["skus"])})


def _folder(catalog: str) -> str:
    return f"{FOLDER}/{checked_name(catalog, what='catalog')}"
