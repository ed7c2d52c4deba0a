"""What was done through the inspector: one JSON line an action, in the folder of runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import orjson

from storage.digest import JSON

LOG_FILE = "inspector-actions.jsonl"


class ActionLog:
    """Appends to and reads the log."""

    def __init__(self, folder: Path) -> None:
        """Keep the log in `folder`."""
        self._path = folder / LOG_FILE

    def add(self, action: str, *, by: str, outcome: str, details: Mapping[str, JSON]) -> None:
        """Write down an action with who asked for it and what came of it."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "action": action,
            "by": by,
            "outcome": outcome,
            "details": dict(details),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")

    def last(self, count: int) -> list[dict[str, JSON]]:
        """The last `count` actions, the latest first; lines that are broken are left out."""
        try:
            lines = self._path.read_bytes().splitlines()[-count:]
        except FileNotFoundError:
            return []
        return [one for line in reversed(lines) if (one := _parsed(line))]


def _parsed(line: bytes) -> dict[str, JSON] | None:
    try:
        return dict(orjson.loads(line))
    except (orjson.JSONDecodeError, TypeError):
        return None
