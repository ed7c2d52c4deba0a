"""The little of Prefect's HTTP interface that the inspector needs: deployments, starting a flow run, a run's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from storage.digest import JSON

_SECONDS = 5.0
FLOW = "pipeline"


class PrefectError(Exception):
    """Prefect can't be reached or refused; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment of the pipeline flow that a rerun can be given to."""

    id: str
    name: str
    pool: str
    paused: bool
    parameters: Mapping[str, JSON]


class PrefectApi:
    """Prefect's server at `url` (…/api). `auth`: "user:password" where the server asks for it."""

    def __init__(self, url: str, *, auth: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        """Nothing is sent yet."""
        self.url = url.rstrip("/")
        user, _, password = (auth or "").partition(":")
        self._client = httpx.Client(
            base_url=self.url, auth=(user, password) if auth else None, timeout=_SECONDS, transport=transport
        )

    def run_page(self, flow_run: str) -> str:
        """A flow run's page in Prefect's own pages."""
        return f"{self.url.removesuffix('/api')}/runs/flow-run/{flow_run}"

    def deployments(self) -> list[Deployment]:
        """The deployments of the pipeline flow by name. Raises PrefectError."""
        body = {"flows": {"name": {"any_": [FLOW]}}, "limit": 100, "sort": "NAME_ASC"}
        found = self._post("/deployments/filter", body)
        return [
            Deployment(
                id=str(one["id"]),
                name=str(one["name"]),
                pool=str(one.get("work_pool_name") or ""),
                paused=bool(one.get("paused")),
                parameters=one.get("parameters") or {},
            )
            for one in found
        ]

    def start(self, deployment: Deployment, *, parameters: Mapping[str, JSON], tags: list[str]) -> str:
        """Ask for a flow run; returns its id. Raises PrefectError."""
        body = {"parameters": dict(parameters), "tags": tags, "state": {"type": "SCHEDULED"}}
        return str(self._post(f"/deployments/{deployment.id}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> str | None:
        """What Prefect says of a flow run; None where it doesn't know it or can't be reached."""
        try:
            answer = self._client.get(f"/flow_runs/{flow_run}", timeout=1.0)
            return str(answer.json().get("state_name")) if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None

    def _post(self, path: str, body: Mapping[str, JSON]) -> Any:  # noqa: ANN401 - parsed JSON
        try:
            answer = self._client.post(path, json=body)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            said = error.response.text[:500]
            raise PrefectError(f"Prefect refused ({error.response.status_code}): {said}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise PrefectError(f"Prefect at {self.url} can't be reached: {error}") from error
