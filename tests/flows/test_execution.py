import shlex

import pytest

from flows import options
from flows.cli import app
from flows.environment import set_prefect_defaults
from flows.execution import execute_run
from flows.options import RunOptions
from flows.runs import read_run


def test_execute_run__records_a_failure_with_its_reason(tmp_path):
    options = RunOptions(
        dataset=str(tmp_path / "nowhere"),
        preset="micro",
        store=str(tmp_path / "store"),
        runs=str(tmp_path / "runs"),
        engine="local",
    )
    with pytest.raises(ValueError, match="does not exist"):
        execute_run(options)
    run = read_run(tmp_path / "runs" / "micro")
    assert run["state"] == "failed"
    assert "does not exist" in run["error"]


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "..", ".hidden"])
def test_run_options__refuses_names_that_leave_the_runs_folder(name):
    with pytest.raises(ValueError, match="name"):
        RunOptions(dataset="d", name=name)


def test_run_options__folder_is_the_name_or_the_preset():
    assert RunOptions(dataset="d", preset="demo").folder.name == "demo"
    assert RunOptions(dataset="d", preset="demo", name="monday").folder.name == "monday"


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(dataset="my shop"),
        RunOptions(
            dataset="d", preset="micro", name="x", seed=3, from_stage="train", refresh=("train.render", "prune")
        ),
        RunOptions(dataset="d", sku=("tea bags", "oats"), only="prune", pool_source="test", feedback=True),
        RunOptions(dataset="d", feedback=False, promote=False, dry_run=True),
    ],
)
def test_command__is_understood_as_the_same_options(options):
    words = shlex.split(options.command())
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False)
    assert bound.args[0] == options


def test_set_prefect_defaults__leaves_a_users_settings_alone():
    environment = {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    set_prefect_defaults(environment)
    assert environment["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "120"


def test_worker_count__is_as_asked_or_one_a_processor(monkeypatch):
    monkeypatch.setattr(options.os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert RunOptions(dataset="d").worker_count() == 3
    assert RunOptions(dataset="d", workers=2).worker_count() == 2
