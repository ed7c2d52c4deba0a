"""The list of runs, and a run: its stages as a picture, its ladder, its plots, what changed, how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse

from inspector.differences import by_kind, stage_changes, why_it_ran
from inspector.ladder_chart import ladder_chart
from inspector.listing import PAGE_SIZE, page_of
from inspector.problems import not_found
from inspector.rendering import flat
from inspector.run_data import LEVELS, METRICS, rung_name
from inspector.run_shelf import RunEntry
from inspector.run_view import RunView
from inspector.site import Site
from inspector.stage_graph import NODE_HEIGHT, NODE_WIDTH, stage_graph

_SPARK_WIDTH, _SPARK_HEIGHT = 84, 22
# The report carries its style and its pictures in itself.
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """A run in the list."""

    entry: RunEntry
    ran: int
    cached: int
    val: float | None
    test: float | None
    points: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """A stage of a run with how it went, for the picture and the table."""

    name: str
    how: str
    state: str
    rows: int
    quarantined: int
    seconds: float
    key: str


def run_line(run: RunView) -> RunLine:
    """What the list says of a run."""
    stages = list(run.stages.values())
    cached = sum(one.cached for one in stages)
    return RunLine(
        entry=run.entry,
        ran=len(stages) - cached,
        cached=cached,
        val=figure(run.val_ladder, rung=run.champion),
        test=figure(run.ladder, rung=run.champion),
        points=spark_points([figure(run.ladder, rung=rung) for rung in run.ladder]),
    )


def figure(ladder: Mapping[str, Mapping[str, Mapping[str, float]]], *, rung: str, name: str = "cAcc") -> float | None:
    """A rung's averaged figure, None where it was not measured."""
    return ladder.get(rung, {}).get("averaged", {}).get(name)


def spark_points(values: Sequence[float | None]) -> str:
    """Values in [0, 1] as the points of an SVG polyline; "" for fewer than two."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    step = (_SPARK_WIDTH - 6) / (len(known) - 1)
    heights = [3 + (_SPARK_HEIGHT - 6) * (1 - min(max(value, 0.0), 1.0)) for value in known]
    return " ".join(f"{3 + index * step:.1f},{height:.1f}" for index, height in enumerate(heights))


def stage_states(run: RunView, *, earlier: RunView | None) -> list[StageState]:
    """Every stage of a run with why it ran or that it did not."""
    return [
        StageState(
            name=one.name,
            how=why_it_ran(run, name=one.name, earlier=earlier),
            state="cached" if one.cached else "ran",
            rows=one.rows,
            quarantined=one.quarantined,
            seconds=one.seconds,
            key=one.key,
        )
        for one in run.stages.values()
    ]


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages about runs."""

    @app.get("/")
    def list_runs(request: Request, page: Annotated[int, Query(ge=1, le=100_000)] = 1) -> HTMLResponse:
        entries = site.runs.all()
        shown = page_of(len(entries), number=page)
        lines = [run_line(site.view(one)) for one in entries[shown.start : shown.start + PAGE_SIZE]]
        running = any(line.entry.state == "running" for line in lines)
        spark = {"width": _SPARK_WIDTH, "height": _SPARK_HEIGHT}
        return site.page(request, "runs.html", lines=lines, page=shown, spark=spark, live=running)

    @app.get("/runs/{run}")
    def show_run(request: Request, run: str) -> HTMLResponse:
        view = site.run(run)
        return site.page(request, "run.html", **run_page(site, view))

    @app.get("/runs/{run}/report")
    def show_report(run: str) -> FileResponse:
        path = site.run(run).entry.report
        if path is None:
            raise not_found("report (a run writes it at its end)")
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


def run_page(site: Site, run: RunView) -> dict[str, Any]:
    """What the page of a run shows."""
    earlier = site.earlier(run)
    states = stage_states(run, earlier=earlier)
    changes = [one for one in stage_changes(earlier, run) if one.name in run.stages] if earlier else []
    flow_run = str(run.record.get("flow_run") or "")
    known = site.prefect.state(flow_run) if site.prefect and flow_run else None
    return {
        "run": run,
        "states": {one.name: one for one in states},
        "graph": stage_graph({name: run.sources(name) for name in run.stages}),
        "node": {"width": NODE_WIDTH, "height": NODE_HEIGHT},
        "earlier": earlier,
        "changes": by_kind(one for one in changes if one.own),
        "follow": sum(bool(one.how) and not one.own for one in changes),
        "chart": chart_of(run),
        "levels": LEVELS,
        "metrics": METRICS,
        "report": run.report(run.champion) if run.champion else {},
        "plots": plots_of(run),
        "parameters": flat(run.record.get("parameters") or {}),
        "prefect_page": site.prefect.run_page(flow_run) if site.prefect and known else "",
        "prefect_state": known,
        "live": run.entry.state == "running",
    }


def chart_of(run: RunView) -> Any:  # noqa: ANN401 - a Chart, or nothing to draw
    """The ladder's bars, None where nothing was evaluated."""
    values = {
        rung_name(rung): {level: figures[level]["cAcc"] for level in LEVELS if figures.get(level)}
        for rung, figures in run.ladder.items()
    }
    title = f"cAcc on test by rung and level ({run.record.get('target_protocol')})"
    return ladder_chart(values, levels=LEVELS, title=title) if values else None


def plots_of(run: RunView) -> list[tuple[str, str, str]]:
    """(stage, item, what it shows) of the plots that the champion's evaluation left."""
    stage = f"evaluate.{run.champion}"
    table = run.find(stage)
    items = table.light.column("item_id").to_pylist() if table else []
    return [
        (stage, item, item.removeprefix("plot/").replace("_", " "))
        for item in items
        if item.startswith(("plot/", "picture/"))
    ]
