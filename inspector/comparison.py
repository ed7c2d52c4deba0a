"""Two models compared: figures, products, and the photos whose lists changed. From the tables that `evaluate` left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inspector.run_data import LEVELS, LOWER_IS_BETTER, METRICS
from inspector.run_view import RunView
from storage.manifest import Box, ManifestRow

Turn = Literal["became wrong", "became right", "worse", "better", "same"]
TURNS: tuple[Turn, ...] = ("became wrong", "became right", "worse", "better", "same")


@dataclass(frozen=True)
class Side:
    """One model: a rung of a run."""

    run: RunView
    rung: str

    @property
    def title(self) -> str:
        """What it is called beside the other."""
        return f"{self.run.id} · {self.rung}"

    def rows(self, table: str) -> list[dict[str, Any]]:
        """One of its evaluation tables."""
        return self.run.evaluation(self.rung, table=table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A figure before and after; `better` says whether the change is one to like, None where there is none."""

    name: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def better(self) -> bool | None:
        """Whether the change is for the better."""
        if not self.change:
            return None
        return (self.change < 0) == (self.name in LOWER_IS_BETTER)


def metric_deltas(before: Side, after: Side) -> dict[str, list[Delta]]:
    """RPC's metrics on test by level, for the levels that either model was measured at."""
    one, other = before.run.ladder.get(before.rung, {}), after.run.ladder.get(after.rung, {})
    return {
        level: [
            Delta(name=name, before=one.get(level, {}).get(name), after=other.get(level, {}).get(name))
            for name in METRICS
        ]
        for level in LEVELS
        if level in one or level in other
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductDelta:
    """A product in both evaluations."""

    sku: str
    products: int
    precision: Delta
    recall: Delta
    miscounted: Delta

    @property
    def weight(self) -> float:
        """How much changed: photos miscounted first, then precision and recall; a new product before all others."""
        if self.miscounted.before is None:
            return math.inf
        ratios = sum(abs(one.change or 0.0) for one in (self.precision, self.recall))
        return abs(self.miscounted.change or 0.0) + ratios


def product_deltas(before: Side, after: Side) -> list[ProductDelta]:
    """Every product of the later evaluation, the one that changed most first."""
    earlier = {one["sku"]: one for one in before.rows("skus")}
    found = [_product_delta(one, earlier.get(one["sku"], {})) for one in after.rows("skus")]
    return sorted(found, key=lambda one: (-one.weight, one.sku))


def _product_delta(now: Mapping[str, Any], then: Mapping[str, Any]) -> ProductDelta:
    def delta(name: str) -> Delta:
        return Delta(name=name, before=then.get(name), after=now.get(name))

    # Fewer miscounted photos are better, as with ACD.
    miscounted = Delta(name="ACD", before=then.get("photos_miscounted"), after=now.get("photos_miscounted"))
    return ProductDelta(
        sku=str(now["sku"]),
        products=int(now["products"]),
        precision=delta("precision"),
        recall=delta("recall"),
        miscounted=miscounted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoChange:
    """A test photo in both evaluations: how many items of its list are wrong before and after, and what that means."""

    photo: str
    level: str
    products: int
    before: int
    after: int
    turn: Turn


def photo_changes(before: Side, after: Side) -> list[PhotoChange]:
    """The photos that both evaluations know: lists that became wrong first, then by how much changed."""
    earlier = {one["photo"]: one for one in before.rows("photos")}
    found = [
        PhotoChange(
            photo=str(one["photo"]),
            level=str(one["level"]),
            products=int(one["products"]),
            before=int(earlier[one["photo"]]["wrong"]),
            after=int(one["wrong"]),
            turn=turn_of(int(earlier[one["photo"]]["wrong"]), int(one["wrong"])),
        )
        for one in after.rows("photos")
        if one["photo"] in earlier
    ]
    return sorted(found, key=lambda one: (TURNS.index(one.turn), -abs(one.after - one.before), one.photo))


def turn_of(before: int, after: int) -> Turn:
    """What became of a list with `before` wrong items that now has `after`."""
    if before == after:
        return "same"
    if not before:
        return "became wrong"
    if not after:
        return "became right"
    return "worse" if after > before else "better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a photo: its kind, what it says, and where (xyxy, pixels)."""

    kind: str
    text: str
    box: Box


def mistakes_by_photo(side: Side, photos: Sequence[str]) -> dict[str, list[Mistake]]:
    """The mistakes that a model made in some photos."""
    found: dict[str, list[Mistake]] = {photo: [] for photo in photos}
    for one in side.rows("mistakes"):
        if one["photo"] in found:
            x0, y0, x1, y1 = (float(value) for value in one["box"])
            found[one["photo"]].append(Mistake(kind=str(one["kind"]), text=mistake_text(one), box=(x0, y0, x1, y1)))
    return found


def mistake_text(one: Mapping[str, Any]) -> str:
    """A mistake in words."""
    match one["kind"]:
        case "wrong SKU":
            return f"{one['found_sku']} for {one['true_sku']}"
        case "missed":
            return f"missed {one['true_sku']}"
        case "double":
            return f"{one['found_sku']} again"
        case kind:
            return f"{one['found_sku']} on {kind}"


def photo_row(side: Side, photo: str) -> tuple[str, ManifestRow] | None:
    """A test photo's row with the name of its stage, None where it is gone."""
    row = side.run.row("ingest.test", photo)
    return ("ingest.test", row) if row else None
