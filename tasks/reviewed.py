"""What people's decisions change in `prune`: masks left out or let in, views that a person overrules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.manifest import Manifest, ManifestRow
from storage.reviews import Subject

Verdicts = Mapping[Subject, str]
BAD_MASK = "a person marked the mask as bad"


def mask_verdict(row: ManifestRow, *, verdicts: Verdicts) -> str | None:
    """What a person said of this very mask; None where nobody did."""
    return verdicts.get(("mask", row.item_id, row.digest))


def pose_verdict(stem: str, *, exemplar: ManifestRow, verdicts: Verdicts) -> str | None:
    """What a person said of the view in this very exemplar; None where nobody did."""
    return verdicts.get(("pose", f"pose/{stem}", exemplar.digest))


def usable_masks(masks: Manifest, *, verdicts: Verdicts) -> list[ManifestRow]:
    """The masks that `segment` found good enough and nobody marked as bad, and poor ones marked as good."""
    said = {row.item_id: mask_verdict(row, verdicts=verdicts) for row in masks.rows}
    # A mask without an object is empty: there is nothing to cut out, whatever a person says.
    return [
        row
        for row in masks.rows
        if (row.status == "ok" and said[row.item_id] != "bad") or (said[row.item_id] == "good" and row.objects)
    ]


def refused_masks(masks: Manifest, *, verdicts: Verdicts) -> list[ManifestRow]:
    """The masks that `segment` found good enough and a person marked as bad."""
    return [row for row in masks.ok if mask_verdict(row, verdicts=verdicts) == "bad"]


def touched_products(
    masks: Manifest, previous: Manifest, *, exemplars: Manifest, verdicts: Verdicts
) -> set[str | None]:
    """Products with a view that a person decided on, now or when `previous`, a result of `prune`, was made."""
    before = {row.sku for row in previous.rows if "reviewed" in row.attributes}
    now = {row.sku for row in masks.rows if _touched(row, exemplars=exemplars, verdicts=verdicts)}
    return before | now


def _touched(row: ManifestRow, *, exemplars: Manifest, verdicts: Verdicts) -> bool:
    stem, exemplar = row.item_id.removeprefix("mask/"), exemplars.row(row.parents[0])
    said: Sequence[str | None] = (
        mask_verdict(row, verdicts=verdicts),
        pose_verdict(stem, exemplar=exemplar, verdicts=verdicts),
    )
    return any(said)
