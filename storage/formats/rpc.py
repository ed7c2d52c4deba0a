"""The RPC layout (Wei et al. 2019, "RPC: A Large-Scale Retail Product Checkout Dataset"): reading and writing.

`instances_{train,val,test}2019.json` (COCO JSON with a `level` per image) beside `train2019/`, `val2019/`, `test2019/`;
optionally `pool2019/` with `images_pool2019.json`. The pool's reader never looks at annotations: what it returns has
no labels, whatever the files hold.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.catalog import Category
from storage.digest import JSON
from storage.formats.dataset import DatasetSplit, ListedPhoto, box_problem, pictures_in, unique_ids
from storage.manifest import Box, ManifestObject

_YEAR_FOLDERS = {"catalog": "train2019", "pool": "pool2019", "val": "val2019", "test": "test2019"}
_CAMERA = re.compile(r"_camera(?P<camera>\d+)-(?P<view>\d+)(?P<placement>-[a-z]+)?$")
_CATEGORY_FIELDS = ("id", "name", "sku_name", "supercategory", "code")


def is_rpc(root: Path) -> bool:
    """Whether `root` holds a data set in the RPC layout."""
    return (root / "instances_train2019.json").is_file()


def files_of(root: Path, *, split: str) -> list[Path]:
    """The files that a split of an RPC data set consists of: its JSON and its pictures."""
    listing = _listing_path(root, split=split)
    return ([listing] if listing.is_file() else []) + pictures_in(root / _YEAR_FOLDERS[split])


def read_split(root: Path, *, split: str, known: Sequence[Category] = ()) -> DatasetSplit:
    """The photos of `split` (catalog, val or test) with their labels, bad ones with the problem they have.

    `known`: the catalog's products, in place of those that the JSON file lists; labels are matched by SKU.

    Raises:
        ValueError: the JSON file is broken or lacks a required list.
    """
    assert split != "pool", "the pool is read by read_pool, which knows no labels"
    path = _listing_path(root, split=split)
    if not path.is_file():
        return DatasetSplit(categories=tuple(known) or _catalog_categories(root), photos=())
    categories = read_categories(_load(path, required=("categories",)), path=path)
    skus = {category.id: category.sku for category in categories}
    photos = read_labelled(path, folder=root / _YEAR_FOLDERS[split], split=split, known=known or categories, skus=skus)
    return DatasetSplit(categories=tuple(known) or categories, photos=unique_ids(photos))


def read_pool(root: Path, *, source: str) -> DatasetSplit:
    """The pool's photos without any label: `pool2019/`, or (source "test") `test2019/`, as in the paper."""
    folder = root / _YEAR_FOLDERS[source]
    photos = [_unlisted(path, split="pool") for path in pictures_in(folder)]
    found = {path.name for path in pictures_in(folder)}
    listing = root / "images_pool2019.json"
    if source == "pool" and listing.is_file():
        names = [str(image.get("file_name")) for image in _load(listing, required=("images",))["images"]]
        photos += [_unlisted(folder / name, split="pool") for name in names if name not in found]
    return DatasetSplit(categories=_catalog_categories(root), photos=unique_ids(photos))


def _unlisted(path: Path, *, split: str, problem: str = "") -> ListedPhoto:
    return ListedPhoto(item_id=f"{split}/{path.stem}", path=path, problem=problem)


def _listing_path(root: Path, *, split: str) -> Path:
    name = "images_pool2019.json" if split == "pool" else f"instances_{_YEAR_FOLDERS[split]}.json"
    return root / name


def _catalog_categories(root: Path) -> tuple[Category, ...]:
    path = _listing_path(root, split="catalog")
    return read_categories(_load(path, required=("categories",)), path=path)


def _load(path: Path, *, required: Sequence[str]) -> dict[str, Any]:
    try:
        # Not orjson: annotation files in the wild hold NaN and Infinity, which make one annotation bad, not the file.
        listing = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got broken text ({error})") from error
    if not isinstance(listing, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(listing).__name__}")
    missing = [name for name in required if not isinstance(listing.get(name), list)]
    if missing:
        raise ValueError(f"{path}: expected the lists {', '.join(required)}, got none named {', '.join(missing)}")
    return dict(listing)


def read_listed(path: Path) -> tuple[Category, ...]:
    """The categories of the COCO JSON at `path`; none where it has no such list. Raises ValueError as below."""
    listing = _load(path, required=())
    return read_categories(listing, path=path) if isinstance(listing.get("categories"), list) else ()


def read_categories(listing: Mapping[str, Any], *, path: Path) -> tuple[Category, ...]:
    """The categories of a COCO listing. `sku_name` is the SKU where it stands, else the name; other fields are kept.

    Raises:
        ValueError: an id or a SKU occurs twice, or a category has no id or name.
    """
    categories = []
    for value in listing["categories"]:
        if not isinstance(value.get("id"), int) or not value.get("name"):
            raise ValueError(f"{path}: categories: expected an integer id and a name, got {value!r}")
        extra = {name: item for name, item in value.items() if name not in _CATEGORY_FIELDS}
        sku = str(value.get("sku_name") or value["name"])
        texts = {name: str(value.get(name) or "") for name in ("name", "supercategory", "code")}
        categories.append(Category(id=value["id"], sku=sku, metadata=extra, **texts))
    for what, values in (("id", [one.id for one in categories]), ("SKU", [one.sku for one in categories])):
        repeated = len(values) - len(set(values))
        if repeated:
            raise ValueError(f"{path}: categories: expected each {what} once, got {repeated} again")
    return tuple(sorted(categories, key=lambda one: one.id))


