"""What a stage's result was made from, as its manifest records it, and the first thing in which two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.digest import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The components of a stage key: version, parameters, and the content digests of the inputs by name."""

    version: int
    parameters: Mapping[str, JSON]
    inputs: Mapping[str, JSON]


def recorded_in(metadata: Mapping[str, JSON]) -> Recorded:
    """What a manifest's metadata says of its key."""
    inputs = {name: _digests(value) for name, value in (metadata.get("inputs") or {}).items()}
    return Recorded(version=int(metadata.get("version", 1)), parameters=metadata.get("parameters") or {}, inputs=inputs)


def _digests(value: JSON) -> JSON:
    if isinstance(value, list):
        return [one["content_digest"] for one in value]
    return None if value is None else value["content_digest"]


def first_difference(before: Recorded, now: Recorded) -> str:
    """The first component that differs, in words; "" where none does."""
    if before.version != now.version:
        return f"version: {before.version} before, {now.version} now"
    for name in sorted({*now.parameters, *before.parameters}):
        old, new = before.parameters.get(name, "absent"), now.parameters.get(name, "absent")
        if old != new or (name in now.parameters) != (name in before.parameters):
            return f"parameter {name}: {old!r} before, {new!r} now"
    for name in sorted({*now.inputs, *before.inputs}):
        if now.inputs.get(name) != before.inputs.get(name):
            return f"input {name}: other content than before"
    return ""
