import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.files import replace_file
from storage.manifest import ManifestRow, referenced
from storage.store import MANIFEST_NAME, DamagedArtifactError, Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def publish(store, *, key="k", content=b"hello"):
    publication = store.begin("s", key=key)
    publication.put(content, path="sub/a.bin", row=ManifestRow(item_id="a"))
    return publication.commit(metadata={"note": 1})


def file_of(manifest, item_id="a"):
    return Path(manifest.row(item_id).url.removeprefix("file://"))


def test_commit__publishes_files_digests_and_metadata(store):
    manifest = publish(store)
    found = store.find("s", key="k")
    assert found.rows == manifest.rows
    assert found.metadata["note"] == 1
    assert store.read(found.row("a")) == b"hello"
    assert found.row("a").digest == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_find__sees_nothing_before_the_commit(store):
    publication = store.begin("s", key="k")
    publication.put(b"hello", path="a.bin", row=ManifestRow(item_id="a"))
    assert store.find("s", key="k") is None
    publication.commit(metadata={})
    assert store.find("s", key="k") is not None


def test_begin__sweeps_away_what_an_interrupted_run_left(store):
    store.begin("s", key="k").put(b"old", path="stale.bin", row=ManifestRow(item_id="stale"))
    manifest = publish(store)
    folder = Path(manifest.url.removeprefix("file://")).parent
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["a.bin", MANIFEST_NAME]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"hell")])
def test_find__does_not_believe_a_manifest_whose_file_is_gone_or_short(store, damage):
    damage(file_of(publish(store)))
    assert store.find("s", key="k") is None


def test_find__does_not_take_files_for_gone_that_the_disk_fails_to_list(store, monkeypatch):
    publish(store)

    def fail(path):
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.find("s", key="k")


def test_quarantine_unsound__writes_one_reason_however_many_files_are_gone(store, monkeypatch):
    publication = store.begin("s", key="k")
    for name in "abc":
        publication.put(name.encode(), path=f"sub/{name}.bin", row=ManifestRow(item_id=name))
    manifest = publication.commit(metadata={})
    file_of(manifest, "a").write_bytes(b"other")
    file_of(manifest, "b").unlink()
    file_of(manifest, "c").unlink()
    written, put_file = [], Store.put_file
    monkeypatch.setattr(
        Store, "put_file", lambda self, url, data, **more: written.append(url) or put_file(self, url, data, **more)
    )
    assert "3 of 3 files gone or damaged, first a" in store.quarantine_unsound("s", key="k")
    assert written == [f"{store.url}/quarantine/s/k/reason.json"]
    aside = Path(written[0].removeprefix("file://")).parent
    names = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file())
    assert names == [MANIFEST_NAME, "reason.json", "sub/a.bin"]
    assert store.quarantine_unsound("s", key="k") == ""


def test_find__does_not_believe_a_broken_manifest(store):
    Path(publish(store).url.removeprefix("file://")).write_bytes(b"PAR1")
    assert store.find("s", key="k") is None


def test_read__compares_the_digest(store):
    manifest = publish(store)
    file_of(manifest).write_bytes(b"hallo")
    with pytest.raises(DamagedArtifactError, match="not those of a"):
        store.read(manifest.row("a"))
    assert store.verify(manifest) == ["a"]


def test_read__says_what_to_do_about_a_missing_file(store):
    manifest = publish(store)
    file_of(manifest).unlink()
    with pytest.raises(DamagedArtifactError, match="run its stage again"):
        store.read(manifest.row("a"))


def test_read__refuses_a_row_without_file(store):
    with pytest.raises(ValueError, match="quarantined"):
        store.read(ManifestRow(item_id="a", status="quarantined", reason="empty"))


def test_commit__keeps_references_to_other_stages(store):
    first = publish(store)
    publication = store.begin("t", key="k")
    publication.add(referenced(first.row("a"), item_id="b"))
    publication.commit(metadata={})
    assert store.read(store.find("t", key="k").row("b")) == b"hello"


def test_scratch__outlives_a_run_and_goes_with_the_commit(store):
    folder = store.scratch("s", key="k")
    (folder / "state").write_text("half")
    assert (store.scratch("s", key="k") / "state").read_text() == "half"
    publish(store)
    assert not folder.exists()


def test_store__works_on_any_fsspec_url():
    memory = Store.open("memory://bucket/store")
    manifest = publish(memory)
    assert memory.read(memory.find("s", key="k").row("a")) == b"hello"
    assert manifest.url == "memory://bucket/store/artifacts/s/k/manifest.parquet"


def test_replace_file__leaves_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"):
        replace_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


HOLD = """
import sys, time
from storage.store import Store
with Store.open(sys.argv[1]).lock("s", key="k"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock__is_free_again_when_its_owner_is_killed(store):
    owner = subprocess.Popen([sys.executable, "-c", HOLD, store.url], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "held\n"
    owner.kill()
    with store.lock("s", key="k"):
        assert owner.wait() == -signal.SIGKILL
    owner.stdout.close()


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_take__from_a_store_that_cannot_be_written_to(store, monkeypatch, reason):
    publish(store)

    def refuse(url, data, **more):
        raise OSError(reason, os.strerror(reason), url)

    monkeypatch.setattr(store, "put_file", refuse)
    assert store.take("s", key="k") is not None
    reason = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        store.take("s", key="k")
