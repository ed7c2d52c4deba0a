"""A small run made by hand: a store with one manifest a stage, and the run.json that lists them."""

import io
from pathlib import Path

import numpy as np
import orjson

from storage.images import encode_jpeg, encode_png
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.store import Store

HOSTILE = "<script>alert(1)</script>"
FIGURES = {"cAcc": 0.5, "ACD": 1.25, "mCCD": 0.1, "mCIoU": 0.8, "mAP50": 0.9, "mmAP": 0.7}
TEA = ManifestObject(category=1, sku="tea", box=(8, 8, 30, 24), score=0.9)
DOUBTFUL = ManifestObject(category=2, sku="oats", box=(30, 30, 40, 44), score=0.2, status="ignore")
WEAK = ManifestObject(category=2, sku="oats", box=(1, 1, 9, 9), score=0.1)


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


def row(item_id: str, **fields) -> ManifestRow:
    return ManifestRow(
        item_id=item_id, **{"media_type": "image/jpeg", "width": 64, "height": 48, "sku": "tea", **fields}
    )


def _stages() -> dict[str, list[tuple[ManifestRow, bytes | None]]]:
    png, report = {"media_type": "image/png"}, {"media_type": "application/json"}
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
    return {
        "ingest.catalog": [(row("catalog/x"), jpeg()), (row("catalog/y", status="quarantined", reason=HOSTILE), None)],
        "ingest.pool": pool,
        "ingest.test": [(row("test/t", sku=None, level="hard", objects=(TEA, TEA)), jpeg(3))],
        "coarse": [(row("coarse/x", parents=("catalog/x",), **png), grey(3))],
        "segment": [(row("mask/x", parents=("catalog/x", "coarse/x"), quality=0.875, **png), grey())],
        "prune": [
            (row("pose/x", parents=("catalog/x",), attributes={"score": 0.7}, **png), flat(9, 7, 4)),
            (row("pose/z", parents=("catalog/x",), status="dropped", reason="seen from the side"), None),
        ],
        "board": [(row("board/00", sku=None, parents=("pool/a",), **png), flat(48, 64, 3))],
        "compose": [(row("synthetic/000000", sku=None, level="easy", objects=(TEA,)), jpeg(4))],
        "render": [
            (
                row("rendered/000000", parents=("synthetic/000000",), status="rejected", reason="1 of 1 items drifted"),
                jpeg(5),
            ),
            (row("generator", media_type="application/safetensors", status="artifact"), b"weights"),
            (row("progress/000002", status="artifact", media_type="image/png"), flat(72, 96, 3)),
        ],
        "predict.source.test": [(predicted, density())],
        "select.image_level": [
            (row("pseudo/a", **pool_objects, attributes={"mode": "image"}, reason="both views agree"), jpeg(1)),
            (row("pseudo/b", parents=("pool/b",), status="rejected", reason="nothing trusted"), None),
        ],
        "evaluate.source": [(row("report", **report), orjson.dumps({"threshold": 0.42}))],
    }


def publish(store: Store, name: str, rows: list[tuple[ManifestRow, bytes | None]]) -> Manifest:
    publication = store.begin(name.split(".")[0], key=name.replace(".", "-"))
    for one, data in rows:
        if data is None:
            publication.add(one)
        else:
            publication.put(data, path=one.item_id.replace("/", "_"), row=one)
    return publication.commit(metadata={})


def made_run(root: Path) -> dict:
    """Publish everything under `root`/store, write `root`/runs/first/run.json, and return its content."""
    store = Store.open(str(root / "store"))
    stages = []
    for name, rows in _stages().items():
        manifest = publish(store, name, rows)
        stages.append(
            {
                "name": name,
                "stage": name.split(".")[0],
                "key": manifest.key,
                "manifest": manifest.url,
                "seconds": 61.0,
                "cached": name == "board",
                "rows": len(rows),
                "quarantined": sum(one.status == "quarantined" for one, _ in rows),
            }
        )
    run = {
        "name": "first",
        "dataset": f"/data/{HOSTILE}",
        "preset": "micro",
        "state": "completed",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:10:00+00:00",
        "error": None,
        "target_protocol": "unlabelled-target",
        "stages": stages,
        "ladder": {"source": dict.fromkeys(("easy", "medium", "hard", "averaged"), FIGURES)},
        "champion": "source",
        "parameters": {"compose": {"photos": 7, "overlap": {"hard": 0.3}}},
    }
    (root / "runs" / "first").mkdir(parents=True)
    (root / "runs" / "first" / "run.json").write_bytes(orjson.dumps(run))
    return run
