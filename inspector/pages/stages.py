"""A stage's artifacts: gallery and table with filters, sorting and paging, its manifest to take away, its pictures."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import QueryParams

from inspector.item_pictures import Encoded, Kind, identity_of, make_picture
from inspector.listing import PAGE_SIZE, SORTS, Filters, Listing, page_of
from inspector.problems import PageError, not_found
from inspector.products import categories_of
from inspector.run_view import BrokenStageError, RunView
from inspector.site import Site
from storage.manifest import ManifestRow

ItemId = Annotated[str, Query(min_length=1, max_length=1000)]
_TEXT_LIMIT = 500
_KEEP = "private, max-age=604800, immutable"
# An SVG that is opened by itself may bring its own style, and nothing else.
_SVG_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def filters_from(query: QueryParams) -> Filters:
    """The filters that an address asks for; values that make no sense are as good as none."""
    texts = {name: query.get(name, "")[:_TEXT_LIMIT] for name in ("sku", "level", "status", "reason", "find", "parent")}
    sort, view = query.get("sort", ""), query.get("view", "")
    return Filters(
        **texts,
        low=_number(query.get("low", "")),
        high=_number(query.get("high", "")),
        sort=sort if sort in SORTS else "item",
        view=view if view in ("gallery", "table") else "gallery",
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def page_number(query: QueryParams) -> int:
    """The page that an address asks for, the first where it makes no sense."""
    text = query.get("page", "1")
    return int(text) if text.isdecimal() and len(text) < 9 else 1


def listing_of(run: RunView, stage: str) -> Listing:
    """The rows of a stage. Raises PageError where the run has no such stage or it can't be shown."""
    if stage not in run.stages:
        raise not_found("stage in this run")
    try:
        return run.listing(stage)
    except BrokenStageError as error:
        raise PageError(404, f"{stage} can't be shown", f"{error} Run the stage again.") from error


def item_of(run: RunView, *, stage: str, item: str) -> ManifestRow:
    """A row of a stage. Raises PageError where there is none."""
    row = listing_of(run, stage).table.row(item)
    if row is None:
        raise not_found("item in this stage")
    return row


def stage_page(run: RunView, *, stage: str, query: QueryParams) -> dict[str, Any]:
    """What the page of a stage shows."""
    listing, filters = listing_of(run, stage), filters_from(query)
    numbers = listing.numbers(filters)
    page = page_of(len(numbers), number=page_number(query))
    shown = numbers[page.start : page.end]
    counts = listing.table.object_counts.take(shown).to_pylist()
    return {
        "run": run,
        "stage": stage,
        "entry": run.stages[stage],
        "metadata": listing.table.metadata,
        "rows": list(zip(listing.table.rows(shown, without=("objects",)), counts, strict=True)),
        "page": page,
        "filters": filters,
        "sorts": SORTS,
        "facets": {name: listing.facets(name) for name in ("sku", "level", "status", "reason")},
        "object_skus": object_skus(run, listing=listing),
        "has_quality": listing.has_quality,
        "total": len(listing.table),
        "sources": run.sources(stage),
        "consumers": run.consumers(stage),
        "metrics": listing.table.metadata.get("metrics") or {},
        "page_size": PAGE_SIZE,
    }


def object_skus(run: RunView, *, listing: Listing) -> list[str]:
    """The products that rows may show among their objects, where they are not products themselves."""
    if not listing.object_skus:
        return []
    recorded = listing.table.content.get("categories") or categories_of(run)
    return sorted(str(one["sku"]) for one in recorded)


def picture_response(site: Site, run: RunView, *, stage: str, item: str, kind: Kind) -> Response:
    """A picture, from the cache where it was made before."""
    listing_of(run, stage)
    if kind in ("photo", "own"):
        made = make_picture(run, stage=stage, row=item_of(run, stage=stage, item=item), kind=kind)
        return as_response(made)

    def make() -> bytes:
        row = item_of(run, stage=stage, item=item)
        return make_picture(run, stage=stage, row=row, kind=kind).data

    data = site.pictures.get(identity_of(run, stage=stage, item_id=item, kind=kind), make)
    return as_response(Encoded(data, _sniffed(data)))


def _sniffed(data: bytes) -> str:
    """The media type of a picture that this program made."""
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG") else "image/svg+xml"


def as_response(made: Encoded) -> Response:
    """A picture with what browsers need to know of it."""
    policy = {"Content-Security-Policy": _SVG_POLICY} if made.media_type == "image/svg+xml" else {}
    return Response(made.data, media_type=made.media_type, headers={"Cache-Control": _KEEP, **policy})


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages about stages."""

    @app.get("/runs/{run}/stages/{stage}")
    def show_stage(request: Request, run: str, stage: str) -> HTMLResponse:
        return site.page(request, "stage.html", **stage_page(site.run(run), stage=stage, query=request.query_params))

    @app.get("/runs/{run}/stages/{stage}/manifest")
    def download(run: str, stage: str) -> Response:
        view = site.run(run)
        table = listing_of(view, stage).table
        data = site.store.read_url(table.url)
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in f"{view.id}-{stage}")
        disposition = f'attachment; filename="{name}.parquet"'
        media_type = "application/vnd.apache.parquet"
        return Response(data, media_type=media_type, headers={"Content-Disposition": disposition})

    @app.get("/runs/{run}/stages/{stage}/picture")
    def show_picture(run: str, stage: str, item: ItemId, kind: Kind = "thumbnail") -> Response:
        return picture_response(site, site.run(run), stage=stage, item=item, kind=kind)
