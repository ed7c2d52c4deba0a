import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.manifest import (
    SCHEMA,
    ManifestObject,
    ManifestRow,
    content_digest,
    decode_manifest,
    encode_manifest,
    referenced,
    sorted_rows,
)

FLOATS = st.floats(-1e6, 1e6, width=32)
OBJECTS = st.builds(
    ManifestObject,
    category=st.integers(1, 10000),
    sku=st.text(max_size=8),
    box=st.tuples(FLOATS, FLOATS, FLOATS, FLOATS),
    score=st.none() | FLOATS,
    centre=st.none() | st.tuples(FLOATS, FLOATS),
    reason=st.text(max_size=8),
)
ROWS = st.lists(
    st.builds(
        ManifestRow,
        item_id=st.text(min_size=1, max_size=12),
        path=st.just("a/b.png"),
        width=st.none() | st.integers(1, 5000),
        parents=st.lists(st.text(max_size=5), max_size=2).map(tuple),
        objects=st.lists(OBJECTS, max_size=2).map(tuple),
        quality=st.none() | FLOATS,
        attributes=st.dictionaries(st.text(max_size=4), st.integers(-5, 5), max_size=2),
    ),
    max_size=4,
    unique_by=lambda row: row.item_id,
)
URL = "file:///store/artifacts/s/k/manifest.parquet"


@given(ROWS)
def test_decode_manifest__gives_back_what_was_written(rows):
    manifest = decode_manifest(encode_manifest(rows, metadata={"stage": "s", "key": "k"}), url=URL)
    assert (manifest.stage, manifest.key, manifest.url) == ("s", "k", URL)
    expected = tuple(referenced(row, path=row.path, url="file:///store/artifacts/s/k/a/b.png") for row in rows)
    assert manifest.rows == sorted_rows(expected)


@given(ROWS, st.randoms())
def test_content_digest__ignores_the_order_of_rows_and_where_files_lie(rows, random):
    moved = [referenced(row, path="elsewhere", url="x") for row in rows]
    random.shuffle(moved)
    assert content_digest(moved, content={}) == content_digest(rows, content={})


def test_content_digest__changes_with_content():
    assert content_digest([], content={"a": 1}) != content_digest([], content={"a": 2})


def test_sorted_rows__refuses_an_item_twice():
    with pytest.raises(ValueError, match="unique item ids, got 'x'"):
        sorted_rows([ManifestRow(item_id="x"), ManifestRow(item_id="x")])


def test_encode_manifest__opens_with_pyarrow_alone():
    item = ManifestObject(category=3, sku="tea", box=(0, 1, 2, 3))
    data = encode_manifest([ManifestRow(item_id="a", objects=(item,))], metadata={})
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist()[0]["objects"][0]["sku"] == "tea"


def test_decode_manifest__finds_a_changed_row():
    data = encode_manifest([ManifestRow(item_id="a", level="easy")], metadata={})
    table = pq.read_table(io.BytesIO(data))
    levels = pa.array(["hard"], pa.string())
    changed = table.set_column(table.schema.get_field_index("level"), SCHEMA.field("level"), levels)
    buffer = io.BytesIO()
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), buffer)
    with pytest.raises(ValueError, match="the file was changed"):
        decode_manifest(buffer.getvalue(), url=URL)


def test_decode_manifest__refuses_files_that_are_no_manifest():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    with pytest.raises(ValueError, match="without its metadata"):
        decode_manifest(buffer.getvalue(), url=URL)
    with pytest.raises(ValueError, match="broken file"):
        decode_manifest(b"PAR1 nonsense", url=URL)


def test_row__names_ids_that_exist():
    manifest = decode_manifest(encode_manifest([ManifestRow(item_id="a")], metadata={}), url=URL)
    assert manifest.row("a").item_id == "a"
    with pytest.raises(KeyError, match="no item 'b'"):
        manifest.row("b")


def test_ok__leaves_out_quarantined_rows():
    rows = [ManifestRow(item_id="a"), ManifestRow(item_id="b", status="quarantined", reason="file: empty")]
    manifest = decode_manifest(encode_manifest(rows, metadata={}), url=URL)
    assert [row.item_id for row in manifest.ok] == ["a"]
