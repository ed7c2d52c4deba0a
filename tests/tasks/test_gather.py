import pytest

from storage.manifest import ManifestRow
from storage.store import Store
from tasks.gather import gather, gathered
from tasks.params import GatherParams
from tasks.stage import run_stage_locally


def manifest(store, key, texts, **content):
    publication = store.begin("made", key=key)
    for name, text in texts.items():
        publication.put(text, path=f"{name}.txt", row=ManifestRow(item_id=f"pose/{name}", sku=name[:3]))
    return publication.commit(metadata={}, content=content)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def test_gather__refers_to_the_files_of_all_parts(store):
    parts = [
        manifest(store, "a", {"tea1": b"old", "jam1": b"j"}, categories=[1]),
        manifest(store, "b", {"tea1": b"new"}),
    ]
    made = run_stage_locally(gather, GatherParams(), store=store, parts=parts)
    assert {row.item_id: store.read(row) for row in made.rows} == {"pose/jam1": b"j", "pose/tea1": b"new"}
    assert made.content == {"categories": [1]}


def test_gathered__takes_the_named_products_and_refuses_unknown_ones(store):
    part = manifest(store, "a", {"tea1": b"1", "tea2": b"2", "jam1": b"3"})
    assert [row.item_id for row in gathered([part], skus=["tea"])] == ["pose/tea1", "pose/tea2"]
    with pytest.raises(ValueError, match=r"sku: expected products of the catalog \(jam, tea, …\), got rum"):
        gathered([part], skus=["rum"])
