"""A shop's own photos: `catalog/<SKU>/*.jpg`, `pool/*.jpg`, and labelled `val/` and `test/` with `labels.json` (COCO).

Optional `catalog/products.json` maps a SKU to what is known of it: name, supercategory, code, price, size in mm. The
`categories` of `labels.json` name SKUs; where they name none of them, its category ids number the SKU folders in the
order of their names, from 1. A folder of SKU folders without the rest (`<SKU>/*.jpg`) can be read as a catalog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from storage.catalog import Category, price_of, with_product
from storage.digest import canonical_json
from storage.formats.dataset import DatasetSplit, ListedPhoto, pictures_in, readable_text, unique_ids
from storage.formats.rpc import read_labelled, read_listed

LABELS_NAME = "labels.json"
PRODUCTS_NAME = "products.json"


def is_folders(root: Path) -> bool:
    """Whether `root` holds a catalog of one folder a SKU."""
    return (root / "catalog").is_dir()


def catalog_folder(root: Path) -> Path:
    """The folder of the SKU folders: `root/catalog`, or `root` itself where it is no whole data set."""
    return root / "catalog" if is_folders(root) else root


def files_of(root: Path, *, split: str) -> list[Path]:
    """The files that a split consists of: its pictures and its JSON."""
    if split == "catalog":
        pictures = [path for folder in _sku_folders(root) for path in pictures_in(folder)]
        return [path for path in [catalog_folder(root) / PRODUCTS_NAME] if path.is_file()] + pictures
    labels = root / split / LABELS_NAME
    return ([labels] if labels.is_file() else []) + pictures_in(root / split)


def read_catalog(root: Path) -> DatasetSplit:
    """The exemplars, one folder a SKU; there are no boxes, so segmentation finds the product itself."""
    photos = [
        ListedPhoto(item_id=f"catalog/{folder.name}_{path.stem}", path=path, sku=folder.name)
        for folder in _sku_folders(root)
        for path in pictures_in(folder)
    ]
    return DatasetSplit(categories=read_categories(root), photos=unique_ids(photos))


def read_split(root: Path, *, split: str, known: Sequence[Category] = ()) -> DatasetSplit:
    """The labelled photos of `val` or `test`; a split that is not there has none, and without labels none of use.

    `known`: the catalog's products, in place of the SKU folders; labels are matched by SKU.
    """
    folders = read_categories(root)
    categories = tuple(known) or folders
    path = root / split / LABELS_NAME
    if not path.is_file():
        problem = f"listing: expected {LABELS_NAME} (COCO) beside the photos, got none"
        pictures = pictures_in(root / split)
        unlabelled = [ListedPhoto(item_id=f"{split}/{one.stem}", path=one, problem=problem) for one in pictures]
        return DatasetSplit(categories=categories, photos=unique_ids(unlabelled))
    skus = _label_skus(path, folders=folders, known=categories)
    photos = read_labelled(path, folder=root / split, split=split, known=categories, skus=skus)
    return DatasetSplit(categories=categories, photos=unique_ids(photos))


def _label_skus(path: Path, *, folders: Sequence[Category], known: Sequence[Category]) -> Mapping[int, str]:
    """What the category ids of `labels.json` mean; see the module's docstring."""
    listed = read_listed(path)
    skus = {category.sku for category in known}
    if any(category.sku in skus for category in listed):
        return {category.id: category.sku for category in listed}
    return {category.id: category.sku for category in folders}


def read_pool(root: Path, *, source: str) -> DatasetSplit:
    """The photos in `pool/` (or, source "test", in `test/`), without any label."""
    photos = [ListedPhoto(item_id=f"pool/{path.stem}", path=path) for path in pictures_in(root / source)]
    return DatasetSplit(categories=read_categories(root), photos=unique_ids(photos))


def read_categories(root: Path) -> tuple[Category, ...]:
    """One category a SKU folder, numbered from 1 in the order of the names, with what `products.json` says of it.

    Raises:
        ValueError: `products.json` is not a JSON object of objects, or a price is none.
    """
    path = catalog_folder(root) / PRODUCTS_NAME
    products = read_products(path) if path.is_file() else {}
    # A folder whose name is no text names no product; its photos are listed with that problem.
    names = [folder.name for folder in _sku_folders(root) if folder.name == readable_text(folder.name)]
    return tuple(
        with_product(Category(id=number, sku=sku, name=sku), product=products.get(sku, {}))
        for number, sku in enumerate(names, start=1)
    )


def read_products(path: Path) -> dict[str, dict[str, Any]]:
    """What a `products.json` says of each SKU.

    Raises:
        ValueError: it is not there, not a JSON object of objects, or a price is none.
    """
    try:
        products = orjson.loads(path.read_bytes())
        canonical_json(products)
    except FileNotFoundError as error:
        raise ValueError(f"products: expected a file, got {path}, which does not exist") from error
    except (orjson.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: expected JSON, got broken text ({error})") from error
    if not isinstance(products, dict) or not all(isinstance(value, dict) for value in products.values()):
        raise ValueError(f"{path}: expected an object with one object a SKU, got another shape of JSON")
    for sku, product in products.items():
        # Else a training would be over before the first receipt says so.
        price_of(sku, product=product)
    return products


def _sku_folders(root: Path) -> list[Path]:
    return sorted(path for path in catalog_folder(root).iterdir() if path.is_dir() and not path.name.startswith("."))
