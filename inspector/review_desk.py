"""What a person can decide about a row, what was decided, and which rows are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inspector.run_view import RunView
from inspector.site import Site
from storage.manifest import ManifestRow
from storage.reviews import Decision, Kind, Subject, in_force, label_text, read_decisions

# The stage whose rows are decided on, with what is decided.
KIND_OF_STAGE: Mapping[str, Kind] = {"segment": "mask", "prune": "pose", "select": "pseudo"}
_LOOKED = "From then on figures are labelled-target: a person has looked at the pool."
_TAKEN_BACK = "An earlier decision is taken back."
EFFECT = {
    ("mask", "good"): "The next run's prune uses this mask, however poor its quality looks.",
    ("mask", "bad"): "The next run's prune drops this view. A new mask of the same exemplar is judged anew.",
    ("pose", "good"): "The next run's prune keeps this view, and compose draws it at least as often as an average one.",
    ("pose", "bad"): "The next run's prune drops this view, whatever the pool shows.",
    ("pseudo", "good"): f"The next run's select takes this photo whole while it reads this list. {_LOOKED}",
    ("pseudo", "bad"): f"The next run's select rejects this photo while it reads this list. {_LOOKED}",
    **{(kind, "undecided"): _TAKEN_BACK for kind in ("mask", "pose", "pseudo")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What can be decided about a row: `subject` (None: nothing, `why` says so), and the decision in force."""

    subject: Subject | None
    decision: Decision | None = None
    why: str = ""


def decisions_in_force(site: Site) -> dict[Subject, Decision]:
    """The decisions that hold; none where the table is broken (the Review page says so)."""
    try:
        return in_force(read_decisions(site.store))
    except ValueError:
        return {}


def review_of(site: Site, run: RunView, *, stage: str, row: ManifestRow) -> Review | None:
    """What can be decided about a row; None for rows that nobody decides about."""
    kind = KIND_OF_STAGE.get(run.stages[stage].stage)
    if kind is None:
        return None
    subject = subject_of(run, stage=stage, row=row, kind=kind)
    if subject is None:
        return Review(subject=None, why="No product was trusted in this photo: there is no list to judge.")
    return Review(subject=subject, decision=decisions_in_force(site).get(subject))


def subject_of(run: RunView, *, stage: str, row: ManifestRow, kind: Kind) -> Subject | None:
    """What a decision about a row would be about; None where there is nothing to judge."""
    return subjects_of(run, stage=stage, rows=[row], kind=kind)[0]


def subjects_of(run: RunView, *, stage: str, rows: Sequence[ManifestRow], kind: Kind) -> list[Subject | None]:
    """The same of many rows."""
    match kind:
        case "mask":
            judged = [row.digest for row in rows]
        case "pseudo":
            judged = ["" if (labels := label_text(row.objects)) == "{}" else labels for row in rows]
        case "pose":
            judged = _exemplar_digests(run, stage, rows)
    return [(kind, row.item_id, one) if one else None for row, one in zip(rows, judged, strict=True)]


def _exemplar_digests(run: RunView, stage: str, rows: Sequence[ManifestRow]) -> list[str]:
    """The digest of the exemplar that each view is of, "" where it is gone."""
    wanted = sorted({parent for row in rows for parent in row.parents if parent.startswith("catalog/")})
    digests: dict[str, str] = {}
    for table in (run.find(source) for source in run.sources(stage)):
        found = table.rows(table.among(wanted), without=("objects", "parents", "attributes")) if table else []
        digests |= {one.item_id: one.digest for one in found}
    return [next((digests[parent] for parent in row.parents if digests.get(parent)), "") for row in rows]
