"""SHA-256 digests, canonical JSON and the stage key: the one place that says when two things are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

JSON = Any


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_lines(lines: Iterable[bytes]) -> str:
    """SHA-256 of lines with a line feed between each two."""
    digest, between = hashlib.sha256(), b""
    for line in lines:
        digest.update(between + line)
        between = b"\n"
    return digest.hexdigest()


def canonical_json(value: JSON) -> bytes:
    """UTF-8 JSON with sorted keys and no blanks: equal values give equal bytes.

    Raises:
        TypeError: the value holds something JSON has no form for (a set, an array, an object).
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest_json(value: JSON) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def stage_key(
    stage: str, *, version: int, parameters: Mapping[str, JSON], inputs: Mapping[str, str | Sequence[str] | None]
) -> str:
    """Key of a stage's result: 32 hexadecimal digits of a SHA-256.

    `inputs` maps the name of each input to the content digest of its manifest (or several, in their order, or None
    where an optional input is absent). The seed is one of the parameters.
    """
    named = {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in inputs.items()}
    body = {"stage": stage, "version": version, "parameters": dict(parameters), "inputs": named}
    return digest_json(body)[:32]
