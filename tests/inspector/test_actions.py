"""Reruns through Prefect's API, champions and decisions: each with a page that asks, a token, and a line in the log."""

import json
import re

import httpx
import pytest
from starlette.testclient import TestClient

from inspector.app import create_app
from inspector.pages.reruns import suggested_name
from inspector.prefect_api import PrefectApi, PrefectError
from inspector.run_shelf import RunShelf
from inspector.run_view import RunView
from storage.reviews import Decision, append_decisions, read_decisions
from storage.store import Store
from tests.inspector.conftest import HERE, TOKEN, form_token_of, sign_in
from tests.inspector.made_run import made_run

DEPLOYMENTS = [
    {"id": "d-1", "name": "cpu", "work_pool_name": "cpu", "paused": False, "parameters": {"preset": "cpu"}},
    {"id": "d-2", "name": "sample", "work_pool_name": None, "paused": True, "parameters": {"preset": "micro"}},
]


class Prefect:
    """Answers as Prefect's server does, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, request):
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        if request.url.path.endswith("/deployments/filter"):
            return httpx.Response(200, json=DEPLOYMENTS)
        if request.url.path.endswith("/create_flow_run"):
            return httpx.Response(201, json={"id": "f-9"})
        if request.url.path.endswith("/flow_runs/f-9"):
            return httpx.Response(200, json={"state_name": "Running"})
        return httpx.Response(404, json={"detail": "Not Found"})


@pytest.fixture
def prefect():
    return Prefect()


@pytest.fixture
def operator(folder, desk, prefect):
    """A member of an inspector that knows a Prefect server."""
    api = PrefectApi("http://prefect:4200/api", auth="ada:secret", transport=httpx.MockTransport(prefect))
    app = create_app(
        runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, prefect=api, champion_desk=desk
    )
    client = TestClient(app, base_url=HERE)
    sign_in(client)
    return client


def last_logged(client):
    return client.get("/log").text.split("<tbody>")[1].split("</tr>")[0]


def send(client, path, **fields):
    return client.post(path, data={"form_token": form_token_of(client.get("/").text), **fields}, follow_redirects=False)


def test_rerun__asks_confirms_and_gives_prefect_the_runs_own_options(operator, prefect):
    form = operator.get("/rerun?run=first&stage=prune").text
    assert "sample (pool" not in form and "cpu (pool cpu)" in form and "sample, paused" in form
    query = {"run": "first", "deployment": "d-1", "stage": "prune", "again": "1", "name": "first"}
    confirm = operator.get("/rerun/confirm", params=query).text
    assert "Deployment cpu gets a flow run" in confirm and "This name is in use" in confirm
    assert not any(path.endswith("create_flow_run") for _, path, _ in prefect.asked)
    done = send(operator, "/rerun", **query)
    assert done.status_code == 200 and "http://prefect:4200/runs/flow-run/f-9" in done.text
    method, path, body = prefect.asked[-1]
    assert (method, path) == ("POST", "/api/deployments/d-1/create_flow_run")
    assert body["parameters"] == {
        "dataset": "shop",
        "preset": "micro",
        "store": "store",
        "sku": [],
        "name": "first",
        "from_stage": "prune",
        "refresh": ["prune"],
    }
    assert "flow run f-9" in last_logged(operator) and "Ada" in last_logged(operator)


def test_rerun__of_one_product_goes_under_a_name_of_its_own(operator, prefect):
    assert 'value="first-tea"' in operator.get("/rerun?run=first&sku=tea").text
    send(operator, "/rerun", run="first", deployment="d-1", stage="", sku="tea", name="first-tea")
    assert prefect.asked[-1][2]["parameters"]["sku"] == ["tea"]
    assert prefect.asked[-1][2]["parameters"]["refresh"] == []


def test_suggested_name__is_one_that_a_run_may_have(folder):
    entry = RunShelf(folder / "runs").get("first")
    name = suggested_name(RunView(entry, None, None), sku="Müsli/extra 茶")
    assert name == "first-M-sli-extra--"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"stage": "nothing"}, 404),
        ({"sku": "rice"}, 404),
        ({"name": "../x"}, 400),
        ({"name": ""}, 400),
        ({"deployment": "d-9"}, 409),
        ({"run": "nothing"}, 404),
    ],
)
def test_rerun__what_makes_no_sense_starts_nothing(operator, prefect, wrong, status):
    fields = {"run": "first", "deployment": "d-1", "stage": "prune", "name": "first", **wrong}
    assert send(operator, "/rerun", **fields).status_code == status
    assert not any(path.endswith("create_flow_run") for _, path, _ in prefect.asked)


def test_rerun__a_prefect_that_refuses_is_told_and_logged(folder, desk):
    def refusing(request):
        if request.url.path.endswith("filter"):
            return httpx.Response(200, json=DEPLOYMENTS)
        return httpx.Response(409, json={"detail": "parameters: dataset is required"})

    api = PrefectApi("http://prefect:4200/api", transport=httpx.MockTransport(refusing))
    app = create_app(runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, prefect=api)
    client = TestClient(app, base_url=HERE)
    sign_in(client)
    answer = send(client, "/rerun", run="first", deployment="d-1", stage="prune", name="first")
    assert answer.status_code == 502 and "dataset is required" in answer.text
    assert "failed: Prefect refused (409)" in last_logged(client)


def test_rerun__a_prefect_that_is_away_is_told(folder):
    def away(request):
        raise httpx.ConnectError("connection refused")

    api = PrefectApi("http://prefect:4200/api", transport=httpx.MockTransport(away))
    app = create_app(runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, prefect=api)
    client = TestClient(app, base_url=HERE)
    page = client.get("/rerun?run=first&stage=prune")
    assert page.status_code == 200 and "can&#39;t be reached" in page.text and "--from prune" in page.text
    assert client.get("/runs/first").status_code == 200


def test_prefect_api__speaks_with_its_password_and_knows_states(prefect):
    seen = []

    def answering(request):
        seen.append(request.headers.get("authorization"))
        return prefect(request)

    api = PrefectApi("http://prefect:4200/api/", auth="ada:secret", transport=httpx.MockTransport(answering))
    assert [one.name for one in api.deployments()] == ["cpu", "sample"]
    assert api.state("f-9") == "Running" and api.state("f-1") is None
    assert set(seen) == {"Basic YWRhOnNlY3JldA=="}
    with pytest.raises(PrefectError, match="refused \\(404\\)"):
        PrefectApi("http://prefect/api", transport=httpx.MockTransport(lambda _: httpx.Response(404))).deployments()


def test_promote__asks_for_confirmation_and_says_who_and_why(operator, desk):
    desk.done.clear()
    page = operator.get("/promote?run=first").text
    assert "Promote source of first" in page and "test cAcc" in page and desk.done == []
    done = send(operator, "/promote", run="first", rung="source", reason="better at night")
    assert done.status_code == 200 and "source is the champion" in done.text
    assert desk.done == [("promote", "first", "source", "by Ada in the inspector: better at night")]
    assert "promote" in last_logged(operator) and "better at night" in last_logged(operator)


def test_promote__what_can_not_be_is_told_and_logged(operator, desk, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("it is the champion already")

    monkeypatch.setattr(desk, "promote", refuse)
    answer = send(operator, "/promote", run="first", rung="source", reason="x")
    assert answer.status_code == 409 and "champion already" in answer.text
    assert "failed: it is the champion already" in last_logged(operator)
    assert operator.get("/promote?run=first&rung=nothing").status_code == 200
    assert operator.get("/promote?run=broken").status_code == 404


def test_roll_back__of_a_champion_that_is_none_is_404(operator, desk):
    desk.done.clear()
    assert operator.get("/rollback?catalog=tea&to=1").status_code == 404
    for catalog, to in (("tea", "1"), ("../../etc", "1"), ("tea", "x")):
        assert send(operator, "/rollback", catalog=catalog, to=to, reason="x").status_code == 404
    assert desk.done == []


def test_review__a_decision_is_recorded_with_what_was_judged(member, folder):
    store = Store.open(str(folder / "store"))
    before = len(read_decisions(store))
    page = member.get("/review/decide?run=first&stage=prune&item=pose/x&verdict=bad").text
    assert "drops this view, whatever the pool shows" in page and len(read_decisions(store)) == before
    fields = {"run": "first", "stage": "prune", "item": "pose/x", "verdict": "bad", "note": "a hand", "next": "/review"}
    answer = send(member, "/review/decide", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/review")
    decision = read_decisions(store)[-1]
    exemplar = store.load(store.manifest_url("ingest", key="ingest-catalog")).row("catalog/x")
    assert (decision.subject, decision.verdict) == (("pose", "pose/x", exemplar.digest), "bad")
    assert (decision.reviewer, decision.note, decision.sku, decision.run) == ("Ada", "a hand", "tea", "first")
    assert "bad by Ada" in member.get("/runs/first/stages/prune/item?item=pose/x").text.replace("</span>", "")
    assert "pose/x" in last_logged(member)


def test_review__a_pseudo_label_is_judged_by_its_list(member, folder):
    send(member, "/review/decide", run="first", stage="select.image_level", item="pseudo/a", verdict="good", next="/")
    decision = read_decisions(Store.open(str(folder / "store")))[-1]
    assert decision.subject == ("pseudo", "pseudo/a", '{"tea":1}')


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"verdict": "maybe"}, 404),
        ({"item": "pose/nothing"}, 404),
        ({"stage": "compose", "item": "synthetic/000000"}, 409),
        ({"stage": "select.image_level", "item": "pseudo/b"}, 409),
        ({"item": []}, 400),
        ({"run": "nothing"}, 404),
    ],
)
def test_review__nothing_else_can_be_decided(member, folder, wrong, status):
    before = read_decisions(Store.open(str(folder / "store")))
    fields = {"run": "first", "stage": "prune", "item": "pose/x", "verdict": "bad", "next": "/", **wrong}
    assert send(member, "/review/decide", **fields).status_code == status
    assert read_decisions(Store.open(str(folder / "store"))) == before


def test_queue__a_new_mask_of_the_same_exemplar_is_judged_anew(tmp_path):
    run = made_run(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    mask = store.load(next(one["manifest"] for one in run["stages"] if one["name"] == "segment")).row("mask/x")
    told = {"time": "2026-01-01T00:00:00+00:00", "reviewer": "Ada", "kind": "mask", "item_id": "mask/x"}
    append_decisions(store, [Decision(**told, judged="an earlier mask", verdict="bad")])
    site = create_app(runs_folder=tmp_path / "runs", store_url=str(tmp_path / "store"), token=TOKEN)
    client = TestClient(site, base_url=HERE)

    def listed(decided):
        page = client.get(f"/review?run=first&stage=segment&decided={decided}").text
        return re.findall(r'name="item" value="(mask/\w)"', page)

    assert (listed("no"), listed("yes")) == (["mask/a", "mask/x"], [])
    append_decisions(store, [Decision(**told, judged=mask.digest, verdict="bad")])
    assert (listed("no"), listed("yes")) == (["mask/a"], ["mask/x"])
