"""Random inputs for whatever reads what is not ours: pictures, listings, manifests and records, HTTP requests.

Inputs come from numbers: what number 17 of a target did is done again by `one("decode", 17)`. They run in forked
processes, which may crash, hang or grow without harm to the search; what did is told with its number. With atheris
installed, its search by coverage does the same for pictures, manifests and records (`search`).
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from benchmarks.faults_inputs import coco, dataset, encoded, odd_values, picture, pictures
from benchmarks.inspector import write_long_run
from benchmarks.peak import forget_peak, peak_megabytes
from flows.serve_app import Limits
from flows.serve_app import create_app as create_endpoint
from flows.serving import Served
from inspector.app import create_app as create_inspector
from storage.catalog import Category
from storage.images import decode_grey, decode_reduced, decode_rgb, decode_rgba
from storage.manifest import (
    ManifestObject,
    ManifestRow,
    decode_manifest,
    decode_references,
    encode_manifest,
    encode_table,
    read_manifest_table,
)
from storage.reviews import decode_decisions
from storage.seal import open_record, seal_record
from storage.store import Store
from tasks.confidence import UNTRAINED
from tasks.ingest import files_digest, ingest
from tasks.list_reader import ListReader
from tasks.params import IngestParams
from tasks.stage import run_stage_locally

# Inputs of one process; seconds and megabytes that one of them may take.
_BATCH, _LONGEST, _MOST_MEGABYTES = 200, 60.0, 3000.0
# Processor seconds of the last minute between which a process neither waits for ever nor computes for ever.
_STARVED = (0.1, 30.0)
_EXTREMES = (b"\xff", b"\0", b"\x7f\xff\xff\xff", b"\xff\xd8", b"\x80")
# What the inspector's made run has, and what it has not.
_WORDS = ("long", "compose.long", "synthetic/000001", "1", "0", "thumbnail", "mask", "status", "ok", "..", "a" * 3000)
_FIELDS = ("token", "item", "verdict", "run", "reason", "next")
_TOKEN = "a-token-long-enough"
_HERE = "http://127.0.0.1:8420"
_FINE, _REFUSED = "taken", "refused"
# How an input's process tells of it: a letter and megabytes.
_TOLD = struct.Struct("<cf")
Target = Callable[[random.Random, Path], str]


def mangled(data: bytes, *, draw: random.Random, others: Sequence[bytes]) -> bytes:
    """Bytes with some of the things done to them that break readers."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not made:
            break
        at = draw.randrange(len(made))
        match draw.randrange(7):
            case 0:
                made[at] ^= 1 << draw.randrange(8)
            case 1:
                made[at : at + draw.randrange(1, 9)] = draw.choice(_EXTREMES)
            case 2:
                del made[at:]
            case 3:
                del made[at : at + draw.randrange(1, 200)]
            case 4:
                made[at:at] = made[at : at + draw.randrange(1, 2000)] * draw.randrange(1, 20)
            case 5:
                other = draw.choice(others)
                start = draw.randrange(max(1, len(other)))
                made[at:at] = other[start : start + draw.randrange(1, 500)]
            case _:
                made[at : at + 4] = draw.randbytes(4)
    return bytes(made)


@cache
def _pictures() -> tuple[bytes, ...]:
    return tuple(data for _, data, _ in pictures() if data)


def decode(draw: random.Random, folder: Path) -> str:
    """A mangled picture, decoded in one of the ways there are."""
    data = mangled(draw.choice(_pictures()), draw=draw, others=_pictures())
    how: Callable[[bytes], object] = draw.choice(
        (decode_rgb, decode_grey, decode_rgba, lambda one: decode_reduced(one, least_side=draw.choice((4, 64))))
    )
    try:
        how(data)
    except ValueError as error:
        assert str(error).startswith("picture:"), error
        return _REFUSED
    return _FINE


@cache
def _files() -> tuple[bytes, ...]:
    """A manifest with and one without a seal, a record, a table of decisions."""
    item = ManifestObject(category=1, sku="tea", box=(1, 2, 3, 4), mask_rle="abc")
    rows = [ManifestRow(item_id=f"a{n}", objects=(item,) * n, attributes={"n": n}) for n in range(4)]
    sealed = encode_manifest(rows, metadata={"inputs": {"a": {"manifest": "file:///m"}}})
    return sealed, _of_version_1(sealed), seal_record({"a": [1, 2], "b": "x"})


