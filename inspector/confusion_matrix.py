"""Which products are taken for which: the matrix as an SVG, and the mistakes behind each of its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "(nothing)"
CELL, LABEL = 26, 150
_MOST, _LEANING = 24, 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell with mistakes in the SVG's coordinates: `strength` in (0, 1], 1 for the most frequent."""

    x: int
    y: int
    strength: float
    times: int
    true: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What the SVG draws: products that are confused most, true ones down the side, found ones along the top."""

    rows: list[str]
    columns: list[str]
    cells: list[Cell]
    width: int
    height: int
    left_out: int


def mistake_pairs(mistakes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """(true, found, times), most frequent first. A missed product is found as nothing; what lies on no product, or on
    one that was found already, is nothing found as something."""
    counted: Counter[tuple[str, str]] = Counter(pair_of(one) for one in mistakes)
    ordered = sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    return [(true, found, times) for (true, found), times in ordered]


def pair_of(mistake: Mapping[str, Any]) -> tuple[str, str]:
    """The cell of the matrix that a mistake belongs to."""
    true = mistake["true_sku"] if mistake["kind"] in ("wrong SKU", "missed") else None
    return str(true or NOTHING), str(mistake["found_sku"] or NOTHING)


def confusion_matrix(pairs: Sequence[tuple[str, str, int]]) -> Matrix:
    """The matrix of the most frequent pairs, at most `_MOST` products each way."""
    rows = _most_frequent(pairs, which=0)
    columns = _most_frequent(pairs, which=1)
    shown = [pair for pair in pairs if pair[0] in rows and pair[1] in columns]
    most = max((times for _, _, times in shown), default=1)
    cells = [
        Cell(
            x=LABEL + CELL * columns.index(found),
            y=LABEL + CELL * rows.index(true),
            strength=round(0.15 + 0.85 * times / most, 3),
            times=times,
            true=true,
            found=found,
        )
        for true, found, times in shown
    ]
    width, height = LABEL + CELL * len(columns) + _LEANING, LABEL + CELL * len(rows) + 8
    return Matrix(rows=rows, columns=columns, cells=cells, width=width, height=height, left_out=len(pairs) - len(shown))


def _most_frequent(pairs: Sequence[tuple[str, str, int]], *, which: int) -> list[str]:
    counted: Counter[str] = Counter()
    for pair in pairs:
        counted[str(pair[which])] += pair[2]
    chosen = [name for name, _ in sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:_MOST]]
    # Nothing comes last: it is no product.
    return sorted(chosen, key=lambda name: (name == NOTHING, name))
