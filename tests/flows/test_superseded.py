from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun

from flows.deployed import _catalog_of
from flows.superseded import asked_for

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


def test_asked_for__oldest_first_without_what_the_schedule_has_ahead():
    own, older, newer, newest = run(5), run(9), run(3), run(1)
    nightly = run(2, due=300)
    found = asked_for(own, waiting=[newest, own, older, nightly, newer], now=NOW)
    assert found == [older, own, newer, newest]


def test_asked_for__a_run_that_waits_for_its_turn_counts_although_it_is_tried_later():
    own, waiting = run(5), run(3, due=1)
    waiting.state_name = "AwaitingConcurrencySlot"
    assert asked_for(own, waiting=[waiting], now=NOW) == [own, waiting]


def test_catalog_of__tells_apart_what_is_retrained():
    night, event = {"dataset": "shop", "time_limit": 24}, {"dataset": "/data/shop", "catalog": "shop", "store": "store"}
    assert _catalog_of(night) == _catalog_of({**event, "store": _catalog_of(night)[1]})
    assert _catalog_of(night) != _catalog_of({"dataset": "kiosk"})
    assert _catalog_of(event) != _catalog_of({**event, "store": "s3://other/store"})


def test_catalog_of__a_wish_with_wrong_parameters_that_waits_fails_no_other_run():
    assert _catalog_of({"nonsense": 1}) is None
