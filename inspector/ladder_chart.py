"""The metric ladder as an inline SVG: one group of bars a rung, one bar a level, for one metric in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 16, 46
_GROUP_SHARE = 0.8
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar in the SVG's coordinates; `level` names its style, `label` is read out."""

    x: float
    y: float
    width: float
    height: float
    level: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A text at a place: a tick of the vertical axis or a rung's name."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Everything the SVG template draws."""

    bars: list[Bar]
    ticks: list[Mark]
    names: list[Mark]
    title: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT


def ladder_chart(values: Mapping[str, Mapping[str, float]], *, levels: Sequence[str], title: str) -> Chart:
    """The chart of `values[rung][level]` in [0, 1]; a level that a rung lacks leaves a gap."""
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    group = plot_width / max(len(values), 1)
    width = group * _GROUP_SHARE / len(levels)
    bars, names = [], []
    for place, (rung, by_level) in enumerate(values.items()):
        start = _LEFT + group * (place + (1 - _GROUP_SHARE) / 2)
        names.append(Mark(x=_LEFT + group * (place + 0.5), y=HEIGHT - _BOTTOM + 20, text=rung))
        for index, level in enumerate(levels):
            if level not in by_level:
                continue
            height = plot_height * min(max(by_level[level], 0.0), 1.0)
            bars.append(
                Bar(
                    x=round(start + index * width, 2),
                    y=round(_TOP + plot_height - height, 2),
                    width=round(width * 0.9, 2),
                    height=round(height, 2),
                    level=level,
                    label=f"{rung}, {level}: {by_level[level]:.3f}",
                )
            )
    ticks = [Mark(x=_LEFT - 6, y=round(_TOP + plot_height * (1 - tick), 2), text=f"{tick:g}") for tick in _TICKS]
    return Chart(bars=bars, ticks=ticks, names=names, title=title)
