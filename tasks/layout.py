"""Which products lie in a synthetic photo, and whereabouts: levels, look-alikes, arrangements.

Boundary: names, shares and generators in, numbers out; `tasks.laying` finds the place for each product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np

from tasks.items import Doubles, Gathering

Kind = Literal["pool", "pile", "uniform"]
Name = TypeVar("Name", bound=str)

_CELLS = 100
_ANYWHERE = np.ones(1)
_GOLDEN, _SILVER = 0.6180339887498949, 0.4142135623730951


def cell_side(height: int, width: int) -> int:
    """Side in pixels of the grid cells of a photo: there are about 100 cells along its longer side."""
    return max(2, -(-max(height, width) // _CELLS))


def draw_gathering(kind: Kind, *, places: Doubles, generator: np.random.Generator) -> Gathering:
    """The arrangement of one photo: as in the pool (`places`), in a pile somewhere near the middle, or anywhere."""
    x, y = (0.5 + 0.08 * generator.standard_normal(2)).tolist()
    spread = generator.uniform(0.12, 0.2)
    return Gathering(pile=kind == "pile", x=x, y=y, spread=spread, places=places if kind == "pool" else _ANYWHERE)


def draw_name(shares: Mapping[Name, float], *, generator: np.random.Generator) -> Name:
    """One of the names, with probabilities proportional to their shares (names in sorted order, for determinism)."""
    left = generator.random() * sum(shares.values())
    for name in sorted(shares):
        left -= shares[name]
        if left < 0 and shares[name] > 0:
            return name
    return max(name for name in shares if shares[name] > 0)


def draw_counts(skus: int, items: int, *, generator: np.random.Generator) -> list[int]:
    """How many of each of `skus` products a photo of `items` items has: at least one each, the rest at random."""
    extra = generator.multinomial(max(0, items - skus), generator.dirichlet(np.full(skus, 3.0)))
    return [1 + int(count) for count in extra]


@lru_cache(maxsize=64)
def _shuffled(count: int, seed: int, block: int) -> list[int]:
    return np.random.default_rng((seed, block)).permutation(count).tolist()


def first_sku(skus: Sequence[str], *, seed: int, index: int) -> str:
    """The product that photo `index` is sure to show: each block of len(skus) photos is a shuffle of all products."""
    block, position = divmod(index, len(skus))
    return skus[_shuffled(len(skus), seed, block)[position]]


def first_view(skus: Sequence[str], *, seed: int, index: int) -> float:
    """A number in [0, 1) that chooses the view of `first_sku`; from block to block it fills the interval evenly.

    Multiples of the golden ratio: of all sequences, the one with the least gaps (Knuth, TAOCP 3, 6.4). Each product has
    the same sequence, so every kept view gets its share of the photos as soon as there are enough.
    """
    return ((index // len(skus) + 1) * _GOLDEN + seed * _SILVER) % 1.0


def draw_skus(
    count: int,
    *,
    first: str,
    skus: Sequence[str],
    mates: Mapping[str, str],
    mate_share: float,
    generator: np.random.Generator,
) -> list[str]:
    """`count` different products, `first` among them (fewer if there are not as many).

    With probability `mate_share` the next product is the look-alike of the last one, if it is not there yet.
    """
    chosen = [first]
    others = [skus[position] for position in generator.permutation(len(skus))]
    while len(chosen) < min(count, len(skus)):
        mate = mates.get(chosen[-1])
        brings = generator.random() < mate_share and mate in skus and mate not in chosen
        chosen.append(mate if brings and mate is not None else next(sku for sku in others if sku not in chosen))
    return chosen
