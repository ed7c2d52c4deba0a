"""A Prefect server on PostgreSQL with everything deployed and a worker of the pool `cpu`, once for all these tests.

They start real programs and take minutes: `make services` runs them, `make test` leaves them out.
"""

from pathlib import Path

import pytest

from benchmarks.services import PREFECT, TALLY, postgres_programs, prefect_stack, wait_until

HERE = Path(__file__).parent
DEPLOYMENTS = HERE.parents[1] / "deployments"
_MINUTES = 5


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    home = tmp_path_factory.mktemp("services") / "home"
    home.mkdir()
    with prefect_stack(home, TALLY_HOME=str(home), OMP_NUM_THREADS="1") as made:
        for pool in ("cpu", "gpu"):
            made.run(*PREFECT, "work-pool", "create", pool, "--type", "process")
        made.run(*PREFECT, "--no-prompt", "deploy", "--prefect-file", str(DEPLOYMENTS / "prefect.yaml"), "--all")
        made.run(*TALLY, "automations", "apply")
        with made.worker("cpu"):
            yield Deployed(made, home=home)


class Deployed:
    """What the tests ask of the server."""

    def __init__(self, stack, *, home):
        self.stack, self.home = stack, home

    def start(self, deployment, **parameters):
        """Start a flow run; returns its id."""
        found = self.stack.get(f"/deployments/name/{deployment}")
        return self.stack.ask(f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def state(self, run):
        """The name of a flow run's state."""
        return self.stack.get(f"/flow_runs/{run}")["state"]["name"]

    def end(self, run):
        """The state in which a flow run ended, and its message."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        wait_until(
            lambda: self.stack.get(f"/flow_runs/{run}")["state"]["type"] in final,
            what=f"end of flow run {run}",
            seconds=60 * _MINUTES,
        )
        state = self.stack.get(f"/flow_runs/{run}")["state"]
        return state["name"], state["message"]

    def cancel(self, run):
        self.stack.ask(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})

    def task_runs(self, run):
        """The task runs of a flow run and its sub-flows, by the stage's name."""
        inner = self.stack.ask("/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [run]}})
        ids = [run, *(one["id"] for one in inner)]
        found = self.stack.ask("/task_runs/filter", task_runs={"flow_run_id": {"any_": ids}})
        return {one["name"].rsplit("-", 1)[0]: one for one in found}

    def wait_for(self, ready, what):
        return wait_until(ready, what=what, seconds=60 * _MINUTES)


def processes_of(run):
    """Ids of the processes that belong to a flow run: Prefect names it in their environment."""
    wanted, found = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return [one for one in found if not _is_zombie(one)]


def trainings_of(run):
    """Ids of a flow run's training processes."""
    return [one for one in processes_of(run) if b"tasks.process" in _command(one)]


def _command(number):
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_zombie(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
