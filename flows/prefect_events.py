"""Sends one event to the Prefect server and waits until it is there; errors are not swallowed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from flows.environment import set_prefect_defaults
from storage.digest import JSON

set_prefect_defaults()

from prefect.events import Event  # noqa: E402 - the settings above are read at import
from prefect.events.clients import get_events_client  # noqa: E402


def send_event(name: str, *, resource: Mapping[str, str], payload: Mapping[str, JSON]) -> None:
    """Send an event about a resource (`prefect.resource.id` is required).

    Raises:
        RuntimeError: the server can't be reached.
    """
    event = Event(event=name, resource=dict(resource), payload=dict(payload))  # type: ignore[arg-type]
    try:
        asyncio.run(_send(event))
    except OSError as error:
        raise RuntimeError(f"event {name}: the Prefect server can't be reached ({error})") from error


async def _send(event: Event) -> None:
    async with get_events_client() as client:
        await client.emit(event)
