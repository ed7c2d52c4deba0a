"""A small run made by hand: a store with one manifest a stage that names its inputs, and its run.json."""

import io
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from storage.images import encode_jpeg, encode_png
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.store import Store

HOSTILE = "<script>alert(1)</script>"
FIGURES = {"cAcc": 0.5, "ACD": 1.25, "mCCD": 0.1, "mCIoU": 0.8, "mAP50": 0.9, "mmAP": 0.7}
RENDERERS = [
    {"renderer": name, "cAcc": value, "ACD": 1.5, "mAP50": 0.75, "photos": 1, "rejected": 1, "chosen": value == 0.625}
    for name, value in (("none", 0.5), ("colour", 0.625))
]
TEA = ManifestObject(category=1, sku="tea", box=(8, 8, 30, 24), score=0.9, centre=(19, 16))
DOUBTFUL = ManifestObject(category=2, sku="oats", box=(30, 30, 40, 44), score=0.2, status="ignore")
WEAK = ManifestObject(category=2, sku="oats", box=(1, 1, 9, 9), score=0.1)
PLACED = ManifestObject(
    category=1, sku="tea", box=(8, 8, 30, 24), amodal_box=(8, 8, 34, 24), visible_fraction=0.75, source="pose/x"
)
CATEGORIES = [{"id": 1, "sku": "tea", "name": HOSTILE, "supercategory": "drink"}, {"id": 2, "sku": "oats"}]
# What each stage is made from, as the pipeline does it.
INPUTS = {
    "coarse": {"catalog": "ingest.catalog"},
    "segment": {"catalog": "ingest.catalog", "coarse": "coarse"},
    "prune": {"catalog": "ingest.catalog", "masks": "segment", "pool": "ingest.pool"},
    "board": {"pool": "ingest.pool"},
    "compose": {"catalog": "ingest.catalog", "poses": "prune", "boards": "board"},
    "render": {"synthetic": "compose", "pool": "ingest.pool"},
    "train.source": {"photos": ["compose"], "init": None},
    "predict.source.test": {"checkpoint": "train.source", "photos": "ingest.test"},
    "select.image_level": {"pool": "ingest.pool", "boards": "board"},
    "evaluate.source": {"test": "ingest.test", "test_predictions": "predict.source.test"},
}


def jpeg(seed: int = 0) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))


def grey(value: int = 255) -> bytes:
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 8:30] = value
    return encode_png(mask)


def flat(*shape: int) -> bytes:
    return encode_png(np.full(shape, 150, np.uint8))


def density() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).random((1, 6, 8), np.float32))
    return file.getvalue()


