"""deployments/docker-compose.yml as it runs: natively everywhere, and by Docker where there is an engine."""

import base64
import json
import os
import shutil
import subprocess

import fsspec
import httpx
import pytest

from benchmarks.native_compose import COMPOSE_FILE, native_compose, read_secrets
from benchmarks.services import postgres_programs, wait_until

_SECONDS = 600


def has_docker_engine():
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def ended(stack, run):
    """The state in which a flow run ends."""
    state = {}

    def is_final():
        state.update(stack.get(f"/flow_runs/{run}")["state"])
        return state["type"] in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

    wait_until(is_final, what=f"end of flow run {run}", seconds=_SECONDS, every=1.0)
    return state


def prepare(stack, dataset):
    """Run a short part of the pipeline through its deployment; returns the state in which it ended."""
    deployment = stack.get("/deployments/name/prepare/cpu")["id"]
    parameters = {"dataset": dataset, "preset": "micro", "to_stage": "coarse", "name": "first"}
    return ended(stack, stack.ask(f"/deployments/{deployment}/create_flow_run", parameters=parameters)["id"])


def test_native_services__run_a_deployment_on_object_storage_and_show_it(tmp_path, small_dataset):
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with native_compose(tmp_path) as stack:
        shutil.copytree(small_dataset, tmp_path / "data" / "shop")
        assert prepare(stack, "shop")["name"] == "Completed"
        options = {
            "key": stack.environment["AWS_ACCESS_KEY_ID"],
            "secret": stack.environment["AWS_SECRET_ACCESS_KEY"],
            "client_kwargs": {"endpoint_url": stack.environment["AWS_ENDPOINT_URL"]},
        }
        manifests = fsspec.filesystem("s3", **options).glob("tally/store/artifacts/coarse/*/manifest.parquet")
        assert len(manifests) == 1
        assert json.loads((tmp_path / "data/runs/first/run.json").read_text())["store"] == "s3://tally/store"
        # Nobody comes in without the secrets, from wherever.
        assert httpx.get(f"{stack.api}/flow_runs/count", timeout=30).status_code == 401


@pytest.mark.skipif(not has_docker_engine(), reason="no Docker engine answers on this machine")
def test_docker_services__run_a_deployment(tmp_path, small_dataset):
    variables = read_secrets(tmp_path / "secrets")
    compose = ["docker", "compose", "--file", str(COMPOSE_FILE), "--project-name", "tally-test"]
    environment = {**os.environ, **variables}
    try:
        subprocess.run([*compose, "up", "--detach", "--build", "--wait"], check=True, env=environment)
        subprocess.run([*compose, "cp", f"{small_dataset}/.", "worker-cpu:/data/shop"], check=True, env=environment)
        start = ["prefect", "deployment", "run", "prepare/cpu", "--watch", "--params"]
        parameters = json.dumps({"dataset": "shop", "preset": "micro", "to_stage": "coarse"})
        subprocess.run([*compose, "exec", "worker-cpu", *start, parameters], check=True, env=environment)
        auth = base64.b64encode(variables["TALLY_PREFECT_AUTH"].encode()).decode()
        answer = httpx.get("http://127.0.0.1:4200/api/admin/version", headers={"Authorization": f"Basic {auth}"})
        assert answer.status_code == 200
    finally:
        subprocess.run([*compose, "down", "--volumes"], check=False, env=environment)
