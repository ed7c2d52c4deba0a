"""Stage `gather`: rows of one or several manifests as one manifest, all of them or those of chosen products.

Files stay where they are: rows refer to them. What the manifests say as a whole is taken from the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storage.manifest import Manifest, ManifestRow, referenced
from tasks.context import StageContext
from tasks.params import GatherParams
from tasks.stage import stage


def gathered(parts: Iterable[Manifest], *, skus: Sequence[str]) -> list[ManifestRow]:
    """The rows of all parts, of these SKUs where any are named; a row of a later part replaces one of the same id.

    Raises:
        ValueError: a named SKU has no row.
    """
    rows = {row.item_id: referenced(row) for part in parts for row in part.rows}
    known = {row.sku for row in rows.values()}
    missing = sorted(set(skus) - known)
    if missing:
        some = ", ".join(sorted(sku for sku in known if sku)[:10])
        raise ValueError(f"sku: expected products of the catalog ({some}, …), got {', '.join(missing)}")
    return [row for row in rows.values() if not skus or row.sku in skus]


@stage(GatherParams)
def gather(context: StageContext, *, params: GatherParams, parts: Sequence[Manifest]) -> None:
    """One row for each row that was gathered; see the module's docstring."""
    for row in gathered(parts, skus=params.skus):
        context.add(row)
    context.content.update(parts[0].content)
