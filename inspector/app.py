"""Web pages over runs and the artifact store: what the pipeline did, and why.

A request never names a file: everything is asked for by ids that are looked up among what is there. GET changes
nothing; what changes something is posted with a token of its own (see `access`) and written into a log. Run it with
`tally inspect`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspector.access import Access, SignInError, checked_token, is_loopback
from inspector.action_log import ActionLog
from inspector.champion_desk import ChampionDesk
from inspector.pages import catalog, champions, compare, items, reruns, review, runs, stages, visits
from inspector.picture_cache import PictureCache
from inspector.prefect_api import PrefectApi
from inspector.problems import PageError, not_found
from inspector.rendering import ASSET_TYPES, asset_bytes
from inspector.run_shelf import RunShelf
from inspector.site import Site, environment
from inspector.table_shelf import TableShelf
from storage.files import local_path
from storage.read_cache import cache_folder
from storage.store import Store

_SUBJECTS = (visits, runs, stages, items, compare, catalog, review, reruns, champions)
# No script but our own file, no other site's content, no framing by others, forms to ourselves only.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def create_app(
    *,
    runs_folder: Path,
    store_url: str,
    host: str = "127.0.0.1",
    token: str | None = None,
    cache: Path | None = None,
    prefect: PrefectApi | None = None,
    champion_desk: ChampionDesk | None = None,
) -> FastAPI:
    """The web application over the folder of runs and the store at `store_url`.

    `host` is where it will listen: beyond loopback every page needs the token. `cache` is a folder for pictures, beside
    a local store when not given. The token is in `app.state.token`.

    Raises:
        ValueError: no token although the host is not loopback, or one that is too short.
    """
    token = checked_token(token, host=host)
    # Compiled now, not by the first visitor.
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)
    site = Site(
        runs=RunShelf(runs_folder),
        store=(store := Store.open(store_url)),
        tables=TableShelf(store),
        pictures=PictureCache(cache or _cache_beside(store)),
        access=Access(token=token, open_reading=is_loopback(host)),
        log=ActionLog(runs_folder),
        prefect=prefect,
        champions=champion_desk,
    )
    app = FastAPI(
        title="Tally inspector",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(site.access.guard)],
    )
    app.state.token = token
    for subject in _SUBJECTS:
        subject.add_routes(app, site=site)
    app.get("/static/{name}")(show_asset)
    _answer_problems(app, site=site)
    app.add_middleware(_WithHeaders)
    return app


def _cache_beside(store: Store) -> Path:
    """Where pictures are kept: in a local store's own folder, else in the user's cache."""
    if store.url.startswith("file://"):
        return local_path(store.url) / "cache" / "inspector"
    return cache_folder() / "inspector"


def show_asset(name: str) -> Response:
    """A style sheet, the script or the icon."""
    data = asset_bytes().get(name)
    if data is None:
        raise not_found("file")
    headers = {"Cache-Control": "private, max-age=604800, immutable"}
    return Response(data, media_type=ASSET_TYPES[name.rsplit(".", 1)[-1]], headers=headers)


def _answer_problems(app: FastAPI, *, site: Site) -> None:
    """Pages in place of bare messages for everything that goes wrong."""

    def page(request: Request, error: PageError) -> Response:
        if isinstance(error, SignInError):
            asked = f"{request.url.path}?{request.url.query}" if request.method == "GET" else "/"
            return visits.sign_in_page(site, request, status=401, back=asked.rstrip("?"))
        return site.page(request, "problem.html", status=error.status, problem=error)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        titles = {404: "Not found", 405: "Not done this way"}
        title = titles.get(error.status_code, "Not possible")
        text = "There is no such page here." if error.status_code == 404 else str(error.detail)
        return page(request, PageError(error.status_code, title, text))

    def invalid(request: Request, error: Exception) -> Response:
        return page(request, PageError(404, "Not found", "The address is incomplete or makes no sense."))

    def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, PageError)
        return page(request, error)

    def unexpected(request: Request, error: Exception) -> Response:
        text = "The inspector made a mistake; its own output says more. Other pages still work."
        return page(request, PageError(500, "Something went wrong", text))

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(PageError, own)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


class _WithHeaders:
    """Adds the security headers to every response; a route's own ones win."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    present = {name.lower() for name, _ in message["headers"]}
    more = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in present]
    message["headers"] = [*message["headers"], *more]
