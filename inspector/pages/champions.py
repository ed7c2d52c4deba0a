"""Champions: how they came to be, a model promoted, an earlier one brought back.

Each change has a page that says what would happen and asks for confirmation; only the form on it does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from inspector.access import Form, Visitor
from inspector.champion_desk import ChampionDesk
from inspector.problems import PageError, not_found
from inspector.run_shelf import RunEntry
from inspector.site import Site
from storage.champions import ChampionRecord, champion_catalogs, champion_history
from storage.digest import JSON

_REASON_LIMIT = 500
Text = Annotated[str, Query(max_length=500)]
Act = Callable[[ChampionDesk, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A catalog's decisions, the latest first, and its present champion; `problem`: why they can't be read."""

    catalog: str
    history: tuple[ChampionRecord, ...] = ()
    present: ChampionRecord | None = None
    problem: str = ""


def champion_boards(site: Site) -> list[Board]:
    """A board for each catalog that has decisions."""
    return [_board(site, catalog) for catalog in champion_catalogs(site.store)]


def _board(site: Site, catalog: str) -> Board:
    try:
        history = champion_history(site.store, catalog=catalog)
    except ValueError as error:
        return Board(catalog=catalog, problem=str(error))
    made = [one for one in history if one.action != "rejected"]
    return Board(catalog=catalog, history=history[::-1], present=made[-1] if made else None)


def run_with(record: ChampionRecord, *, entries: Sequence[RunEntry]) -> str:
    """Id of the first of these runs that has the record's name and model, empty where there is none.

    The last run of that name may have another model.
    """
    ids = (one.id for one in entries if one.name == record.run and _has(one, digest=record.checkpoint_digest))
    return next(ids, "")


def _has(entry: RunEntry, *, digest: str) -> bool:
    stages = entry.record.get("stages") or []
    return any(isinstance(one, dict) and one.get("content_digest") == digest for one in stages)


def champion_record(site: Site, *, catalog: str, number: int) -> ChampionRecord:
    """A decision by its catalog and number, among those that there are."""
    boards = (board for board in champion_boards(site) if board.catalog == catalog)
    found = (one for board in boards for one in board.history if one.number == number)
    record = next(found, None)
    if record is None:
        raise not_found("champion")
    return record


def act_on_champion(
    site: Site, what: str, *, visitor: Visitor, form: Form, details: Mapping[str, JSON], act: Act
) -> str:
    """Do something about champions for the reason that the form gives, and write it down either way."""
    if site.champions is None:
        raise PageError(409, "Not possible", "This inspector was started without the right to change champions.")
    reason = form.one("reason").strip()[:_REASON_LIMIT] or "no reason given"
    try:
        done = act(site.champions, f"by {visitor.name or 'somebody'} in the inspector: {reason}")
    except (ValueError, KeyError, OSError) as error:
        site.log.add(what, by=visitor.name, outcome=f"failed: {error}", details=details)
        raise PageError(409, "Not done", str(error)) from error
    site.log.add(what, by=visitor.name, outcome=done, details={**details, "reason": reason})
    return done


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages of champions."""

    @app.get("/champions")
    def show_champions(request: Request) -> HTMLResponse:
        run_of = partial(run_with, entries=site.runs.all())
        return site.page(request, "champions.html", boards=champion_boards(site), run_of=run_of)

    @app.get("/promote")
    def ask_promote(request: Request, run: Text, rung: Text = "") -> HTMLResponse:
        view = site.run(run)
        rung = rung if rung in view.rungs else view.champion
        if f"train.{rung}" not in view.stages:
            raise not_found("model in this run")
        figures = view.ladder.get(rung, {}).get("averaged", {})
        return site.page(
            request,
            "confirm.html",
            title=f"Promote {rung} of {view.id}",
            text="It becomes the champion: `--model champion` and a running `tally serve` take it at once.",
            place="/promote",
            fields={"run": view.id, "rung": rung},
            details={f"test {name}": value for name, value in figures.items()},
            warning="" if view.entry.state == "completed" else "This run is not complete.",
            reason=True,
            button="Promote",
        )

    @app.post("/promote")
    def do_promote(request: Request) -> Response:
        form: Form = request.state.form
        view, rung = site.run(form.one("run")), form.one("rung")
        done = act_on_champion(
            site,
            "promote",
            visitor=request.state.visitor,
            form=form,
            details={"run": view.id, "rung": rung},
            act=lambda desk, reason: desk.promote(view.record, rung=rung, reason=reason),
        )
        return site.page(request, "done.html", title="Promoted", text=done, link="/champions", link_text="Champions")

    @app.get("/rollback")
    def ask_rollback(request: Request, catalog: Text, to: int) -> HTMLResponse:
        record = champion_record(site, catalog=catalog, number=to)
        return site.page(
            request,
            "confirm.html",
            title=f"Go back to champion {to} of {catalog}",
            text=f"{record.rung} of run {record.run} becomes the champion again.",
            place="/rollback",
            fields={"catalog": catalog, "to": to},
            details={"promoted": record.time, **{f"reason {at + 1}": one for at, one in enumerate(record.reasons)}},
            warning="",
            reason=True,
            button="Go back",
        )

    @app.post("/rollback")
    def do_rollback(request: Request) -> Response:
        form: Form = request.state.form
        number = int(form.one("to")) if form.one("to").isdecimal() else 0
        record = champion_record(site, catalog=form.one("catalog"), number=number)
        done = act_on_champion(
            site,
            "roll back",
            visitor=request.state.visitor,
            form=form,
            details={"catalog": record.catalog, "to": record.number},
            act=lambda desk, reason: desk.roll_back(record.catalog, to=record.number, reason=reason),
        )
        return site.page(request, "done.html", title="Done", text=done, link="/champions", link_text="Champions")
