"""What people decided about masks, poses and pseudo-labels: an append-only Parquet table, and what a stage reads of it.

`<store>/reviews/00000001.parquet` and on: each file holds all decisions up to its own, the one with the highest number
is the table. A number is written once, so of two writers at once neither loses a row; old files are swept later.

A decision is about a subject: the kind, the item, and what exactly was judged (`judged`), so that a new mask of the
same exemplar is judged anew. The last decision about a subject is in force.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import canonical_json
from storage.manifest import Manifest, ManifestObject, ManifestRow, content_digest
from storage.seal import seal, sealed
from storage.store import Store

FOLDER = "reviews"
STAGE = "review"
Kind = Literal["mask", "pose", "pseudo"]
Verdict = Literal["good", "bad", "undecided"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Which decisions a stage reads.
READ_BY: Mapping[str, tuple[Kind, ...]] = {"prune": ("mask", "pose"), "select": ("pseudo",)}
SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("time", "reviewer", "kind", "item_id", "judged", "verdict", "sku", "note", "run")
    ]
)
# In the metadata of tables that are sealed; those of version 1 have none.
_VERSION = b"tally_reviews"
_FILE = re.compile(r"(\d{8})\.parquet")
_KEPT_FILES = 20
Subject = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision of a person. "undecided" takes an earlier one back.

    Attributes:
        time: UTC, ISO 8601.
        reviewer: who, as they call themselves.
        item_id: the row that was looked at: mask/…, pose/… or pseudo/….
        judged: for a mask its digest, for a pose the exemplar's digest, for a pseudo-label `label_text` of its objects.
        run: the run that it was looked at in.
    """

    time: str
    reviewer: str
    kind: Kind
    item_id: str
    judged: str
    verdict: Verdict
    sku: str = ""
    note: str = ""
    run: str = ""

    @property
    def subject(self) -> Subject:
        """What the decision is about."""
        return self.kind, self.item_id, self.judged


def label_text(objects: Iterable[ManifestObject]) -> str:
    """The shopping list that trusted objects amount to, as canonical JSON: what a pseudo-label claims."""
    return canonical_json(dict(Counter(item.sku for item in objects if item.status == "ok"))).decode()


def append_decisions(store: Store, decisions: Sequence[Decision]) -> None:
    """Add decisions to the end of the table.

    Raises:
        ValueError: a kind or a verdict is unknown.
    """
    for one in decisions:
        if one.kind not in KINDS or one.verdict not in VERDICTS:
            raise ValueError(
                f"review: expected one of {', '.join(KINDS)} and one of {', '.join(VERDICTS)}, "
                f"got {one.kind!r} and {one.verdict!r}"
            )
    written = False
    while not written:
        # The number first: whoever takes it between here and there makes us read again.
        url = _url(store, max(_numbers(store), default=0) + 1)
        written = store.create_file(url, _encoded([*read_decisions(store), *decisions]))
    for old in _numbers(store)[:-_KEPT_FILES]:
        store.remove_file(_url(store, old))


def read_decisions(store: Store) -> tuple[Decision, ...]:
    """All decisions ever made, the first one first.

    Raises:
        ValueError: the table is broken.
    """
    numbers = _numbers(store)
    if not numbers:
        return ()
    url = _url(store, numbers[-1])
    return decode_decisions(store.read_url(url), url=url)


def decode_decisions(data: bytes, *, url: str) -> tuple[Decision, ...]:
    """The decisions of a table that lies at `url`. Raises ValueError when it is broken or was changed."""
    try:
        intact = sealed(data)
        table = pq.read_table(io.BytesIO(data), columns=SCHEMA.names)
        decisions = table.cast(SCHEMA).to_pylist()
    except (ValueError, pa.ArrowException, OSError) as error:
        raise ValueError(f"{url}: expected a Parquet table of review decisions, got a broken file ({error})") from error
    if not intact and _VERSION in (table.schema.metadata or {}):
        raise ValueError(f"{url}: expected a sealed table, got one without its seal; the file was changed")
    return tuple(Decision(**record) for record in decisions)


def in_force(decisions: Iterable[Decision]) -> dict[Subject, Decision]:
    """The decision that holds for each subject; subjects that were set back to undecided are left out."""
    last = {one.subject: one for one in decisions}
    return {subject: one for subject, one in last.items() if one.verdict != "undecided"}


def reviews_for(store: Store, *, stage: str) -> Manifest | None:
    """The decisions in force that a stage reads, as a manifest to be its input; None where there are none.

    It is published when it is not there yet. Who decided, when and why are no part of it: the same verdicts give the
    same digest, and so the same key of the stage that reads them.
    """
    held = in_force(read_decisions(store)).values()
    rows = [_row(one) for one in held if one.kind in READ_BY[stage]]
    if not rows:
        return None
    key = content_digest(rows, content={})[:32]
    with store.lock(STAGE, key=key):
        found = store.take(STAGE, key=key)
        if found is not None:
            return found
        publication = store.begin(STAGE, key=key)
        for row in rows:
            publication.add(row)
        return publication.commit(metadata={"version": 1, "parameters": {}, "inputs": {}, "seconds": 0.0})


def verdicts_of(reviews: Manifest | None) -> dict[Subject, str]:
    """The verdicts in a manifest that `reviews_for` made, by their subjects."""
    rows = reviews.rows if reviews is not None else ()
    return {tuple(row.attributes["subject"]): str(row.attributes["verdict"]) for row in rows}


def _row(decision: Decision) -> ManifestRow:
    subject = list(decision.subject)
    return ManifestRow(
        item_id="review/" + "/".join(subject),
        sku=decision.sku or None,
        attributes={"subject": subject, "verdict": decision.verdict},
    )


def _numbers(store: Store) -> list[int]:
    found = (_FILE.fullmatch(name) for name in store.list_files(f"{store.url}/{FOLDER}"))
    return sorted(int(match[1]) for match in found if match)


def _url(store: Store, number: int) -> str:
    return f"{store.url}/{FOLDER}/{number:08d}.parquet"


def _encoded(decisions: Sequence[Decision]) -> bytes:
    table = pa.Table.from_pylist([asdict(one) for one in decisions], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_VERSION: b"2"}), buffer, compression="zstd")
    return seal(buffer.getvalue())
