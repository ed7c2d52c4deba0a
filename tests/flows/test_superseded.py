from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun

from flows.superseded import later_runs

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(minutes_ago, *, due=0):
    """A run asked for so many minutes ago that should start so many minutes from now."""
    return FlowRun(
        id=uuid4(),
        flow_id=uuid4(),
        name=f"{minutes_ago} minutes ago",
        created=NOW - timedelta(minutes=minutes_ago),
        expected_start_time=NOW + timedelta(minutes=due),
    )


def test_later_runs__are_those_asked_for_after_and_due():
    own, older, newer, newest = run(5), run(9), run(3), run(1)
    nightly = run(2, due=300)
    found = later_runs(own, waiting=[newest, own, older, nightly, newer], now=NOW)
    assert [one.name for one in found] == ["3 minutes ago", "1 minutes ago"]
    assert later_runs(newest, waiting=[older, newer], now=NOW) == []
