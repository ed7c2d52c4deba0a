"""The pages over a store on S3 (moto's server) are those over a local one."""

import pytest
from starlette.testclient import TestClient

from inspector.app import create_app
from storage.reviews import read_decisions
from storage.store import Store
from tests.inspector.conftest import HERE, TOKEN, form_token_of, sign_in
from tests.inspector.made_run import made_run
from tests.storage.object_storage import environment_of, s3_service


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    folder, url = tmp_path_factory.mktemp("remote"), "s3://shop/store"
    with s3_service() as service, pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(service, folder).items():
            patch.setenv(name, value)
        Store.open(url)._fs.mkdir("shop")
        made_run(folder, store_url=url)
        app = create_app(runs_folder=folder / "runs", store_url=url, token=TOKEN)
        yield TestClient(app, base_url=HERE), folder


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/runs/first",
        "/runs/first/stages/segment?sort=quality&sku=tea",
        "/runs/first/stages/segment/item?item=mask/x",
        "/runs/first/stages/segment/picture?item=mask/x&kind=thumbnail",
        "/runs/first/stages/segment/picture?item=mask/x&kind=mask",
        "/runs/first/stages/compose/picture?item=synthetic/000000&kind=photo",
        "/runs/first/stages/compose/manifest",
        "/runs/first/catalog",
        "/runs/first/confusions",
        "/review",
    ],
)
def test_pages__over_object_storage(remote, path):
    answer = remote[0].get(path)
    assert answer.status_code == 200, answer.text


def test_pages__what_is_not_there_is_404(remote):
    for path in ("/runs/first/stages/segment/picture?item=../x", "/runs/first/stages/nothing", "/runs/first/report"):
        assert remote[0].get(path).status_code == 404


def test_pictures__are_kept_in_the_users_cache(remote):
    client, folder = remote
    client.get("/runs/first/stages/segment/picture?item=mask/x&kind=thumbnail")
    assert any(path.is_file() for path in (folder / "cache/inspector").rglob("*"))


def test_decisions__are_kept_in_the_bucket(remote):
    client, _ = remote
    sign_in(client)
    fields = {"run": "first", "stage": "segment", "item": "mask/x", "verdict": "bad", "next": "/"}
    form_token = form_token_of(client.get("/").text)
    client.post("/review/decide", data={"form_token": form_token, **fields})
    [decision] = read_decisions(Store.open("s3://shop/store"))
    assert (decision.item_id, decision.verdict) == ("mask/x", "bad")
