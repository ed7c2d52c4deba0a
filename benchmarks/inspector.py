"""The inspector on a long manifest: how long its pages take, how heavy they are, and the memory of its server.

    python -m benchmarks.inspector [--rows 100000] [--json]

The manifest is that of a compose stage: a dozen objects a photo, each with its mask. The server is `tally inspect` in a
process of its own; times are those of a client on the same machine, the first request of each page being the cold one.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import httpx
import numpy as np
import orjson
import pyarrow as pa

from benchmarks.services import free_port
from benchmarks.stages import print_result
from flows.endings import end_with_code
from storage.digest import digest_bytes
from storage.images import encode_jpeg
from storage.manifest import SCHEMA, ManifestObject, ManifestRow, encode_manifest, encode_table, read_manifest_table
from storage.rle import encode_mask
from storage.seal import seal
from storage.store import Store

_SIDE, _OBJECTS, _SKUS, _PHOTOS, _DISTINCT = 800, 12, 200, 24, 1000
_RUN, _STAGE, _KEY = "long", "compose", "long"
_REPEATS = 5
_LEVELS = ("easy", "medium", "hard")
_STARTUP_SECONDS = 120.0


def photo(generator: np.random.Generator) -> bytes:
    """Some picture of the size of a checkout photo."""
    small = generator.integers(0, 256, (20, 20, 3), np.uint8)
    return encode_jpeg(np.asarray(cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.uint8))


def some_object(generator: np.random.Generator) -> ManifestObject:
    """A product at a random place with an elliptic mask."""
    sku, (x, y) = int(generator.integers(_SKUS)), generator.integers(80, _SIDE - 80, 2).tolist()
    across, down = generator.integers(20, 70, 2).tolist()
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    cv2.ellipse(mask, (x, y), (across, down), float(generator.integers(180)), 0, 360, 1, -1)
    return ManifestObject(
        category=sku,
        sku=f"sku_{sku:03d}",
        box=(x - across, y - down, x + across, y + down),
        visible_fraction=float(generator.uniform(0.5, 1)),
        mask_rle=encode_mask(mask > 0),
        source=f"pose/{sku}_{int(generator.integers(160))}",
    )


def distinct_rows(photos: list[bytes], *, count: int, generator: np.random.Generator) -> list[ManifestRow]:
    """Rows as `compose` makes them, over a few photos."""
    rows = []
    for number in range(count):
        objects = tuple(some_object(generator) for _ in range(_OBJECTS))
        data = photos[number % len(photos)]
        rejected = number % 10 == 0
        rows.append(
            ManifestRow(
                item_id=f"synthetic/{number:06d}",
                path=f"{number % len(photos):02d}.jpg",
                digest=digest_bytes(data),
                bytes=len(data),
                media_type="image/jpeg",
                width=_SIDE,
                height=_SIDE,
                level=_LEVELS[number % 3],
                parents=tuple(str(item.source) for item in objects),
                objects=objects,
                quality=float(generator.uniform()),
                status="rejected" if rejected else "ok",
                reason=f"{number % 7} of {_OBJECTS} items drifted" if rejected else "",
            )
        )
    return rows


def write_long_run(folder: Path, *, rows: int) -> None:
    """A store with one stage of `rows` rows, and a run that lists it."""
    generator = np.random.default_rng(0)
    store = Store.open(str(folder / "store"))
    photos = [photo(generator) for _ in range(_PHOTOS)]
    for number, data in enumerate(photos):
        store.put_file(f"{store.folder_url(_STAGE, key=_KEY)}/{number:02d}.jpg", data, sync=False)
    metadata = {"stage": _STAGE, "key": _KEY, "version": 1, "parameters": {}, "inputs": {}, "seconds": 1.0}
    url = store.manifest_url(_STAGE, key=_KEY)
    distinct = distinct_rows(photos, count=min(rows, _DISTINCT), generator=generator)
    short = read_manifest_table(encode_manifest(distinct, metadata=metadata), url=url)
    # The distinct rows again and again under ids of their own: encoding each would take minutes and change nothing.
    long = pa.concat_tables([short] * -(-rows // len(distinct))).slice(0, rows)
    ids = pa.array([f"synthetic/{number:06d}" for number in range(rows)])
    long = long.set_column(0, SCHEMA.field("item_id"), ids).replace_schema_metadata(short.schema.metadata)
    store.put_file(url, seal(encode_table(long)))
    stage = {"name": _STAGE, "stage": _STAGE, "key": _KEY, "content_digest": "long", "rows": rows, "seconds": 1.0}
    record = {"name": _RUN, "state": "completed", "started": "2026-01-01T00:00:00+00:00", "stages": [stage]}
    (folder / "runs" / _RUN).mkdir(parents=True)
    (folder / "runs" / _RUN / "run.json").write_bytes(orjson.dumps(record))


def start_server(folder: Path, *, port: int, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """`tally inspect` started in a folder, once it answers."""
    command = [sys.executable, "-m", "flows.cli", "inspect", "--port", str(port), *options]
    environment = {**os.environ, "PREFECT_API_URL": ""}
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < until:
        assert server.poll() is None, "tally inspect ended by itself"
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=1)
            return server
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError("tally inspect does not answer")


def megabytes(server: subprocess.Popen[bytes], name: str) -> float:
    """A figure of the server's memory (VmRSS: now, VmHWM: at most) in megabytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found, f"no {name} in /proc"
    return int(found[1]) / 1024


