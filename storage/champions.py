"""The champions of a catalog and how they came to be: every decision is a record that stays, the last one counts.

`<store>/champions/<catalog>/000001.json` and on. A record says which challenger was judged, by which figures and why it
was promoted or not; going back to an earlier champion is one more record. The champion is the one that the last
promotion or return names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

from storage.digest import JSON
from storage.journal import append_record, checked_name, read_records
from storage.store import Store

FOLDER = "champions"
Action = Literal["promoted", "rejected", "rolled back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionRecord:
    """One decision about a model.

    Attributes:
        number: place in the history, from 1; 0 until it is written.
        catalog: name of the catalog that the model knows.
        catalog_version: its version; 0: the data set's own exemplars.
        action: promoted or rejected a challenger, or rolled back to the earlier champion `restored`.
        time: UTC, ISO 8601.
        run: name of the run that trained the model, and `rung` its place on that run's ladder.
        checkpoint: URL of the manifest with the items checkpoint and config; `checkpoint_digest` is its content digest.
        inputs: content digests of what it was made from and judged on (catalog, pool, val).
        preset: name of the preset that it was trained with.
        stages: URLs of the manifests of its run by stage, for retraining and for links to them.
        replaced: number of the champion that was judged against; 0: there was none.
        restored: number of the champion that came back; 0 unless rolled back.
        reasons: why, in sentences.
        figures: what was compared: {"val": {"champion": {…}, "challenger": {…}}, …}.
    """

    catalog: str
    action: Action
    time: str
    run: str
    rung: str
    checkpoint: str
    checkpoint_digest: str
    number: int = 0
    catalog_version: int = 0
    preset: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    replaced: int = 0
    restored: int = 0
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, JSON] = field(default_factory=dict)

    def to_json(self) -> dict[str, JSON]:
        """The record as a JSON object."""
        return asdict(self)


def record_decision(store: Store, record: ChampionRecord) -> ChampionRecord:
    """Append a decision to its catalog's history; returns it with its number."""
    folder = _folder(record.catalog)
    number = append_record(store, folder, body=lambda number: replace(record, number=number).to_json())
    return replace(record, number=number)


def champion_history(store: Store, *, catalog: str) -> tuple[ChampionRecord, ...]:
    """All decisions about a catalog's models, the first one first.

    Raises:
        ValueError: a record is broken, or the catalog's name is none.
    """
    known = {one.name for one in fields(ChampionRecord)}
    # What a newer program recorded besides is no harm to this one.
    return tuple(
        ChampionRecord(**{name: value for name, value in body.items() if name in known} | {"reasons": _reasons(body)})
        for body in read_records(store, _folder(catalog))
    )


def current_champion(store: Store, *, catalog: str) -> ChampionRecord | None:
    """The record that made the present champion, or None where nothing was promoted yet."""
    made = [one for one in champion_history(store, catalog=catalog) if one.action != "rejected"]
    return made[-1] if made else None


def champion_catalogs(store: Store) -> list[str]:
    """Names of the catalogs that have a history."""
    return store.list_folders(f"{store.url}/{FOLDER}")


def roll_back(store: Store, *, catalog: str, to: int, time: str, reason: str) -> ChampionRecord:
    """Make the champion of record `to` the champion again (0: the one before the present); returns the new record.

    Raises:
        ValueError: there is no such champion, or it is the present one.
    """
    history = champion_history(store, catalog=catalog)
    made = [one for one in history if one.action != "rejected"]
    present = made[-1] if made else None
    earlier = {one.number: one for one in made if present and one.checkpoint_digest != present.checkpoint_digest}
    wanted = to or max(earlier, default=0)
    if present is None or wanted not in earlier:
        choice = ", ".join(map(str, earlier)) or "none: there is no earlier champion"
        raise ValueError(f"champion: expected the number of an earlier champion of {catalog!r} ({choice}), got {to}")
    record = replace(
        earlier[wanted],
        number=0,
        action="rolled back",
        time=time,
        # Until something changes that models are made from, this is the last word.
        inputs=history[-1].inputs,
        replaced=present.number,
        restored=wanted,
        reasons=(reason,),
        figures={},
    )
    return record_decision(store, record)


def _folder(catalog: str) -> str:
    return f"{FOLDER}/{checked_name(catalog, what='catalog')}"


def _reasons(body: Mapping[str, JSON]) -> tuple[str, ...]:
    return tuple(body.get("reasons", ()))