def _of_version_1(data: bytes) -> bytes:
    """A manifest as the first programs wrote them: nothing vouches for its bytes."""
    table = read_manifest_table(data, url="")
    ((key, text),) = ((key, text) for key, text in table.schema.metadata.items() if b"schema_version" in text)
    return encode_table(table.replace_schema_metadata({key: orjson.dumps({**orjson.loads(text), "schema_version": 1})}))


def files(draw: random.Random, folder: Path) -> str:
    """A mangled file of a store, read as each of the kinds there are."""
    data = mangled(draw.choice(_files()), draw=draw, others=_files())
    taken = 0
    for read in (decode_manifest, decode_references, decode_decisions, open_record):
        try:
            found: Any = read(data, url="file:///store/f")
            taken += 1
            list(getattr(found, "rows", ()))
        except ValueError as error:
            assert "file:///store/f" in str(error), error
    return _FINE if taken else _REFUSED


def listing(draw: random.Random, folder: Path) -> str:
    """A data set with an odd listing and mangled pictures, ingested; every reject has its reason."""
    root = dataset(folder / "data")
    split = draw.choice(("train", "val", "test"))
    text = json.dumps(coco(images=draw.choice((0, 1, 4, 30)), draw=draw, odd=draw.choice((0.01, 0.1, 0.6)))).encode()
    text = mangled(text, draw=draw, others=(text,)) if draw.random() < 0.2 else text
    (root / f"instances_{split}2019.json").write_bytes(text)
    for number in range(4):
        data = mangled(draw.choice(_pictures()), draw=draw, others=_pictures())
        (root / f"{split}2019" / f"{number}.jpg").write_bytes(data if draw.random() < 0.5 else encoded(picture(number)))
    named = "catalog" if split == "train" else split
    try:
        params = IngestParams(dataset=str(root), split=named, files_digest=files_digest(root, split=named))
        made = run_stage_locally(ingest, params, store=Store.open(str(folder / "store")))
    except ValueError as error:
        assert str(root) in str(error), error
        return _REFUSED
    assert all(row.reason for row in made.rows if row.status != "ok"), "a reject without a reason"
    return _FINE


@cache
def _made_inspector() -> tuple[FastAPI, str]:
    folder = Path(tempfile.mkdtemp())
    write_long_run(folder, rows=30)
    app = create_inspector(runs_folder=folder / "runs", store_url=str(folder / "store"), token=_TOKEN)
    return app, str(folder)


def _word(draw: random.Random) -> str:
    value = draw.choice(_WORDS) if draw.random() < 0.6 else odd_values(draw)
    return str(value).encode("utf-8", "replace").decode()


def _request(app: FastAPI, draw: random.Random) -> dict[str, Any]:
    """A request to one of the application's routes, with words for what it asks for."""
    routes = [one for one in app.routes if isinstance(one, APIRoute)]
    route = draw.choice(routes)
    path = re.sub(r"{[^}]*}", lambda _: quote(_word(draw), safe=draw.choice(("", "/"))), route.path)
    names = [one.alias for one in route.dependant.query_params] or ["q"]
    query = [(draw.choice([*names, "q"]), _word(draw)) for _ in range(draw.randrange(4))]
    headers = {
        name: quote(_word(draw))[:2000]
        for name in ("authorization", "cookie", "content-type", "accept", "range", "if-none-match", "x-forwarded-for")
        if draw.random() < 0.15
    }
    method = draw.choice((*(route.methods or ()), "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"))
    return {"method": method, "url": path, "params": query, "headers": headers}


