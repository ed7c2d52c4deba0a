"""The report's sections: which example pictures of a run are shown, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from inspector.figures import Figure, Section, Table, figure
from inspector.mistakes import mistakes
from inspector.pictures import (
    decode_density,
    on_checkers,
    stretched,
    thumbnail,
    with_boxes,
    with_heat,
)
from inspector.run_data import RunData, one_per_sku, rung_name, spread
from storage.images import Picture, decode_grey, decode_rgb, decode_rgba
from storage.manifest import Manifest, ManifestObject, ManifestRow

SMALL, LARGE, WIDE = 200, 330, 520


def sections_of(data: RunData) -> list[Section]:
    """All sections for which the run has something to show, in the order of the stages."""
    makers: Sequence[Callable[[RunData], Section]] = (
        masks,
        poses,
        boards,
        synthetic,
        detections,
        mistakes,
        pseudo_labels,
    )
    made = (make(data) for make in makers)
    return [section for section in made if section.rows]


def masks(data: RunData) -> Section:
    """Exemplar, coarse mask and cut-out, for some SKUs."""
    section = Section(
        identifier="masks",
        title="From exemplar to mask",
        text="An exemplar, its coarse mask (lighter is surer to be product) and the product cut out by its fine mask.",
    )
    fine = data.manifests.get("segment")
    for row in one_per_sku(fine.rows if fine else (), count=6):
        exemplar, rough = data.parent(row, stage="ingest.catalog"), data.parent(row, stage="coarse")
        if exemplar is None:
            continue
        trio = [_photo(data, exemplar, alt=f"Exemplar of {row.sku}", caption=row.sku or "")]
        if rough is not None:
            trio.append(figure(partial(_levels, data, rough), alt=f"Coarse mask of {row.sku}", caption=""))
        quality = "" if row.quality is None else f"quality {row.quality:.2f}"
        cut = figure(
            partial(_cut_out, data, exemplar, row),
            alt=f"{row.sku} cut out",
            caption=row.reason or quality,
            status=row.status,
        )
        section.rows.append([*trio, cut])
    return section


def poses(data: RunData) -> Section:
    """Kept and dropped views, with the reasons."""
    manifest = data.manifests.get("prune")
    rows = manifest.rows if manifest else ()
    kept = [row for row in rows if row.status == "ok"]
    dropped = [row for row in rows if row.status == "dropped"]
    section = Section(
        identifier="poses",
        title="Which views a checkout camera can see",
        text=f"{len(kept)} views kept, {len(dropped)} dropped.",
    )
    for chosen in (kept, dropped):
        figures = [_pose(data, row) for row in one_per_sku(chosen, count=8)]
        if figures:
            section.rows.append(figures)
    return section


def boards(data: RunData) -> Section:
    """The empty boards."""
    manifest = data.manifests.get("board")
    found = manifest.ok if manifest else ()
    section = Section(
        identifier="boards",
        title="Empty boards",
        text=f"{len(found)} backgrounds, recovered from the pool itself.",
    )
    figures = [
        _photo(data, row, alt=f"Empty board {row.item_id}", caption=f"from {len(row.parents)} pool photos")
        for row in spread(found, count=6)
    ]
    if figures:
        section.rows.append(figures)
    return section


def synthetic(data: RunData) -> Section:
    """Synthetic photos with their boxes beside their translation."""
    made, rendered = data.manifests.get("compose"), data.manifests.get("render")
    photos = [row for row in made.ok if row.objects] if made else []
    section = Section(
        identifier="synthetic",
        title="Synthetic and rendered photos",
        text=f"{len(photos)} composed photos. {_rendered_text(rendered)}",
        table=_renderers_tried(rendered),
    )
    translations = {parent: row for row in (rendered.rows if rendered else ()) for parent in row.parents}
    for row in _examples(photos, count=4, translations=translations):
        pair = [
            _boxed(data, row, photo=row, alt=f"Synthetic photo with {len(row.objects)} boxed products"),
            _photo(data, row, alt="The same photo before rendering", caption=f"level {row.level}", side=LARGE),
        ]
        if (translated := translations.get(row.item_id)) is not None:
            verdict = "rendered" if translated.status == "ok" else f"{translated.status}: {translated.reason}"
            alt = "The same photo after rendering"
            pair.append(_photo(data, translated, alt=alt, caption=verdict, side=LARGE))
        section.rows.append(pair)
    pictures = [row for row in (rendered.rows if rendered else ()) if row.item_id.startswith("progress/")]
    for row in pictures[-1:]:
        alt = "Crops of synthetic photos, below them their translations, and below those what a CycleGAN turns back"
        section.rows.append([_photo(data, row, alt=alt, caption=f"{alt} (end of training)", side=WIDE)])
    return section


def detections(data: RunData) -> Section:
    """The champion's detections on test photos beside the counting view's density map."""
    manifest = data.manifests.get(f"predict.{data.champion}.test")
    threshold = float(data.report.get("threshold", 0.5))
    champion = rung_name(data.champion) if data.champion else "none"
    section = Section(
        identifier="detections",
        title="Detections on test photos",
        text=f"What the champion ({champion}) finds at the threshold {threshold:.2f}, which val chose, and where its "
        "counting view sees products.",
    )
    with_map = [row for row in (manifest.rows if manifest else ()) if row.media_type == "application/x-npy"]
    for row in spread(with_map, count=4):
        photo = data.parent(row, stage="ingest.test")
        if photo is None:
            continue
        kept = [item for item in row.objects if (item.score or 0.0) >= threshold]
        count = float(row.attributes.get("count", float("nan")))
        boxed = figure(
            partial(_detected, data, photo, kept),
            alt=f"Test photo with {len(kept)} detections",
            caption=f"{row.level}: {len(kept)} found, {len(photo.objects)} are there",
        )
        heat = figure(
            partial(_heat, data, photo, row),
            alt=f"Density map, its sum {count:.1f}",
            caption=f"counting view: {count:.1f}",
        )
        section.rows.append([boxed, heat])
    return section


def pseudo_labels(data: RunData) -> Section:
    """Pool photos that became training photos, and those that did not, with the reasons."""
    found = _selections(data)
    section = Section(
        identifier="pseudo-labels",
        title="Pseudo-labels on the pool",
        text=" ".join(_selection_text(name, manifest) for name, manifest in found)
        + " Boxes are trusted detections; grey ones are regions the losses ignore."
        + "".join(
            f" Look at {rung_name(name)}: {flag}." for name, one in found for flag in _rails(one).get("flags", [])
        ),
        table=_rounds_table(data, found),
    )
    for name, manifest in found:
        kept = [_pseudo(data, row, name=name) for row in spread(manifest.ok, count=4)]
        rejected = [row for row in manifest.rows if row.status == "rejected"]
        refused = [_pseudo(data, row, name=name) for row in spread(rejected, count=4)]
        section.rows.extend(figures for figures in (kept, refused) if figures)
    return section


def _selections(data: RunData) -> list[tuple[str, Manifest]]:
    """Rounds and what each selected, in their order."""
    names = [name for name in data.manifests if name.startswith("select.")]
    return [(name.removeprefix("select."), data.manifests[name]) for name in names]


def _rails(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.metadata.get("guard_rails") or {}


def _rounds_table(data: RunData, found: Sequence[tuple[str, Manifest]]) -> Table | None:
    """A line for each round: what was taken, how right it is estimated to be, and what val says of the student."""
    rounds = [(name, _rails(manifest)) for name, manifest in found if _rails(manifest)]
    if not rounds:
        return None
    return Table(
        caption="Guard rails of the rounds: pool photos taken, items that teach, and how far two teachers disagree",
        columns=("round", "whole", "in part", "left", "items", "est. precision", "disagreement", "flags", "val cAcc"),
        rows=[
            [rung_name(name), *(str(rails[key]) for key in ("image", "instance", "rejected", "items"))]
            + [_fraction(rails["estimated_precision"]), _fraction(rails.get("disagreement"))]
            + [str(len(rails.get("flags", []))), _fraction(_val_accuracy(data, name))]
            for name, rails in rounds
        ],
    )


def _fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _val_accuracy(data: RunData, name: str) -> float | None:
    """What a round's student reached on val in its training."""
    made = data.manifests.get(f"train.{name}")
    return None if made is None else made.content.get("val", {}).get("cAcc")


