"""The run made by hand, and an inspector over it as a browser on this machine meets it."""

import re

import pytest
from starlette.testclient import TestClient

from inspector.app import create_app
from tests.inspector.made_run import earlier_run, made_run

TOKEN = "a-token-long-enough"
HERE = "http://127.0.0.1:8420"


class Desk:
    """Remembers what it was asked to do about champions."""

    def __init__(self):
        self.done = []

    def promote(self, run, *, rung, reason):
        self.done.append(("promote", run["name"], rung, reason))
        return f"{rung} is the champion"

    def roll_back(self, catalog, *, to, reason):
        self.done.append(("roll back", catalog, to, reason))
        return f"back to {to}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    run = made_run(folder)
    earlier_run(folder, run)
    (folder / "runs" / "first" / "report.html").write_text("<p>the report</p>")
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "run.json").write_text("{")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def desk():
    return Desk()


@pytest.fixture(scope="module")
def app(folder, desk):
    return create_app(runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, champion_desk=desk)


@pytest.fixture
def client(app):
    """A visitor without the token."""
    return TestClient(app, base_url=HERE)


@pytest.fixture
def member(app):
    """A visitor who gave the token."""
    client = TestClient(app, base_url=HERE)
    sign_in(client)
    return client


def sign_in(client, *, token=TOKEN, name="Ada"):
    data = {"form_token": form_token_of(client.get("/sign-in").text), "token": token, "name": name}
    return client.post("/sign-in", data=data, follow_redirects=False)


def form_token_of(page):
    return re.search(r'name="form_token" value="([0-9a-f]+)"', page)[1]
