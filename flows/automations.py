"""`tally automations apply`: what deployments/automations.yaml lists exists on the Prefect server afterwards.

Concurrency limits and automations are created or updated by their names; a file that is applied twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.environment import set_prefect_defaults
from flows.refusals import refusal

set_prefect_defaults()

from prefect.client.orchestration import PrefectClient, get_client  # noqa: E402 - settings are read at import
from prefect.client.schemas.actions import (  # noqa: E402
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.events.schemas.automations import AutomationCore  # noqa: E402
from prefect.exceptions import ObjectNotFound  # noqa: E402

DEFAULT_FILE = Path(__file__).parents[1] / "deployments" / "automations.yaml"
_PREFIX = "tally-"
Answer = TypeVar("Answer")


class Wanted(BaseModel):
    """The content of the file: limits by name, automations as Prefect describes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    limits: dict[str, int] = Field(default_factory=dict)
    automations: list[dict[str, Any]] = Field(default_factory=list)


def read_wanted(path: Path) -> Wanted:
    """The content of an automations file.

    Raises:
        ValueError: there is none, or it is not what it should be.
    """
    try:
        body = yaml.safe_load(path.read_text())
        wanted = Wanted(**body)
    except (FileNotFoundError, yaml.YAMLError, TypeError) as error:
        raise ValueError(f"file: expected limits and automations in {path}, got {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {refusal(error)}") from error
    names = [*wanted.limits, *(str(one.get("name", "")) for one in wanted.automations)]
    strange = [name for name in names if not name.startswith(_PREFIX)]
    if strange:
        # So that pruning never touches what is not ours.
        raise ValueError(f"{path}: expected names that start with {_PREFIX}, got {', '.join(map(repr, strange))}")
    return wanted


def apply_automations(path: Path, *, prune: bool) -> list[str]:
    """Make the server have what the file lists; returns what was done, a line each.

    Raises:
        ValueError: the file is wrong, or names a deployment that does not exist.
        RuntimeError: the server can't be reached.
    """
    return _answered(_apply(read_wanted(path), prune=prune))


def list_automations() -> list[tuple[str, bool, str]]:
    """Name, whether it is enabled, and description of our automations on the server.

    Raises:
        RuntimeError: the server can't be reached.
    """

    async def read() -> list[tuple[str, bool, str]]:
        async with get_client() as client:
            found = await client.read_automations()
        return [(one.name, one.enabled, one.description) for one in found if one.name.startswith(_PREFIX)]

    return _answered(read())


def _answered(conversation: Coroutine[Any, Any, Answer]) -> Answer:
    """What comes of talking with the server. Raises RuntimeError where it does not answer, or refuses to."""
    try:
        return asyncio.run(conversation)
    except httpx.HTTPError as error:
        raise RuntimeError(
            f"automations: the Prefect server can't be reached ({error}); see PREFECT_API_URL"
        ) from error


async def _apply(wanted: Wanted, *, prune: bool) -> list[str]:
    done = []
    async with get_client() as client:
        for name, limit in wanted.limits.items():
            done.append(await _apply_limit(client, name, limit))
        for one in wanted.automations:
            done.append(await _apply_automation(client, await _resolved(client, one)))
        if prune:
            done += await _prune(client, keep={str(one["name"]) for one in wanted.automations})
    return done


async def _apply_limit(client: PrefectClient, name: str, limit: int) -> str:
    try:
        await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
        return f"created limit {name}: {limit}"
    await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=limit))
    return f"updated limit {name}: {limit}"


async def _apply_automation(client: PrefectClient, automation: AutomationCore) -> str:
    there = await client.read_automations_by_name(automation.name)
    if not there:
        await client.create_automation(automation)
        return f"created automation {automation.name}"
    await client.update_automation(there[0].id, automation)
    for extra in there[1:]:
        await client.delete_automation(extra.id)
    return f"updated automation {automation.name}"


async def _prune(client: PrefectClient, *, keep: set[str]) -> list[str]:
    extra = [one for one in await client.read_automations() if one.name.startswith(_PREFIX) and one.name not in keep]
    for one in extra:
        await client.delete_automation(one.id)
    return [f"removed automation {one.name}" for one in extra]


async def _resolved(client: PrefectClient, body: Mapping[str, Any]) -> AutomationCore:
    """The automation with the ids of the deployments that its actions name."""
    actions = []
    for action in body.get("actions", ()):
        made = dict(action)
        name = made.pop("deployment", None)
        if name is not None:
            try:
                found = await client.read_deployment_by_name(name)
            except ObjectNotFound as error:
                raise ValueError(
                    f"{body['name']}: expected a deployment, got {name!r}, which does not exist; `prefect deploy` first"
                ) from error
            made |= {"source": "selected", "deployment_id": str(found.id)}
        actions.append(made)
    try:
        return AutomationCore(**{**body, "actions": actions})
    except ValidationError as error:
        raise ValueError(f"{body.get('name')}: {refusal(error)}") from error