def _selection_text(name: str, manifest: Manifest) -> str:
    rows = [row for row in manifest.rows if row.status != "artifact"]
    modes = Counter(str(row.attributes.get("mode", row.status)) for row in rows)
    return f"{rung_name(name)}: " + ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items())) + "."


def _rendered_text(rendered: Manifest | None) -> str:
    if rendered is None:
        return "Nothing was rendered."
    rejected = sum(row.status == "rejected" for row in rendered.rows)
    return f"{rejected} rendered photos were rejected because an item drifted."


def _renderers_tried(rendered: Manifest | None) -> Table | None:
    """What each renderer's photos taught a small detector, where the run tried several."""
    tried = [row for row in (rendered.rows if rendered else ()) if row.item_id == "renderers"]
    if not tried:
        return None
    lines = tried[0].attributes["table"]
    return Table(
        caption="Renderers tried: small detectors taught by each one's photos, judged on val",
        columns=("renderer", "cAcc", "ACD", "mAP50", "photos", "rejected"),
        rows=[
            [f"{line['renderer']}{' (chosen)' if line['chosen'] else ''}"]
            + [f"{line[name]:.3f}" for name in ("cAcc", "ACD", "mAP50")]
            + [str(line[name]) for name in ("photos", "rejected")]
            for line in lines
        ],
        marked=next(index for index, line in enumerate(lines) if line["chosen"]),
    )


