"""The catalog of a run, product by product, and what each version of it added; confusions, down to every mistake."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from inspector.comparison import mistake_text
from inspector.confusion_matrix import CELL, LABEL, NOTHING, confusion_matrix, mistake_pairs, pair_of
from inspector.item_pictures import make_crop
from inspector.listing import PAGE_SIZE, Filters, page_of
from inspector.pages.stages import as_response, page_number
from inspector.problems import not_found
from inspector.products import FEW_VIEWS, Product, SeenVersion, products_of, recorded_versions, seen_versions
from inspector.run_view import RunView
from inspector.site import Site

Sku = Annotated[str, Query(min_length=1, max_length=500)]
_SORTS = {"sku": "SKU", "kept": "fewest kept views", "recall": "lowest recall", "precision": "lowest precision"}
_PAIRS, _VIEWS = 200, 60


def chosen_rung(run: RunView, asked: str) -> str:
    """The rung that an address asks for; the champion where it asks for none that is there."""
    return asked if asked in run.rungs else run.champion


def sorted_products(products: list[Product], *, sort: str) -> list[Product]:
    """Products with the ones to worry about first; those without the figure come last."""
    if sort not in ("kept", "recall", "precision"):
        return products

    def rank(one: Product) -> tuple[bool, float]:
        value = getattr(one, sort)
        return value is None, float(value or 0)

    return sorted(products, key=rank)


def versions_of(site: Site, run: RunView) -> tuple[list[SeenVersion], str]:
    """The versions of a run's catalog, and what is wrong with their records; where none were recorded, what runs of the
    name have had."""
    try:
        name = str(run.record.get("catalog") or "")
        recorded = recorded_versions(site.store, catalog=name) if name else []
    except ValueError as error:
        return [], str(error)
    if recorded:
        return recorded, ""
    before = [one for one in site.runs.all() if one.name == run.entry.name and not one.problem]
    return seen_versions([site.view(one) for one in reversed(before)]), ""


def product_page(run: RunView, *, sku: str, rung: str) -> dict[str, Any]:
    """What the page of a product shows."""
    product = next((one for one in products_of(run, rung=rung) if one.sku == sku), None)
    if product is None:
        raise not_found("product in this catalog")
    views = {stage: rows for stage in ("prune", "segment", "ingest.catalog") if (rows := _rows(run, stage, sku=sku))}
    mistakes = [one for one in numbered_mistakes(run, rung) if sku in (one["true_sku"], one["found_sku"])]
    return {"run": run, "rung": rung, "product": product, "views": views, "mistakes": mistakes[:_VIEWS]}


def _rows(run: RunView, stage: str, *, sku: str) -> list[Any]:
    if run.find(stage) is None:
        return []
    listing = run.listing(stage)
    numbers = listing.numbers(Filters(sku=sku))
    return listing.table.rows(numbers[:_VIEWS], without=("objects",))


def numbered_mistakes(run: RunView, rung: str) -> list[dict[str, Any]]:
    """A rung's mistakes, each with its place in the table (its id) and what it is in words."""
    listed = run.evaluation(rung, table="mistakes")
    return [{**one, "number": number, "text": mistake_text(one)} for number, one in enumerate(listed)]


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages about products."""

    @app.get("/runs/{run}/catalog")
    def show_catalog(request: Request, run: str, rung: str = "", sort: str = "sku") -> HTMLResponse:
        view = site.run(run)
        rung = chosen_rung(view, rung)
        products = products_of(view, rung=rung)
        page = page_of(len(products), number=page_number(request.query_params))
        ordered = sorted_products(products, sort=sort)[page.start : page.end]
        versions, problem = versions_of(site, view)
        flagged = [one for one in products if one.flagged]
        return site.page(
            request,
            "catalog.html",
            run=view,
            rung=rung,
            products=ordered,
            page=page,
            sort=sort,
            sorts=_SORTS,
            flagged=flagged,
            few=FEW_VIEWS,
            versions=versions,
            problem=problem,
        )

    @app.get("/runs/{run}/product")
    def show_product(request: Request, run: str, sku: Sku, rung: str = "") -> HTMLResponse:
        view = site.run(run)
        return site.page(request, "product.html", **product_page(view, sku=sku, rung=chosen_rung(view, rung)))

    @app.get("/runs/{run}/confusions")
    def show_confusions(request: Request, run: str, rung: str = "") -> HTMLResponse:
        view = site.run(run)
        rung = chosen_rung(view, rung)
        pairs = mistake_pairs(view.evaluation(rung, table="mistakes"))
        report = view.report(rung)
        return site.page(
            request,
            "confusions.html",
            run=view,
            rung=rung,
            pairs=pairs[:_PAIRS],
            left_out=max(len(pairs) - _PAIRS, 0),
            matrix=confusion_matrix(pairs),
            cell=CELL,
            label=LABEL,
            nothing=NOTHING,
            kinds=report.get("error_kinds") or {},
        )

    @app.get("/runs/{run}/confusions/pair")
    def show_pair(request: Request, run: str, true: Sku, found: Sku, rung: str = "") -> HTMLResponse:
        view = site.run(run)
        rung = chosen_rung(view, rung)
        mistakes = [one for one in numbered_mistakes(view, rung) if pair_of(one) == (true, found)]
        page = page_of(len(mistakes), number=page_number(request.query_params))
        shown = mistakes[page.start : page.start + PAGE_SIZE]
        back = sum(pair_of(one) == (found, true) for one in view.evaluation(rung, table="mistakes"))
        values: dict[str, Any] = {
            "there": true,
            "found": found,
            "mistakes": shown,
            "page": page,
            "back": back,
            "nothing": NOTHING,
        }
        return site.page(request, "pair.html", run=view, rung=rung, **values)

    @app.get("/runs/{run}/mistake")
    def show_mistake(run: str, rung: str, number: Annotated[int, Query(ge=0, le=10**9)]) -> Response:
        """A crop of one mistake, by its place in the rung's table."""
        view = site.run(run)
        listed = view.evaluation(chosen_rung(view, rung), table="mistakes")
        if number >= len(listed):
            raise not_found("mistake")
        photo = view.row("ingest.test", str(listed[number]["photo"]))
        if photo is None:
            raise not_found("photo")
        return as_response(make_crop(site.store, photo, box=tuple(listed[number]["box"])))
