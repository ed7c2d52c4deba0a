"""Parts of a data set in RPC layout: without one product, that product on its own, or a few photos of everything.

For measuring what adding a product takes, and what does not depend on the number of photos. Photos are links.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

_POOL = "images_pool2019.json"
_LISTINGS = {"train": "instances_train2019.json", "val": "instances_val2019.json", "test": "instances_test2019.json"}


def without_product(dataset: Path, *, sku: str, out: Path) -> None:
    """A copy of a data set (its photos are links) whose listings do not know one product."""
    out.mkdir(parents=True)
    for split, name in _LISTINGS.items():
        listing = _read(dataset / name)
        known = [one for one in listing["categories"] if _sku(one) != sku]
        if split == "train":
            ids = {one["id"] for one in known}
            listing["annotations"] = [one for one in listing["annotations"] if one["category_id"] in ids]
            shown = {one["image_id"] for one in listing["annotations"]}
            listing["images"] = [one for one in listing["images"] if one["id"] in shown]
        _write(out / name, {**listing, "categories": known})
        _link_photos(dataset / f"{split}2019", names=[one["file_name"] for one in listing["images"]], out=out)
    shutil.copy(dataset / _POOL, out)
    _link_photos(dataset / "pool2019", names=[path.name for path in (dataset / "pool2019").iterdir()], out=out)


def only_product(dataset: Path, *, sku: str, out: Path) -> None:
    """The exemplars of one product as a data set of their own, as a supplier would send them."""
    out.mkdir(parents=True)
    name = _LISTINGS["train"]
    listing = _read(dataset / name)
    known = [one for one in listing["categories"] if _sku(one) == sku]
    ids = {one["id"] for one in known}
    annotations = [one for one in listing["annotations"] if one["category_id"] in ids]
    shown = {one["image_id"] for one in annotations}
    images = [one for one in listing["images"] if one["id"] in shown]
    _write(out / name, {**listing, "categories": known, "annotations": annotations, "images": images})
    _link_photos(dataset / "train2019", names=[one["file_name"] for one in images], out=out)


def few_photos(dataset: Path, *, every: int, most: int, out: Path) -> None:
    """A copy of a data set with each `every`th exemplar and at most `most` photos of each other split."""
    out.mkdir(parents=True)
    for split, name in {**_LISTINGS, "pool": _POOL}.items():
        listing = _read(dataset / name)
        kept = listing["images"][::every] if split == "train" else listing["images"][:most]
        ids = {one["id"] for one in kept}
        labels = [one for one in listing.get("annotations", []) if one["image_id"] in ids]
        _write(out / name, {**listing, "images": kept, **({"annotations": labels} if labels else {})})
        _link_photos(dataset / f"{split}2019", names=[one["file_name"] for one in kept], out=out)


def small_copy(dataset: Path, *, folder: Path) -> Path:
    """A few photos of a data set, as a data set in `folder`."""
    if not (small := folder / "small").exists():
        few_photos(dataset, every=4, most=8, out=small)
    return small


def with_new_labels(dataset: Path, *, out: Path) -> None:
    """Let the reduced copy `out` have the labels of val and test in full: people label the new product there."""
    for split in ("val", "test"):
        shutil.copy(dataset / _LISTINGS[split], out)


def _sku(category: dict[str, Any]) -> str:
    return str(category.get("sku_name") or category["name"])


def _read(path: Path) -> dict[str, Any]:
    return dict(orjson.loads(path.read_bytes()))


def _write(path: Path, listing: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(listing))


def _link_photos(folder: Path, *, names: list[str], out: Path) -> None:
    (out / folder.name).mkdir()
    for name in names:
        (out / folder.name / name).symlink_to((folder / name).resolve())
