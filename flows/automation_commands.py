"""`tally automations …`: what Prefect does by itself, from a file to the server."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

app = App(name="automations", help="What Prefect does by itself: limits, retraining on new products, crashed runs.")


@app.command
def apply(file: Path | None = None, *, prune: bool = False) -> None:
    """Create or update on the Prefect server what a file lists; twice changes nothing.

    Args:
        file: limits and automations; deployments/automations.yaml when not given.
        prune: also remove automations named tally-… that the file does not list.
    """
    from flows.automations import DEFAULT_FILE, apply_automations

    for line in apply_automations(file or DEFAULT_FILE, prune=prune):
        print(line)


@app.command(name="list")
def list_them() -> None:
    """List the automations that the server has from us."""
    from flows.automations import list_automations

    table = Table("automation", "enabled", "what it does")
    for name, enabled, description in list_automations():
        table.add_row(name, "yes" if enabled else "no", description)
    Console().print(table)
