"""deployments/: every deployment names a flow that exists and parameters that hold."""

from importlib import import_module

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import options
from flows.automations import list_automations, read_wanted
from flows.refusals import checked

OPTIONS = {
    "pipeline": options.RunOptions,
    "prepare": options.RunOptions,
    "synthesize": options.RunOptions,
    "distill": options.RunOptions,
    "evaluate": options.EvaluateOptions,
    "predict": options.PredictOptions,
    "ingest": options.IngestOptions,
    "gc": options.GcOptions,
    "retrain": options.RetrainOptions,
}


@pytest.fixture(scope="module")
def declared(pytestconfig):
    return yaml.safe_load((pytestconfig.rootpath / "deployments/prefect.yaml").read_text())["deployments"]


@pytest.fixture(scope="module")
def wanted(pytestconfig):
    return read_wanted(pytestconfig.rootpath / "deployments/automations.yaml")


def flow_of(deployment):
    module, name = deployment["entrypoint"].rsplit(".", 1)
    return getattr(import_module(module), name)


def test_deployments__are_these(declared):
    assert {f"{flow_of(one).name}/{one['name']}" for one in declared} == {
        *("pipeline/sample", "pipeline/cpu", "pipeline/gpu", "prepare/cpu", "synthesize/cpu", "distill/gpu"),
        *("evaluate/cpu", "predict/cpu", "ingest/inbox", "gc/weekly", "retrain/cpu", "retrain/gpu"),
    }


def test_deployments__have_parameters_that_hold_limits_tags_and_descriptions(declared):
    for one in declared:
        made = flow_of(one)
        model = OPTIONS[made.name]
        checked(model, one["parameters"])
        assert set(made.parameters.properties) == set(model.model_fields)
        assert all(value.get("description") for value in made.parameters.properties.values())
        assert one["description"].endswith(".") and "tally" in one["tags"]
        assert one["parameters"]["time_limit"] > 0
        assert one["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert one["work_pool"]["name"] in ("cpu", "gpu")


def test_deployments__on_the_gpu_pool_hold_a_training_slot_that_the_automations_make(declared, wanted):
    for one in declared:
        environment = one["work_pool"].get("job_variables", {}).get("env", {})
        if one["work_pool"]["name"] == "gpu":
            assert wanted.limits[environment["TALLY_TRAINING_LIMIT"]] == 1


def test_deployments__give_signs_of_life_more_often_than_the_automation_waits_for_one(declared, wanted):
    (crashed,) = (one for one in wanted.automations if one["name"] == "tally-crashed-runs")
    for one in declared:
        environment = one["work_pool"]["job_variables"]["env"]
        assert 3 * int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= crashed["trigger"]["within"]


def test_automations__start_deployments_that_are_declared(declared, wanted):
    there = {f"{flow_of(one).name}/{one['name']}": one for one in declared}
    actions = [action for one in wanted.automations for action in one["actions"] if "deployment" in action]
    assert [action["deployment"] for action in actions] == ["retrain/cpu"]
    for action in actions:
        assert set(action["parameters"]) <= set(flow_of(there[action["deployment"]]).parameters.properties)


def test_apply_automations__says_that_the_server_is_not_there(wanted):
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(
            RuntimeError, match=r"automations: the Prefect server can't be reached \(.+\); see PREFECT_API_URL"
        ),
    ):
        list_automations()


def test_deployments__with_a_schedule_need_no_parameters(declared):
    for one in declared:
        if one.get("schedules"):
            required = set(flow_of(one).parameters.required or ())
            assert required <= set(one["parameters"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {tally-x: many}", "limits.tally-x: expected integer"),
        ("limit: {}", "limit: expected no such key"),
        ("limits: {other: 1}", "names that start with tally-, got 'other'"),
        ("automations: [{description: x}]", "names that start with tally-, got ''"),
        ("- a", "expected limits and automations"),
    ],
)
def test_read_wanted__says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_wanted(tmp_path / "a.yaml")
