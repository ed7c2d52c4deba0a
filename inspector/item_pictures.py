"""Every picture that a page asks for, by run, stage, item and kind: thumbnails, photos, and films to lay over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from inspector.pictures import (
    crop_around,
    decode_density,
    heat_overlay,
    in_window,
    instances_overlay,
    mask_overlay,
    stretched,
    thumbnail,
    under_mask,
    with_boxes,
)
from inspector.problems import PageError, not_found
from inspector.run_view import PHOTO_TYPES, RunView, is_cut
from storage.digest import JSON
from storage.images import Picture, decode_grey, decode_rgb, decode_rgba, encode_jpeg, encode_png
from storage.manifest import ManifestRow
from storage.rle import decode_mask
from storage.store import DamagedArtifactError, Store

Kind = Literal["thumbnail", "photo", "own", "mask", "alpha", "density"]
KINDS = get_args(Kind)
THUMBNAIL, CROP = 224, 256
SHOWN_AS_IS = (*PHOTO_TYPES, "image/svg+xml")
_DENSITY = "application/x-npy"
_JPEG, _PNG = "image/jpeg", "image/png"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's bytes and their media type."""

    data: bytes
    media_type: str


def read_own(store: Store, row: ManifestRow) -> bytes:
    """The bytes of a row's file, compared with its digest.

    Raises:
        PageError: there is none, it lies outside the store although it should not, or it is damaged.
    """
    if not row.url:
        raise not_found("picture")
    if "://" not in row.path and not store.holds(row.url):
        raise not_found("file in this store")
    try:
        return store.read(row)
    except (DamagedArtifactError, OSError) as error:
        text = f"{row.item_id}: the file is missing or damaged; run its stage again."
        raise PageError(404, "Damaged", text) from error


def make_picture(run: RunView, *, stage: str, row: ManifestRow, kind: Kind) -> Encoded:
    """A picture of a row.

    thumbnail: small, with boxes where the row is about detections. photo: the photo it is about, as it is. own: its own
    file, as it is. mask, density: films in the photo's size. alpha: how opaque each pixel is, grey.

    Raises:
        PageError: there is no such picture, or its file is damaged.
    """
    makers: dict[str, Callable[[RunView, str, ManifestRow], Encoded]] = {
        "thumbnail": _thumbnail,
        "photo": _photo,
        "own": _own,
        "mask": _mask_film,
        "alpha": _alpha,
        "density": _density_film,
    }
    try:
        return makers[kind](run, stage, row)
    except ValueError as error:
        raise PageError(404, "No picture", f"{row.item_id} can't be shown: {error}") from error


def identity_of(run: RunView, *, stage: str, item_id: str, kind: str) -> JSON:
    """What a picture shows: the stage's content and which of its items, and how."""
    return ["picture-4", run.stages[stage].content_digest, run.stages[stage].key, item_id, kind]


def make_crop(store: Store, photo: ManifestRow, *, box: tuple[float, ...]) -> Encoded:
    """What is in a box of a photo, with something around it."""
    photo_HW3 = decode_rgb(read_own(store, photo))
    return Encoded(
        encode_jpeg(crop_around(photo_HW3, box=box, margin=0.35, side=CROP, outlined=True), quality=85), _JPEG
    )


