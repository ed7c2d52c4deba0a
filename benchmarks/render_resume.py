"""Kills a renderer's training in the middle and runs it again: for `benchmarks.render`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from storage.manifest import Manifest
from storage.store import Store
from tasks.params import RenderParams
from tasks.stage import key_of, load_stage, run_stage_locally
from tasks.training import saved_step

_LONGEST = 600.0


def resumed_equals_uninterrupted(params: RenderParams, *, synthetic: Manifest, pool: Manifest) -> tuple[bool, int]:
    """Whether a training that SIGKILL ended after its first saved state ends with the same weights; and that step.

    Both run in stores of their own, which are gone afterwards.

    Raises:
        TimeoutError: no state was saved for ten minutes, or the training ended before it could be killed.
    """
    with TemporaryDirectory() as folder:
        straight = _generator_digest(params, synthetic=synthetic, pool=pool, url=f"{folder}/straight")
        context = multiprocessing.get_context("spawn")
        child = context.Process(
            target=_generator_digest,
            args=(params,),
            kwargs={"synthetic": synthetic, "pool": pool, "url": f"{folder}/killed"},
        )
        child.start()
        store = Store.open(f"{folder}/killed")
        key = key_of(params, inputs={"synthetic": synthetic, "pool": pool})
        scratch = store.scratch(params.stage, key=key)
        killed_at = _kill_after_a_state(child.pid or 0, scratch=scratch)
        child.join()
        if store.find(params.stage, key=key) is not None:
            raise TimeoutError("expected to kill the training in the middle, but it had ended")
        resumed = _generator_digest(params, synthetic=synthetic, pool=pool, url=f"{folder}/killed")
    return straight == resumed, killed_at


def _kill_after_a_state(process: int, *, scratch: Path) -> int:
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        steps = [saved_step(state.parent) for state in scratch.rglob("state.safetensors")]
        if steps and max(steps) > 0:
            os.kill(process, signal.SIGKILL)
            return max(steps)
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    raise TimeoutError(f"expected a saved state in {scratch} within {_LONGEST:.0f} s, got none")


def _generator_digest(params: RenderParams, *, synthetic: Manifest, pool: Manifest, url: str) -> str:
    """The digest of the generator's weights after the stage ran in the store at `url`."""
    made = run_stage_locally(load_stage("render"), params, store=Store.open(url), synthetic=synthetic, pool=pool)
    return made.row("generator").digest
