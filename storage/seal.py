"""The seal of a Parquet file: its SHA-256 between the last page and the footer, where readers don't look.

A sealed file that is intact is told from a changed one without decoding it. Any program can still read it, as pages are
found by their offsets; one that writes the table anew leaves the seal out.
"""

from __future__ import annotations

import hashlib

_MAGIC = b"PAR1"
_NAME = b"tally-sha256:"
_SEAL_BYTES = len(_NAME) + hashlib.sha256().digest_size
# The last bytes of a Parquet file: the footer's length, little-endian, and the magic.
_END_BYTES = 8


def seal(data: bytes) -> bytes:
    """A Parquet file with its seal."""
    at = _footer_at(data)
    assert at > 0, "a Parquet file ends with its footer"
    return b"".join((data[:at], _NAME, _digest(data, first=at, second=at), data[at:]))


def sealed(data: bytes) -> bool:
    """Whether a file is sealed and intact; False for one without a seal, of which nothing is known.

    Raises:
        ValueError: it is sealed, and was changed afterwards.
    """
    second = _footer_at(data)
    first = second - _SEAL_BYTES
    if first < len(_MAGIC) or data[first : first + len(_NAME)] != _NAME:
        return False
    if _digest(data, first=first, second=second) != data[first + len(_NAME) : second]:
        raise ValueError("its bytes are not those that were sealed")
    return True


def _footer_at(data: bytes) -> int:
    """Where the footer begins; -1 where there is none."""
    if len(data) < _END_BYTES + len(_MAGIC) or not data.endswith(_MAGIC):
        return -1
    return len(data) - _END_BYTES - int.from_bytes(data[-_END_BYTES : -len(_MAGIC)], "little")


def _digest(data: bytes, *, first: int, second: int) -> bytes:
    """SHA-256 of everything but the seal, which lies from `first` to `second`."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:first])
    digest.update(view[second:])
    return digest.digest()
