"""The RPC layout (Wei et al. 2019, "RPC: A Large-Scale Retail Product Checkout Dataset"): reading and writing.

`instances_{train,val,test}2019.json` (COCO JSON with a `level` per image) beside `train2019/`, `val2019/`, `test2019/`;
optionally `pool2019/` with `images_pool2019.json`. The pool's reader never looks at annotations: what it returns has
no labels, whatever the files hold.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.catalog import Category
from storage.digest import JSON, canonical_json
from storage.formats.dataset import DatasetSplit, ListedPhoto, box_problem, pictures_in, readable_text, unique_ids
from storage.manifest import Box, ManifestObject

_YEAR_FOLDERS = {"catalog": "train2019", "pool": "pool2019", "val": "val2019", "test": "test2019"}
_CAMERA = re.compile(r"_camera(?P<camera>[0-9]{1,9})-(?P<view>[0-9]{1,9})(?P<placement>-[a-z]+)?$")
_MOST_ID = 2**31 - 1
# No name that a COCO file gives.
_REPEATED = "\0repeated"
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
        images = _load(listing, required=("images",))["images"]
        names = [str(image["file_name"]) for image in images if isinstance(image, dict) and image.get("file_name")]
        photos += [_named(folder / name, folder=folder) for name in names if name not in found]
    return DatasetSplit(categories=_catalog_categories(root), photos=unique_ids(photos))


def _unlisted(path: Path, *, split: str, problem: str = "") -> ListedPhoto:
    return ListedPhoto(item_id=f"{split}/{path.stem}", path=path, problem=problem)


def _named(path: Path, *, folder: Path) -> ListedPhoto:
    """A pool photo that a listing names and that is not there, or lies elsewhere."""
    outside = (
        "" if path == folder / path.name else f"file_name: expected a name inside {folder.name}/, got {path.name!r}"
    )
    return _unlisted(path, split="pool", problem=outside)


def _listing_path(root: Path, *, split: str) -> Path:
    name = "images_pool2019.json" if split == "pool" else f"instances_{_YEAR_FOLDERS[split]}.json"
    return root / name


def _catalog_categories(root: Path) -> tuple[Category, ...]:
    path = _listing_path(root, split="catalog")
    return read_categories(_load(path, required=("categories",)), path=path)


def _load(path: Path, *, required: Sequence[str]) -> dict[str, Any]:
    try:
        # Not orjson: annotation files in the wild hold NaN and Infinity, which make one annotation bad, not the file.
        data = path.read_bytes()
        listing = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got broken text ({error})") from error
    if b"\\u" in data:
        listing = _readable(listing)
    if not isinstance(listing, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(listing).__name__}")
    missing = [name for name in required if not isinstance(listing.get(name), list)]
    if missing:
        raise ValueError(f"{path}: expected the lists {', '.join(required)}, got none named {', '.join(missing)}")
    return dict(listing)


def _readable(value: JSON) -> JSON:
    """A JSON value in which halves of characters are escaped, which JSON can name and no file can hold."""
    if isinstance(value, str):
        return readable_text(value)
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if isinstance(value, dict):
        return {readable_text(name): _readable(one) for name, one in value.items()}
    return value


def read_listed(path: Path) -> tuple[Category, ...]:
    """The categories of the COCO JSON at `path`; none where it has no such list. Raises ValueError as below."""
    listing = _load(path, required=())
    return read_categories(listing, path=path) if isinstance(listing.get("categories"), list) else ()


def read_categories(listing: Mapping[str, Any], *, path: Path) -> tuple[Category, ...]:
    """The categories of a COCO listing. `sku_name` is the SKU where it stands, else the name; other fields are kept.

    Raises:
        ValueError: an id or a SKU occurs twice, or a category has no id or name, or values that no JSON file holds.
    """
    categories = []
    for value in listing["categories"]:
        known = isinstance(value, dict) and _is_id(value.get("id")) and value.get("name")
        if not known:
            raise ValueError(f"{path}: categories: expected an id from 0 to {_MOST_ID} and a name, got {value!r:.200}")
        extra = {name: item for name, item in value.items() if name not in _CATEGORY_FIELDS}
        sku = str(value.get("sku_name") or value["name"])
        texts = {name: str(value.get(name) or "") for name in ("name", "supercategory", "code")}
        try:
            canonical_json(extra)
        except TypeError as error:
            raise ValueError(f"{path}: categories: expected plain values, got {value!r:.200} ({error})") from error
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
    # Taken out: what has become a label is not held twice.
    annotations = _by_image(listing.pop("annotations"))
    times = Counter(key for image in listing["images"] if (key := _image_key(image)) is not None)
    repeated = {key for key, count in times.items() if count > 1}
    photos = []
    for number, image in enumerate(listing["images"]):
        key = _image_key(image)
        if key is None:
            photos.append(_nameless(image, number=number, folder=folder, split=split))
            continue
        # Two images of one id: nobody knows whose the labels are.
        labels = annotations.get(key, []) if key in repeated else annotations.pop(key, [])
        problem = f"id: expected each image id once, got {key!r} {times[key]} times" if key in repeated else ""
        photos.append(_labelled_photo(image, labels, folder=folder, split=split, products=products, problem=problem))
    for key in repeated:
        annotations.pop(key, None)
    listed = {photo.path.name for photo in photos}
    unlisted = [path for path in pictures_in(folder) if path.name not in listed]
    photos += [_unlisted(path, split=split, problem="listing: no entry in the annotations") for path in unlisted]
    return photos + [_orphan(image_id, folder=folder, split=split) for image_id in annotations]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_ID


def _image_key(image: object) -> int | str | None:
    """The id of a listed image; None where it has none that annotations could name."""
    key = image.get("id") if isinstance(image, dict) else None
    return key if isinstance(key, (int, str)) and not isinstance(key, bool) else None


def _by_image(annotations: Sequence[Any]) -> dict[int | str, list[dict[str, Any]]]:
    """Annotations by the image they name; those that name none stand under what they have in its place.

    One whose own id occurred before is marked: it may be the same product once more.
    """
    seen: set[int | str] = set()
    found: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        one = annotation if isinstance(annotation, dict) else {}
        named, own = one.get("image_id"), one.get("id")
        key = named if isinstance(named, (int, str)) and not isinstance(named, bool) else f"{named!r:.40}"
        if isinstance(own, (int, str)):
            one = {**one, _REPEATED: True} if own in seen else one
            seen.add(own)
        found[key].append(one)
    return found


def _nameless(image: object, *, number: int, folder: Path, split: str) -> ListedPhoto:
    name = image.get("file_name") if isinstance(image, dict) else None
    problem = f"id: expected a number or a text for each image, got {image!r:.200}"
    path = folder / Path(name).name if isinstance(name, str) and name else folder
    return ListedPhoto(item_id=f"{split}/image-{number}-without-id", path=path, problem=problem)


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
    problem: str,
) -> ListedPhoto:
    name = str(image.get("file_name") or f"image-{image.get('id')}-without-name")
    stem = Path(name).stem
    size, level = (image.get("width"), image.get("height")), image.get("level")
    if not _is_plain_name(name):
        problem = problem or f"file_name: expected a name inside {folder.name}/, got {name!r}"
    if not all(_is_id(side) and side for side in size):
        problem = problem or f"size: expected a positive width and height, got {size[0]!r:.40} x {size[1]!r:.40}"
    if not isinstance(level, (str, type(None))):
        problem, level = problem or f"level: expected text, got {level!r:.40}", None
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
        level=level,
        objects=() if problem else tuple(objects),
        attributes=exemplar_attributes(stem) if split == "catalog" else {},
        problem=problem,
    )


def _is_plain_name(name: str) -> bool:
    return Path(name).name == name and name not in (".", "..")


def _object(
    annotation: Mapping[str, Any], *, size: tuple[Any, Any], products: Mapping[int, tuple[int | None, str]]
) -> tuple[ManifestObject | None, str]:
    if _REPEATED in annotation:
        return None, f"annotation: expected each id once, got {annotation['id']!r} again"
    named = annotation.get("category_id")
    if not isinstance(named, int) or not _is_id(named) or named not in products:
        return None, f"category_id: expected one of {len(products)} known categories, got {named!r:.40}"
    category, sku = products[named]
    if category is None:
        return None, f"category_id: expected a product of the catalog, got {sku!r}"
    values = annotation.get("bbox")
    numbers = [_number(one) for one in values] if isinstance(values, list) else []
    if len(numbers) != 4 or None in numbers:
        return None, f"bbox: expected four numbers (x, y, width, height), got {values!r:.80}"
    x, y, width, height = (float(value or 0) for value in numbers)
    box: Box = (x, y, x + width, y + height)
    if all(_is_id(side) and side for side in size):
        wrong = box_problem(box, width=size[0], height=size[1])
        if wrong:
            return None, wrong
    point = annotation.get("point_xy")
    given = [_number(one) for one in point] if isinstance(point, list) else []
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if len(given) == 2 and all(one is not None and abs(one) <= _MOST_ID for one in given):
        centre = float(given[0] or 0), float(given[1] or 0)
    return ManifestObject(category=category, sku=sku, box=box, centre=centre), ""


def _number(value: object) -> float | None:
    """A JSON number as a float, infinite where it is too large for one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def exemplar_attributes(stem: str) -> dict[str, JSON]:
    """Camera, turntable position and placement out of an RPC exemplar's name `<code>_camera<c>-<n>[-back]`."""
    found = _CAMERA.search(stem)
    if not found:
        return {"camera": None, "view": None, "placement": None}
    placement = (found["placement"] or "").lstrip("-") or None
    return {"camera": int(found["camera"]), "view": int(found["view"]), "placement": placement}
