"""A part of a run again, through Prefect: a form, a page that says what would be sent and asks whether it is meant."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from inspector.access import Form
from inspector.command_lines import part_again
from inspector.prefect_api import Deployment, PrefectError
from inspector.problems import PageError, not_found
from inspector.products import categories_of
from inspector.run_view import RunView
from inspector.site import Site
from storage.digest import JSON

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
Text = Annotated[str, Query(max_length=500)]


def rerun_parameters(run: RunView, *, stage: str, sku: str, again: bool, name: str) -> dict[str, JSON]:
    """The parameters of a flow run that makes a part of `run` again.

    Raises:
        PageError: the stage, the product or the name makes no sense.
    """
    if stage and stage not in run.stages:
        raise not_found("stage in this run")
    if sku and sku not in {str(one["sku"]) for one in categories_of(run)}:
        raise not_found("product in this catalog")
    if not _NAME.fullmatch(name):
        raise PageError(400, "Not a name", "The run's name may have letters, digits, '.', '_' and '-'.")
    recorded = run.record.get("options") or {"dataset": run.record.get("dataset"), "preset": run.record.get("preset")}
    left_out = ("engine", "dry_run", "only", "to_stage")
    kept = {key: value for key, value in recorded.items() if key not in left_out}
    changes: dict[str, JSON] = {"from_stage": stage, "refresh": [stage] if again and stage else [], "name": name}
    return {**kept, **changes, **({"sku": [sku]} if sku else {})}


def suggested_name(run: RunView, *, sku: str) -> str:
    """The run's own name; beside it where only one product takes part, so that nothing is overwritten."""
    letters = re.sub(r"[^A-Za-z0-9._-]", "-", sku)
    return f"{run.entry.name}-{letters}"[:100] if sku else run.entry.name


def deployments_of(site: Site) -> tuple[list[Deployment], str]:
    """What a rerun can be given to, and what is in the way where there is nothing."""
    if site.prefect is None:
        return [], "No Prefect server is known: start the inspector with --prefect-url, or set PREFECT_API_URL."
    try:
        found = site.prefect.deployments()
    except PrefectError as error:
        return [], str(error)
    return found, "" if found else "Prefect has no deployment of the pipeline: `prefect deploy --all` makes them."


def chosen_deployment(site: Site, wanted: str) -> Deployment:
    """A deployment by its id, among those that there are."""
    found, problem = deployments_of(site)
    chosen = next((one for one in found if one.id == wanted), None)
    if chosen is None:
        raise PageError(409, "Not started", problem or "This deployment is gone.")
    return chosen


def start_rerun(site: Site, run: RunView, *, form: Form, by: str) -> tuple[str, str]:
    """Start what the form asks for; returns the flow run's id and what was done, in a sentence."""
    parameters = rerun_parameters(
        run, stage=form.one("stage"), sku=form.one("sku"), again=bool(form.one("again")), name=form.one("name")
    )
    deployment = chosen_deployment(site, form.one("deployment"))
    assert site.prefect is not None, "a deployment was found"
    try:
        flow_run = site.prefect.start(deployment, parameters=parameters, tags=["inspector"])
    except PrefectError as error:
        site.log.add("rerun", by=by, outcome=f"failed: {error}", details=parameters)
        raise PageError(502, "Not started", str(error)) from error
    outcome = f"started as {deployment.name}, flow run {flow_run}"
    site.log.add("rerun", by=by, outcome=outcome, details=parameters)
    return flow_run, f"Given to deployment {deployment.name}."


def add_routes(app: FastAPI, *, site: Site) -> None:
    """The pages of reruns."""

    @app.get("/rerun")
    def ask_rerun(request: Request, run: Text, stage: Text = "", sku: Text = "") -> HTMLResponse:
        view = site.run(run)
        found, problem = deployments_of(site)
        name = suggested_name(view, sku=sku)
        values: dict[str, Any] = {
            "run": view,
            "stage": stage,
            "sku": sku,
            "skus": [str(one["sku"]) for one in categories_of(view)],
            "name": name,
            "command": part_again(str(view.record.get("command") or ""), stage=stage, sku=sku, name=name),
        }
        return site.page(request, "rerun.html", deployments=found, problem=problem, **values)

    @app.get("/rerun/confirm")
    def confirm_rerun(
        request: Request, run: Text, deployment: Text, name: Text, stage: Text = "", sku: Text = "", again: Text = ""
    ) -> HTMLResponse:
        view = site.run(run)
        parameters = rerun_parameters(view, stage=stage, sku=sku, again=bool(again), name=name)
        fields = {"run": view.id, "deployment": deployment, "name": name, "stage": stage, "sku": sku, "again": again}
        return site.page(
            request,
            "confirm.html",
            title=f"Run {name} {'from ' + stage if stage else 'again'}",
            text=f"Deployment {chosen_deployment(site, deployment).name} gets a flow run with these parameters.",
            place="/rerun",
            fields=fields,
            details=parameters,
            warning="This name is in use: its run.json moves into the history." if name == view.entry.name else "",
            reason=False,
            button="Start",
        )

    @app.post("/rerun")
    def do_rerun(request: Request) -> Response:
        form: Form = request.state.form
        view = site.run(form.one("run"))
        flow_run, done = start_rerun(site, view, form=form, by=request.state.visitor.name)
        link = site.prefect.run_page(flow_run) if site.prefect else ""
        return site.page(
            request, "done.html", title="Started", text=done, link=link, link_text="The flow run in Prefect"
        )
