"""Seals: a digest in a file over all of it, so that a changed bit anywhere is found when the file is read.

Artifacts have their digests in a manifest; this is for what nothing else vouches for. A Parquet file has its SHA-256
between the last page and the footer, where readers don't look: an intact one is told from a changed one without
decoding it. Any program can still read it, as pages are found by their offsets; one that writes the table anew leaves
the seal out. A JSON record is sealed as `{"record": …, "sha256": …}`. Seals tell of accidents, not of attackers: who
can write can seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson

from storage.digest import JSON, canonical_json, digest_bytes

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


def seal_record(body: Mapping[str, JSON]) -> bytes:
    """A JSON object as indented text, sealed; the digest is that of its canonical JSON."""
    # As a reader has it: numpy's numbers are plain ones there.
    plain = orjson.loads(orjson.dumps(dict(body), option=orjson.OPT_SERIALIZE_NUMPY))
    whole = {"record": plain, "sha256": digest_bytes(canonical_json(plain))}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n"


def open_record(data: bytes, *, url: str) -> dict[str, JSON]:
    """The JSON object of a sealed record, or of one of the time before seals.

    Raises:
        ValueError: it is no JSON object, or not the one that was sealed.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{url}: expected a JSON object, got broken text ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{url}: expected a JSON object, got {type(found).__name__}")
    if not {"record", "sha256"} & set(found):
        return found
    if not isinstance(found.get("record"), dict) or seal_record(found["record"]) != data:
        raise ValueError(f"{url}: expected the record that was sealed, got another text; the file was changed")
    return dict(found["record"])
