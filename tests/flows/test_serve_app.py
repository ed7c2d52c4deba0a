import asyncio
import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import httpx
import numpy as np
import pytest
import schemathesis
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.serve_app import Limits, create_app
from flows.serving import Batcher, Served
from storage.catalog import Category
from storage.images import encode_jpeg, encode_png
from storage.manifest import ManifestObject
from tasks.confidence import UNTRAINED
from tasks.list_reader import ListReader
from tests.waiting import LONGEST, wait_for

pytestmark = pytest.mark.long

PHOTO = encode_png(np.full((20, 30, 3), 90, np.uint8))
TOKEN = "a-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
# Every list is as good as another.
SURE = replace(UNTRAINED, acceptable=0.5)


def reader(sku="tea", batches=None):
    """A reader that finds one product in every photo, so that the endpoint is tested without a network."""

    def read(photos):
        if batches is not None:
            batches.append(len(photos))
        found = ManifestObject(category=1, sku=sku, box=(1, 1, 9, 9), score=0.9)
        return [((found,), 1.0) for _ in photos]

    tea = Category(id=1, sku=sku, name="Green tea", metadata={"price": 1.1})
    return ListReader(categories=(tea,), threshold=0.5, confidence=SURE, image_size=64, batch=8, parallel=1, read=read)


def application(tmp_path, *, token=TOKEN, load=lambda path: reader(), **limits):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"1")
    return create_app(Served(find=lambda: model, load=load), token=token, limits=Limits(**limits), every=0.02)


@pytest.fixture
def client(tmp_path):
    with TestClient(application(tmp_path, most_bytes=20_000, most_pixels=100_000)) as made:
        wait_until_ready(made)
        yield made


def wait_until_ready(client):
    wait_for(lambda: client.get("/ready").status_code == 200, what="loading the model")


def test_checkout__gives_the_list(client):
    answer = client.post("/v1/checkout", content=PHOTO, headers=HEADERS)
    assert answer.status_code == 200
    assert answer.json() == {
        "items": 1,
        "confidence": 0.5,
        "state": "accepted",
        "reason": "",
        "total": 1.1,
        "products": [{"sku": "tea", "name": "Green tea", "count": 1, "confidence": 0.9, "price": 1.1, "amount": 1.1}],
    }


