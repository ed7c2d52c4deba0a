"""What DESIGN.md §4 promises of a store, on object storage: against moto's S3 server."""

import os
import select
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from storage.champions import ChampionRecord, champion_history, record_decision
from storage.locks import Lease
from storage.manifest import ManifestRow
from storage.store import DamagedArtifactError, Store
from tests.storage.object_storage import environment_of, s3_service

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def service():
    with s3_service() as made:
        yield made


@pytest.fixture
def store(service, tmp_path, monkeypatch):
    for name, value in environment_of(service, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(service, "fail", lambda method: False)
    bucket = f"bucket-{uuid.uuid4().hex}"
    made = Store.open(f"s3://{bucket}/store")
    made._fs.mkdir(bucket)
    return made


def publish(store, *, key="k", content=b"hello"):
    publication = store.begin("s", key=key)
    publication.put(content, path="sub/a.bin", row=ManifestRow(item_id="a"))
    return publication.commit(metadata={"note": 1})


def test_commit__publishes_what_is_found_and_read(store):
    manifest = publish(store)
    assert manifest.url == f"{store.url}/artifacts/s/k/manifest.parquet"
    found = store.find("s", key="k")
    assert (found.content_digest, found.metadata["note"]) == (manifest.content_digest, 1)
    assert store.read(found.row("a")) == b"hello"
    assert store.verify(found) == []


def test_commit__is_the_first_ones_when_two_publish_the_same_key(store):
    first, second = store.begin("s", key="k"), store.begin("s", key="k")
    for publication in (first, second):
        publication.put(b"hello", path="a.bin", row=ManifestRow(item_id="a"))
    made = first.commit(metadata={"who": "first"})
    other = second.commit(metadata={"who": "second"})
    assert (made.metadata["who"], other.metadata["who"]) == ("first", "first")
    assert store.find("s", key="k").metadata["who"] == "first"


def test_find__sees_nothing_half_and_nothing_damaged(store):
    publication = store.begin("s", key="k")
    publication.put(b"hello", path="a.bin", row=ManifestRow(item_id="a"))
    assert store.find("s", key="k") is None
    manifest = publication.commit(metadata={})
    assert store.find("s", key="k") is not None
    store.put_file(manifest.row("a").url, b"hell")
    assert store.find("s", key="k") is None
    store.remove_file(manifest.row("a").url)
    with pytest.raises(DamagedArtifactError, match="the file is missing"):
        store.read(manifest.row("a"))


def test_begin__sweeps_away_what_an_interrupted_run_left(store):
    store.begin("s", key="k").put(b"old", path="stale.bin", row=ManifestRow(item_id="stale"))
    publish(store)
    assert sorted(store._fs.find(store._path(f"{store.url}/artifacts"))) == [
        store._path(f"{store.url}/artifacts/s/k/{name}") for name in ("manifest.parquet", "sub/a.bin")
    ]


def test_put_file__uploads_large_files_in_parts(store, service):
    service.requests.clear()
    data = os.urandom(40 * 2**20)
    store.put_file(f"{store.url}/large", data)
    assert service.requests.count("PUT") == 3
    assert store.read_url(f"{store.url}/large") == data
    assert store.create_file(f"{store.url}/large", data) is False


def test_requests__are_tried_again_when_the_service_is_busy(store, service):
    publish(store)
    for method in ("PUT", "GET"):
        left = [True, True, False]
        service.fail = lambda asked, method=method, left=left: asked == method and bool(left) and left.pop(0)
        assert store.find("s", key="k") is not None
        store.put_file(f"{store.url}/note", b"1")
        assert left == []


def test_read__takes_what_was_read_once_from_the_local_cache(store, service, tmp_path):
    row = publish(store, content=b"x" * 1000).row("a")
    store.read(row)
    service.requests.clear()
    assert store.read(row) == b"x" * 1000
    assert service.requests == []
    cached = next(path for path in (tmp_path / "cache/artifacts").rglob("*") if path.is_file())
    cached.write_bytes(b"y" * 1000)
    assert store.read(row) == b"x" * 1000


def test_manifest__opens_without_this_project(store):
    fs, path = fsspec.url_to_fs(publish(store).url)
    with fs.open(path) as file:
        assert pq.read_table(file).column("item_id").to_pylist() == ["a"]


def test_champions__stand_on_object_storage_too(store):
    made = ChampionRecord(
        catalog="shop", action="promoted", time="t", run="r", rung="render", checkpoint="u", checkpoint_digest="d"
    )
    assert [record_decision(store, made).number for _ in range(2)] == [1, 2]
    assert [one.number for one in champion_history(store, catalog="shop")] == [1, 2]


def test_mirrored__another_machine_goes_on_from_the_checkpoints(store, tmp_path, monkeypatch):
    with store.mirrored("train", key="k", folder="checkpoints") as mirror:
        folder = store.scratch("train", key="k") / "checkpoints"
        folder.mkdir()
        (folder / "state.safetensors").write_bytes(b"step 40")
        mirror.copy()
    monkeypatch.setenv("TALLY_CACHE", str(tmp_path / "other machine"))
    with store.mirrored("train", key="k", folder="checkpoints"):
        other = store.scratch("train", key="k") / "checkpoints/state.safetensors"
        assert other.read_bytes() == b"step 40"
    publication = store.begin("train", key="k")
    publication.commit(metadata={})
    assert not other.exists()
    assert store.list_files(f"{store.url}/scratch/train/k/checkpoints") == []


HOLD = """
import sys, time
from storage.locks import Lease
from storage.store import Store
store = Store.open(sys.argv[1])
with Lease(storage=store, folder=f"{store.url}/locks/s/k", length=float(sys.argv[2]), poll=0.05).held():
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
    print("done", flush=True)
"""


def hold(store, *, length, seconds):
    command = [sys.executable, "-c", HOLD, store.url, str(length), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert holder.stdout.readline() == "held\n"
    return holder


def test_lock__waits_for_its_holder_and_outlives_a_killed_one(store):
    folder = f"{store.url}/locks/s/k"
    # However busy the machine is: the holder renews every quarter of a second, the other waits a minute for that.
    with hold(store, length=1.0, seconds=1.0) as holder, Lease(storage=store, folder=folder, poll=0.05).held():
        # It was given back, not taken: the holder said so before.
        assert select.select([holder.stdout], [], [], 0)[0] and holder.stdout.readline() == "done\n"
    assert holder.returncode == 0
    with hold(store, length=1.0, seconds=60.0) as holder:
        holder.kill()
        holder.wait()
        with Lease(storage=store, folder=folder, length=1.0, poll=0.05).held():
            assert len(store.list_files(folder)) == 1