def _examples(photos: Sequence[ManifestRow], *, count: int, translations: dict[str, ManifestRow]) -> list[ManifestRow]:
    """Photos from all over the list; the last one is a rejected one, if there is any."""
    rejected = [row for row in photos if row.item_id in translations and translations[row.item_id].status != "ok"]
    first = {row.item_id for row in rejected[:1]}
    others = [row for row in photos if row.item_id not in first]
    return [*spread(others, count=count - len(first)), *rejected[:1]]


def _photo(data: RunData, row: ManifestRow, *, alt: str, caption: str, side: int = SMALL) -> Figure:
    return figure(
        lambda: thumbnail(decode_rgb(data.store.read(row)), side=side), alt=alt, caption=caption, status=row.status
    )


def _boxed(data: RunData, row: ManifestRow, *, photo: ManifestRow, alt: str, caption: str = "") -> Figure:
    return figure(
        lambda: with_boxes(decode_rgb(data.store.read(photo)), objects=row.objects, side=LARGE),
        alt=alt,
        caption=caption or ", ".join(sorted({item.sku for item in row.objects})),
        status=row.status,
    )


def _levels(data: RunData, row: ManifestRow) -> Picture:
    return thumbnail(stretched(decode_grey(data.store.read(row))), side=SMALL)


def _cut_out(data: RunData, exemplar: ManifestRow, mask: ManifestRow) -> Picture:
    photo_HW3, alpha_HW = decode_rgb(data.store.read(exemplar)), decode_grey(data.store.read(mask))
    if alpha_HW.shape != photo_HW3.shape[:2]:
        raise ValueError(f"mask: expected shape {photo_HW3.shape[:2]}, got {alpha_HW.shape}")
    return thumbnail(on_checkers(photo_HW3, alpha_HW=alpha_HW), side=SMALL)


def _pose(data: RunData, row: ManifestRow) -> Figure:
    score = row.attributes.get("score")
    told = " ".join(filter(None, (f"{row.sku}:", row.reason, "" if score is None else f"(score {score})")))
    if row.status == "ok":
        return figure(lambda: _sprite(data, row), alt=f"Kept view of {row.sku}", caption=told)
    exemplar = data.parent(row, stage="ingest.catalog")
    alt = f"Dropped view of {row.sku}"
    if exemplar is None:
        return Figure(source="", alt=alt, caption=told, status=row.status)
    return figure(
        lambda: thumbnail(decode_rgb(data.store.read(exemplar)), side=SMALL), alt=alt, caption=told, status=row.status
    )


def _sprite(data: RunData, row: ManifestRow) -> Picture:
    rgba_HW4 = decode_rgba(data.store.read(row))
    return thumbnail(on_checkers(rgba_HW4[..., :3], alpha_HW=np.ascontiguousarray(rgba_HW4[..., 3])), side=SMALL)


def _detected(data: RunData, photo: ManifestRow, kept: Sequence[ManifestObject]) -> Picture:
    return with_boxes(decode_rgb(data.store.read(photo)), objects=kept, side=LARGE)


def _heat(data: RunData, photo: ManifestRow, row: ManifestRow) -> Picture:
    heat_HW3 = with_heat(decode_rgb(data.store.read(photo)), density_hw=decode_density(data.store.read(row)))
    return thumbnail(heat_HW3, side=LARGE)


def _pseudo(data: RunData, row: ManifestRow, *, name: str) -> Figure:
    photo = row if row.path else data.parent(row, stage="ingest.pool")
    caption = f"{rung_name(name)}, {row.attributes.get('mode', row.status)}: {row.reason}"
    alt = f"Pool photo, {row.status}, {len(row.objects)} objects"
    if photo is None:
        return Figure(source="", alt=alt, caption=caption, status=row.status)
    return _boxed(data, row, photo=photo, alt=alt, caption=caption)