def png_of(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"IEND"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (b"\xff\xd8" + bytes(30_000), 413),
        (png_of(60_000, 60_000), 413),
        (PHOTO[: len(PHOTO) // 2], 422),
        (encode_jpeg(np.zeros((40, 40, 3), np.uint8))[:200], 422),
    ],
)
def test_checkout__bad_uploads_are_refused_and_the_next_is_served(client, body, status):
    assert client.post("/v1/checkout", content=body, headers=HEADERS).status_code == status
    assert client.post("/v1/checkout", content=PHOTO, headers=HEADERS).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic x"}])
def test_checkout__wants_the_token(client, headers):
    assert client.post("/v1/checkout", content=PHOTO, headers=headers).status_code == 401


def test_checkout__concurrent_requests_are_each_answered_and_read_once(tmp_path):
    batches = []
    app = application(tmp_path, load=lambda path: reader(batches=batches))

    assert [one.status_code for one in asked(app, *[{"content": PHOTO}] * 16)] == [200] * 16
    assert sum(batches) == 16


def test_batcher__what_waits_together_is_read_together(tmp_path):
    batches = []
    served = Served(find=lambda: tmp_path, load=lambda path: reader(batches=batches))
    served.refresh()

    async def read():
        batcher = Batcher(served=served, batch=8)
        waiting = [asyncio.create_task(batcher.read(np.zeros((9, 9, 3), np.uint8))) for _ in range(20)]
        # Each puts its photo into the queue and waits.
        await asyncio.sleep(0)
        working = asyncio.create_task(batcher.work())
        found = await asyncio.gather(*waiting)
        working.cancel()
        return found

    assert len(asyncio.run(read())) == 20
    assert batches == [8, 8, 4]


def asked(app, *requests, then=()):
    """The answers to requests (keywords of httpx's post) that are sent at once, and to those sent one by one later."""

    async def ask():
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://tally", headers=HEADERS) as web:
                while (await web.get("/ready")).status_code != 200:
                    await asyncio.sleep(0.01)
                answers = await asyncio.gather(*(web.post("/v1/checkout", **one) for one in requests))
                return [*answers, *[await web.post("/v1/checkout", **one) for one in then]]

    return asyncio.run(ask())


def test_checkout__a_photo_that_breaks_the_model_fails_alone(tmp_path):
    class OddError(Exception):
        """Of no common kind, as the errors of a native library may be."""

    def breaking():
        inner = reader()

        def read(photos):
            if any(photo[0, 0, 0] == 13 for photo in photos):
                raise OddError
            return inner.read(photos)

        return replace(inner, read=read)

    app = application(tmp_path, load=lambda path: breaking())
    bad = encode_png(np.full((20, 30, 3), 13, np.uint8))
    statuses = [one.status_code for one in asked(app, *({"content": bad if n == 3 else PHOTO} for n in range(8)))]
    assert statuses == [200, 200, 200, 500, 200, 200, 200, 200]


async def in_two(data, *, between):
    """A body whose second half comes after `between()`."""
    yield data[:20]
    await between()
    yield data[20:]


def test_checkout__slow_uploads_are_given_up_and_hold_up_nobody(tmp_path):
    app = application(tmp_path, seconds=1.0)
    slow, fast = asked(app, {"content": in_two(PHOTO, between=asyncio.Event().wait)}, {"content": PHOTO})
    assert (slow.status_code, fast.status_code) == (408, 200)


def test_checkout__uploads_together_are_bounded(tmp_path):
    app, both = application(tmp_path, most_held_bytes=len(PHOTO) + 30), asyncio.Barrier(2)
    uploads = [{"content": in_two(PHOTO, between=both.wait)} for _ in range(2)]
    *together, later = asked(app, *uploads, then=[{"content": PHOTO}])
    assert sorted(one.status_code for one in together) == [200, 503]
    assert next(one for one in together if one.status_code == 503).headers["Retry-After"] == "1"
    assert later.status_code == 200


def test_served__takes_a_changed_model_and_keeps_the_old_one_when_it_is_broken(tmp_path):
    model = tmp_path / "model.onnx"

    def load(path):
        text = path.read_text()
        if text == "broken":
            raise ValueError("model: broken")
        return reader(sku=text)

    served = Served(find=lambda: model, load=load)
    skus = []
    for text in ("first", "second", "broken", "fourth!"):
        model.write_text(text)
        served.refresh()
        served.refresh()
        skus.append((served.reader.categories[0].sku, served.problem))
    assert skus == [("first", ""), ("second", ""), ("second", "model: broken"), ("fourth!", "")]


for media_type, data in (("image/png", PHOTO), ("image/jpeg", encode_jpeg(np.zeros((9, 9, 3), np.uint8)))):
    schemathesis.openapi.media_type(media_type, st.just(data))


@pytest.fixture
def address(tmp_path):
    """A real server on a free port."""
    server = uvicorn.Server(uvicorn.Config(application(tmp_path), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, what="starting the server")
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        wait_until_ready(client)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=LONGEST)


def test_openapi__holds(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) == 3
    for operation in operations:

        @settings(max_examples=8, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(headers=HEADERS)

        check()


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_checkout__the_sender_of_a_too_large_photo_sees_why(address, times):
    body = b"\xff\xd8" + bytes(int(times * Limits().most_bytes))
    answer = httpx.post(f"{address}/v1/checkout", content=body, headers=HEADERS, timeout=LONGEST)
    assert (answer.status_code, answer.json()["detail"]) == (413, "photo: expected at most 10000000 bytes, got more")


def test_serving_an_exported_file_needs_no_torch():
    code = "import sys, flows.serve_app, flows.serving, flows.predict_photos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
