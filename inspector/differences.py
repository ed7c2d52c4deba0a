"""Why a stage's result is another one than before: the stages of two runs, compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inspector.run_view import RunView
from storage.recorded import first_difference, recorded_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A stage in two runs: `how` says what differs, "" where both have the same content."""

    name: str
    how: str

    @property
    def own(self) -> bool:
        """Whether the stage itself was changed, not only what it was made from."""
        return bool(self.how) and not self.how.startswith("input")


def stage_changes(before: RunView, after: RunView) -> list[Change]:
    """Every stage of either run, in the order of the later one, with the first thing that differs."""
    names = [*after.stages, *(name for name in before.stages if name not in after.stages)]
    return [Change(name=name, how=_how(name, before, after)) for name in names]


def by_kind(changes: Iterable[Change]) -> list[tuple[str, list[str]]]:
    """What differs, with the stages that it is so in: the same for many stages is told once."""
    found: dict[str, list[str]] = {}
    for one in changes:
        found.setdefault(one.how, []).append(one.name)
    return list(found.items())


def _how(name: str, before: RunView, after: RunView) -> str:
    one, other = before.stages.get(name), after.stages.get(name)
    if one is None or other is None:
        return "only in the later run" if one is None else "only in the earlier run"
    if one.content_digest == other.content_digest:
        return ""
    return _difference(name, before, after) or "the same key, made again with other content"


def _difference(name: str, before: RunView, after: RunView) -> str:
    tables = before.find(name), after.find(name)
    if tables[0] is None or tables[1] is None:
        return "other content; a manifest is gone, so that the reason can't be told"
    return first_difference(recorded_in(tables[0].metadata), recorded_in(tables[1].metadata))


def why_it_ran(run: RunView, *, name: str, earlier: RunView | None) -> str:
    """In words why a stage was computed in this run, or that it came from the store."""
    entry = run.stages[name]
    if entry.cached:
        return "from the store"
    if earlier is None or name not in earlier.stages:
        return "never run before under this name"
    if earlier.stages[name].key == entry.key:
        return "asked for again, or its files were damaged"
    return _difference(name, earlier, run) or "its inputs in another order"
