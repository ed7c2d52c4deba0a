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
_GOLDEN, _SILVER, _BRONZE = 0.6180339887498949, 0.4142135623730951, 0.3027756377319946


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


def first_sku(weights_S: Doubles, *, seed: int, index: int) -> int:
    """The number of the product that photo `index` is sure to show.

    Each block of as many photos as there are products is a shuffle of all products. Where they have different weights,
    multiples of the golden ratio choose among them: the sequence with the least gaps of all (Knuth, TAOCP 3, 6.4).
    """
    if (weights_S == weights_S[0]).all():
        block, position = divmod(index, len(weights_S))
        return _shuffled(len(weights_S), seed, block)[position]
    ends_S = np.cumsum(weights_S)
    return int(ends_S.searchsorted(ends_S[-1] * _weyl(index, _GOLDEN, seed=seed), side="right"))


def first_view(weights_S: Doubles, *, seed: int, index: int) -> float:
    """A number in [0, 1) that chooses the view of `first_sku`; from photo to photo of a product it fills the interval
    evenly, so that every kept view gets its share as soon as there are enough photos."""
    if (weights_S == weights_S[0]).all():
        return _weyl(index // len(weights_S), _GOLDEN, seed=seed)
    return _weyl(index, _SILVER, seed=seed)


def _weyl(number: int, ratio: float, *, seed: int) -> float:
    return ((number + 1) * ratio + seed * _BRONZE) % 1.0


def draw_skus(
    count: int,
    *,
    first: int,
    weights_S: Doubles,
    mates_S: Sequence[int],
    mate_share: float,
    generator: np.random.Generator,
) -> list[int]:
    """The numbers of `count` different products, `first` among them (fewer if there are not as many).

    With probability `mate_share` the next product is the look-alike of the last one (-1: it has none), if it is not
    there yet; else any other, by weight (Efraimidis and Spirakis, "Weighted random sampling", 2006).
    """
    order_S = np.argsort(generator.standard_exponential(len(weights_S)) / weights_S).tolist()
    chosen, others = [first], iter(order_S)
    brings = (generator.random(count) < mate_share).tolist()
    while len(chosen) < min(count, len(order_S)):
        mate = mates_S[chosen[-1]]
        if brings[len(chosen)] and mate >= 0 and mate not in chosen:
            chosen.append(mate)
        else:
            chosen.append(next(number for number in others if number not in chosen))
    return chosen
