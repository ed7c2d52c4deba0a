from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import manifest
from storage.manifest import ManifestObject, ManifestRow
from storage.manifest_table import open_manifest_table
from storage.store import Store

SKUS = ("tea", "oats", "rice")


def made_row(number):
    objects = tuple(
        ManifestObject(category=index, sku=SKUS[index], box=(0, 0, 1 + number, 1)) for index in range(number % 4 % 3)
    )
    parents = tuple(f"pose/{number % 5 + index}" for index in range(number % 3))
    return ManifestRow(item_id=f"photo/{number:03d}", parents=parents, objects=objects, attributes={"number": number})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A manifest of 23 rows in groups of 4."""
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROW_GROUP", 4)
        publication = store.begin("compose", key="k")
        for number in range(23):
            publication.add(made_row(number))
        whole = publication.commit(metadata={"seconds": 1.5}, content={"categories": [1]})
    return store, whole, open_manifest_table(store, whole.url)


def test_manifest_table__reads_in_groups_what_store_load_reads_whole(published):
    _, whole, table = published
    assert (len(table), table.key, table.footer.num_row_groups) == (23, "k", 6)
    assert table.rows(range(23)) == list(whole.rows)
    assert table.content == whole.content and table.metadata["seconds"] == 1.5
    assert table.light.column("item_id").to_pylist() == [row.item_id for row in whole.rows]
    assert table.object_counts.to_pylist() == [len(row.objects) for row in whole.rows]


@given(st.lists(st.integers(0, 22), max_size=12))
def test_rows__come_in_the_order_asked_for(published, numbers):
    _, whole, table = published
    assert table.rows(numbers) == [whole.rows[number] for number in numbers]


def test_rows__leaves_out_what_is_not_wanted(published):
    _, whole, table = published
    [row] = table.rows([2], without=("objects", "attributes"))
    assert (row.objects, row.attributes) == ((), {}) and row.parents == whole.rows[2].parents


def test_row__by_its_id(published):
    _, whole, table = published
    assert table.row("photo/017") == whole.row("photo/017")
    assert table.row("photo/17") is None and table.row("../photo/017") is None


def test_among__the_ids_that_are_there(published):
    _, _, table = published
    assert table.among(["photo/003", "photo/001", "photo/999"]).tolist() == [1, 3]


@pytest.mark.parametrize("wanted", [["pose/3"], ["pose/0", "pose/5"], ["pose/9"], []])
def test_with_parents__equals_a_search_through_all_rows(published, wanted):
    _, whole, table = published
    expected = [number for number, row in enumerate(whole.rows) if set(wanted) & set(row.parents)]
    assert table.with_parents(wanted).tolist() == expected


@pytest.mark.parametrize("sku", [*SKUS, "none"])
def test_with_objects__equals_a_search_through_all_rows(published, sku):
    _, whole, table = published
    expected = [number for number, row in enumerate(whole.rows) if sku in {item.sku for item in row.objects}]
    assert table.with_objects(sku).tolist() == expected


def test_manifest_table__of_no_rows(published, tmp_path):
    empty = Store.open(str(tmp_path)).begin("compose", key="0").commit(metadata={})
    table = open_manifest_table(Store.open(str(tmp_path)), empty.url)
    assert len(table) == 0 and table.rows([]) == [] and table.with_parents(["a"]).tolist() == []
    assert table.light.num_rows == 0 and len(table.object_counts) == 0


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1"])
def test_open_manifest_table__broken_files(tmp_path, content):
    (tmp_path / "manifest.parquet").write_bytes(content)
    store = Store.open(str(tmp_path))
    with pytest.raises(ValueError, match="broken file"):
        open_manifest_table(store, f"{store.url}/manifest.parquet")
    with pytest.raises(FileNotFoundError):
        open_manifest_table(store, f"{store.url}/nothing.parquet")


def test_open_manifest_table__another_parquet_file(published, tmp_path):
    store, _, _ = published
    pq.write_table(pa.table({"a": np.arange(3)}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="without its metadata"):
        open_manifest_table(store, Path(tmp_path / "other.parquet").as_uri())
