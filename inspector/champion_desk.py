"""What the inspector may do about champions: it is told how, by whoever makes it (the pipeline's own code)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from storage.digest import JSON


class ChampionDesk(Protocol):
    """Promotes a run's model and goes back to an earlier one."""

    def promote(self, run: Mapping[str, JSON], *, rung: str, reason: str) -> str:
        """Make the model of a rung of a run (its run.json) the champion; returns what was done, in a sentence.

        Raises:
            ValueError: it can't be.
        """
        ...

    def roll_back(self, catalog: str, *, to: int, reason: str) -> str:
        """Make the champion of record `to` the champion again; returns what was done, in a sentence.

        Raises:
            ValueError: it can't be.
        """
        ...
