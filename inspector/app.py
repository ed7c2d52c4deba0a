"""Web pages over runs and the artifact store: runs, a run, a stage's manifest, and its pictures. It only reads.

A request never names a file: pictures are asked for by run, stage and item, and looked up in that run's manifest.
Run it with `tally inspect`; it listens on loopback unless told otherwise, and has no accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from inspector.pictures import thumbnail, with_boxes
from inspector.report import templates
from storage.digest import JSON
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest, ManifestRow
from storage.store import DamagedArtifactError, Store

RUN_FILE, REPORT_FILE = "run.json", "report.html"
PAGE_SIZE = 50
_THUMBNAIL_SIDE = 160
_LARGEST_SIDE = 1600
# No dot alone, no slash: a name can't climb out of the folder of runs.
_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
RunName = Annotated[str, PathParameter(pattern=_NAME, max_length=100)]
StageName = Annotated[str, PathParameter(pattern=_NAME, max_length=100)]
# No script at all, no other site's content, no framing by others; the report carries its style and pictures in itself.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(*, runs: Path, store_url: str) -> FastAPI:
    """The web application over the folder `runs` and the store at `store_url`."""
    app = FastAPI(title="Tally inspector", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(packages=[("inspector", "static")]), name="static")
    pages, store = templates(), Store.open(store_url)

    def page(name: str, **values: Any) -> HTMLResponse:  # noqa: ANN401 - whatever the template shows
        return HTMLResponse(pages.get_template(name).render(**values))

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable) -> Response:
        response: Response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def list_runs() -> HTMLResponse:
        return page("runs.html", runs=read_runs(runs))

    @app.get("/runs/{run}")
    def show_run(run: RunName) -> HTMLResponse:
        record = read_run(runs, run)
        has_report = (runs / run / REPORT_FILE).is_file()
        return page("run.html", run=record, stages=record.get("stages") or [], has_report=has_report, link=True)

    @app.get("/runs/{run}/report")
    def show_report(run: RunName) -> FileResponse:
        read_run(runs, run)
        path = runs / run / REPORT_FILE
        if not path.is_file():
            raise HTTPException(404, "this run has no report yet")
        return FileResponse(path, media_type="text/html")

    @app.get("/runs/{run}/stages/{stage}")
    def show_stage(
        run: RunName,
        stage: StageName,
        number: Annotated[int, Query(alias="page", ge=1, le=1_000_000)] = 1,
        status: Annotated[str, Query(max_length=40)] = "",
    ) -> HTMLResponse:
        manifest = read_manifest(store, runs=runs, run=run, stage=stage)
        statuses = sorted({row.status for row in manifest.rows})
        rows = [row for row in manifest.rows if not status or row.status == status]
        return page(
            "stage.html",
            run=read_run(runs, run),
            stage=stage,
            manifest=manifest,
            rows=rows[(number - 1) * PAGE_SIZE : number * PAGE_SIZE],
            count=len(rows),
            number=number,
            pages=max(1, -(-len(rows) // PAGE_SIZE)),
            statuses=statuses,
            status=status,
        )

    @app.get("/runs/{run}/stages/{stage}/picture")
    def show_picture(
        run: RunName,
        stage: StageName,
        item: Annotated[str, Query(min_length=1, max_length=500)],
        side: Annotated[int, Query(ge=16, le=_LARGEST_SIDE)] = _THUMBNAIL_SIDE,
    ) -> Response:
        manifest = read_manifest(store, runs=runs, run=run, stage=stage)
        data = picture_of(store, manifest.by_id.get(item), side=side)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return app


def read_runs(runs: Path) -> list[dict[str, JSON]]:
    """The records of all runs, the latest first; folders without a sound run.json are left out."""
    names = [path.parent.name for path in runs.glob(f"*/{RUN_FILE}")]
    records = [record for name in names if (record := _record(runs / name / RUN_FILE)) is not None]
    return sorted(records, key=lambda record: str(record.get("started")), reverse=True)


def read_run(runs: Path, name: str) -> dict[str, JSON]:
    """The record of one run. Raises HTTPException 404 where there is none."""
    record = _record(runs / name / RUN_FILE)
    if record is None:
        raise HTTPException(404, "no such run")
    return record


def _record(path: Path) -> dict[str, JSON] | None:
    """The record, named after its folder: links are made from the name."""
    try:
        return {**orjson.loads(path.read_bytes()), "name": path.parent.name}
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None


def read_manifest(store: Store, *, runs: Path, run: str, stage: str) -> Manifest:
    """The manifest of a run's stage. Raises HTTPException 404 where there is none, or where it lies elsewhere."""
    stages = {entry["name"]: entry for entry in read_run(runs, run).get("stages") or []}
    if stage not in stages:
        raise HTTPException(404, "no such stage in this run")
    url = str(stages[stage]["manifest"])
    if not url.startswith(f"{store.url}/"):
        raise HTTPException(404, "this run's artifacts are in another store")
    try:
        return store.load(url)
    except (FileNotFoundError, ValueError) as error:
        raise HTTPException(404, "the stage's manifest is gone; run it again") from error


def picture_of(store: Store, row: ManifestRow | None, *, side: int) -> bytes:
    """A row's picture with its boxes, as a JPEG of at most `side` pixels. Raises HTTPException 404 without one."""
    if row is None or not row.url or not row.media_type.startswith("image/"):
        raise HTTPException(404, "no picture")
    try:
        photo_HW3 = decode_rgb(store.read(row))
    except (DamagedArtifactError, ValueError) as error:
        raise HTTPException(404, "the picture is missing or damaged") from error
    small_HW3 = (
        with_boxes(photo_HW3, objects=row.objects, side=side) if row.objects else thumbnail(photo_HW3, side=side)
    )
    return encode_jpeg(small_HW3, quality=85)