def read_labelled(
    path: Path, *, folder: Path, split: str, known: Sequence[Category], skus: Mapping[int, str]
) -> list[ListedPhoto]:
    """The photos that the COCO JSON at `path` lists, labelled, and those in `folder` that it does not list.

    `skus`: what the category ids of the JSON mean; the labels get the ids that `known` has for them. A photo whose
    labels can't be trusted, or that shows a product which is not known, comes with its problem and no labels.
    """
    listing = _load(path, required=("images", "annotations"))
    ids = {category.sku: category.id for category in known}
    products = {number: (ids.get(sku), sku) for number, sku in skus.items()}
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in listing["annotations"]:
        annotations[annotation.get("image_id")].append(annotation)
    photos = [
        _labelled_photo(image, annotations.pop(image.get("id"), []), folder=folder, split=split, products=products)
        for image in listing["images"]
    ]
    listed = {photo.path.name for photo in photos}
    unlisted = [path for path in pictures_in(folder) if path.name not in listed]
    photos += [_unlisted(path, split=split, problem="listing: no entry in the annotations") for path in unlisted]
    return photos + [_orphan(image_id, folder=folder, split=split) for image_id in annotations]


def _orphan(image_id: object, *, folder: Path, split: str) -> ListedPhoto:
    problem = f"annotation: expected the id of a listed image, got image_id {image_id!r}"
    return ListedPhoto(item_id=f"{split}/annotation-of-{image_id}", path=folder, problem=problem)


def _labelled_photo(
    image: Mapping[str, Any],
    annotations: Iterable[Mapping[str, Any]],
    *,
    folder: Path,
    split: str,
    products: Mapping[int, tuple[int | None, str]],
) -> ListedPhoto:
    name = str(image.get("file_name") or f"image-{image.get('id')}-without-name")
    stem = Path(name).stem
    size = image.get("width"), image.get("height")
    problem = "" if _is_plain_name(name) else f"file_name: expected a name inside {folder.name}/, got {name!r}"
    if not all(isinstance(side, int) and side > 0 for side in size):
        problem = problem or f"size: expected a positive width and height, got {size[0]!r} x {size[1]!r}"
    objects: list[ManifestObject] = []
    for annotation in annotations:
        item, wrong = _object(annotation, size=size, products=products)
        problem = problem or wrong
        objects += [item] if item else []
    single = objects[0].sku if split == "catalog" and len(objects) == 1 else None
    if split == "catalog" and single is None:
        problem = problem or f"annotation: expected one product in an exemplar, got {len(objects)}"
    return ListedPhoto(
        item_id=f"{split}/{stem}",
        path=folder / Path(name).name,
        width=None if problem else size[0],
        height=None if problem else size[1],
        sku=single,
        level=image.get("level"),
        objects=() if problem else tuple(objects),
        attributes=exemplar_attributes(stem) if split == "catalog" else {},
        problem=problem,
    )


def _is_plain_name(name: str) -> bool:
    return Path(name).name == name and name not in (".", "..")


def _object(
    annotation: Mapping[str, Any], *, size: tuple[Any, Any], products: Mapping[int, tuple[int | None, str]]
) -> tuple[ManifestObject | None, str]:
    named = annotation.get("category_id")
    if not isinstance(named, int) or named not in products:
        return None, f"category_id: expected one of {len(products)} known categories, got {named!r}"
    category, sku = products[named]
    if category is None:
        return None, f"category_id: expected a product of the catalog, got {sku!r}"
    values = annotation.get("bbox")
    if not isinstance(values, list) or len(values) != 4 or not all(isinstance(one, (int, float)) for one in values):
        return None, f"bbox: expected four numbers (x, y, width, height), got {values!r}"
    x, y, width, height = (float(value) for value in values)
    box: Box = (x, y, x + width, y + height)
    if all(isinstance(side, int) and side > 0 for side in size):
        wrong = box_problem(box, width=size[0], height=size[1])
        if wrong:
            return None, wrong
    point = annotation.get("point_xy")
    centre = (float(point[0]), float(point[1])) if isinstance(point, list) and len(point) == 2 else None
    if centre is None or not all(math.isfinite(value) for value in centre):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return ManifestObject(category=category, sku=sku, box=box, centre=centre), ""


def exemplar_attributes(stem: str) -> dict[str, JSON]:
    """Camera, turntable position and placement out of an RPC exemplar's name `<code>_camera<c>-<n>[-back]`."""
    found = _CAMERA.search(stem)
    if not found:
        return {"camera": None, "view": None, "placement": None}
    placement = (found["placement"] or "").lstrip("-") or None
    return {"camera": int(found["camera"]), "view": int(found["view"]), "placement": placement}
