"""A preset with less training and fewer composed photos, for measurements that need not wait for a good model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.presets import PRESETS, Preset
from tasks.params import StageParams


@contextmanager
def shortened(name: str, *, effort: float, threads: int) -> Iterator[None]:
    """The preset `name` with its training steps and composed photos times `effort`, and its threads."""
    make = PRESETS[name]
    PRESETS[name] = lambda: _shorter(make(), effort=effort, threads=threads)
    try:
        yield
    finally:
        PRESETS[name] = make


def _shorter(preset: Preset, *, effort: float, threads: int) -> Preset:
    def cut(params: StageParams, *names: str, **others: int) -> StageParams:
        counts = {name: getattr(params, name) for name in names if getattr(params, name)}
        fewer = {name: max(1, round(effort * count)) for name, count in counts.items()}
        return params.model_copy(update={**fewer, **others})

    train = {name: cut(one, "steps", "evaluate_every", threads=threads) for name, one in preset.train.items()}
    render = cut(preset.render, "steps", threads=threads)
    saliency = preset.saliency.model_copy(update={"threads": threads})
    shorter = {"compose": cut(preset.compose, "photos"), "render": render, "train": train, "saliency": saliency}
    return preset.model_copy(update=shorter)
