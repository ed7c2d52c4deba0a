"""`tally run --explain`: for every stage whether its result would come from the store, and if not, what has changed.

A stage is compared with the one of the same name in the last run. Where a stage must be computed, its former result
stands in for the new one, so that the stages after it can be looked at too: whether they run depends on what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from storage.digest import JSON
from storage.manifest import Manifest
from storage.recorded import Recorded, first_difference, recorded_in
from storage.store import Store
from tasks.params import StageParams
from tasks.stage import Input, StageResult, digests_of, key_of, result_of


class NothingToStandInError(Exception):
    """A stage must be computed and has no former result: what comes after it can't be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """hit: from the store; miss: would be computed; depends: computed if a stage before it puts out something new."""

    name: str
    verdict: Literal["hit", "miss", "depends"]
    reason: str


@dataclass(kw_only=True)
class ExplainRunner:
    """Looks at every stage and computes none. `former`: URLs of the last run's manifests by the names of the stages."""

    store: Store
    former: Mapping[str, str]
    refresh: frozenset[str] = frozenset()
    results: dict[str, StageResult] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    _stand_ins: set[str] = field(default_factory=set)

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The cached result of a stage, or the one that stands in for it.

        Raises:
            NothingToStandInError: there is neither.
        """
        key = key_of(params, inputs=inputs)
        found = None if name in self.refresh else self.store.find(params.stage, key=key)
        unsure = sorted(self._unsure(inputs))
        if found is not None and not unsure:
            self._add(name, "hit", "")
            self.results[name] = result_of(found, params=params, key=key, cached=True)
            return found
        before = self._before(name)
        if found is not None:
            self._add(name, "depends", f"on what {', '.join(unsure)} will be")
        else:
            reason = "refresh asks for it" if name in self.refresh else self._reason(params, key, inputs, before)
            certain = not unsure or name in self.refresh or _own_change(params, before=before)
            self._add(name, "miss" if certain else "depends", reason)
        stand_in = found or before
        if stand_in is None:
            raise NothingToStandInError(name)
        self._stand_ins.add(stand_in.url)
        return stand_in

    def _add(self, name: str, verdict: Literal["hit", "miss", "depends"], reason: str) -> None:
        self.verdicts.append(Verdict(name=name, verdict=verdict, reason=reason))

    def _unsure(self, inputs: Mapping[str, Input]) -> list[str]:
        return [name for name, value in inputs.items() for one in _manifests(value) if one.url in self._stand_ins]

    def _before(self, name: str) -> Manifest | None:
        url = self.former.get(name)
        try:
            return None if url is None else self.store.load(url)
        except (FileNotFoundError, ValueError):
            return None

    def _reason(self, params: StageParams, key: str, inputs: Mapping[str, Input], before: Manifest | None) -> str:
        if before is None:
            gone = any(f"/{params.stage}/{key}/" in url for url in self.former.values())
            return "its result is gone from the store" if gone else "never run before under this name"
        if before.key == key:
            return self.store.damage(before) or "its result is there"
        now = Recorded(version=params.version, parameters=_in_key(params), inputs=digests_of(inputs))
        then = recorded_in(before.metadata)
        then = replace(then, parameters=params.in_key(then.parameters))
        return first_difference(then, now) or "its inputs in another order"


def _manifests(value: Input) -> Sequence[Manifest]:
    if value is None:
        return ()
    return (value,) if isinstance(value, Manifest) else value


def _own_change(params: StageParams, *, before: Manifest | None) -> bool:
    """Whether a stage's version or parameters differ from before, so that it runs whatever its inputs will be."""
    if before is None:
        return True
    recorded = before.metadata
    return recorded["version"] != params.version or params.in_key(recorded["parameters"]) != _in_key(params)


def _in_key(params: StageParams) -> dict[str, JSON]:
    return params.in_key(params.model_dump(mode="json"))
