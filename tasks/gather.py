"""Stage `gather`: rows of one or several manifests as one manifest, all of them or those of chosen products.

Files stay where they are: rows refer to them. What the manifests say as a whole is taken from the first, but for the
products, which are those of all parts: a product keeps the id of the part that named it first, one that is new gets the
next free id, and the id of one that was left out stays its own, in case it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

from storage.catalog import RETIRED, Category, categories_of, category_records
from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow, referenced
from tasks.context import StageContext
from tasks.params import GatherParams
from tasks.stage import stage


def gathered(parts: Iterable[Manifest], *, skus: Sequence[str], without: Sequence[str] = ()) -> list[ManifestRow]:
    """The rows of all parts, of these SKUs where any are named; a row of a later part replaces one of the same id.

    Raises:
        ValueError: a named SKU has no row.
    """
    rows = {row.item_id: referenced(row) for part in parts for row in part.rows}
    known = {row.sku for row in rows.values()}
    missing = sorted({*skus, *without} - known)
    if missing:
        some = ", ".join(sorted(sku for sku in known if sku)[:10])
        raise ValueError(f"sku: expected products of the catalog ({some}, …), got {', '.join(missing)}")
    return [row for row in rows.values() if (not skus or row.sku in skus) and row.sku not in without]


def merged_products(parts: Sequence[Manifest], *, without: Sequence[str]) -> tuple[list[Category], dict[str, int]]:
    """The products of all parts but those left out, and the ids that belonged to products which are gone."""
    retired: dict[str, int] = {sku: number for part in parts for sku, number in part.content.get(RETIRED, {}).items()}
    merged: dict[str, Category] = {}
    for part in parts:
        for one in categories_of(part):
            if one.sku not in merged:
                merged[one.sku] = replace(one, id=_free_id(one, merged=merged, retired=retired))
    kept = [one for sku, one in merged.items() if sku not in without]
    gone = retired | {sku: one.id for sku, one in merged.items() if sku in without}
    return kept, {sku: number for sku, number in gone.items() if sku not in {one.sku for one in kept}}


def _free_id(category: Category, *, merged: Mapping[str, Category], retired: Mapping[str, int]) -> int:
    if category.sku in retired:
        return retired[category.sku]
    taken = {one.id for one in merged.values()} | set(retired.values())
    return category.id if category.id not in taken else next(one for one in count(max(taken) + 1))


def renumbered(row: ManifestRow, *, ids: Mapping[str, int]) -> ManifestRow:
    """The row with its objects under the ids that their products have."""
    if all(ids.get(item.sku, item.category) == item.category for item in row.objects):
        return row
    return replace(row, objects=tuple(replace(item, category=ids.get(item.sku, item.category)) for item in row.objects))


@stage(GatherParams)
def gather(context: StageContext, *, params: GatherParams, parts: Sequence[Manifest]) -> None:
    """One row for each row that was gathered; see the module's docstring."""
    content: dict[str, JSON] = dict(parts[0].content)
    ids: dict[str, int] = {}
    if all("categories" in part.content for part in parts):
        products, retired = merged_products(parts, without=params.without)
        ids = {one.sku: one.id for one in products}
        content |= {"categories": category_records(products)} | ({RETIRED: retired} if retired else {})
    for row in gathered(parts, skus=params.skus, without=params.without):
        context.add(renumbered(row, ids=ids))
    context.content.update(content)
