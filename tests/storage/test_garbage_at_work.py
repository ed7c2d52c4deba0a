"""Garbage collection while runs take, compute and note results: whatever the order, nothing that a run has is lost."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.files import local_path
from storage.garbage import find_garbage, reached, sweep
from storage.manifest import ManifestRow, referenced
from storage.roots import note_run
from storage.store import Store
from tests.storage.turns import SteppedStore, Turns

AGE, OLD = 3600.0, 1e6


@st.composite
def graphs(draw):
    """For each of some results the earlier ones that it was made from, and those whose files it refers to."""
    count = draw(st.integers(2, 6))
    earlier = [st.lists(st.integers(0, number - 1), max_size=2, unique=True) for number in range(1, count)]
    return [([], [])] + [(draw(one), draw(one)) for one in earlier]


def publish(store, number, graph, made):
    inputs, refers = graph[number]
    publication = store.begin("s", key=f"k{number}")
    publication.put(b"%d" % number, path="a.bin", row=ManifestRow(item_id="a"))
    for other in refers:
        publication.add(referenced(made[other].row("a"), item_id=f"other/{other}"))
    recorded = {"parts": [{"manifest": made[one].url, "content_digest": ""} for one in inputs]}
    return publication.commit(metadata={"inputs": recorded})


def result(store, number, graph, made):
    """As a run gets a result: taken where it is there, else computed, what it is made of first."""
    for one in graph[number][0]:
        made[one] = made.get(one) or result(store, one, graph, made)
    key = f"k{number}"
    found = store.take("s", key=key)
    if found is None:
        for one in graph[number][1]:
            made[one] = made.get(one) or result(store, one, graph, made)
        with store.lock("s", key=key):
            found = store.take("s", key=key) or publish(store, number, graph, made)
    return found


@settings(max_examples=20)
@given(graph=graphs(), data=st.data())
def test_sweep__never_removes_what_runs_at_work_have(graph, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    plain = Store.open(str(folder / "store"))
    made = {}
    for number in range(len(graph)):
        made[number] = publish(plain, number, graph, made)
    for path in local_path(plain.url).rglob("*"):
        os.utime(path, (OLD, OLD))
    wanted = data.draw(st.lists(st.integers(0, len(graph) - 1), min_size=1, max_size=2), label="results of the runs")
    turns = Turns(data.draw(st.lists(st.integers(0, 2), max_size=120), label="turns"))
    store = SteppedStore(str(folder / "store"), turns)
    now = max(path.stat().st_ctime for path in local_path(plain.url).rglob("*")) + 1

    def run(index):
        have = {}
        have[wanted[index]] = result(store, wanted[index], graph, have)
        where = folder / f"run{index}"
        where.mkdir()
        note_run(store, folder=where, manifests=sorted(one.url for one in have.values()), time="t")

    def collect():
        sweep(store, find_garbage(store, older_than=AGE, now=now))

    turns.run(*(lambda index=index: run(index) for index in range(len(wanted))), collect)
    for number in wanted:
        found = plain.find("s", key=f"k{number}")
        assert found is not None
        for _, key in reached(plain, [found.url]):
            assert plain.find("s", key=key) is not None, key
        assert [plain.read(row) for row in found.rows]


def test_sweep__gives_back_what_was_taken_since_it_was_found(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    graph = [([], []), ([], [0])]
    first = publish(store, 0, graph, {})
    publish(store, 1, graph, {0: first})
    for path in local_path(store.url).rglob("*"):
        os.utime(path, (OLD, OLD))
    found = find_garbage(store, older_than=AGE, now=2 * OLD)
    assert [one.key for one in found] == ["k0", "k1"]
    taken = store.take("s", key="k1")
    assert sweep(store, found) == []
    assert store.find("s", key="k1").rows == taken.rows
    assert store.read(taken.row("other/0")) == b"0"


def test_sweep__leaves_what_is_being_computed(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    publish(store, 0, [([], [])], {})
    found = find_garbage(store, older_than=0.0, now=float("inf"))
    with store.lock("s", key="k0"):
        assert sweep(store, found) == []
    assert [one.key for one in sweep(store, found)] == ["k0"]


def test_find_garbage__spares_what_something_young_refers_to(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    first = publish(store, 0, [([], [])], {})
    for path in local_path(store.url).rglob("*"):
        os.utime(path, (OLD, OLD))
    publish(store, 1, [([], []), ([], [0])], {0: first})
    young = max(changed for _, _, changed in store.walk(store.url))
    assert find_garbage(store, older_than=AGE, now=young + 1) == []
    assert len(find_garbage(store, older_than=AGE, now=young + AGE)) == 2
