"""Waiting for what another thread or process does: nothing here is about how fast it does it."""

import time

import pytest

# A test that hangs must end at some time; on a machine however busy what works is done long before.
LONGEST = 300.0


def wait_for(condition, *, what="it"):
    """Come back once `condition()` is true."""
    until = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"{what} did not happen within {LONGEST:.0f} seconds")
        time.sleep(0.01)
