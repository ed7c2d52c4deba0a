"""Of several runs of a deployment that wait for their turn only the newest is wanted: the others give way.

Which of the waiting runs Prefect starts first is chance. The one that starts cancels all that wait but the newest, and
ends itself where that is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import flow_run
from prefect.states import Cancelled

WAITS = "AwaitingConcurrencySlot"


def newer_waiting_run(*, subject: Callable[[Mapping[str, Any]], object]) -> str | None:
    """The name of the newest run that waits and was asked for after this one; None if there is none.

    Runs of this run's deployment count whose parameters have the same `subject`. All others of them that wait are
    cancelled.
    """
    if flow_run.id is None:
        return None
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run.id))
        if own.deployment_id is None:
            return None
        waiting = _waiting(client, own.deployment_id)
        same = [one for one in waiting if subject(one.parameters) == subject(own.parameters)]
        asked = asked_for(own, waiting=same, now=datetime.now(UTC))
        newest = asked[-1]
        for one in asked[:-1]:
            if one.id != own.id:
                client.set_flow_run_state(one.id, Cancelled(message=f"replaced by {newest.name}"))
    return None if newest.id == own.id else newest.name


def asked_for(own: FlowRun, *, waiting: list[FlowRun], now: datetime) -> list[FlowRun]:
    """`own` and the waiting runs, oldest first; those of the schedule are not asked for before their time.

    A run that waits for its turn counts, although the server tries it again only after a while.
    """
    others = [one for one in waiting if one.id != own.id]
    due = [one for one in others if one.state_name == WAITS or (one.expected_start_time or now) <= now]
    return sorted([own, *due], key=lambda one: one.created or now)


def _waiting(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    states = [StateType.SCHEDULED, StateType.PENDING]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
    )
