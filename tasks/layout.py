"""Which products lie in a synthetic photo, and whereabouts: levels, look-alikes, arrangements.

Boundary: names, shares and generators in, numbers out; `tasks.places` finds the place for each product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.look import PLACES

Kind = Literal["pool", "pile", "uniform"]
Places = NDArray[np.float64]
Name = TypeVar("Name", bound=str)

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """Where the products of one photo gather: as in the pool, in a pile somewhere near the middle, or anywhere.

    x, y, spread: of the pile, as shares of the photo. places: cumulated shares of PLACES x PLACES tiles in the pool.
    """

    kind: Kind
    x: float
    y: float
    spread: float
    places: NDArray[np.float64]


def draw_gathering(kind: Kind, *, places: NDArray[np.float64], generator: np.random.Generator) -> Gathering:
    """The arrangement of one photo."""
    x, y = 0.5 + 0.08 * generator.standard_normal(2)
    return Gathering(kind=kind, x=float(x), y=float(y), spread=generator.uniform(0.12, 0.2), places=places)


def propose(gathering: Gathering, *, count: int, generator: np.random.Generator) -> Places:
    """Places for the middle of a product, float64 [count, 2] (x, y) as shares of the photo; some may lie outside."""
    if gathering.kind == "pile":
        return np.asarray((gathering.x, gathering.y)) + gathering.spread * generator.standard_normal((count, 2))
    places_K2 = generator.random((count, 2))
    if gathering.kind == "pool":
        tiles_K = np.searchsorted(gathering.places, generator.random(count), side="right")
        places_K2 += np.stack(np.divmod(np.minimum(tiles_K, PLACES**2 - 1), PLACES)[::-1], axis=-1)
        places_K2 /= PLACES
    return places_K2


def propose_beside(
    middle: tuple[float, float],
    *,
    across: float,
    step: float,
    spread: float,
    count: int,
    generator: np.random.Generator,
) -> Places:
    """Places at both sides of a product: `step` away in direction `across` (radians) or against it, a little spread.

    Float64 [count, 2] in the units of `middle`, `step` and `spread`.
    """
    signs_K1 = np.where(generator.random((count, 1)) < 0.5, step, -step)
    places_K2 = signs_K1 * np.asarray((cos(across), sin(across))) + np.asarray(middle)
    return places_K2 + spread * generator.standard_normal((count, 2))


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


def first_sku(skus: Sequence[str], *, seed: int, index: int) -> str:
    """The product that photo `index` is sure to show: each block of len(skus) photos is a shuffle of all products."""
    block, position = divmod(index, len(skus))
    return skus[int(np.random.default_rng((seed, block)).permutation(len(skus))[position])]


def first_view(skus: Sequence[str], *, seed: int, index: int) -> float:
    """A number in [0, 1) that chooses the view of `first_sku`; from block to block it fills the interval evenly.

    Multiples of the golden ratio: of all sequences, the one with the least gaps (Knuth, TAOCP 3, 6.4). Each product has
    the same sequence, so every kept view gets its share of the photos as soon as there are enough.
    """
    return (index // len(skus) * _GOLDEN + np.random.default_rng(seed).random()) % 1.0


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
