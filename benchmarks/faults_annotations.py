"""An ingest of as many annotations as nobody has, broken ones among them: its time, its memory, and every reason."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults_inputs import dataset, encoded, picture
from benchmarks.faults_runs import forked
from benchmarks.peak import forget_peak, peak_megabytes
from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow
from storage.store import Store
from tasks.ingest import files_digest, ingest
from tasks.params import IngestParams
from tasks.stage import run_stage_locally

_A_PHOTO, _SIDE = 100, 48
# Every n-th photo has one broken annotation: what is done to it, and what the reason of its photo must say.
_EVERY = 10
_BROKEN: tuple[tuple[dict[str, JSON], str], ...] = (
    ({"bbox": [float("nan"), 4, 20, 9]}, "finite"),
    ({"bbox": [4, 4, -20, 9]}, "positive"),
    ({"bbox": [40, 4, 20, 9]}, "inside"),
    ({"bbox": None}, "four numbers"),
    ({"category_id": 77}, "known categories"),
    ({"id": 0}, "each id once"),
)


def annotations(folder: Path, *, count: int) -> dict[str, Any]:
    """Ingest a split of `count` annotations, a hundred a photo, in a process of its own.

    A photo with a broken one must be quarantined for just that; all others are taken with all their labels.
    """
    root = dataset(folder / "annotations")
    photos = max(2 * _EVERY, count // _A_PHOTO)
    listing = root / "instances_test2019.json"
    for number in range(photos):
        (root / "test2019" / f"{number}.jpg").write_bytes(encoded(picture(number)))
    with listing.open("w") as out:
        out.writelines(_text(json.loads(listing.with_name("instances_val2019.json").read_text()), photos=photos))
    (found,) = forked(partial(_ingested, root, folder / "annotations-store"), processes=1)
    return {"annotations": photos * _A_PHOTO, "MB of JSON": listing.stat().st_size / 1e6, "photos": photos, **found}


def _text(like: dict[str, JSON], *, photos: int) -> Iterator[str]:
    """A COCO listing, piece by piece: whole it would take the memory that is measured."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": _SIDE, "height": _SIDE} for n in range(photos)]
    yield f'{{"images": {json.dumps(images)}, "categories": {json.dumps(like["categories"])}, "annotations": ['
    for number in range(photos):
        entries = [_annotation(number * _A_PHOTO + k, image=number) for k in range(_A_PHOTO)]
        if (kind := _kind(number)) is not None:
            entries[-1] |= _BROKEN[kind][0]
        yield ("," if number else "") + json.dumps(entries)[1:-1]
    yield "]}"


def _kind(photo: int) -> int | None:
    """Which of the broken annotations a photo has."""
    return photo // _EVERY % len(_BROKEN) if photo % _EVERY == _EVERY - 1 else None


def _annotation(number: int, *, image: int) -> dict[str, JSON]:
    box = [number % 20 + 0.25, number % 30, 20.5, 9.25]
    point = [box[0] + 9.5, box[1] + 4.5]
    return {"id": number, "image_id": image, "category_id": 1 + number % 2, "bbox": box, "point_xy": point}


def _ingested(root: Path, place: Path) -> JSON:
    forget_peak()
    before, started, used = peak_megabytes(), time.monotonic(), time.process_time()
    params = IngestParams(dataset=str(root), split="test", files_digest=files_digest(root, split="test"))
    made = run_stage_locally(ingest, params, store=Store.open(str(place)))
    return {
        "seconds": time.monotonic() - started,
        "processor s": time.process_time() - used,
        "memory, MB": peak_megabytes(),
        "of it before": before,
        "usable photos": len(made.ok),
        **{f"quarantined, {reason}": count for reason, count in sorted(_reasons(made).items())},
        "unexpected": sum(not _as_it_must_be(row) for row in made.rows),
    }


def _reasons(made: Manifest) -> Counter[str]:
    named = (reason for row in made.rows if row.reason for _, reason in _BROKEN if reason in row.reason)
    return Counter(named)


def _as_it_must_be(row: ManifestRow) -> bool:
    kind = _kind(int(Path(row.item_id).name))
    return len(row.objects) == _A_PHOTO if kind is None else row.status != "ok" and _BROKEN[kind][1] in row.reason