def _asked(client: TestClient, request: dict[str, Any], *, allowed: Sequence[int] = ()) -> str:
    try:
        answer = client.request(**request, follow_redirects=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        # The client won't even send it.
        return _REFUSED
    assert answer.status_code < 500 or answer.status_code in allowed, f"{answer.status_code} for {request}"
    return _FINE if answer.status_code < 400 else _REFUSED


@cache
def _visitor() -> tuple[TestClient, str]:
    """A browser that has signed in, and its form token."""
    client = TestClient(_made_inspector()[0], base_url=_HERE)
    token = _form_token(client.get("/sign-in").text)
    client.post("/sign-in", data={"form_token": token, "token": _TOKEN, "name": "Ada"}, follow_redirects=False)
    return client, _form_token(client.get("/sign-in").text)


def _form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found, "the sign-in page has a form token"
    return found[1]


def inspector(draw: random.Random, folder: Path) -> str:
    """A request to the inspector, often a form with a sound token."""
    client, token = _visitor()
    request = _request(_made_inspector()[0], draw)
    if request["method"] not in ("GET", "HEAD"):
        fields = {draw.choice(_FIELDS): _word(draw) for _ in range(4)}
        fields |= {"form_token": token} if draw.random() < 0.8 and "/sign-in" not in request["url"] else {}
        body = str(httpx.QueryParams(fields)).encode()
        request["content"] = body if draw.random() < 0.8 else mangled(body, draw=draw, others=(body,))
    return _asked(client, request)


def _read(photos: Sequence[object]) -> list[tuple[tuple[ManifestObject, ...], float]]:
    """One product in every photo: what the endpoint does with uploads does not depend on the model."""
    return [((ManifestObject(category=1, sku="tea", box=(1, 1, 9, 9), score=0.9),), 1.0) for _ in photos]


@cache
def _endpoint() -> TestClient:
    model = Path(tempfile.mkdtemp()) / "model.onnx"
    model.write_bytes(b"1")
    tea = Category(id=1, sku="tea", name="tea")
    reader = ListReader(
        categories=(tea,), threshold=0.5, confidence=UNTRAINED, image_size=64, batch=8, parallel=1, read=_read
    )
    served = Served(find=lambda: model, load=lambda path: reader)
    served.refresh()
    app = create_endpoint(served, token=_TOKEN, limits=Limits(most_bytes=300_000, most_pixels=2_000_000))
    client = TestClient(app)
    client.__enter__()
    return client


def endpoint(draw: random.Random, folder: Path) -> str:
    """A request to the checkout endpoint, mostly with a mangled picture."""
    client = _endpoint()
    if draw.random() < 0.3:
        request = _request(client.app, draw)  # type: ignore[arg-type]
        return _asked(client, request, allowed=(503,))
    data = draw.choice(_pictures())
    data = data if draw.random() < 0.2 else mangled(data, draw=draw, others=_pictures())
    headers = {"authorization": f"Bearer {_TOKEN}"}
    return _asked(
        client, {"method": "POST", "url": "/v1/checkout", "content": data, "headers": headers}, allowed=(503,)
    )


TARGETS: dict[str, Target] = {
    "decode": decode,
    "files": files,
    "listing": listing,
    "inspector": inspector,
    "endpoint": endpoint,
}


def one(name: str, number: int) -> str:
    """What input `number` of a target comes to: taken or refused; anything else is raised."""
    with tempfile.TemporaryDirectory() as folder:
        return TARGETS[name](random.Random(f"{name} {number}"), Path(folder))


def fuzz(folder: Path, *, minutes: float, targets: Sequence[str] = tuple(TARGETS)) -> dict[str, Any]:
    """Inputs for every target by turns for some minutes; goes on where an earlier call in the folder ended.

    Each is taken, or refused with a reason. Crashes (signals), hangs (a minute for one input), unexpected errors and
    inputs that take more than 3 GB are counted; the input's number is told on standard error or names a file in the
    folder.
    """
    kept = folder / "fuzz.json"
    counts: dict[str, Any] = orjson.loads(kept.read_bytes()) if kept.exists() else {}
    outcomes = (f"{one}, {what}" for one in targets for what in (_FINE, _REFUSED))
    for name in ("seconds", "crashes", "hangs", "unexpected", "too large", *outcomes):
        counts.setdefault(name, 0)
    counts.setdefault("most memory, MB", 0.0)
    until, turn = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < until:
        name, started = targets[turn % len(targets)], time.monotonic()
        first = counts.get(f"{name}, next", 0)
        counts[f"{name}, next"] = first + _BATCH
        batch(name, range(first, first + _BATCH), counts=counts, folder=folder)
        counts["seconds"] += time.monotonic() - started
        kept.write_bytes(orjson.dumps(counts))
        turn += 1
    return {name: value for name, value in counts.items() if not name.endswith(", next")}


def batch(name: str, numbers: range, *, counts: dict[str, Any], folder: Path) -> None:
    """Inputs in a forked process; where it ends early, what is left in another."""
    left = list(numbers)
    while left:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _work(name, left, write, folder)
        os.close(write)
        done = _follow(child, read, counts=counts, name=name, numbers=left)
        _, status, used = os.wait4(child, 0)
        if os.WIFSIGNALED(status):
            kind = "hangs" if os.WTERMSIG(status) == signal.SIGKILL else "crashes"
            counts[kind] += 1
            _note_memory(used.ru_maxrss / 1e3, name=name, number=left[done], counts=counts)
            print(f"{kind}: {name} {left[done]}, signal {os.WTERMSIG(status)}", file=sys.stderr, flush=True)
            done += 1
        left = left[done:] if os.WIFSIGNALED(status) else []


def _note_memory(megabytes: float, *, name: str, number: int, counts: dict[str, Any]) -> None:
    if megabytes > counts["most memory, MB"]:
        counts |= {"most memory, MB": megabytes, "most memory, by": f"{name} {number}"}
    if megabytes > _MOST_MEGABYTES:
        counts["too large"] += 1
        print(f"too large: {name} {number}, {megabytes:.0f} MB", file=sys.stderr, flush=True)


def _work(name: str, numbers: Sequence[int], write: int, folder: Path) -> None:
    """In the forked process: tell what became of each input and its memory; what was raised is kept in the folder."""
    # Pictures are complained about by the libraries that read them.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in numbers:
        forget_peak()
        try:
            told = one(name, number)[0].encode()
        except Exception:  # noqa: BLE001 - any error at all is what is looked for
            told = b"!"
            (folder / f"fuzz-{name}-{number}.txt").write_text(traceback.format_exc())
        os.write(write, _TOLD.pack(told, peak_megabytes()))
    os._exit(0)


def _follow(child: int, read: int, *, counts: dict[str, Any], name: str, numbers: Sequence[int]) -> int:
    """Count what the process tells; kills it when nothing comes for too long. Returns how many inputs it did."""
    done = 0
    with os.fdopen(read, "rb", buffering=0) as told:
        while True:
            used = _processor_seconds(child)
            if not select.select([told], [], [], _LONGEST)[0]:
                # Where others keep the processors busy it is slow and hangs not.
                if _STARVED[0] < _processor_seconds(child) - used < _STARVED[1]:
                    continue
                os.kill(child, signal.SIGKILL)
                return done
            # A pipe gives as much at once as was written at once: never a part of one.
            letters = told.read(_TOLD.size)
            if not letters:
                return done
            letter, megabytes = _TOLD.unpack(letters)
            kind = {b"t": f"{name}, {_FINE}", b"r": f"{name}, {_REFUSED}"}.get(letter, "unexpected")
            counts[kind] += 1
            _note_memory(megabytes, name=name, number=numbers[done], counts=counts)
            done += 1


def _processor_seconds(process: int) -> float:
    """Processor time of a process and its threads up to now (proc(5), stat)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def search(minutes: float) -> None:
    """Search by coverage with atheris (pip install atheris) among pictures and a store's files; never returns."""
    import atheris

    atheris.instrument_all()

    def test(data: bytes) -> None:
        readers: Sequence[Callable[..., object]] = (decode_manifest, decode_references, open_record)
        try:
            if data[:1] < b"\x80":
                decode_rgb(data[1:])
            else:
                readers[data[0] % 3](data[1:], url="f")
        except ValueError:
            return

    atheris.Setup([sys.argv[0], f"-max_total_time={round(60 * minutes)}", "-rss_limit_mb=3000", "-timeout=60"], test)
    atheris.Fuzz()
