"""Of several runs of a deployment that wait for their turn only the newest is wanted: the others give way.

Prefect starts waiting runs in the order in which they were asked for. The one that starts looks whether a newer one
waits; then it cancels those in between, and ends.
"""

from __future__ import annotations

from datetime import UTC, datetime
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


def newer_waiting_run() -> str | None:
    """The name of the newest run of this run's deployment that waits and was asked for later; None if there is none.

    Those that wait in between are cancelled.
    """
    if flow_run.id is None:
        return None
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run.id))
        if own.deployment_id is None:
            return None
        later = later_runs(own, waiting=_waiting(client, own.deployment_id), now=datetime.now(UTC))
        for one in later[:-1]:
            client.set_flow_run_state(one.id, Cancelled(message=f"replaced by {later[-1].name}"))
    return later[-1].name if later else None


def later_runs(own: FlowRun, *, waiting: list[FlowRun], now: datetime) -> list[FlowRun]:
    """The waiting runs that were asked for after `own`, oldest first; those of the schedule are not asked for yet."""
    due = [one for one in waiting if one.id != own.id and (one.expected_start_time or now) <= now]
    asked = [one for one in due if one.created and own.created and one.created > own.created]
    return sorted(asked, key=lambda one: one.created or now)


def _waiting(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    states = [StateType.SCHEDULED, StateType.PENDING]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
    )
