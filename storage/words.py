"""How many names are told of in one line: a catalog has thousands, a message has room for some."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 8


def some_of(names: Sequence[str]) -> str:
    """The first names, and how many others there are."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
