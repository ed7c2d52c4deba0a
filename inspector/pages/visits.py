"""Signing in and out, the log of actions, and whether the inspector lives."""

from __future__ import annotations

import time

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from inspector.access import COOKIE
from inspector.site import Site

_LOG_LINES = 200
_WRONG_TOKEN_SECONDS = 0.5
_NAME_LIMIT = 60


def sign_in_page(site: Site, request: Request, *, status: int = 200, back: str = "/", wrong: bool = False) -> Response:
    """The form that asks for the token; the visitor gets a cookie that belongs to the form."""
    response = site.page(request, "sign_in.html", status=status, back=own_path(back), wrong=wrong)
    site.access.remember(response, request.state.visitor, secure=request.url.scheme == "https")
    return response


def own_path(back: str) -> str:
    """Where to go afterwards, if it is a place on this site; else the start."""
    inside = back.startswith("/") and not back.startswith(("//", "/\\")) and "\n" not in back and "\r" not in back
    return back if inside else "/"


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages about visitors."""

    @app.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/sign-in")
    def ask(request: Request, next: str = "/") -> Response:
        return sign_in_page(site, request, back=next)

    @app.post("/sign-in")
    def sign_in(request: Request) -> Response:
        form = request.state.form
        if not site.access.knows(form.one("token").strip()):
            # A guess costs time.
            time.sleep(_WRONG_TOKEN_SECONDS)
            return sign_in_page(site, request, status=401, back=form.one("next"), wrong=True)
        response = RedirectResponse(own_path(form.one("next")), status_code=303)
        name = form.one("name").strip()[:_NAME_LIMIT]
        site.access.admit(response, name=name, secure=request.url.scheme == "https")
        return response

    @app.post("/sign-out")
    def sign_out() -> Response:
        response = RedirectResponse("/", status_code=303)
        response.delete_cookie(COOKIE)
        return response

    @app.get("/log")
    def show_log(request: Request) -> HTMLResponse:
        return site.page(request, "log.html", lines=site.log.last(_LOG_LINES))
