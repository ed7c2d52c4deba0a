"""Ctrl-C in a terminal, a service that is stopped: all processes get the signal, Prefect's temporary server as well."""

import os
import signal
import subprocess
import sys

import pytest

from flows.interruption import EXIT_INTERRUPTED, INTERRUPTED

pytestmark = pytest.mark.long

# What a shell starts in the background ignores Ctrl-C; what a terminal runs does not.
_LISTENING = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
_STUBBORN = """
from flows.interruption import end_on_signals
end_on_signals()
while True:
    try:
        print("waiting", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
"""


def _interrupted(code, *, after, kinds, folder):
    """The exit code and what was printed, of a program whose group gets a signal once it has printed `after`."""
    run = subprocess.Popen(
        [sys.executable, "-c", _LISTENING + code],
        cwd=folder,
        env={**os.environ, "PREFECT_HOME": str(folder / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for kind in kinds:
            assert any(after in line for line in iter(run.stdout.readline, ""))
            os.killpg(run.pid, kind)
        told, _ = run.communicate(timeout=90)
        return run.returncode, told
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def test_end_on_signals__the_second_one_ends_what_goes_on_waiting(tmp_path):
    code, told = _interrupted(_STUBBORN, after="waiting", kinds=[signal.SIGINT] * 2, folder=tmp_path)
    assert code == EXIT_INTERRUPTED and INTERRUPTED in told


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_end_on_signals__one_ends_a_run_whose_server_it_ended_too(small_dataset, tmp_path, kind):
    arguments = ["tally", "run", "--dataset", str(small_dataset), "--preset", "micro"]
    code = f"import sys; sys.argv = {arguments!r}; from flows.cli import main; main()"
    code, told = _interrupted(code, after="ingest", kinds=[kind], folder=tmp_path)
    assert code == EXIT_INTERRUPTED and INTERRUPTED in told, told
