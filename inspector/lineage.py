"""What an item was made from, and what was made from it, over the stages of a run, both ways.

Rows name the items they were made from; which stage those are in is told by what the stage itself was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspector.run_view import RunView
from storage.manifest import ManifestRow

_MOST_ITEMS, _SHOWN = 5000, 12


@dataclass(frozen=True, slots=True)
class Group:
    """Items of one stage in a lineage: the first few, and how many there are. `via`: the item they share as parent, ""
    where they were reached over several."""

    stage: str
    rows: list[ManifestRow]
    count: int
    via: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Both directions: `origins` from the item upwards, `descendants` in the order of the stages, and the models that
    were trained on any of them (names of train stages)."""

    origins: list[Group]
    descendants: list[Group]
    models: list[str]


def lineage_of(run: RunView, *, stage: str, row: ManifestRow) -> Lineage:
    """Where a row comes from and where it went."""
    return Lineage(_origins(run, stage, row), *_descendants(run, stage, row))


def _origins(run: RunView, stage: str, row: ManifestRow) -> list[Group]:
    """One group a stage, nearest first; of many parents (a photo of many sprites) the first few."""
    groups: list[Group] = []
    frontier: dict[str, list[str]] = {}
    _ask(run, stage, row.parents, frontier)
    while frontier:
        # The latest stage first: what it was made from comes before it.
        source = [name for name in run.stages if name in frontier][-1]
        wanted, table = frontier.pop(source), run.find(source)
        numbers = np.empty(0, np.int64) if table is None else table.among(wanted[:_MOST_ITEMS])
        if table is None or not len(numbers):
            continue
        rows = table.rows(numbers[:_MOST_ITEMS], without=("objects",))
        groups.append(Group(source, rows[:_SHOWN], len(numbers)))
        for one in rows:
            _ask(run, source, one.parents, frontier)
    return groups


def _ask(run: RunView, stage: str, parents: Sequence[str], frontier: dict[str, list[str]]) -> None:
    if parents:
        for source in run.sources(stage):
            frontier.setdefault(source, []).extend(parents)


def _descendants(run: RunView, stage: str, row: ManifestRow) -> tuple[list[Group], list[str]]:
    groups: list[Group] = []
    reached: dict[str, list[str]] = {stage: [row.item_id]}
    touched = {stage}
    names = list(run.stages)
    for name in names[names.index(stage) + 1 :]:
        touching = [source for source in run.sources(name) if source in touched]
        if not touching:
            continue
        if run.stages[name].stage == "train":
            touched |= {name} if _learnt_from(run, name, touching) else set()
            continue
        given = [item_id for source in touching for item_id in reached.get(source, ())]
        table = run.find(name) if given else None
        numbers = np.empty(0, np.int64) if table is None else table.with_parents(given[:_MOST_ITEMS])
        if table is None or not len(numbers):
            continue
        reached[name] = table.light.column("item_id").take(numbers).to_pylist()
        touched.add(name)
        via = row.item_id if given == [row.item_id] else ""
        groups.append(Group(name, table.rows(numbers[:_SHOWN]), len(numbers), via))
    return groups, [name for name in names if name in touched and run.stages[name].stage == "train" and name != stage]


def _learnt_from(run: RunView, name: str, touching: Sequence[str]) -> bool:
    """Whether the photos of a train stage, or the model that it started from, go back to the item."""
    inputs = run.inputs[name]
    return bool({*inputs.get("photos", ()), *inputs.get("init", ())} & set(touching))