def _thumbnail(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    if row.media_type == "image/svg+xml":
        return _own(run, stage, row)
    if row.url and row.item_id.startswith("pose/"):
        return Encoded(encode_png(thumbnail(decode_rgba(read_own(run.store, row)), side=THUMBNAIL)), _PNG)
    if row.url and is_cut(row):
        return Encoded(encode_jpeg(_masked(run, stage, row), quality=82), _JPEG)
    photo_HW3 = decode_rgb(read_own(run.store, _photo_row(run, stage, row)))
    if row.item_id.startswith("pose/") and row.objects:
        # A view that was dropped has no sprite: what it would have shown.
        shown_HW3 = crop_around(photo_HW3, box=row.objects[0].box, margin=0.15, side=THUMBNAIL, outlined=False)
        return Encoded(encode_jpeg(shown_HW3, quality=82), _JPEG)
    if _is_about_detections(row):
        floor = threshold_of(run, stage)
        drawn = [item for item in row.objects if item.score is None or item.score >= floor]
        return Encoded(encode_jpeg(with_boxes(photo_HW3, objects=drawn, side=THUMBNAIL), quality=82), _JPEG)
    return Encoded(encode_jpeg(thumbnail(photo_HW3, side=THUMBNAIL), quality=82), _JPEG)


def _masked(run: RunView, stage: str, row: ManifestRow) -> Picture:
    """The product that a mask cuts out, so that one sees at a glance whether it does; without a photo the mask."""
    found, levels_HW = run.photo_of(stage, row), _alpha_levels(run, stage, row)
    if found is None:
        return thumbnail(stretched(levels_HW), side=THUMBNAIL)
    photo_HW3 = decode_rgb(read_own(run.store, found[1]))
    height, width = photo_HW3.shape[:2]
    box = row.objects[0].box if row.objects else (0.0, 0.0, float(width), float(height))
    return crop_around(under_mask(photo_HW3, alpha_HW=levels_HW), box=box, margin=0.15, side=THUMBNAIL, outlined=False)


def _is_about_detections(row: ManifestRow) -> bool:
    return row.item_id.startswith("pseudo/") or (row.media_type not in PHOTO_TYPES and bool(row.objects))


def threshold_of(run: RunView, stage: str) -> float:
    """The score from which the model of a predict stage counts detections by itself; 0 for other stages."""
    table = run.find(stage)
    return float(table.content.get("threshold") or 0.0) if table else 0.0


def _photo_row(run: RunView, stage: str, row: ManifestRow) -> ManifestRow:
    found = run.photo_of(stage, row)
    if found is None:
        raise not_found("photo")
    return found[1]


def _photo(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    photo = _photo_row(run, stage, row)
    return Encoded(read_own(run.store, photo), photo.media_type)


def _own(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    if row.media_type not in SHOWN_AS_IS:
        raise not_found("picture")
    return Encoded(read_own(run.store, row), row.media_type)


def mask_row(run: RunView, *, stage: str, row: ManifestRow) -> ManifestRow | None:
    """The mask of a row's product: the row itself, what it was made from, or what `segment` made of an exemplar."""
    if is_cut(row) and not row.item_id.startswith("pose/"):
        return row
    masks = [one for one in (*run.sources(stage), *run.consumers(stage)) if run.stages[one].stage == "segment"]
    wanted = {parent for parent in row.parents if parent.startswith("mask/")}
    wanted |= {f"mask/{row.item_id.removeprefix('catalog/')}"} if row.item_id.startswith("catalog/") else set()
    return next((found for one in masks for item_id in wanted if (found := run.row(one, item_id))), None)


def has_instances(row: ManifestRow) -> bool:
    """Whether a photo's objects carry masks of their own."""
    return any(item.mask_rle for item in row.objects)


def _mask_film(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    if has_instances(row) and row.width and row.height:
        shown = [item for item in row.objects if item.mask_rle]
        masks = [decode_mask(str(item.mask_rle), height=row.height, width=row.width) for item in shown]
        film_HW4 = instances_overlay(masks, categories=[item.category for item in shown])
        return Encoded(encode_png(film_HW4), _PNG)
    return Encoded(encode_png(mask_overlay(_alpha_levels(run, stage, row))), _PNG)


def _alpha(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    return Encoded(encode_png(_alpha_levels(run, stage, row)), _PNG)


def _alpha_levels(run: RunView, stage: str, row: ManifestRow) -> Picture:
    """How much of each pixel is product, 0..255, in the photo's frame; coarse masks have few levels."""
    mask = mask_row(run, stage=stage, row=row)
    if mask is None:
        raise not_found("mask")
    levels_HW = decode_grey(read_own(run.store, mask))
    if mask.item_id.startswith("coarse/"):
        levels_HW = np.ascontiguousarray(stretched(levels_HW)[..., 0])
    window = mask.attributes.get("window")
    return in_window(levels_HW, window=window, size=(mask.width or 0, mask.height or 0)) if window else levels_HW


def _density_film(run: RunView, stage: str, row: ManifestRow) -> Encoded:
    if row.media_type != _DENSITY:
        raise not_found("density map")
    photo = _photo_row(run, stage, row)
    assert photo.width and photo.height, "ingest records the size of every usable photo"
    film_HW4 = heat_overlay(decode_density(read_own(run.store, row)), size=(photo.width, photo.height))
    return Encoded(encode_png(film_HW4), _PNG)