def seconds_of(client: httpx.Client, path: str) -> tuple[float, int]:
    """How long a page takes, and its bytes."""
    started = time.perf_counter()
    answer = client.get(path)
    took = time.perf_counter() - started
    answer.raise_for_status()
    return took, len(answer.content)


def measure(client: httpx.Client, server: subprocess.Popen[bytes], *, rows: int) -> dict[str, float | int]:
    """The figures: pages cold and again, thumbnails made and kept, memory."""
    stage = f"/runs/{_RUN}/stages/{_STAGE}"
    result: dict[str, float | int] = {"rows": rows, "memory before, MB": megabytes(server, "VmRSS")}
    result["first gallery page, s"], weight = seconds_of(client, stage)
    result["memory after it, MB"] = megabytes(server, "VmRSS")
    result["its weight, kB"] = weight / 1000
    middle = rows // 120
    pages = {
        "again": stage,
        f"page {middle}": f"{stage}?page={middle}",
        "sorted by quality": f"{stage}?sort=quality",
        "most objects first": f"{stage}?sort=-objects",
        "one product": f"{stage}?sku=sku_007",
        "one level, status and reason": f"{stage}?level=easy&status=rejected&reason=%23+of+%23+items+drifted",
        "quality 0.2 to 0.3": f"{stage}?low=0.2&high=0.3",
        "made from one view": f"{stage}?parent=pose/7_7",
        "search": f"{stage}?find=0777",
        "item": f"{stage}/item?item=synthetic/{rows // 2:06d}&sort=quality",
    }
    for name, path in pages.items():
        result[f"{name}, s"] = statistics.median(seconds_of(client, path)[0] for _ in range(_REPEATS))
    pictures = re.findall(r'<img src="([^"]+)"', client.get(stage).text)
    for name in ("60 thumbnails made, s", "60 thumbnails kept, s"):
        started = time.perf_counter()
        for source in pictures:
            seconds_of(client, source.replace("&amp;", "&"))
        result[name] = time.perf_counter() - started
    result["memory at most, MB"] = megabytes(server, "VmHWM")
    return result


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the manifest")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_long_run(Path(folder), rows=arguments.rows)
        port = free_port()
        server = start_server(Path(folder), port=port)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                result = measure(client, server, rows=arguments.rows)
        finally:
            server.terminate()
            server.wait()
    print_result(result, as_json=arguments.json, title=f"inspector, {arguments.rows} rows")


if __name__ == "__main__":
    end_with_code(main)
