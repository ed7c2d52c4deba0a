"""The short form of what `python -m benchmarks.faults commit refused power` does at length."""

import pytest

from benchmarks.faults_commit import WORKS, UnsoundError, Work, kills, power_cuts, refusals
from benchmarks.faults_files import Operation
from benchmarks.faults_power import crash_states
from storage.files import local_path

pytestmark = pytest.mark.long

BY_NAME = {one.name: one for one in WORKS}


def test_kills__of_a_commit_a_record_and_a_collection_leave_a_sound_store(tmp_path):
    found = kills(tmp_path, works=tuple(BY_NAME[name] for name in ("first commit", "collection")))
    assert found["first commit, operations"] >= 20 and found["kills"] >= 25


@pytest.mark.parametrize(("work", "error"), [("refresh", "ENOSPC"), ("note of a run", "short write")])
def test_refusals__are_told_and_leave_a_sound_store(work, error, tmp_path):
    found = refusals(tmp_path, works=(BY_NAME[work],), errors=(error,))
    assert found["told"] > 0


def test_power_cuts__leave_all_or_nothing(tmp_path):
    works = tuple(BY_NAME[name] for name in ("first commit", "refresh", "note of a run"))
    assert power_cuts(tmp_path, works=works, share=0.07)["states"] > 15


def test_power_cuts__find_a_file_that_was_moved_into_place_without_a_sync(tmp_path):
    def write(store):
        temporary = local_path(store.url) / "temporary"
        temporary.write_bytes(b"")
        store.put_file(f"{store.url}/file", b"new", sync=False)

    def check(store, finished):
        if store.exists(f"{store.url}/file") and store.read_url(f"{store.url}/file") != b"new":
            raise UnsoundError("half")

    careless = Work(name="careless", prepare=lambda store: None, work=write, check=check)
    with pytest.raises(UnsoundError, match="half"):
        power_cuts(tmp_path, works=(careless,))


def test_crash_states__are_those_of_posix():
    root = "/s"
    made = [
        Operation(kind="create", path="/s/t"),
        Operation(kind="write", path="/s/t", data=b"ab"),
        Operation(kind="sync", path="/s/t"),
        Operation(kind="rename", path="/s/t", other="/s/f"),
    ]
    states = [tree for _, tree in crash_states({root: None, "/s/f": b"old"}, made)]
    seen = {(tree.get("/s/f"), tree.get("/s/t")) for tree in states}
    # Before the sync the new file may hold anything; the old one stays whole until the new one is.
    assert {(b"old", None), (b"old", b""), (b"old", b"a"), (b"old", b"\0\0"), (b"old", b"ab"), (b"ab", None)} == seen
    synced = [*made, Operation(kind="sync", path=root)]
    assert {tree["/s/f"] for done, tree in crash_states({root: None, "/s/f": b"old"}, synced) if done == 5} == {b"ab"}
