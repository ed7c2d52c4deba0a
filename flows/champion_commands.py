"""`tally champion …`: which model is promoted, how it came to be, and back to an earlier one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from flows.catalog import catalog_name
from flows.options import CatalogOptions
from flows.promotion import decision_line, install
from flows.runs import now
from storage.champions import (
    ChampionRecord,
    champion_catalogs,
    champion_history,
    current_champion,
    roll_back,
)
from storage.digest import canonical_json
from storage.store import Store

_HELP = """The promoted model of a catalog and every decision that led to it.

A model becomes champion when it is better on val by a margin and not worse on any level or on the old products.
"""

app = App(name="champion", help=_HELP, help_format="markdown")
Where = Annotated[CatalogOptions, Parameter(name="*")]
_HERE = CatalogOptions()


@app.command(name="list")
def list_decisions(*, where: Where = _HERE, json: bool = False) -> None:
    """List the decisions about a catalog's models, or about those of all catalogs when no data set is given.

    Args:
        json: one JSON array in place of a table.
    """
    store = Store.open(where.store)
    named = where.catalog or (catalog_name(where.dataset) if where.dataset else "")
    names = [named] if named else champion_catalogs(store)
    records = [record for name in names for record in champion_history(store, catalog=name)]
    if json:
        sys.stdout.buffer.write(canonical_json([record.to_json() for record in records]) + b"\n")
        return
    present = {name: current_champion(store, catalog=name) for name in names}
    table = Table("catalog", "number", "decision", "run", "catalog version", "when", "why")
    for record in records:
        champion = present[record.catalog]
        mark = " *" if champion is not None and champion.number == record.number else ""
        version = str(record.catalog_version or "own")
        table.add_row(
            record.catalog,
            f"{record.number}{mark}",
            record.action,
            f"{record.run}/{record.rung}",
            version,
            record.time,
            record.reasons[-1] if record.reasons else "",
        )
    Console().print(table if records else "no model was promoted yet; `tally run` trains one")


@app.command
def show(number: int = 0, *, where: Where = _HERE, json: bool = False) -> None:
    """Show a decision with its reasons and figures.

    Args:
        number: which one; 0: the one that made the present champion.
        json: the record as JSON.
    """
    store, name = Store.open(where.store), _name(where)
    record = _record(store, name=name, number=number)
    if json:
        sys.stdout.buffer.write(canonical_json(record.to_json()) + b"\n")
        return
    console = Console()
    console.print(f"catalog {name}, number {record.number}: {decision_line(record)}", highlight=False, soft_wrap=True)
    console.print(f"run {record.run}, {record.rung}, preset {record.preset}, {record.time}", highlight=False)
    console.print(f"checkpoint {record.checkpoint}", highlight=False, soft_wrap=True)
    for split in ("val", "test"):
        if split in record.figures:
            console.print(_figures_table(record, split=split))


@app.command
def rollback(to: int = 0, *, where: Where = _HERE, reason: str = "asked for by an operator") -> None:
    """Make an earlier champion the champion again; the history keeps both.

    It stays until the catalog, the pool or val changes.

    Args:
        to: number of the decision that promoted it; 0: the champion before the present one.
        reason: why, for the history.
    """
    store = Store.open(where.store)
    record = roll_back(store, catalog=_name(where), to=to, time=now(), reason=reason)
    folder = install(record, store=store, runs=Path(where.runs))
    Console().print(f"number {record.number}: {decision_line(record)}; in {folder}/", highlight=False, soft_wrap=True)


def _name(where: CatalogOptions) -> str:
    return where.catalog or catalog_name(where.root())


def _record(store: Store, *, name: str, number: int) -> ChampionRecord:
    if number == 0:
        found = current_champion(store, catalog=name)
        if found is None:
            raise ValueError(f"champion: expected one of catalog {name!r}, got none; `tally run` trains one")
        return found
    history = {record.number: record for record in champion_history(store, catalog=name)}
    if number not in history:
        raise ValueError(f"number: expected one of {', '.join(map(str, history)) or 'none'}, got {number}")
    return history[number]


def _figures_table(record: ChampionRecord, *, split: str) -> Table:
    """cAcc of champion and challenger by group of products and level, and the recall of the groups."""
    table = Table("products", "level", "champion cAcc", "challenger cAcc", "champion recall", "challenger recall")
    champion, challenger = (record.figures[split].get(name, {}) for name in ("champion", "challenger"))
    table.title = split
    for group, levels in challenger.items():
        for level, figures in levels.items():
            before = champion.get(group, {}).get(level, {})
            cells = [(before.get(name), figures.get(name)) for name in ("cAcc", "recall")]
            table.add_row(group, level, *(_text(value) for pair in cells for value in pair))
    return table


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
