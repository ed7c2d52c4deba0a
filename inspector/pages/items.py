"""One item: its picture with layers to switch, the numbers behind it, its lineage both ways, and its exact recipe."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import QueryParams

from inspector.item_pictures import make_crop, read_own
from inspector.layers import canvas_of, threshold_of
from inspector.lineage import lineage_of
from inspector.listing import PAGE_SIZE, Filters, Listing
from inspector.pages.stages import ItemId, as_response, filters_from, item_of, listing_of
from inspector.problems import PageError, not_found
from inspector.rendering import flat
from inspector.review_desk import review_of
from inspector.run_view import RunView
from inspector.site import Site
from storage.manifest import ManifestRow

_STRIP = 5
_MOST_ROWS, _MOST_TEXT = 200, 40_000
_MOST_OBJECTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """An item's place among the items of the page it was opened from, and those around it."""

    place: int
    total: int
    previous: str | None
    next: str | None
    strip: list[ManifestRow]
    page: int


def neighbours_of(listing: Listing, *, item: str, filters: Filters) -> Neighbours:
    """Who stands before and after an item under the filters; among all items where it does not pass them."""
    number = listing.table.number_of(item)
    numbers = listing.numbers(filters).tolist()
    if number not in numbers:
        numbers = listing.numbers(Filters()).tolist()
    place = numbers.index(number)
    around = numbers[max(place - _STRIP, 0) : place + _STRIP + 1]
    rows = listing.table.rows(around, without=("objects", "attributes"))
    at = around.index(number)
    return Neighbours(
        place=place,
        total=len(numbers),
        previous=rows[at - 1].item_id if at else None,
        next=rows[at + 1].item_id if at + 1 < len(rows) else None,
        strip=rows,
        page=place // PAGE_SIZE + 1,
    )


def item_page(site: Site, run: RunView, *, stage: str, item: str, query: QueryParams) -> dict[str, Any]:
    """What the page of an item shows."""
    listing, filters = listing_of(run, stage), filters_from(query)
    row = item_of(run, stage=stage, item=item)
    metadata = listing.table.metadata
    return {
        "run": run,
        "stage": stage,
        "entry": run.stages[stage],
        "row": row,
        "canvas": canvas_of(run, stage=stage, row=row),
        "floor": threshold_of(run, stage),
        "near": neighbours_of(listing, item=item, filters=filters),
        "filters": filters,
        "lineage": lineage_of(run, stage=stage, row=row),
        "evidence": row.attributes.get("nearest") or [],
        "facts": [pair for pair in flat(dict(row.attributes)) if not pair[0].startswith("nearest")],
        "objects": row.objects[:_MOST_OBJECTS],
        "content": content_of(site, row),
        "metadata": metadata,
        "parameters": flat(metadata.get("parameters") or {}),
        "inputs": run.inputs[stage],
        "predictions": predictions_of(run, row),
        "review": review_of(site, run, stage=stage, row=row),
    }


def content_of(site: Site, row: ManifestRow) -> dict[str, Any]:
    """What is in a file that is no picture: the rows of a table, or text; empty where there is nothing to show."""
    if row.media_type not in ("application/vnd.apache.parquet", "application/json"):
        return {}
    data = read_own(site.store, row)
    try:
        if row.media_type == "application/json":
            text = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2).decode()
            return {"text": text[:_MOST_TEXT], "cut": len(text) > _MOST_TEXT}
        table = pq.read_table(io.BytesIO(data))
    except (orjson.JSONDecodeError, pa.ArrowInvalid) as error:
        raise PageError(404, "Broken", f"{row.item_id} is not what it says it is: {error}") from error
    rows = [list(one.values()) for one in table.slice(0, _MOST_ROWS).to_pylist()]
    return {"columns": table.column_names, "rows": rows, "cut": table.num_rows > _MOST_ROWS, "count": table.num_rows}


def predictions_of(run: RunView, row: ManifestRow) -> list[dict[str, Any]]:
    """What the models of the run find of a row's product on test, rung by rung; none for rows without a product."""
    if not row.sku:
        return []
    found = []
    for rung in run.rungs:
        table = run.evaluation(rung, table="skus")
        figures = next((one for one in table if one["sku"] == row.sku), None)
        if figures:
            found.append({"rung": rung, "stage": f"predict.{rung}.test", **figures})
    return found


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages about items."""

    @app.get("/runs/{run}/stages/{stage}/item")
    def show_item(request: Request, run: str, stage: str, item: ItemId) -> HTMLResponse:
        values = item_page(site, site.run(run), stage=stage, item=item, query=request.query_params)
        return site.page(request, "item.html", **values)

    @app.get("/runs/{run}/stages/{stage}/evidence")
    def show_evidence(run: str, stage: str, item: ItemId, place: int = 0) -> Response:
        """A crop of the pool that a view was compared with: the `place`-th that its row names."""
        view = site.run(run)
        row = item_of(view, stage=stage, item=item)
        near = row.attributes.get("nearest") or []
        if not 0 <= place < len(near):
            raise not_found("crop")
        photos = (view.row(source, str(near[place]["photo"])) for source in view.sources(stage))
        photo = next((one for one in photos if one is not None), None)
        if photo is None:
            raise not_found("photo")
        return as_response(make_crop(site.store, photo, box=tuple(near[place]["box"])))
