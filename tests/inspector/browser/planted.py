"""What a micro run lacks, added beside it: a run of the same name a night earlier that did better, and a long stage."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.manifest import Manifest, ManifestRow, referenced
from storage.store import Store

EARLIER = "micro@20200101T000000Z"
LONG_STAGE, LONG_ROWS = "gather.long", 150


def plant(folder: Path) -> None:
    store = Store.open(str(folder / "store"))
    path = folder / "runs/micro/run.json"
    record = json.loads(path.read_text())
    # The record names places where the store was made: the inspector must not need them.
    record["stages"].append(_long_stage(store, record))
    path.unlink()
    path.write_text(json.dumps(record))
    (folder / "runs/micro/history").mkdir(exist_ok=True)
    for old in (folder / "runs/micro/history").iterdir():
        old.unlink()
    earlier = folder / "runs/micro/history" / f"{EARLIER.split('@')[1]}.json"
    earlier.write_text(json.dumps(_better(store, record)))


def stage_of(record: dict, name: str) -> dict:
    return next(one for one in record["stages"] if one["name"] == name)


def load(store: Store, entry: dict) -> Manifest:
    return store.load(store.manifest_url(entry["stage"], key=entry["key"]))


def _entry(name: str, manifest: Manifest) -> dict:
    told = {"name": name, "stage": manifest.stage, "key": manifest.key, "content_digest": manifest.content_digest}
    return {
        **told,
        "manifest": manifest.url,
        "rows": len(manifest.rows),
        "quarantined": 0,
        "cached": False,
        "seconds": 2.0,
    }


def _long_stage(store: Store, record: dict) -> dict:
    """A stage of more rows than a page has: the exemplars over and over, of growing quality."""
    catalog = load(store, stage_of(record, "ingest.catalog"))
    publication = store.begin("gather", key="planted")
    for number in range(LONG_ROWS):
        exemplar = catalog.ok[number % len(catalog.ok)]
        publication.add(referenced(exemplar, item_id=f"catalog/{number:04d}", quality=1 - number / LONG_ROWS))
    metadata = {"version": 1, "parameters": {}, "inputs": {}, "seconds": 2.0}
    return _entry(LONG_STAGE, publication.commit(metadata=metadata))


def _better(store: Store, record: dict) -> dict:
    """The same run with an evaluation in which the first photo's list was right."""
    rung = record["champion"]
    entry = stage_of(record, f"evaluate.{rung}")
    made = load(store, entry)
    publication = store.begin("evaluate", key="planted")
    for row in made.rows:
        publication.put(_changed(row, store.read(row)), path=row.path, row=replace(row, path="", digest="", bytes=0))
    parameters = {**made.metadata["parameters"], "resamplings": 49}
    manifest = publication.commit(metadata={**made.metadata, "parameters": parameters}, content=made.content)
    stages = [_entry(one["name"], manifest) if one["name"] == entry["name"] else one for one in record["stages"]]
    ladder = {**record["ladder"], rung: {"averaged": {**record["ladder"][rung]["averaged"], "cAcc": 0.75}}}
    return {**record, "started": "2020-01-01T00:00:00+00:00", "stages": stages, "ladder": ladder}


def _changed(row: ManifestRow, data: bytes) -> bytes:
    if row.item_id not in ("table/photos", "table/mistakes"):
        return data
    table = pq.read_table(io.BytesIO(data))
    rows, first = table.to_pylist(), "test/"
    photos = sorted({one["photo"] for one in rows if one["photo"].startswith(first)})[:1]
    if row.item_id == "table/photos":
        rows = [{**one, "wrong": 0} if one["photo"] in photos else one for one in rows]
    else:
        rows = [one for one in rows if one["photo"] not in photos]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return file.getvalue()
