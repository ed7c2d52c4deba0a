"""The stages of a run as a picture: which is made from which, in layers from top to bottom, for an inline SVG.

Layers by the longest way from a stage without inputs; edges that a longer way already tells are left out. An edge over
several layers runs down a lane of its own beside the boxes, which all edges of the same source share (Sugiyama's
method with one chain of dummies a source).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 208, 40
_LANE_WIDTH, _GAP_X, _GAP_Y, _MARGIN = 6, 18, 26, 8
_SWEEPS = 12


@dataclass(frozen=True, slots=True)
class Node:
    """A stage's box: its upper left corner in the SVG's coordinates."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything the SVG draws; `paths` are the edges, piece by piece."""

    nodes: list[Node]
    paths: list[str]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Place:
    """A box (`lane` False) or a piece of a lane in a layer."""

    name: str
    layer: int
    lane: bool

    @property
    def width(self) -> int:
        return _LANE_WIDTH if self.lane else NODE_WIDTH


def stage_graph(sources: Mapping[str, Sequence[str]]) -> Graph:
    """The picture of stages with what each is made from; stages must come after what they are made from."""
    direct = {name: _without_detours(name, sources) for name in sources}
    layer = _layers(direct)
    links = _links(direct, layer)
    layers = _placed(layer, links)
    middle = _middles(layers, links)
    left = min((middle[one] - one.width / 2 for row in layers for one in row), default=0)
    right = max((middle[one] + one.width / 2 for row in layers for one in row), default=0)
    shift = _MARGIN - left
    nodes = [
        Node(one.name, middle[one] - NODE_WIDTH / 2 + shift, _top(one)) for row in layers for one in row if not one.lane
    ]
    paths = [_path(start, end, middle=middle, shift=shift) for start, end in links]
    height = 2 * _MARGIN + len(layers) * NODE_HEIGHT + max(len(layers) - 1, 0) * _GAP_Y
    return Graph(nodes, paths, right - left + 2 * _MARGIN, height)


def _without_detours(name: str, sources: Mapping[str, Sequence[str]]) -> list[str]:
    """What a stage is made from, without what another of its sources is made from as well."""
    reached: set[str] = set()
    for source in sources[name]:
        waiting = list(sources.get(source, ()))
        while waiting:
            one = waiting.pop()
            if one not in reached:
                reached.add(one)
                waiting.extend(sources.get(one, ()))
    return [source for source in sources[name] if source not in reached]


def _layers(direct: Mapping[str, Sequence[str]]) -> dict[str, int]:
    layer: dict[str, int] = {}
    for name, given in direct.items():
        layer[name] = max((layer[source] + 1 for source in given if source in layer), default=0)
    return layer


def _links(direct: Mapping[str, Sequence[str]], layer: Mapping[str, int]) -> list[tuple[_Place, _Place]]:
    """Pieces of edges, each from one layer to the next, each once."""
    found: dict[tuple[_Place, _Place], None] = {}
    for target, given in direct.items():
        for source in given:
            before = _Place(source, layer[source], lane=False)
            for level in range(layer[source] + 1, layer[target]):
                piece = _Place(source, level, lane=True)
                found[before, piece] = None
                before = piece
            found[before, _Place(target, layer[target], lane=False)] = None
    return list(found)


def _placed(layer: Mapping[str, int], links: Sequence[tuple[_Place, _Place]]) -> list[list[_Place]]:
    places = dict.fromkeys(_Place(name, level, lane=False) for name, level in layer.items())
    places |= dict.fromkeys(place for link in links for place in link)
    layers: list[list[_Place]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for place in places:
        layers[place.layer].append(place)
    return layers


def _middles(layers: Sequence[list[_Place]], links: Sequence[tuple[_Place, _Place]]) -> dict[_Place, float]:
    """Where the middle of each place is: near those it is linked with, sweeping down and up, nothing overlapping."""
    linked: dict[_Place, list[_Place]] = {place: [] for row in layers for place in row}
    for start, end in links:
        linked[start].append(end)
        linked[end].append(start)
    middle: dict[_Place, float] = {}
    for row in layers:
        _spread(row, dict.fromkeys(row, 0.0), middle)
    for sweep in range(_SWEEPS):
        for row in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {one: _mean([middle[other] for other in linked[one]], otherwise=middle[one]) for one in row}
            _spread(row, wanted, middle)
    return middle


def _spread(row: list[_Place], wanted: Mapping[_Place, float], middle: dict[_Place, float]) -> None:
    """Put a layer's places side by side in the order of where they want to be, together as near to it as can be."""
    row.sort(key=lambda one: wanted[one])
    end = float("-inf")
    for one in row:
        middle[one] = max(wanted[one], end + one.width / 2)
        end = middle[one] + one.width / 2 + _GAP_X
    shift = _mean([wanted[one] - middle[one] for one in row], otherwise=0.0)
    for one in row:
        middle[one] += shift


def _mean(values: Sequence[float], *, otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _top(place: _Place) -> float:
    return _MARGIN + place.layer * (NODE_HEIGHT + _GAP_Y)


def _path(start: _Place, end: _Place, *, middle: Mapping[_Place, float], shift: float) -> str:
    """A piece of an edge: a curve between two layers, and straight down where it passes one in its lane."""
    x0, y0 = middle[start] + shift, _top(start) + NODE_HEIGHT
    x1, y1 = middle[end] + shift, _top(end)
    half = _GAP_Y * 0.6
    curve = f"M{x0:.1f} {y0:g}C{x0:.1f} {y0 + half:g} {x1:.1f} {y1 - half:g} {x1:.1f} {y1:g}"
    return f"{curve}v{NODE_HEIGHT}" if end.lane else curve
