"""A preset with less training and fewer composed photos, for measurements that need not wait for a good model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.presets import PRESETS, Preset
from tasks.params import StageParams


@contextmanager
def shortened(name: str, *, effort: float) -> Iterator[None]:
    """The preset `name` with its training steps and composed photos times `effort`."""
    make = PRESETS[name]
    PRESETS[name] = lambda: _shorter(make(), effort=effort)
    try:
        yield
    finally:
        PRESETS[name] = make


def _shorter(preset: Preset, *, effort: float) -> Preset:
    def cut(params: StageParams, *names: str) -> StageParams:
        counts = {name: getattr(params, name) for name in names if getattr(params, name)}
        return params.model_copy(update={name: max(1, round(effort * count)) for name, count in counts.items()})

    train = {name: cut(params, "steps", "evaluate_every") for name, params in preset.train.items()}
    shorter = {"compose": cut(preset.compose, "photos"), "render": cut(preset.render, "steps"), "train": train}
    return preset.model_copy(update=shorter)
