"""Recorded command lines with some of their options changed, to be copied into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def changed_command(command: str, options: Mapping[str, str]) -> str:
    """`command` with these options (by name, without dashes) in place of its own; one without a value is taken away.

    The command line refuses an option that is given twice.
    """
    kept, taken_away = [], False
    for word in shlex.split(command):
        if word.startswith("--"):
            taken_away = word.removeprefix("--") in options
        if not taken_away:
            kept.append(word)
    given = [(f"--{name}", value) for name, value in options.items() if value]
    return shlex.join([*kept, *(word for pair in given for word in pair)])


def part_again(command: str, *, stage: str, sku: str, name: str) -> str:
    """The command that makes a run again from a stage on (all of it without one); with one product alone, if there is
    one, under a name of its own."""
    part = {"only": "", "to": "", "from": stage} if stage else {}
    return changed_command(command or "tally run", {**part, **({"sku": sku, "name": name} if sku else {})})


def only_stage(command: str, stage: str) -> str:
    """The command that makes one stage of a run again."""
    return changed_command(command, {"from": "", "to": "", "only": stage})
