"""Shopping lists out of detections, their receipts, and photos with the products drawn in. Pure."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import cv2
import numpy as np

from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject

ACCEPTED, NEEDS_REVIEW = "accepted", "needs-review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedProduct:
    """One line of a shopping list. `confidence`: the lowest score among the `count` detections, in [0, 1]; `price`: of
    one piece, None where the catalog has none."""

    sku: str
    name: str
    count: int
    confidence: float
    price: float | None = None

    @property
    def amount(self) -> float | None:
        """Price times count, without the rounding errors of binary fractions."""
        return None if self.price is None else float(Decimal(str(self.price)) * self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShoppingList:
    """What is in one photo. `state` is NEEDS_REVIEW where `reason` says what is in doubt, else ACCEPTED."""

    photo: str
    products: tuple[ListedProduct, ...]
    state: str
    reason: str = ""

    @property
    def items(self) -> int:
        """Number of products, all SKUs together."""
        return sum(product.count for product in self.products)

    @property
    def total(self) -> float | None:
        """The receipt's total; None where a product has no price, because a part of it would mislead."""
        amounts = [product.amount for product in self.products]
        known = [Decimal(str(amount)) for amount in amounts if amount is not None]
        return float(sum(known)) if known and len(known) == len(amounts) else None


def prices_of(categories: Iterable[Category]) -> dict[str, float]:
    """The prices that the catalog has, by SKU.

    Raises:
        ValueError: a price is no number, or negative.
    """
    given = {one.sku: one.metadata["price"] for one in categories if one.metadata.get("price") is not None}
    for sku, price in given.items():
        if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
            raise ValueError(f"price of {sku}: expected a number that is not negative, got {price!r}")
    return {sku: float(price) for sku, price in given.items()}


def kept(objects: Sequence[ManifestObject], *, threshold: float) -> tuple[ManifestObject, ...]:
    """The detections that count: score >= threshold."""
    return tuple(item for item in objects if item.score is not None and item.score >= threshold)


def shopping_list(
    photo: str,
    *,
    objects: Sequence[ManifestObject],
    threshold: float,
    names: Mapping[str, str],
    prices: Mapping[str, float] | None = None,
    count: float | None = None,
    tolerance: float = 0.5,
) -> ShoppingList:
    """The list of one photo, in the order of the SKUs.

    Args:
        objects: detections with scores.
        names: what to call a SKU; a SKU that is not in it goes by its own name.
        prices: of one piece, by SKU; a listed product that is not in it asks for a review, unless nothing has a price.
        count: what the counting view says; a difference of more than `tolerance` products asks for a review.
    """
    counted = kept(objects, threshold=threshold)
    by_sku: dict[str, list[float]] = {}
    for item in sorted(counted, key=lambda one: one.sku):
        by_sku.setdefault(item.sku, []).append(float(item.score or 0.0))
    prices = prices or {}
    products = tuple(
        ListedProduct(
            sku=sku, name=names.get(sku) or sku, count=len(scores), confidence=min(scores), price=prices.get(sku)
        )
        for sku, scores in by_sku.items()
    )
    reason = _doubt(len(counted), count=count, tolerance=tolerance)
    if not reason and prices and (unpriced := [one.name for one in products if one.price is None]):
        reason = f"no price for {', '.join(unpriced)}"
    return ShoppingList(photo=photo, products=products, state=NEEDS_REVIEW if reason else ACCEPTED, reason=reason)


def _doubt(found: int, *, count: float | None, tolerance: float) -> str:
    if not found:
        return "nothing found"
    if count is not None and abs(found - count) > tolerance:
        return f"{found} products found, {count:.1f} counted"
    return ""


def draw_detections(
    photo_HW3: Picture, *, objects: Sequence[ManifestObject], names: Mapping[str, str], total: float | None = None
) -> Picture:
    """A copy of the photo with a box and a name for every object, and the list in the upper left corner.

    A SKU has the same colour in every photo. Sizes follow the photo's longer side. `total`: the receipt's, if there is
    one.
    """
    drawn_HW3 = photo_HW3.copy()
    size = max(photo_HW3.shape[:2]) / 1000
    thickness = max(1, round(3 * size))
    for item in objects:
        x0, y0, x1, y1 = (round(value) for value in item.box)
        cv2.rectangle(drawn_HW3, (x0, y0), (x1, y1), _colour(item.sku), thickness)
        label = f"{names.get(item.sku) or item.sku} {item.score:.2f}" if item.score is not None else item.sku
        _label(drawn_HW3, label, corner=(x0, y0), colour=_colour(item.sku), size=size)
    _draw_list(drawn_HW3, objects=objects, names=names, total=total, size=size)
    return drawn_HW3


def _draw_list(
    drawn_HW3: Picture,
    *,
    objects: Sequence[ManifestObject],
    names: Mapping[str, str],
    total: float | None,
    size: float,
) -> None:
    summary = f"{len(objects)} products" + ("" if total is None else f", total {total:.2f}")
    counts = {sku: sum(item.sku == sku for item in objects) for sku in sorted({item.sku for item in objects})}
    line = round(26 * size)
    for place, (sku, count) in enumerate([*counts.items(), ("", len(objects))]):
        text = f"{count} x {names.get(sku) or sku}" if sku else summary
        colour = _colour(sku) if sku else (40, 40, 40)
        _label(drawn_HW3, text, corner=(4, 4 + line * (place + 1)), colour=colour, size=size)


def _label(
    drawn_HW3: Picture, text: str, *, corner: tuple[int, int], colour: tuple[int, int, int], size: float
) -> None:
    """Text on a filled bar whose lower left corner is `corner`, moved into the photo where it would stick out."""
    scale, pad = max(0.3, 0.62 * size), max(2, round(4 * size))
    text = text.encode("ascii", "replace").decode()  # OpenCV's fonts know ASCII only
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = min(max(corner[0], 0), max(drawn_HW3.shape[1] - width - 2 * pad, 0))
    bottom = min(max(corner[1], height + baseline + pad), drawn_HW3.shape[0])
    top = bottom - height - baseline - pad
    cv2.rectangle(drawn_HW3, (left, top), (left + width + 2 * pad, bottom), colour, cv2.FILLED)
    origin = (left + pad, bottom - baseline)
    cv2.putText(drawn_HW3, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _colour(sku: str) -> tuple[int, int, int]:
    """A dark, saturated colour of its own for each SKU, the same in every run (CRC-32 of the name)."""
    hue = zlib.crc32(sku.encode()) % 180
    red, green, blue = cv2.cvtColor(np.array([[[hue, 220, 170]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)
