"""A store as this program's schema version writes it: `python -m tests.storage.schema_fixture` adds it to tests/golden.

Run it once when storage.manifest.SCHEMA_VERSION is raised; what earlier versions wrote stays there and must be read.
"""

import shutil
import tempfile
from pathlib import Path

from storage.catalogs import CatalogVersion, record_version
from storage.champions import ChampionRecord, record_decision
from storage.manifest import SCHEMA_VERSION, ManifestObject, ManifestRow, referenced
from storage.reviews import Decision, append_decisions
from storage.roots import note_run
from storage.store import Store

GOLDEN = Path(__file__).parents[1] / "golden"
OBJECT = ManifestObject(
    category=1,
    sku="tea",
    box=(1.0, 2.0, 30.5, 40.0),
    amodal_box=(0.0, 2.0, 31.0, 40.0),
    centre=(15.5, 21.0),
    score=0.25,
    visible_fraction=0.5,
    mask_rle="abc",
    source="pose/tea_1",
    status="ignore",
    reason="doubtful",
)
ROW = ManifestRow(
    item_id="synthetic/1",
    media_type="image/jpeg",
    width=64,
    height=48,
    sku="tea",
    split="val",
    level="easy",
    parents=("pose/tea_1",),
    objects=(OBJECT,),
    quality=0.75,
    attributes={"camera": 1, "view": None, "note": "Grüße"},
)
LOST = ManifestRow(item_id="synthetic/2", status="quarantined", reason="file: truncated")
VERSION = CatalogVersion(
    catalog="shop",
    number=1,
    action="created",
    skus=("tea",),
    products=1,
    photos=1,
    dataset="d",
    source="s",
    time="2026-01-01T00:00:00+00:00",
    manifest="file:///m",
    content_digest="c",
)
CHAMPION = ChampionRecord(
    catalog="shop",
    action="promoted",
    time="2026-01-01T00:00:00+00:00",
    run="r",
    rung="render",
    checkpoint="file:///m",
    checkpoint_digest="c",
    reasons=("better",),
    figures={"val": {"cAcc": 0.5}},
)
DECISION = Decision(time="2026-01-01", reviewer="ann", kind="mask", item_id="mask/1", judged="d", verdict="good")
CONTENT = {"categories": [{"id": 1, "sku": "tea"}]}


def write(folder):
    store = Store.open(str(folder))
    first = store.begin("compose", key="k")
    first.put(b"photo", path="1.jpg", row=ROW)
    first.add(LOST)
    made = first.commit(metadata={"seconds": 1.0, "inputs": {}}, content=CONTENT)
    second = store.begin("gather", key="k")
    second.add(referenced(made.row("synthetic/1")))
    second.commit(metadata={"seconds": 1.0, "inputs": {"parts": [{"manifest": made.url, "content_digest": ""}]}})
    record_version(store, VERSION)
    record_decision(store, CHAMPION)
    append_decisions(store, [DECISION])
    note_run(store, folder=Path("/nowhere/runs/a"), manifests=[made.url], time="t")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write(Path(made) / "store")
        shutil.rmtree(Path(made) / "store" / "scratch")
        shutil.copytree(Path(made) / "store", GOLDEN / f"schema{SCHEMA_VERSION}")
    print(GOLDEN / f"schema{SCHEMA_VERSION}")
