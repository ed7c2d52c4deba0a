"""Deployments on a real server: schedule, cancellation, concurrency limit, retry, crashes, refusals."""

import json
import os
import signal

from benchmarks.services import PREFECT, TALLY, wait_until
from tests.services.conftest import processes_of, trainings_of


def prepare(deployed, dataset, name, **parameters):
    """Start a short part of the pipeline: up to the saliency network, whose training takes a process of its own."""
    options = {"dataset": str(dataset), "preset": "micro", "to_stage": "saliency", "name": name, **parameters}
    return deployed.start("prepare/cpu", **options)


def wait_for_training(deployed, run):
    deployed.wait_for(lambda: bool(trainings_of(run)), f"training of flow run {run}")
    return trainings_of(run)[0]


def test_prepare__runs_once_and_is_cached_after(stack, small_dataset):
    for cached in (False, True):
        run = prepare(stack, small_dataset, "twice")
        assert stack.end(run)[0] == "Completed"
        states = {name: one["state"]["name"] for name, one in stack.task_runs(run).items()}
        assert set(states) >= {"ingest.catalog", "coarse", "saliency"}
        assert (states["saliency"] == "Cached") is cached
    record = json.loads((stack.home / "runs/twice/run.json").read_text())
    assert (record["state"], record["flow_run"]) == ("completed to saliency", run)


def test_runs_of_one_deployment__wait_for_each_other(stack, small_dataset):
    runs = [prepare(stack, small_dataset, f"limit{number}", refresh=["coarse"]) for number in range(2)]
    seen = set()

    def both_ended():
        states = [stack.stack.get(f"/flow_runs/{run}")["state"] for run in runs]
        seen.add(tuple(state["name"] for state in states))
        return all(state["type"] == "COMPLETED" for state in states)

    wait_until(both_ended, what="two runs of a deployment with a limit of one", seconds=300, every=0.1)
    assert ("Running", "Running") not in seen
    assert any("AwaitingConcurrencySlot" in pair for pair in seen)


def test_cancelled_run__leaves_no_process(stack, small_dataset):
    run = prepare(stack, small_dataset, "cancelled", refresh=["saliency"])
    wait_for_training(stack, run)
    stack.cancel(run)
    assert stack.end(run)[0] == "Cancelled"
    stack.wait_for(lambda: not processes_of(run), "the end of a cancelled run's processes")
    assert json.loads((stack.home / "runs/cancelled/run.json").read_text())["state"] == "cancelled"


def test_killed_training__is_tried_again(stack, small_dataset):
    run = prepare(stack, small_dataset, "retried", refresh=["saliency"])
    os.kill(wait_for_training(stack, run), signal.SIGKILL)
    assert stack.end(run)[0] == "Completed"
    assert stack.task_runs(run)["saliency"]["run_count"] == 2


def test_killed_flow__is_crashed_leaves_no_process_and_the_next_goes_on(stack, small_dataset):
    run = prepare(stack, small_dataset, "crashed", refresh=["saliency"])
    training = wait_for_training(stack, run)
    flow = next(one for one in processes_of(run) if one != training)
    os.kill(flow, signal.SIGKILL)
    assert stack.end(run)[0] == "Crashed"
    stack.wait_for(lambda: not processes_of(run), "the end of a crashed run's processes")
    again = prepare(stack, small_dataset, "crashed")
    assert stack.end(again)[0] == "Completed"
    assert stack.task_runs(again)["coarse"]["state"]["name"] == "Cached"


def test_schedule__starts_runs_by_itself(stack):
    upcoming = stack.stack.ask("/deployments/get_scheduled_flow_runs", deployment_ids=[deployment(stack, "gc/weekly")])
    assert upcoming
    stack.stack.run(*PREFECT, "deployment", "schedule", "create", "gc/weekly", "--interval", "10")

    def some_ended():
        wanted = {
            "deployment_id": {"any_": [deployment(stack, "gc/weekly")]},
            "state": {"type": {"any_": ["COMPLETED"]}},
        }
        return bool(stack.stack.ask("/flow_runs/filter", flow_runs=wanted))

    stack.wait_for(some_ended, "a scheduled run")
    stack.stack.run(*PREFECT, "deployment", "schedule", "clear", "gc/weekly", "-y")


def deployment(stack, name):
    return stack.stack.get(f"/deployments/name/{name}")["id"]


def test_wrong_parameters__are_refused_before_anything_starts(stack):
    asked = stack.stack.run(*PREFECT, "deployment", "run", "pipeline/cpu", "-p", "preset=huge", check=False)
    assert asked.returncode != 0
    assert "preset" in asked.stdout + asked.stderr and "huge" in asked.stdout + asked.stderr
    run = stack.start("pipeline/cpu", only="prune", to_stage="train")
    name, message = stack.end(run)
    assert name == "Failed"
    assert "only: expected no --from and no --to beside it, got both" in message


def test_automations__applied_again_change_nothing_and_unlisted_ones_go_when_pruned(stack, tmp_path):
    assert "updated automation tally-crashed-runs" in stack.stack.run(*TALLY, "automations", "apply").stdout
    listed = stack.stack.run(*TALLY, "automations", "list").stdout
    assert listed.count("tally-crashed-runs") == 1
    (tmp_path / "none.yaml").write_text("limits: {tally-training: 2}")
    pruned = stack.stack.run(*TALLY, "automations", "apply", "--file", str(tmp_path / "none.yaml"), "--prune").stdout
    assert "updated limit tally-training: 2" in pruned and "removed automation tally-crashed-runs" in pruned
    stack.stack.run(*TALLY, "automations", "apply")
