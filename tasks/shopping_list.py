"""Shopping lists out of detections, their receipts, and photos with the products drawn in. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import cv2
import numpy as np

from storage.catalog import Category, price_of
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.confidence import ListConfidence

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
    """What is in one photo. `confidence`: the probability that the whole list is right (`tasks.confidence`). `state` is
    NEEDS_REVIEW where `reason` says what is in doubt, else ACCEPTED."""

    photo: str
    products: tuple[ListedProduct, ...]
    confidence: float
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
    prices = {one.sku: price_of(one.sku, product=one.metadata) for one in categories}
    return {sku: price for sku, price in prices.items() if price is not None}


def kept(objects: Sequence[ManifestObject], *, threshold: float) -> tuple[ManifestObject, ...]:
    """The detections that count: score >= threshold."""
    return tuple(item for item in objects if item.score is not None and item.score >= threshold)


def shopping_list(
    photo: str,
    *,
    objects: Sequence[ManifestObject],
    count: float,
    threshold: float,
    trust: ListConfidence,
    names: Mapping[str, str],
    prices: Mapping[str, float] | None = None,
    review: float | None = None,
) -> ShoppingList:
    """The list of one photo, in the order of the SKUs.

    Args:
        objects: all detections with scores, also those below the threshold: they say how sure the list is.
        count: the scaled count of the counting view.
        trust: what val says about how far lists can be trusted.
        names: what to call a SKU; a SKU that is not in it goes by its own name.
        prices: of one piece, by SKU; a listed product that is not in it asks for a review, unless nothing has a price.
        review: a list of less confidence needs a review; where None, the one from which val's lists were right.
    """
    counted = kept(objects, threshold=threshold)
    products = _products(counted, names=names, prices=prices or {})
    confidence = trust.of([item.score or 0.0 for item in objects], count=count, threshold=threshold)
    unpriced = [one.name for one in products if one.price is None] if prices else []
    if not counted:
        reason = "nothing found"
    elif confidence < (trust.acceptable if review is None else review):
        reason = _least_sure(objects, count=count, threshold=threshold, names=names)
    else:
        reason = f"no price for {', '.join(unpriced)}" if unpriced else ""
    state = NEEDS_REVIEW if reason else ACCEPTED
    return ShoppingList(photo=photo, products=products, confidence=confidence, state=state, reason=reason)


def _products(
    counted: Sequence[ManifestObject], *, names: Mapping[str, str], prices: Mapping[str, float]
) -> tuple[ListedProduct, ...]:
    by_sku: dict[str, list[float]] = {}
    for item in sorted(counted, key=lambda one: one.sku):
        by_sku.setdefault(item.sku, []).append(float(item.score or 0.0))
    return tuple(
        ListedProduct(
            sku=sku, name=names.get(sku) or sku, count=len(scores), confidence=min(scores), price=prices.get(sku)
        )
        for sku, scores in by_sku.items()
    )


def _least_sure(objects: Sequence[ManifestObject], *, count: float, threshold: float, names: Mapping[str, str]) -> str:
    """Where a list may be wrong: the views differ by a product or more, or a detection is near the threshold."""
    listed = len(kept(objects, threshold=threshold))
    if abs(listed - count) >= 1:
        return f"{listed} products found, {count:.1f} counted"
    item = min(objects, key=lambda one: abs((one.score or 0.0) - threshold))
    verb = "is it" if (item.score or 0.0) >= threshold else "is there also"
    return f"{verb} {names.get(item.sku) or item.sku}? ({item.score or 0.0:.2f})"


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
