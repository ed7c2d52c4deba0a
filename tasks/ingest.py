"""Stage `ingest`: one split of a data set becomes a manifest; every photo is decoded and checked.

Photos stay where they are, unless copies are asked for: rows point at them and hold their digests. A photo that can't
be used (unreadable, truncated, wrong size, labels outside the photo, unknown product, twice the same content) becomes a
quarantined row with the reason, and the rest goes on. The pool's rows have no labels by construction: its reader knows
none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from storage.catalog import Category, categories_of, category_records
from storage.digest import digest_bytes, digest_json
from storage.files import local_url
from storage.formats import folders, rpc
from storage.formats.dataset import BOARDS, DatasetSplit, ListedPhoto, own_boards, readable_text, unique_ids
from storage.images import decode_rgb, is_png
from storage.manifest import Manifest, ManifestRow
from tasks.context import StageContext
from tasks.params import IngestParams
from tasks.stage import stage

_MAX_BYTES = 500_000_000
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}


def dataset_root(dataset: str) -> Path:
    """The folder of a data set, absolute.

    Raises:
        ValueError: there is no such folder, or it holds no layout that is known.
    """
    root = _existing_folder(dataset)
    if not (rpc.is_rpc(root) or folders.is_folders(root)):
        wanted = "instances_train2019.json (RPC layout) or catalog/<SKU>/ folders"
        raise ValueError(f"dataset: expected {root} to hold {wanted}, got neither")
    return root


def _existing_folder(folder: str) -> Path:
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        if root.exists():
            raise ValueError(f"dataset: expected a folder, got the file {folder!r}; name the folder of the data set")
        raise ValueError(f"dataset: expected a folder, got {folder!r}, which does not exist")
    return root


def catalog_root(folder: str) -> Path:
    """The folder of a catalog, absolute: a data set, or nothing but one folder a SKU.

    Raises:
        ValueError: there is no such folder, or no folder in it holds a photo.
    """
    root = _existing_folder(folder)
    if not (rpc.is_rpc(root) or any(path.parent != root for path in folders.files_of(root, split="catalog"))):
        raise ValueError(f"catalog: expected {root} to hold <SKU>/*.jpg, got no folder with photos")
    return root


def files_digest(root: Path, *, split: str, pool_source: str = "pool") -> str:
    """Digest of the names, sizes and modification times of a split's files: cheap, and enough to notice a change."""
    layout = rpc if rpc.is_rpc(root) else folders
    own = [photo.path for photo in own_boards(root)]
    listed = own if split == BOARDS else layout.files_of(root, split=pool_source if split == "pool" else split)
    return digest_json(
        [[readable_text(str(path.relative_to(root))), path.stat().st_size, path.stat().st_mtime_ns] for path in listed]
    )


def read_listing(root: Path, *, split: str, pool_source: str = "pool", known: Sequence[Category] = ()) -> DatasetSplit:
    """The photos that a data set lists for `split`, whatever its layout.

    `known`: the products that labels may name; those of the data set itself when empty.
    """
    layout = rpc if rpc.is_rpc(root) else folders
    if split == BOARDS:
        return DatasetSplit(categories=(), photos=unique_ids(own_boards(root)))
    if split == "pool":
        return layout.read_pool(root, source=pool_source)
    if split == "catalog":
        return read_catalog(root)
    return layout.read_split(root, split=split, known=known)


def read_catalog(root: Path) -> DatasetSplit:
    """The exemplars that a folder lists, whatever its layout."""
    return rpc.read_split(root, split="catalog") if rpc.is_rpc(root) else folders.read_catalog(root)


def of_products(listing: DatasetSplit, *, skus: Collection[str]) -> DatasetSplit:
    """The part of a catalog that shows the named products; all of it when none is named.

    Raises:
        ValueError: a product is not in the catalog.
    """
    if not skus:
        return listing
    missing = sorted(set(skus) - {category.sku for category in listing.categories})
    if missing:
        raise ValueError(f"sku: expected products of the catalog, got {', '.join(missing)}")
    return DatasetSplit(
        categories=tuple(category for category in listing.categories if category.sku in skus),
        photos=tuple(photo for photo in listing.photos if photo.sku in skus),
    )


