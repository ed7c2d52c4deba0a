"""A part of the pipeline: which stages may be computed, which are computed again, and where a run stops.

Stages are named as in `run.json` (`train.render`), or by their kind alone (`train`), which means all of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.pipeline import image_rounds, reselected_val, selection_rounds
from flows.presets import Preset
from flows.renderers import render_stage_names
from flows.runner import Runner
from storage.manifest import Manifest
from storage.store import Store
from tasks.params import StageParams
from tasks.stage import Input, StageResult, look_up


class PartDoneError(Exception):
    """The last stage that was asked for is done: the rest of the pipeline is not run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Names of stages in a run: those that may be computed, those computed although cached, the last (empty: all) and
    those that come after it."""

    computed: frozenset[str]
    refresh: frozenset[str] = frozenset()
    last: str = ""
    beyond: frozenset[str] = frozenset()


def stage_names(preset: Preset) -> list[str]:
    """The names of a run's stages, in their order."""
    names = [f"ingest.{split}" for split in ("catalog", "pool", "val", "test", "boards")]
    names += ["gather.skus", "coarse", "saliency", "segment", "prune", "board", "compose"]
    names += render_stage_names(preset)
    for rung in ("source", "render", *selection_rounds(preset)):
        if rung not in ("source", "render"):
            names += _selecting(rung, preset=preset)
            if preset.feedback and rung == image_rounds(preset)[0]:
                names += ["prune.feedback", "compose.feedback", "render.feedback"]
            if preset.paste_share:
                names.append(f"paste.{rung}")
        names += [f"train.{rung}", f"predict.{rung}.val", f"predict.{rung}.test", f"evaluate.{rung}"]
    return names


def _selecting(rung: str, *, preset: Preset) -> list[str]:
    others = [f"predict.{rung}.{split}{view.title}" for split in ("pool", "val") for view in preset.other_views]
    return [f"predict.{rung}.pool", *others, f"select.{rung}"]


def selecting_rounds(only: str, *, preset: Preset) -> list[str]:
    """The rounds whose selection `only` names: select, or select.<rung>.

    Raises:
        ValueError: it names something else.
    """
    rounds = [name for name in selection_rounds(preset) if only in ("select", f"select.{name}")]
    if not rounds:
        places = ", ".join(f"select.{name}" for name in selection_rounds(preset))
        raise ValueError(f"checkpoint: expected --only select or one place of it ({places}) beside it, got {only!r}")
    return rounds


def part_that_selects(only: str, *, preset: Preset) -> Part:
    """The part of a run in which a given checkpoint selects: it predicts what it selects from.

    Raises:
        ValueError: `only` names no selection.
    """
    rounds = selecting_rounds(only, preset=preset)
    names = [name for rung in rounds for name in (reselected_val(rung), *_selecting(rung, preset=preset))]
    return Part(computed=frozenset(names), last=names[-1])


def part_of(preset: Preset, *, first: str, last: str, only: str, refresh: Sequence[str]) -> Part:
    """The part of a run that the options name; an empty name leaves that side open.

    Raises:
        ValueError: a name is not that of a stage of this run.
    """
    names = stage_names(preset)
    begin = names.index(_matching("from", first, names=names)[0]) if first else 0
    end = _matching("to", last, names=names)[-1] if last else ""
    allowed = _matching("only", only, names=names) if only else names[begin:]
    again = [name for one in refresh for name in _matching("refresh", one, names=names)]
    beyond = names[names.index(end) + 1 :] if end else ()
    return Part(computed=frozenset(allowed), refresh=frozenset(again), last=end, beyond=frozenset(beyond))


def _matching(option: str, wanted: str, *, names: Sequence[str]) -> list[str]:
    found = [name for name in names if name == wanted or name.startswith(f"{wanted}.")]
    if not found:
        kinds = dict.fromkeys(name.split(".")[0] for name in names)
        raise ValueError(
            f"{option}: expected a stage ({', '.join(kinds)}) or one place of it such as train.render, got {wanted!r}"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class PartRunner:
    """Runs a part of the pipeline with another runner."""

    inner: Runner
    part: Part

    @property
    def store(self) -> Store:
        """The inner runner's store."""
        return self.inner.store

    @property
    def results(self) -> dict[str, StageResult]:
        """The inner runner's results."""
        return self.inner.results

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """The result of a stage.

        Raises:
            ValueError: the stage may not be computed and its result is not in the store.
            PartDoneError: it was the last, or the last is one that this run does not have (no pool: no `render`).
        """
        if name in self.part.beyond:
            raise PartDoneError(self.part.last)
        if name not in self.part.computed and look_up(params, inputs=inputs, store=self.store) is None:
            raise ValueError(
                f"{name}: expected its result in the store, as the run starts after it, got none; "
                f"use --from {name}, or leave --from and --only out"
            )
        manifest = self.inner.stage(name, params, **inputs)
        if name == self.part.last:
            raise PartDoneError(name)
        return manifest
