import orjson
import pytest
from starlette.testclient import TestClient

from inspector.app import create_app
from storage.images import decode_rgb
from tests.inspector.made_run import HOSTILE, made_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    made_run(folder)
    (folder / "runs" / "first" / "report.html").write_text("<p>the report</p>")
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "run.json").write_text("{")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def client(folder):
    return TestClient(create_app(runs=folder / "runs", store_url=str(folder / "store")))


def test_runs__lists_sound_runs_only(client):
    page = client.get("/")
    assert page.status_code == 200 and 'href="/runs/first"' in page.text and "broken" not in page.text


def test_runs__none_yet(tmp_path):
    page = TestClient(create_app(runs=tmp_path / "nothing", store_url=str(tmp_path))).get("/")
    assert page.status_code == 200 and "No run yet" in page.text


def test_run__stages_and_report(client):
    page = client.get("/runs/first").text
    assert "/runs/first/stages/ingest.catalog" in page and "/runs/first/report" in page
    assert client.get("/runs/first/report").text == "<p>the report</p>"


def test_stage__rows_by_status_with_escaped_reasons(client):
    page = client.get("/runs/first/stages/ingest.catalog").text
    assert "catalog/x" in page and "catalog/y" in page and HOSTILE not in page
    sifted = client.get("/runs/first/stages/ingest.catalog", params={"status": "ok"}).text
    assert "catalog/x" in sifted and "catalog/y" not in sifted


def test_stage__a_page_beyond_the_last_is_empty(client):
    page = client.get("/runs/first/stages/compose", params={"page": 9})
    assert page.status_code == 200 and "synthetic/000000" not in page.text


def test_picture__by_item_with_its_size(client):
    picture = client.get("/runs/first/stages/compose/picture", params={"item": "synthetic/000000", "side": 32})
    assert picture.headers["content-type"] == "image/jpeg"
    assert decode_rgb(picture.content).shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/runs/first/stages/compose/picture", "../../secret.txt"),
        ("/runs/first/stages/compose/picture", "rendered/000000"),
        ("/runs/first/stages/render/picture", "generator"),
        ("/runs/first/stages/prune/picture", "pose/z"),
        ("/runs/first/stages/nothing/picture", "x"),
        ("/runs/other/stages/compose/picture", "x"),
        ("/runs/broken/stages/compose/picture", "x"),
    ],
)
def test_picture__anything_else_is_404(client, path, item):
    assert client.get(path, params={"item": item}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/runs/%2e%2e",
        "/runs/..%2f..",
        "/runs/%2e%2e/report",
        "/runs/.hidden",
        "/runs/first/stages/..%2f..",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/openapi.json",
    ],
)
def test_paths__nothing_climbs_out(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 422) and "secret" not in answer.text


def test_stage__manifests_of_another_store_are_not_opened(folder, tmp_path):
    (tmp_path / "first").mkdir()
    run = orjson.loads((folder / "runs" / "first" / "run.json").read_bytes())
    (tmp_path / "first" / "run.json").write_bytes(orjson.dumps(run))
    client = TestClient(create_app(runs=tmp_path, store_url=str(tmp_path / "elsewhere")))
    assert client.get("/runs/first/stages/compose").status_code == 404


def test_headers__no_script_and_no_other_site(client):
    for path in ("/", "/runs/first", "/runs/first/report", "/static/style.css", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
    assert "<script" not in client.get("/runs/first").text


def test_app__only_reads(client):
    assert client.post("/runs/first").status_code == 405 and client.delete("/runs/first").status_code == 405
