"""Numbered JSON records in a store, append-only: `<folder>/000001.json`, `000002.json`, … What is written once stays.

A record is created only if its number is still free, in one step, on a disk as on object storage: of two writers at
once each gets a number of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from storage.digest import JSON
from storage.seal import open_record, seal_record
from storage.store import Store

# No dot alone, no slash: a name can't climb out of its folder.
NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
_RECORD = re.compile(r"(\d{6,})\.json")


def append_record(store: Store, folder: str, *, body: Callable[[int], Mapping[str, JSON]]) -> int:
    """Write `body(number)` under the next free number, from 1, and return that number."""
    number = max(record_numbers(store, folder), default=0) + 1
    while not create_record(store, folder, number=number, body=body(number)):
        number += 1
    return number


def create_record(store: Store, folder: str, *, number: int, body: Mapping[str, JSON]) -> bool:
    """Write a record under a number, if that is still free; returns whether it was."""
    return store.create_file(_url(store, folder, number), seal_record(body))


def read_records(store: Store, folder: str) -> Iterator[dict[str, JSON]]:
    """The records of a folder in the order of their numbers; none where nothing was ever written.

    Raises:
        ValueError: a record is no JSON object, or was changed.
    """
    for number in record_numbers(store, folder):
        url = _url(store, folder, number)
        yield open_record(store.read_url(url), url=url)


def record_numbers(store: Store, folder: str) -> list[int]:
    """The numbers that are taken, ascending."""
    found = (_RECORD.fullmatch(name) for name in store.list_files(f"{store.url}/{folder}"))
    return sorted(int(match[1]) for match in found if match)


def checked_name(name: str, *, what: str) -> str:
    """`name`, if a folder may be called so.

    Raises:
        ValueError: it could lead elsewhere.
    """
    if not re.match(NAME_PATTERN, name):
        raise ValueError(f"{what}: expected letters, digits, '.', '_' and '-', no dot in front, got {name!r}")
    return name


def _url(store: Store, folder: str, number: int) -> str:
    return f"{store.url}/{folder}/{number:06d}.json"
