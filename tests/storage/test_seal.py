import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.seal import seal, sealed

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
