import os

import pytest

from storage.mirror import Mirror
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def mirror(store, folder):
    return Mirror(folder, url=f"{store.url}/scratch/train/k/checkpoints", storage=store)


def test_copy__another_machine_finds_files_of_sub_folders_too(store, tmp_path):
    folder = tmp_path / "a/checkpoints"
    (folder / "round-1").mkdir(parents=True)
    (folder / "round-1/state.safetensors").write_bytes(b"weights")
    (folder / "train.jsonl").write_bytes(b"{}")
    (folder / ".state.safetensors.1").write_bytes(b"half")
    mirror(store, folder).copy()
    (tmp_path / "b/checkpoints").mkdir(parents=True)
    assert mirror(store, tmp_path / "b/checkpoints").restore() == ["round-1/state.safetensors", "train.jsonl"]
    assert (tmp_path / "b/checkpoints/round-1/state.safetensors").read_bytes() == b"weights"


def test_restore__that_broke_off_is_made_up_for_the_next_time(store, tmp_path, monkeypatch):
    folder, other, read_url = tmp_path / "a/checkpoints", tmp_path / "b/checkpoints", store.read_url
    folder.mkdir(parents=True)
    for name in ("best.safetensors", "state.safetensors"):
        (folder / name).write_bytes(b"weights")
    mirror(store, folder).copy()

    def fail(url):
        if url.endswith("state.safetensors"):
            raise ConnectionError("no answer")
        return read_url(url)

    monkeypatch.setattr(store, "read_url", fail)
    with pytest.raises(ConnectionError):
        mirror(store, other).restore()
    assert not other.exists()
    monkeypatch.setattr(store, "read_url", read_url)
    assert mirror(store, other).restore() == ["best.safetensors", "state.safetensors"]
    assert sorted(path.name for path in other.iterdir()) == ["best.safetensors", "state.safetensors"]


@pytest.mark.parametrize(("age", "expected"), [(100, b"theirs"), (-100, b"ours")])
def test_restore__what_was_written_later_counts(store, tmp_path, age, expected):
    theirs, ours = tmp_path / "a/checkpoints", tmp_path / "b/checkpoints"
    for folder, data in ((theirs, b"theirs"), (ours, b"ours")):
        (folder / "round-1").mkdir(parents=True)
        (folder / "round-1/state.safetensors").write_bytes(data)
    mirror(store, theirs).copy()
    (ours / "left.jsonl").write_bytes(b"{}")
    (put,) = [changed for _, _, changed in store.walk(f"{store.url}/scratch/train/k/checkpoints")]
    for path in ours.rglob("*.*"):
        os.utime(path, (put - age, put - age))
    mirror(store, ours).restore()
    assert (ours / "round-1/state.safetensors").read_bytes() == expected
    assert (ours / "left.jsonl").exists() == (expected == b"ours")
