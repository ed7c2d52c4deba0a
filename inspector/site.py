"""What every page needs: runs, store, pictures, the door, and the templates, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from inspector.access import Access
from inspector.action_log import ActionLog
from inspector.champion_desk import ChampionDesk
from inspector.command_lines import only_stage
from inspector.picture_cache import PictureCache
from inspector.prefect_api import PrefectApi
from inspector.problems import not_found
from inspector.rendering import templates
from inspector.run_data import rung_name
from inspector.run_shelf import RunEntry, RunShelf
from inspector.run_view import RunView
from inspector.table_shelf import TableShelf
from storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything behind the pages. Without `prefect` nothing can be started, without `champions` nothing promoted."""

    runs: RunShelf
    store: Store
    tables: TableShelf
    pictures: PictureCache
    access: Access
    log: ActionLog
    prefect: PrefectApi | None
    champions: ChampionDesk | None

    def run(self, run_id: str) -> RunView:
        """The run with this id. Raises PageError 404 where there is none."""
        entry = self.runs.get(run_id)
        if entry is None:
            raise not_found("run")
        return self.view(entry)

    def view(self, entry: RunEntry) -> RunView:
        """A run as pages look at it."""
        return RunView(entry, self.store, self.tables)

    def earlier(self, run: RunView) -> RunView | None:
        """The run of the same name before this one."""
        same = [one for one in self.runs.all() if one.name == run.entry.name and not one.problem]
        started = str(run.record.get("started") or "")
        before = [one for one in same if str(one.record.get("started") or "") < started]
        return self.view(before[0]) if before else None

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401
        """A template as a response."""
        visitor = getattr(request.state, "visitor", None)
        common = {
            "visitor": visitor,
            "form_token": getattr(request.state, "form_token", ""),
            "here": str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
            "prefect": self.prefect,
        }
        return HTMLResponse(environment().get_template(template).render(**common, **values), status_code=status)


@cache
def environment() -> Environment:
    """The templates with what pages use in addresses and texts."""
    made = templates()
    made.globals |= {"url": address, "picture": picture_address, "version": version_of, "rung_name": rung_name}
    made.globals["only_stage"] = only_stage
    return made


def address(*parts: str, **query: object) -> str:
    """An address on this site: parts of the path, quoted, and a query of what has a value."""
    told = {name: value for name, value in query.items() if value not in (None, "")}
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    return f"{path}?{urlencode(told)}" if told else path


def picture_address(run: RunView, stage: str, item_id: str, kind: str = "thumbnail") -> str:
    """Where a picture of an item is; changes with the stage's content, so that browsers may keep it."""
    return address("runs", run.id, "stages", stage, "picture", item=item_id, kind=kind, v=version_of(run, stage))


def version_of(run: RunView, stage: str) -> str:
    """What addresses of a stage's pictures carry, so that browsers, which keep them, ask anew when it has changed."""
    return run.stages[stage].content_digest[:8]
