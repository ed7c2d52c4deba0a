import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.manifest import ManifestRow, decode_manifest, decode_references, encode_manifest
from storage.reviews import Decision, append_decisions, read_decisions
from storage.seal import open_record, seal, seal_record, sealed
from storage.store import Store

MANIFEST = encode_manifest([ManifestRow(item_id="a", attributes={"n": 1})], metadata={"seconds": 1.5})
RECORD = seal_record({"number": 1, "note": "Grüße", "figures": {"val": 0.25}})

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "z" * 50], "c": [[1.5], [], [2.5, 3.5]]})


def parquet(table=TABLE):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=2)
    return buffer.getvalue()


def test_seal__leaves_the_table_as_it_is():
    assert pq.read_table(io.BytesIO(seal(parquet()))).equals(TABLE)


@given(st.integers(0, len(seal(parquet())) - 1), st.integers(1, 255))
def test_sealed__no_byte_can_change_unseen(place, difference):
    data = bytearray(seal(parquet()))
    assert sealed(bytes(data))
    data[place] ^= difference
    try:
        assert not sealed(bytes(data))
    except ValueError as error:
        assert "sealed" in str(error)


def test_sealed__finds_a_shortened_file():
    data = seal(parquet())
    with pytest.raises(ValueError, match="not those that were sealed"):
        sealed(data[:4] + data[5:])


def test_sealed__is_false_for_a_table_written_anew_and_for_anything_else():
    assert not sealed(parquet(pq.read_table(io.BytesIO(seal(parquet())))))
    assert not any(sealed(data) for data in (b"", b"PAR1", b"PAR1" * 40, b"no table at all"))


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("read", [decode_manifest, decode_references])
@given(bit=st.integers(0, len(MANIFEST) * 8 - 1))
def test_manifest__any_changed_bit_is_found(read, bit):
    with pytest.raises(ValueError, match=r"m\.parquet"):
        read(flipped(MANIFEST, bit), url="m.parquet")


@pytest.mark.parametrize("inputs", [{"a": {"manifes4": "m"}}, {"a": [1]}, {"a": "m"}, [1], "m", {"a": {"manifest": 1}}])
def test_decode_references__finds_broken_inputs_in_a_manifest_of_before_seals(inputs):
    body = {"inputs": inputs, "schema_version": 1, "content": {}, "content_digest": ""}
    table = pq.read_table(io.BytesIO(MANIFEST))
    ((key, _),) = table.schema.metadata.items()
    with pytest.raises(ValueError, match=r"m\.parquet: expected the manifests"):
        decode_references(parquet(table.replace_schema_metadata({key: json.dumps(body)})), url="m.parquet")


def test_manifest__a_changed_bit_in_the_seal_or_the_end_is_found():
    seal_at = MANIFEST.rindex(b"tally-sha256:")
    for byte in (*range(seal_at, seal_at + 45), *range(len(MANIFEST) - 8, len(MANIFEST))):
        for bit in range(8):
            with pytest.raises(ValueError, match=r"m\.parquet"):
                decode_manifest(flipped(MANIFEST, byte * 8 + bit), url="m.parquet")


@given(end=st.integers(0, len(MANIFEST) - 1))
def test_manifest__a_missing_end_is_found(end):
    with pytest.raises(ValueError, match=r"m\.parquet"):
        decode_manifest(MANIFEST[:end], url="m.parquet")


@given(bit=st.integers(0, len(RECORD) * 8 - 1))
def test_open_record__finds_any_changed_bit(bit):
    with pytest.raises(ValueError, match=r"r\.json"):
        open_record(flipped(RECORD, bit), url="r.json")


def test_open_record__reads_records_with_and_without_a_seal():
    body = {"number": 1, "note": "Grüße", "figures": {"val": 0.25}}
    assert open_record(RECORD, url="r") == body
    assert json.loads(RECORD)["record"] == body
    assert open_record(json.dumps(body).encode(), url="r") == body


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b'{"record": 1, "sha256": ""}'])
def test_open_record__refuses_what_is_no_object(data):
    with pytest.raises(ValueError, match=r"r\.json: expected"):
        open_record(data, url="r.json")


def test_read_decisions__finds_a_changed_bit(tmp_path):
    store = Store.open(str(tmp_path))
    append_decisions(store, [Decision(time="t", reviewer="a", kind="mask", item_id="m", judged="d", verdict="good")])
    path = tmp_path / "reviews" / "00000001.parquet"
    data = path.read_bytes()
    seal_at = data.rindex(b"tally-sha256:")
    for byte in (0, 20, len(data) // 2, *range(seal_at, seal_at + 45), len(data) - 1):
        path.write_bytes(flipped(data, byte * 8 + byte % 8))
        with pytest.raises(ValueError, match=r"00000001\.parquet"):
            read_decisions(store)
