"""`tally catalog …`: add, remove and list products, compare versions, watch a folder for new products."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from flows.catalog import Catalog, CatalogChange, add_products, catalog_name, difference, remove_products
from flows.options import CatalogOptions, worker_count
from flows.progress import ProgressDisplay
from storage.catalogs import CatalogVersion, catalog_names, catalog_versions
from storage.digest import canonical_json
from storage.store import Store
from storage.words import some_of
from tasks.context import EventSink

_HELP = """Add and remove products. Every change makes a new version of the catalog; the ones before it stay.

A new version is announced to Prefect where there is a server, and starts `retrain` there once `tally automations apply`
was run. Without a server `tally retrain` does the same here.
"""

app = App(name="catalog", help=_HELP, help_format="markdown")
Where = Annotated[CatalogOptions, Parameter(name="*")]
_HERE = CatalogOptions()


def opened(where: CatalogOptions, *, events: EventSink) -> Catalog:
    """The catalog that the options mean."""
    return Catalog(
        dataset=where.root(),
        store=Store.open(where.store),
        name=where.catalog,
        workers=worker_count(where.workers),
        events=events,
    )


@app.command
def add(
    folder: str,
    *,
    where: Where = _HERE,
    sku: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
) -> None:
    """Add the products of a folder that the catalog does not know yet: photos are checked and copied into the store.

    Args:
        folder: a folder with one folder of photos a product, a data set's folder, or one in RPC layout.
        sku: products of the folder that are added; all new ones when not given.
    """
    console = Console()
    with ProgressDisplay(console) as display:
        catalog = opened(where, events=display)
        change = add_products(folder, catalog=catalog, skus=sku)
    _tell(change, catalog=catalog, console=console)


@app.command
def remove(*sku: str, where: Where = _HERE) -> None:
    """Remove products: the next version is without them, and retraining only takes their rows out of the model.

    Args:
        sku: products to remove.
    """
    if not sku:
        raise ValueError("sku: expected at least one product to remove, got none")
    console = Console()
    with ProgressDisplay(console) as display:
        catalog = opened(where, events=display)
        change = remove_products(sku, catalog=catalog)
    _tell(change, catalog=catalog, console=console)


@app.command
def watch(folder: Path, *, where: Where = _HERE, every: float = 10.0) -> None:
    """Add new products as their folders appear in a folder, until Ctrl-C.

    A product's photos are taken once they have been still between two looks; products that were removed stay away.

    Args:
        folder: where folders of new products appear.
        every: seconds between two looks.
    """
    from flows.watch import Watch
    from flows.watch import watch as looks

    if not folder.is_dir():
        raise ValueError(f"folder: expected a folder, got {str(folder)!r}, which does not exist")
    console = Console()
    with ProgressDisplay(console) as display:
        catalog = opened(where, events=display)
        console.print(f"watching {folder}/ for products that catalog {catalog.name} does not know (Ctrl-C ends it)")
        for found in looks(Watch(catalog=catalog, folder=folder), every=every):
            if isinstance(found, CatalogChange):
                _tell(found, catalog=catalog, console=console)
            else:
                console.print(f"[yellow]{found}[/yellow]", highlight=False)


@app.command(name="list")
def list_versions(*, where: Where = _HERE, json: bool = False) -> None:
    """List the versions of a catalog, or of all catalogs of the store when no data set is given.

    Args:
        json: one JSON array in place of a table.
    """
    store = Store.open(where.store)
    named = where.catalog or (catalog_name(where.dataset) if where.dataset else "")
    versions = [one for name in ([named] if named else catalog_names(store)) for one in _versions(store, name)]
    if json:
        sys.stdout.buffer.write(canonical_json([_fields(one) for one in versions]) + b"\n")
        return
    table = Table("catalog", "version", "products", "photos", "change", "when", "from")
    for one in versions:
        change = "its own exemplars" if one.action == "created" else f"{one.action} {some_of(one.skus)}"
        table.add_row(
            one.catalog, str(one.number), str(one.products), str(one.photos), change, one.time, one.source or "-"
        )
    Console().print(table if versions else "no catalog has versions yet; `tally catalog add DIR` makes them")


@app.command
def diff(before: int, after: int = 0, *, where: Where = _HERE) -> None:
    """Tell what version AFTER of a catalog has more or less than version BEFORE.

    Args:
        before: number of the earlier version.
        after: number of the later version; 0: the newest.
    """
    name = where.catalog or catalog_name(where.root())
    found = difference(Store.open(where.store), name=name, before=before, after=after)
    for sign, skus in (("+", found.added), ("-", found.removed), ("~", found.changed)):
        for sku in skus:
            print(sign, sku)
    if not (found.added or found.removed or found.changed):
        print("no difference")


def _tell(change: CatalogChange, *, catalog: Catalog, console: Console) -> None:
    version = change.version
    for reason in change.refused.values():
        console.print(f"[yellow]refused[/yellow] {reason}", highlight=False, soft_wrap=True)
    for row in change.quarantined:
        console.print(f"[yellow]quarantined[/yellow] {row.item_id}: {row.reason}", highlight=False, soft_wrap=True)
    if not change.changed:
        console.print(f"nothing to do: catalog {version.catalog} stays at version {version.number}")
        return
    did = "added" if version.action == "added" else "removed"
    console.print(
        f"catalog {version.catalog} version {version.number}: {did} {some_of(change.changed)}; "
        f"{version.products} products, {version.photos} photos",
        highlight=False,
        soft_wrap=True,
    )
    from flows.announcements import announce_version

    console.print(announce_version(version, store=catalog.store), highlight=False, soft_wrap=True)


def _versions(store: Store, name: str) -> tuple[CatalogVersion, ...]:
    return catalog_versions(store, catalog=name)


def _fields(version: CatalogVersion) -> dict[str, object]:
    return {name: getattr(version, name) for name in CatalogVersion.__dataclass_fields__}
