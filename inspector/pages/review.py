"""Review: rows worth a look, a page that asks whether a decision is meant, and every decision that was made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import QueryParams

from inspector.access import Form
from inspector.listing import Filters, Page, page_of
from inspector.pages.items import neighbours_of
from inspector.pages.stages import filters_from, item_of, listing_of, page_number
from inspector.pages.visits import own_path
from inspector.problems import PageError, not_found
from inspector.review_desk import EFFECT, KIND_OF_STAGE, Review, decisions_in_force, review_of, subjects_of
from inspector.run_view import RunView
from inspector.site import Site, address
from storage.manifest import ManifestRow
from storage.reviews import VERDICTS, Decision, Verdict, append_decisions, read_decisions

_NOTE_LIMIT, _MOST_ITEMS, _SHOWN_DECISIONS = 300, 200, 50
TITLES = {"mask": "Masks", "pose": "Views", "pseudo": "Pseudo-labels"}
Text = Annotated[str, Query(max_length=500)]


def stages_to_review(run: RunView) -> list[str]:
    """The stages of a run whose rows people decide about."""
    return [one.name for one in run.stages.values() if one.stage in KIND_OF_STAGE]


def queue(
    site: Site, run: RunView, *, stage: str, decided: str, number: int
) -> tuple[list[tuple[ManifestRow, Decision | None]], Page]:
    """The rows of a stage worth a look, each with its decision in force: the poorest first, decided ones, others, or
    all."""
    listing = listing_of(run, stage)
    marked = marked_rows(site, run, stage=stage)
    numbers = listing.numbers(Filters(sort="quality"))
    if decided in ("yes", "no") and len(numbers):
        numbers = numbers[[(int(one) in marked) == (decided == "yes") for one in numbers]]
    page = page_of(len(numbers), number=number)
    shown = numbers[page.start : page.end]
    return [(row, marked.get(int(at))) for at, row in zip(shown, listing.table.rows(shown), strict=True)], page


def marked_rows(site: Site, run: RunView, *, stage: str) -> dict[int, Decision]:
    """The numbers of a stage's rows that a decision in force is about, as they are now."""
    table, kind = run.table(stage), KIND_OF_STAGE[run.stages[stage].stage]
    held = decisions_in_force(site)
    # An item may have been judged while it was another mask, or another list: the row says what it is now.
    numbers = table.among(sorted({item for one, item, _ in held if one == kind}))
    subjects = subjects_of(run, stage=stage, rows=table.rows(numbers), kind=kind)
    listed = zip(numbers.tolist(), subjects, strict=True)
    return {number: held[subject] for number, subject in listed if subject in held}


def decided_rows(site: Site, run: RunView, *, stage: str, items: list[str]) -> list[tuple[ManifestRow, Review]]:
    """Rows that a decision is asked for, each with what it would be about.

    Raises:
        PageError: nothing is decided about one of them.
    """
    if not items or len(items) > _MOST_ITEMS:
        raise PageError(400, "Nothing chosen", f"Choose between 1 and {_MOST_ITEMS} items.")
    found = []
    for item in items:
        row = item_of(run, stage=stage, item=item)
        review = review_of(site, run, stage=stage, row=row)
        if review is None or review.subject is None:
            raise PageError(409, "Nothing to decide", f"{item}: {review.why if review else 'nobody decides about it.'}")
        found.append((row, review))
    return found


def record(site: Site, run: RunView, *, rows: list[tuple[ManifestRow, Review]], form: Form, by: str) -> list[Decision]:
    """Append decisions to the table and write them into the log."""
    made = [
        Decision(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            reviewer=by,
            kind=KIND_OF_STAGE[run.stages[form.one("stage")].stage],
            item_id=review.subject[1],
            judged=review.subject[2],
            verdict=verdict_of(form),
            sku=row.sku or "",
            note=form.one("note").strip()[:_NOTE_LIMIT],
            run=run.id,
        )
        for row, review in rows
        if review.subject
    ]
    append_decisions(site.store, made)
    details = {"verdict": made[0].verdict, "items": [one.item_id for one in made], "run": run.id}
    site.log.add("review", by=by, outcome=f"{len(made)} recorded", details=details)
    return made


def verdict_of(form: Form) -> Verdict:
    """The verdict that a form gives. Raises PageError where it is none."""
    for verdict in VERDICTS:
        if verdict == form.one("verdict"):
            return verdict
    raise not_found("verdict")


def next_place(run: RunView, *, stage: str, item: str, query: QueryParams) -> str:
    """Where to go after a decision about one item: the next one under the same filters, or the item itself."""
    filters = filters_from(query)
    near = neighbours_of(listing_of(run, stage), item=item, filters=filters)
    place = address("runs", run.id, "stages", stage, "item", item=near.next or item)
    told = filters.query(page=1)
    return f"{place}&{told}" if told else place


def decisions_page(site: Site) -> dict[str, Any]:
    """The decisions that were made, the latest first, and what is wrong with their table."""
    try:
        return {"decisions": read_decisions(site.store)[::-1][:_SHOWN_DECISIONS], "problem": ""}
    except ValueError as error:
        return {"decisions": [], "problem": str(error)}


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages of review."""

    @app.get("/review")
    def show_queue(request: Request, run: Text = "", stage: Text = "", decided: Text = "no") -> HTMLResponse:
        entries = [one for one in site.runs.all() if not one.problem]
        known = decisions_page(site)
        view = (
            site.run(run) if run else next((view for one in entries if stages_to_review(view := site.view(one))), None)
        )
        stages = stages_to_review(view) if view else []
        if view is None or not stages:
            return site.page(request, "review.html", run=view, entries=entries, stages=[], **known)
        stage = stage if stage in stages else stages[0]
        rows, page = queue(site, view, stage=stage, decided=decided, number=page_number(request.query_params))
        kind = KIND_OF_STAGE[view.stages[stage].stage]
        values: dict[str, Any] = {
            "run": view,
            "entries": entries,
            "stages": stages,
            "stage": stage,
            "decided": decided,
            "page": page,
        }
        titles = {one: TITLES[KIND_OF_STAGE[view.stages[one].stage]] for one in stages}
        return site.page(request, "review.html", rows=rows, titles=titles, kind=kind, **values, **known)

    @app.get("/review/decide")
    def ask(request: Request, run: Text, stage: Text, verdict: Text) -> HTMLResponse:
        if verdict not in VERDICTS:
            raise not_found("verdict")
        view, items = site.run(run), request.query_params.getlist("item")
        rows = decided_rows(site, view, stage=stage, items=items)
        kind = KIND_OF_STAGE[view.stages[stage].stage]
        single = len(items) == 1 and not request.query_params.get("many")
        back = next_place(view, stage=stage, item=items[0], query=request.query_params) if single else ""
        return site.page(
            request,
            "decide.html",
            run=view,
            stage=stage,
            rows=rows,
            verdict=verdict,
            kind=kind,
            effect=EFFECT[kind, verdict],
            back=back or address("review", run=view.id, stage=stage),
        )

    @app.post("/review/decide")
    def decide(request: Request) -> Response:
        form: Form = request.state.form
        verdict_of(form)
        view = site.run(form.one("run"))
        rows = decided_rows(site, view, stage=form.one("stage"), items=form.all("item"))
        record(site, view, rows=rows, form=form, by=request.state.visitor.name)
        return RedirectResponse(own_path(form.one("next")), status_code=303)