def table(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def row(item_id: str, **fields) -> ManifestRow:
    return ManifestRow(
        item_id=item_id, **{"media_type": "image/jpeg", "width": 64, "height": 48, "sku": "tea", **fields}
    )


def file_row(item_id: str, media_type: str, status: str = "ok") -> ManifestRow:
    return ManifestRow(item_id=item_id, media_type=media_type, status=status)


def evaluation(*, wrong: int = 1) -> list[tuple[ManifestRow, bytes | None]]:
    """A report and its tables: one photo with `wrong` wrong items, oats found where there is tea."""
    mistake = {"photo": "test/t", "kind": "wrong SKU", "true_sku": "tea", "found_sku": "oats", "score": 0.6}
    missed = {"photo": "test/t", "kind": "missed", "true_sku": "tea", "found_sku": None, "score": None}
    sku = {"category": 1, "sku": "tea", "products": 2, "found": 1, "right": 1, "precision": 1.0, "recall": 0.5}
    tables = {
        "photos": [{"photo": "test/t", "level": "hard", "products": 2, "found": 2, "wrong": wrong}],
        "skus": [{**sku, "count_error": 1.0, "photos_miscounted": wrong}],
        "confusions": [{"true_sku": "tea", "found_sku": "oats", "times": 1}],
        "mistakes": [{**mistake, "box": [8.0, 8.0, 30.0, 24.0]}, {**missed, "box": [1.0, 1.0, 9.0, 9.0]}],
    }
    report = {"threshold": 0.42, "error_kinds": {"wrong SKU": 1, "missed": 1}}
    return [
        (file_row("report", "application/json"), orjson.dumps(report)),
        *((file_row(f"table/{name}", "application/vnd.apache.parquet"), table(rows)) for name, rows in tables.items()),
        (file_row("plot/curve", "image/svg+xml"), b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ]


def _stages() -> dict[str, list[tuple[ManifestRow, bytes | None]]]:
    png = {"media_type": "image/png"}
    pool = [(row("pool/a", sku=None), jpeg(1)), (row("pool/b", sku=None), jpeg(2))]
    pool_objects = {"parents": ("pool/a",), "objects": (TEA, DOUBTFUL)}
    predicted = row(
        "test/t",
        parents=("test/t",),
        level="hard",
        objects=(TEA, WEAK),
        media_type="application/x-npy",
        attributes={"count": 2.5},
    )
    near = [{"photo": "pool/a", "box": [4, 4, 20, 20], "distance": 1.5}]
    kept = row(
        "pose/x", parents=("catalog/x", "mask/x"), attributes={"score": 0.7, "rule": "evidence", "nearest": near}, **png
    )
    dropped = row(
        "pose/a", parents=("catalog/x", "mask/a"), objects=(TEA,), status="dropped", reason="seen from the side"
    )
    return {
        "ingest.catalog": [(row("catalog/x"), jpeg()), (row("catalog/y", status="quarantined", reason=HOSTILE), None)],
        "ingest.pool": pool,
        "ingest.test": [(row("test/t", sku=None, level="hard", objects=(TEA, TEA)), jpeg(3))],
        "coarse": [(row("coarse/x", parents=("catalog/x",), **png), grey(3))],
        "segment": [
            (row("mask/x", parents=("catalog/x", "coarse/x"), quality=0.875, objects=(TEA,), **png), grey()),
            (row("mask/a", parents=("catalog/x", "coarse/x"), quality=0.25, status="review", **png), grey()),
        ],
        "prune": [(kept, flat(9, 7, 4)), (dropped, None)],
        "board": [(row("board/00", sku=None, parents=("pool/a",), **png), flat(48, 64, 3))],
        "compose": [(row("synthetic/000000", sku=None, level="easy", parents=("pose/x",), objects=(PLACED,)), jpeg(4))],
        "render": [
            (
                row("rendered/000000", parents=("synthetic/000000",), status="rejected", reason="1 of 1 items drifted"),
                jpeg(5),
            ),
            (row("generator", media_type="application/safetensors", status="artifact"), b"weights"),
            (row("progress/000002", status="artifact", media_type="image/png"), flat(72, 96, 3)),
            (row("renderers", status="artifact", attributes={"chosen": "colour", "table": RENDERERS}), None),
        ],
        "train.source": [
            (file_row("checkpoint", "application/x-safetensors"), b"w"),
            (file_row("config", "application/json"), b"{}"),
        ],
        "predict.source.test": [(predicted, density())],
        "select.image_level": [
            (row("pseudo/a", **pool_objects, attributes={"mode": "image"}, reason="both views agree"), jpeg(1)),
            (row("pseudo/b", parents=("pool/b",), status="rejected", reason="nothing trusted"), None),
        ],
        "evaluate.source": evaluation(),
    }


def publish(
    store: Store,
    name: str,
    rows: list[tuple[ManifestRow, bytes | None]],
    *,
    inputs: dict | None = None,
    key: str = "",
    knob: int = 1,
) -> Manifest:
    publication = store.begin(name.split(".", maxsplit=1)[0], key=key or name.replace(".", "-"))
    for one, data in rows:
        if data is None:
            publication.add(one)
        else:
            publication.put(data, path=one.item_id.replace("/", "_"), row=one)
    content = {"categories": CATEGORIES} if name.startswith("ingest") else {}
    metadata = {"version": 1, "parameters": {"knob": knob}, "inputs": inputs or {}, "seconds": 61.0}
    return publication.commit(metadata=metadata, content=content)


def entry_of(name: str, manifest: Manifest, *, cached: bool = False) -> dict:
    return {
        "name": name,
        "stage": name.split(".", maxsplit=1)[0],
        "key": manifest.key,
        "manifest": manifest.url,
        "content_digest": manifest.content_digest,
        "seconds": 61.0,
        "cached": cached,
        "rows": len(manifest.rows),
        "quarantined": sum(one.status == "quarantined" for one in manifest.rows),
    }


def _recorded(value, made: dict[str, Manifest]):
    if isinstance(value, list):
        return [_recorded(one, made) for one in value]
    return None if value is None else {"manifest": made[value].url, "content_digest": made[value].content_digest}


def made_run(root: Path, *, store_url: str = "") -> dict:
    """Publish everything into the store (`root`/store when not given), write `root`/runs/first/run.json, and return
    its content."""
    store = Store.open(store_url or str(root / "store"))
    made: dict[str, Manifest] = {}
    for name, rows in _stages().items():
        inputs = {given: _recorded(value, made) for given, value in INPUTS.get(name, {}).items()}
        made[name] = publish(store, name, rows, inputs=inputs)
    run = {
        "name": "first",
        "dataset": f"/data/{HOSTILE}",
        "preset": "micro",
        "state": "completed",
        "started": "2026-01-02T00:00:00+00:00",
        "finished": "2026-01-02T00:10:00+00:00",
        "error": None,
        "target_protocol": "unlabelled-target",
        "stages": [entry_of(name, manifest, cached=name == "board") for name, manifest in made.items()],
        "ladder": {"source": dict.fromkeys(("easy", "medium", "hard", "averaged"), FIGURES)},
        "val_ladder": {"source": {"averaged": {**FIGURES, "cAcc": 0.625}}},
        "champion": "source",
        "parameters": {"compose": {"photos": 7, "overlap": {"hard": 0.3}}},
        "command": "tally run --dataset shop --preset micro",
        "options": {
            "dataset": "shop",
            "preset": "micro",
            "store": "store",
            "name": "first",
            "sku": [],
            "engine": "local",
        },
    }
    (root / "runs" / "first").mkdir(parents=True)
    (root / "runs" / "first" / "run.json").write_bytes(orjson.dumps(run))
    return run


def earlier_run(root: Path, run: dict) -> dict:
    """A run of the same name a day before, whose evaluation found one photo right that is wrong now."""
    store = Store.open(str(root / "store"))
    [later] = [one for one in run["stages"] if one["name"] == "evaluate.source"]
    inputs = store.load(later["manifest"]).metadata["inputs"]
    rows = evaluation(wrong=0)
    manifest = publish(store, "evaluate.source", rows, inputs=inputs, key="evaluate-earlier", knob=2)
    stages = [
        entry_of("evaluate.source", manifest) if one["name"] == "evaluate.source" else one for one in run["stages"]
    ]
    better = {"source": {level: {**FIGURES, "cAcc": 0.75} for level in ("hard", "averaged")}}
    earlier = {**run, "started": "2026-01-01T00:00:00+00:00", "stages": stages, "ladder": better}
    (root / "runs" / "first" / "history").mkdir(exist_ok=True)
    (root / "runs" / "first" / "history" / "20260101T000000Z.json").write_bytes(orjson.dumps(earlier))
    return earlier
