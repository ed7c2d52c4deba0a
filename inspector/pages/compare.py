"""Two runs, or two rounds of one, side by side: what changed in the stages, the figures, the products and the lists."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from inspector.comparison import (
    TURNS,
    Side,
    metric_deltas,
    mistakes_by_photo,
    photo_changes,
    photo_row,
    product_deltas,
)
from inspector.differences import by_kind, stage_changes
from inspector.listing import Page
from inspector.pages.stages import page_number
from inspector.site import Site

_PAIRS = 12
_PRODUCTS = 40


def side_of(site: Site, *, run_id: str, rung: str) -> Side | None:
    """A model by its run and rung (the run's champion where it has no such rung); None where no run is named."""
    if not run_id:
        return None
    run = site.run(run_id)
    return Side(run, rung if rung in run.rungs else run.champion)


def comparison_page(before: Side, after: Side, *, turn: str, number: int) -> dict[str, Any]:
    """What the page of a comparison shows."""
    changes = photo_changes(before, after)
    counts = {name: sum(one.turn == name for one in changes) for name in TURNS}
    chosen = [one for one in changes if (one.turn == turn if turn in TURNS else one.turn != "same")]
    pages = max(1, -(-len(chosen) // _PAIRS))
    page = Page(min(number, pages), pages, (min(number, pages) - 1) * _PAIRS, len(chosen))
    shown = chosen[page.start : page.start + _PAIRS]
    products = product_deltas(before, after)
    stages = stage_changes(before.run, after.run)
    names = [one.photo for one in shown]
    return {
        "before": before,
        "after": after,
        "metrics": metric_deltas(before, after),
        "gone": [one.title for one in (before, after) if one.run.find(f"evaluate.{one.rung}") is None],
        "same_run": before.run.id == after.run.id,
        "own": by_kind(one for one in stages if one.own),
        "follow": [one for one in stages if one.how and not one.own],
        "products": [one for one in products if one.weight][:_PRODUCTS],
        "steady": sum(not one.weight for one in products),
        "counts": counts,
        "turn": turn if turn in TURNS else "",
        "page": page,
        "end": page.start + len(shown),
        "pairs": [(one, photo_row(after, one.photo)) for one in shown],
        "mistakes": [mistakes_by_photo(side, names) for side in (before, after)],
        "compared": len(changes),
    }


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The page that compares."""

    @app.get("/compare")
    def compare(request: Request, a: str = "", ar: str = "", b: str = "", br: str = "", turn: str = "") -> HTMLResponse:
        entries = [one for one in site.runs.all() if not one.problem]
        after = side_of(site, run_id=b, rung=br)
        before = side_of(site, run_id=a, rung=ar)
        if after is not None and before is None:
            earlier = site.earlier(after.run)
            before = Side(earlier, earlier.champion) if earlier else None
        values: dict[str, Any] = {"entries": entries, "before": before, "after": after, "ready": False}
        if before is not None and after is not None and before.rung and after.rung:
            number = page_number(request.query_params)
            values |= {"ready": True, **comparison_page(before, after, turn=turn, number=number)}
        return site.page(request, "compare.html", **values)
