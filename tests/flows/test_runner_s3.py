"""Cached runs on object storage: what holds on a disk holds there, digest for digest."""

import uuid

import pytest

from flows.runner import LocalRunner
from storage.store import Store
from tests.flows.small_pipeline import COMPUTED, climb
from tests.storage.object_storage import environment_of, s3_service


@pytest.fixture
def remote(store, tmp_path, monkeypatch):
    """A store on moto's S3; `store` is there for the small pipeline's stages."""
    with s3_service() as service:
        for name, value in environment_of(service, tmp_path).items():
            monkeypatch.setenv(name, value)
        bucket = f"bucket-{uuid.uuid4().hex}"
        made = Store.open(f"s3://{bucket}/store")
        made._fs.mkdir(bucket)
        yield made


def digests(store, **options):
    runner = LocalRunner(store=store)
    climb(runner, **options)
    return {name: result.content_digest for name, result in runner.results.items()}


def test_local_runner__on_s3_gives_the_digests_of_a_disk_and_computes_once(store, remote):
    assert digests(remote) == digests(store)
    COMPUTED.clear()
    digests(remote)
    assert COMPUTED == []
    digests(remote, exclamations=1)
    assert COMPUTED == ["upper", "length"]


def test_local_runner__on_s3_a_damaged_artifact_runs_exactly_its_stage(remote):
    runner = LocalRunner(store=remote)
    climb(runner)
    folder = runner.results["upper"].manifest.rsplit("/", 1)[0]
    for damage in (remote.remove_file, lambda url: remote.put_file(url, b"TO")):
        damage(f"{folder}/text.txt")
        COMPUTED.clear()
        climb(LocalRunner(store=remote))
        assert COMPUTED == ["upper"]
