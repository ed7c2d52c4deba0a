import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.catalog import Category, category_records
from storage.catalogs import CatalogVersion, record_version
from storage.champions import ChampionRecord, record_decision
from storage.garbage import find_garbage, sweep
from storage.manifest import ManifestRow, referenced
from storage.roots import KeptRun, kept_runs, note_run
from storage.store import Store

# After everything that these tests write, however long they take.
LATER = float("inf")


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def publish(store, key, *, inputs=(), refers=()):
    publication = store.begin("s", key=key)
    publication.put(key.encode(), path="a.bin", row=ManifestRow(item_id="a"))
    for number, other in enumerate(refers):
        publication.add(referenced(other.row("a"), item_id=f"other/{number}"))
    recorded = {"one": None, "many": [{"manifest": one.url, "content_digest": ""} for one in inputs]}
    return publication.commit(metadata={"inputs": recorded})


def keys(store, **options):
    return {one.key for one in find_garbage(store, older_than=0, now=LATER, **options)}


def keep(store, folder, *manifests):
    folder.mkdir(parents=True, exist_ok=True)
    note_run(store, folder=folder, manifests=[one.url for one in manifests], time="t")


def test_find_garbage__spares_what_a_kept_run_reaches(store, tmp_path):
    photos = publish(store, "photos")
    masks = publish(store, "masks", inputs=[photos])
    old = publish(store, "old")
    gathered = publish(store, "gathered", inputs=[masks], refers=[old])
    publish(store, "lost", inputs=[photos])
    keep(store, tmp_path / "runs/a", gathered)
    assert keys(store) == {"lost"}
    shutil.rmtree(tmp_path / "runs/a")
    assert keys(store) == {"photos", "masks", "old", "gathered", "lost"}


def test_find_garbage__keeps_runs_of_other_machines(store):
    made = publish(store, "k")
    run = KeptRun(host="elsewhere", folder="/nowhere/runs/a", manifests=(made.url,), time="t")
    store.put_file(
        f"{store.url}/roots/{run.name}",
        b'{"host":"elsewhere","folder":"/nowhere/runs/a","manifests":["%s"],"time":"t"}' % made.url.encode(),
    )
    assert keys(store) == set()


def test_find_garbage__spares_champions_and_catalogs_but_not_the_rejected(store):
    made = {name: publish(store, name) for name in ("champion", "sprites", "rejected", "catalog")}

    def decide(action, name, **stages):
        record = ChampionRecord(
            catalog="shop",
            action=action,
            time="t",
            run="r",
            rung="render",
            checkpoint=made[name].url,
            checkpoint_digest=name,
            stages=stages,
        )
        record_decision(store, record)

    decide("promoted", "champion", prune=made["sprites"].url)
    decide("rejected", "rejected")
    content = {"categories": category_records([Category(id=1, sku="tea")])}
    version = CatalogVersion(
        catalog="shop",
        number=1,
        action="created",
        skus=("tea",),
        products=1,
        photos=1,
        dataset="d",
        source="s",
        time="t",
        manifest=made["catalog"].url,
        content_digest=str(content),
    )
    assert record_version(store, version)
    assert keys(store) == {"rejected"}


def test_find_garbage__spares_what_is_young(store):
    made = publish(store, "k")
    written = max(changed for _, _, changed in store.walk(made.url.removesuffix("/manifest.parquet")))
    assert find_garbage(store, older_than=60, now=written + 59) == []
    assert [one.key for one in find_garbage(store, older_than=60, now=written + 60)] == ["k"]


def test_sweep__removes_the_garbage_and_nothing_else(store, tmp_path):
    kept, lost = publish(store, "kept"), publish(store, "lost")
    store.begin("s", key="killed").put(b"half", path="half.bin", row=ManifestRow(item_id="half"))
    (store.scratch("train", key="killed") / "state").write_text("half")
    keep(store, tmp_path / "runs/a", kept)
    keep(store, tmp_path / "runs/b", lost)
    shutil.rmtree(tmp_path / "runs/b")
    found = find_garbage(store, older_than=0, now=LATER)
    assert {(one.area, one.key, one.reason) for one in found} == {
        ("artifacts", "lost", "nothing reaches it"),
        ("artifacts", "killed", "never finished"),
        ("scratch", "killed", "unfinished work"),
    }
    sweep(store, found)
    assert store.find("s", key="kept") is not None and store.find("s", key="lost") is None
    assert find_garbage(store, older_than=0, now=LATER) == []
    assert [run.folder for run in kept_runs(store)] == [str(tmp_path / "runs/a")]


def test_find_garbage__a_disk_that_is_not_mounted_has_no_runs_that_are_gone(store, tmp_path):
    keep(store, tmp_path / "disk/runs/a", publish(store, "kept"))
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert find_garbage(store, older_than=0, now=LATER) == []
    (tmp_path / "disk/runs").mkdir(parents=True)
    assert [one.key for one in find_garbage(store, older_than=0, now=LATER)] == ["kept"]


def test_kept_runs__a_broken_note_stops_the_collection(store):
    store.put_file(f"{store.url}/roots/a.json", b"{}")
    with pytest.raises(ValueError, match="expected the note of a run"):
        find_garbage(store, older_than=0, now=LATER)


@settings(max_examples=25)
@given(
    parents=st.lists(st.lists(st.integers(0, 20), max_size=3), min_size=1, max_size=8),
    kept=st.sets(st.integers(0, 7), max_size=3),
)
def test_find_garbage__is_what_walking_the_graph_from_the_kept_does_not_reach(parents, kept, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = Store.open(str(folder / "store"))
    made, graph = [], []
    for number, wanted in enumerate(parents):
        inputs = sorted({one % number for one in wanted}) if number else []
        made.append(publish(store, f"k{number}", inputs=[made[one] for one in inputs]))
        graph.append(inputs)
    kept = {one for one in kept if one < len(made)}
    keep(store, folder / "runs/a", *(made[one] for one in kept))
    alive, waiting = set(), list(kept)
    while waiting:
        one = waiting.pop()
        alive.add(one)
        waiting += [parent for parent in graph[one] if parent not in alive]
    assert keys(store) == {f"k{number}" for number in range(len(made)) if number not in alive}
