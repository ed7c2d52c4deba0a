"""The catalog's categories (SKUs), as they stand in the content of the manifests that `ingest` makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from storage.digest import JSON
from storage.manifest import Manifest

_TEXTS = ("name", "supercategory", "code")


# Ids of products that left the catalog, by SKU: they are nobody else's.
RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One product. `id` is the data set's category id; `metadata` holds what else the catalog says (mm, price, …)."""

    id: int
    sku: str
    name: str = ""
    supercategory: str = ""
    code: str = ""
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What to call the product before people: its name, or the SKU where RPC's name is only a numbered category."""
        numbered = self.name == f"{self.id}_{self.supercategory}"
        return self.sku if numbered or not self.name else self.name


def with_product(category: Category, *, product: Mapping[str, JSON]) -> Category:
    """The category with what `product` (name, supercategory, code, price, mm, …) says of it instead."""
    return replace(
        category,
        name=str(product.get("name") or category.name),
        supercategory=str(product.get("supercategory") or category.supercategory),
        code=str(product.get("code") or category.code),
        metadata={**category.metadata, **{name: value for name, value in product.items() if name not in _TEXTS}},
    )


def price_of(sku: str, *, product: Mapping[str, JSON]) -> float | None:
    """The price in what is known of a product; None where it has none.

    Raises:
        ValueError: the price is no number, or negative.
    """
    price = product.get("price")
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
        raise ValueError(f"price of {sku}: expected a number that is not negative, got {price!r}")
    return float(price)


def categories_of(manifest: Manifest) -> tuple[Category, ...]:
    """The categories recorded in the content of a manifest that `ingest` made, in the order of their ids.

    Raises:
        ValueError: the manifest carries none.
    """
    recorded = manifest.content.get("categories")
    if not recorded:
        raise ValueError(f"{manifest.url}: expected a manifest with categories, got stage {manifest.stage!r} without")
    return tuple(Category(**value) for value in recorded)


def category_records(categories: Sequence[Category]) -> list[JSON]:
    """The categories as JSON values in the order of their ids, for the `categories` of a manifest's content."""
    return [asdict(category) for category in sorted(categories, key=lambda one: one.id)]
