"""What can be laid over an item's picture: films (mask, alpha, density) and drawings (boxes, centres, truth).

Drawings are in the photo's pixels; the page draws them as SVG, so that they stay sharp and can be switched without
asking for another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspector.item_pictures import has_instances, mask_row, threshold_of
from inspector.pictures import colour_of
from inspector.run_view import PHOTO_TYPES, RunView, is_cut
from storage.manifest import ManifestObject, ManifestRow

_MOST_DRAWN = 300
_IGNORED = "#808080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One object's drawing: box (x, y, width, height), its label, its colour, and the centre where it is known."""

    x: float
    y: float
    width: float
    height: float
    label: str
    colour: str
    score: float | None
    status: str
    reason: str
    centre: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Something to switch: a film's `picture` kind, or `shapes` drawn as `style` (boxes, visible, centres, truth)."""

    key: str
    title: str
    on: bool
    picture: str = ""
    shapes: tuple[Shape, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The picture that layers lie on: `kind` of the item's pictures, its size, and the layers."""

    kind: str
    width: int
    height: int
    layers: tuple[Layer, ...]


def canvas_of(run: RunView, *, stage: str, row: ManifestRow) -> Canvas | None:
    """The picture of an item with everything that is known to lie on it; None where there is no picture."""
    if row.media_type == "image/svg+xml":
        return Canvas(kind="own", width=row.width or 640, height=row.height or 440, layers=())
    found = run.photo_of(stage, row)
    if found is None:
        return None
    photo_stage, photo = found
    if not photo.width or not photo.height:
        return Canvas(kind="photo", width=640, height=480, layers=())
    layers = [*_films(run, stage, row), *_drawings(run, stage, row), *_truth(stage, row, photo_stage, photo)]
    return Canvas(kind="photo", width=photo.width, height=photo.height, layers=tuple(layers))


def _films(run: RunView, stage: str, row: ManifestRow) -> list[Layer]:
    cut = is_cut(row)
    films = []
    if has_instances(row):
        films.append(Layer(key="mask", title="masks", on=False, picture="mask"))
    elif mask_row(run, stage=stage, row=row) is not None:
        films.append(Layer(key="mask", title="mask", on=cut, picture="mask"))
        films.append(Layer(key="alpha", title="alpha", on=False, picture="alpha", note="white is opaque"))
    if row.media_type == "application/x-npy":
        films.append(Layer(key="density", title="density", on=False, picture="density", note=_counted(row)))
    return films


def _counted(row: ManifestRow) -> str:
    count = row.attributes.get("count")
    return f"counting view: {float(count):.2f}" if count is not None else ""


def _drawings(run: RunView, stage: str, row: ManifestRow) -> list[Layer]:
    objects = drawn_objects(row.objects)
    if not objects:
        return []
    shapes = tuple(_shape(item) for item in objects)
    floor = threshold_of(run, stage)
    note = f"scores from {floor:.2f}, where the model counts by itself" if floor else ""
    layers = [Layer(key="boxes", title=_boxes_title(row), on=not has_instances(row), shapes=shapes, note=note)]
    if any(item.visible_fraction is not None for item in objects):
        seen = tuple(_visible_shape(item) for item in objects if item.visible_fraction is not None)
        layers.append(Layer(key="visible", title="visible fraction", on=False, shapes=seen))
    if any(shape.centre for shape in shapes):
        layers.append(Layer(key="centres", title="centres", on=False, shapes=shapes))
    return layers


def _boxes_title(row: ManifestRow) -> str:
    if row.item_id.startswith("pseudo/"):
        return "pseudo-labels" if row.status == "ok" else "what was proposed"
    return "boxes"


def _truth(stage: str, row: ManifestRow, photo_stage: str, photo: ManifestRow) -> list[Layer]:
    """The photo's own labels under what a model found in it."""
    if photo_stage == stage or is_cut(row) or not photo.objects or row.media_type in PHOTO_TYPES:
        return []
    shapes = tuple(_shape(item) for item in drawn_objects(photo.objects))
    return [Layer(key="truth", title="truth", on=False, shapes=shapes, note=f"{len(photo.objects)} products are there")]


def drawn_objects(objects: Sequence[ManifestObject]) -> list[ManifestObject]:
    """The objects that are drawn: all, or the best ones where there are very many; lower ones first, as if beneath."""
    ranked = sorted(objects, key=lambda item: -(1.0 if item.score is None else item.score))
    return ranked[:_MOST_DRAWN][::-1]


def _shape(item: ManifestObject) -> Shape:
    x0, y0, x1, y1 = (round(float(value), 1) for value in item.box)
    told = [item.sku or "unexplained", "" if item.score is None else f"{item.score:.2f}"]
    return Shape(
        x=x0,
        y=y0,
        width=round(x1 - x0, 1),
        height=round(y1 - y0, 1),
        label=" ".join(filter(None, told)),
        colour=_IGNORED if item.status == "ignore" else "#{:02x}{:02x}{:02x}".format(*colour_of(item.category)),
        score=item.score,
        status=item.status,
        reason=item.reason,
        centre=item.centre,
    )


def _visible_shape(item: ManifestObject) -> Shape:
    """The whole item's box, hidden parts too, with how much of it is seen."""
    x0, y0, x1, y1 = (round(float(value), 1) for value in item.amodal_box or item.box)
    shape = _shape(item)
    return Shape(
        x=x0,
        y=y0,
        width=round(x1 - x0, 1),
        height=round(y1 - y0, 1),
        label=f"{100 * float(item.visible_fraction or 0):.0f} %",
        colour=shape.colour,
        score=item.score,
        status=item.status,
        reason=item.reason,
        centre=None,
    )