def check_photo(photo: ListedPhoto, *, split: str) -> ManifestRow:
    """The row of one photo: "ok" with digest and size, or "quarantined" with the first thing that is wrong with it."""
    row = ManifestRow(
        item_id=photo.item_id,
        sku=photo.sku,
        split=split,
        level=photo.level,
        attributes=photo.attributes,
        path=local_url(photo.path),
    )
    if photo.problem:
        return _quarantined(row, photo.problem)
    try:
        # A pipe or a device would be read for ever.
        if not photo.path.is_file():
            return _quarantined(row, f"file: expected {photo.path.name}, got no such file")
        if photo.path.stat().st_size > _MAX_BYTES:
            return _quarantined(row, f"file: expected at most {_MAX_BYTES} bytes, got {photo.path.stat().st_size}")
        data = photo.path.read_bytes()
        height, width = decode_rgb(data).shape[:2]
    except (OSError, ValueError) as error:
        return _quarantined(row, f"file: {error}")
    if photo.width is not None and (photo.width, photo.height) != (width, height):
        return _quarantined(row, f"size: expected {photo.width} x {photo.height} as listed, got {width} x {height}")
    return replace(
        row,
        digest=digest_bytes(data),
        bytes=len(data),
        # What it is, whatever its name says.
        media_type="image/png" if is_png(data) else "image/jpeg",
        width=width,
        height=height,
        objects=photo.objects,
    )


def _quarantined(row: ManifestRow, reason: str) -> ManifestRow:
    return replace(row, status="quarantined", reason=reason, path="")


def quarantine_duplicates(rows: Iterable[ManifestRow]) -> Iterator[ManifestRow]:
    """Rows as they are, but a photo with the very bytes of an earlier one is quarantined."""
    first: dict[str, str] = {}
    for row in rows:
        if row.status == "ok" and first.setdefault(row.digest, row.item_id) != row.item_id:
            yield _quarantined(replace(row, objects=()), f"content: the same bytes as {first[row.digest]}")
        else:
            yield row


def target_protocol(*, pool_photos: int, pool_source: str) -> str:
    """What a model trained on this pool may be called: printed beside every figure."""
    if pool_photos == 0:
        return "exemplars-only"
    return "transductive" if pool_source == "test" else "unlabelled-target"


def without_photos(categories: Iterable[Category], *, rows: Iterable[ManifestRow]) -> list[str]:
    """The SKUs that no usable row shows."""
    shown = {row.sku for row in rows if row.status == "ok"}
    return [category.sku for category in categories if category.sku not in shown]


@stage(IngestParams)
def ingest(context: StageContext, *, params: IngestParams, catalog: Manifest | None = None) -> None:
    """Validate one split and publish its manifest; see the module's docstring.

    With `catalog` its products, by SKU, are those that labels may name, in place of the data set's own.
    """
    root = catalog_root(params.dataset) if params.split == "catalog" else dataset_root(params.dataset)
    known = () if catalog is None else categories_of(catalog)
    listing = read_listing(root, split=params.split, pool_source=params.pool_source, known=known)
    listing = of_products(listing, skus=params.skus)
    checked = context.map(lambda photo: check_photo(photo, split=params.split), listing.photos, what="photos checked")
    rows = list(quarantine_duplicates(checked))
    for row in rows:
        if params.copies and row.status == "ok":
            path = Path(row.item_id).name + _SUFFIXES[row.media_type]
            context.put(context.read(replace(row, url=row.path)), path=path, row=row)
        else:
            context.add(row)
    usable = sum(row.status == "ok" for row in rows)
    context.content["categories"] = category_records(listing.categories)
    if params.split == "pool":
        context.content["target_protocol"] = target_protocol(pool_photos=usable, pool_source=params.pool_source)
    if params.split == "catalog":
        missing = without_photos(listing.categories, rows=rows)
        context.metadata["skus_without_exemplars"] = missing
        if missing:
            context.log(f"catalog: no usable photo of {', '.join(missing)}; such products can't be learnt")
    context.report(usable=usable, quarantined=len(rows) - usable)
    if usable < len(rows):
        context.log(f"{params.split}: {len(rows) - usable} of {len(rows)} photos quarantined; reasons in the manifest")
