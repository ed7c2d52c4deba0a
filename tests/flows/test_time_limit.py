import time

import pytest

from flows.time_limit import TimeLimitError, time_limit
from tasks.process import StageFailedError


def test_time_limit__ends_a_stage_at_its_next_sign_of_life():
    clock, seen = iter([0.0, 1000.0, 3599.0, 3601.0]), []
    with (
        pytest.raises(TimeLimitError, match="time_limit: 1 hours are over"),
        time_limit(1.0, events=seen.append, clock=lambda: next(clock)) as events,
    ):
        for step in range(3):
            events({"kind": "progress", "done": step})
    assert [event["done"] for event in seen] == [0, 1]


def test_time_limit__zero_is_none():
    seen = []
    with time_limit(0, events=seen.append) as events:
        assert events == seen.append


def test_time_limit__says_why_a_silent_training_was_ended(monkeypatch):
    ended = []
    monkeypatch.setattr("flows.time_limit.stop_children", lambda: ended.append(True))
    with pytest.raises(TimeLimitError), time_limit(1e-9, events=lambda _: None, grace=0.0):
        while not ended:
            time.sleep(0.001)
        raise StageFailedError("stage train was killed by signal 15")


def test_time_limit__leaves_other_failures_alone():
    with pytest.raises(StageFailedError, match="out of memory"), time_limit(1.0, events=lambda _: None):
        raise StageFailedError("out of memory")
