"""Reruns against Prefect's own server, which checks what the inspector sends by the schema of the pipeline flow."""

import re
from contextlib import suppress
from multiprocessing import get_context

import httpx
import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness
from starlette.testclient import TestClient

from flows.options import RunOptions
from flows.prefect_flows import pipeline
from flows.refusals import checked
from inspector.app import create_app
from inspector.prefect_api import PrefectApi, PrefectError
from tests.inspector.conftest import HERE, TOKEN, form_token_of, sign_in
from tests.waiting import LONGEST

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server():
    """The address of a Prefect server that has a deployment of the pipeline.

    In a process of its own: what Prefect leaves behind in one lets whatever is forked from it later, as loaders of
    other tests are, end with 1; and where a browser test left its event loop, Prefect would give a coroutine back.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
    process.start()
    there.close()
    yield here.recv()
    here.close()
    process.join()


def _serve(connection):
    with prefect_test_harness(server_startup_timeout=int(LONGEST)):
        pipeline.to_deployment("cpu", parameters={"dataset": "shop", "preset": "cpu"}).apply()
        connection.send(PREFECT_API_URL.value())
        # Until the tests are done, or their process ended.
        with suppress(EOFError):
            connection.recv()


def test_rerun__prefects_server_takes_the_parameters_and_has_the_flow_run(server, folder):
    api = PrefectApi(server)
    app = create_app(runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, prefect=api)
    client = TestClient(app, base_url=HERE)
    sign_in(client)
    [deployment] = api.deployments()
    asked = {"run": "first", "deployment": deployment.id, "stage": "prune", "again": "1", "sku": "tea", "name": "tea"}
    done = client.post("/rerun", data={"form_token": form_token_of(client.get("/").text), **asked})
    assert done.status_code == 200, done.text
    flow_run = re.search(r"/runs/flow-run/([0-9a-f-]+)", done.text)[1]
    known = httpx.get(f"{server}/flow_runs/{flow_run}", timeout=LONGEST).json()
    options = checked(RunOptions, known["parameters"])
    assert (options.name, options.preset, options.from_stage) == ("tea", "micro", "prune")
    assert (list(options.refresh), list(options.sku)) == (["prune"], ["tea"])
    assert known["deployment_id"] == deployment.id and "inspector" in known["tags"]
    assert api.state(flow_run) == "Scheduled"
    assert api.run_page(flow_run) == f"{server.removesuffix('/api')}/runs/flow-run/{flow_run}"


def test_start__parameters_that_the_flow_does_not_have_are_refused(server):
    api = PrefectApi(server)
    with pytest.raises(PrefectError, match=r"refused \(409\).*workers"):
        api.start(api.deployments()[0], parameters={"dataset": "shop", "workers": "many"}, tags=[])
