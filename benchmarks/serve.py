"""`tally serve` under load on loopback: errors, latency, memory, bad uploads, a changed model, its OpenAPI description.

    python -m benchmarks.serve [--dataset D] [--model FOLDER] [--clients 16] [--seconds 60] [--json]

The real command is started on a free port with an exported ONNX file and a token. For --seconds the clients ask without
pause, each answer compared with the list that the model gives of that photo alone. Then, for half as long, others send
what must be refused (too many bytes, truncated, no picture, decompression bombs, no token) at the same time, and the
model's file is replaced four times. At the end schemathesis tries the OpenAPI description. Memory is the server's
resident set.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import Any

import httpx
import numpy as np

from benchmarks.predict import labelled_photos, photos_of_side
from benchmarks.services import free_port
from benchmarks.short_model import model_arguments, model_of
from benchmarks.stages import print_result
from flows.endings import end_with_code
from flows.serve_app import Limits
from flows.serving import open_reader
from storage.files import replace_file
from tasks.detection import Detector
from tasks.export import to_onnx
from tasks.photo_lists import PhotoFile, PhotoLister

List = dict[str, int]
_MEGABYTE = 1e6
_REPLACED = 4


def png_of(width: int, height: int) -> bytes:
    """A sound grey PNG of one colour: a few bytes for however many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_claiming(data: bytes, *, side: int) -> bytes:
    """A JPEG whose header says `side` x `side` pixels, which its data does not have."""
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + pack(">HH", side, side) + data[place + 9 :]


def bad_uploads(photo: bytes) -> dict[str, tuple[bytes, int]]:
    """What must be refused, with the status it must get."""
    return {
        "too many bytes": (photo + bytes(Limits().most_bytes), 413),
        "truncated": (photo[: len(photo) // 2], 422),
        "no picture": (b"GIF89a" + bytes(1000), 415),
        "empty": (b"", 415),
        "PNG bomb": (png_of(8_000, 8_000), 413),
        "JPEG bomb": (jpeg_claiming(photo, side=60_000), 413),
    }


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running `tally serve`."""

    address: str
    token: str
    process: subprocess.Popen[bytes]

    @property
    def headers(self) -> dict[str, str]:
        """What a request must bear."""
        return {"Authorization": f"Bearer {self.token}"}

    def memory(self) -> tuple[float, float]:
        """(resident set now, at its largest) in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return int(found["VmRSS"]) * 1024 / _MEGABYTE, int(found["VmHWM"]) * 1024 / _MEGABYTE


@contextmanager
def serving(model: Path, *, workers: int, folder: Path) -> Iterator[Server]:
    """`tally serve` of an exported file on a free port, until the block ends."""
    token, port = secrets.token_hex(16), free_port()
    (folder / "token").write_text(token)
    command = [sys.executable, "-m", "flows.cli", "serve", "--model", model, "--port", str(port)]
    command += ["--token-file", folder / "token", "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    server = Server(address=f"http://127.0.0.1:{port}", token=token, process=process)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"serve: expected a running server, got exit code {process.returncode}")
            try:
                if httpx.get(f"{server.address}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@dataclass(kw_only=True)
class Load:
    """What some clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong_lists: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    def latency(self, share: float) -> float:
        """A percentile of the answers' times, milliseconds."""
        return 1000 * float(np.quantile(self.seconds, share)) if self.seconds else float("nan")


async def ask_until(
    end: float, web: httpx.AsyncClient, *, photos: Sequence[bytes], lists: Sequence[List], first: int, load: Load
) -> None:
    """One client: photo after photo without a pause until the time `end`."""
    place = first
    while time.perf_counter() < end:
        place = (place + 1) % len(photos)
        started = time.perf_counter()
        try:
            answer = await web.post("/v1/checkout", content=photos[place])
        except httpx.TransportError as error:
            load.broken[type(error).__name__] += 1
            continue
        load.seconds.append(time.perf_counter() - started)
        load.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            load.wrong_lists += {one["sku"]: one["count"] for one in answer.json()["products"]} != lists[place]


async def send_bad_until(end: float, server: Server, *, uploads: Mapping[str, tuple[bytes, int]]) -> dict[str, Counter]:
    """The statuses that each kind of bad upload got, over and over until `end`; "" is one without a token."""
    seen: dict[str, Counter] = {name: Counter() for name in (*uploads, "no token")}
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as web:
        while time.perf_counter() < end:
            for name, (data, _) in uploads.items():
                try:
                    answer = await web.post("/v1/checkout", content=data, headers=server.headers)
                    seen[name][answer.status_code] += 1
                except httpx.TransportError as error:
                    seen[name][type(error).__name__] += 1
            seen["no token"][(await web.post("/v1/checkout", content=b"x")).status_code] += 1
            await asyncio.sleep(0.05)
    return seen


async def sample_memory(server: Server, *, into: list[float]) -> None:
    """The server's memory twice a second, until cancelled."""
    while True:
        into.append(server.memory()[0])
        await asyncio.sleep(0.5)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What happened in one stretch of time."""

    load: Load
    memory: list[float]
    bad: dict[str, Counter]
    took: float


async def phase(
    server: Server,
    *,
    clients: int,
    seconds: float,
    photos: Sequence[bytes],
    lists: Sequence[List],
    uploads: Mapping[str, tuple[bytes, int]] | None = None,
    replaced: Path | None = None,
) -> Phase:
    """Clients at work for some seconds; with `uploads` others send these too, with `replaced` the model is replaced."""
    load, memory, started = Load(), list[float](), time.perf_counter()
    end = started + seconds
    limits = httpx.Limits(max_connections=clients)
    sampling = asyncio.create_task(sample_memory(server, into=memory))
    async with httpx.AsyncClient(base_url=server.address, headers=server.headers, timeout=60, limits=limits) as web:
        asking = [
            ask_until(end, web, photos=photos, lists=lists, first=7 * client, load=load) for client in range(clients)
        ]
        times = [started + seconds * (one + 0.5) / _REPLACED for one in range(_REPLACED)]
        changing = _replace_at(times, replaced) if replaced else asyncio.sleep(0)
        sending = send_bad_until(end, server, uploads=uploads) if uploads else _nothing_sent()
        bad, *_ = await asyncio.gather(sending, changing, *asking)
    sampling.cancel()
    return Phase(load=load, memory=memory, bad=bad, took=time.perf_counter() - started)


async def _nothing_sent() -> dict[str, Counter]:
    return {}


async def _replace_at(times: Sequence[float], model: Path) -> None:
    for when in times:
        await asyncio.sleep(max(0.0, when - time.perf_counter()))
        await asyncio.to_thread(replace_file, model, model.read_bytes())


def conforms(server: Server, *, examples: int) -> bool:
    """Whether answers to requests made up from the OpenAPI description are as it says."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    for operation in (one.ok() for one in schema.get_all_operations()):

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:  # noqa: ANN401 - schemathesis's own type
            case.call_and_validate(headers=server.headers)

        check()
    return True


def figures_of(name: str, one: Phase) -> dict[str, Any]:
    """A phase's figures by name."""
    load = one.load
    failed = sum(count for status, count in load.statuses.items() if status != 200) + sum(load.broken.values())
    return {
        f"{name}: answers": sum(load.statuses.values()),
        f"{name}: errors": failed,
        f"{name}: lists that differ": load.wrong_lists,
        f"{name}: photos/s": load.statuses[200] / one.took,
        **{f"{name}: latency ms, {label}": load.latency(share) for label, share in _PERCENTILES.items()},
        f"{name}: memory MB, first and last tenth": " to ".join(
            f"{np.median(part):.0f}" for part in (one.memory[: _tenth(one.memory)], one.memory[-_tenth(one.memory) :])
        ),
    }


_PERCENTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "largest": 1.0}


def _tenth(values: Sequence[float]) -> int:
    return max(1, len(values) // 10)


def lists_of(model: Path, *, files: Sequence[PhotoFile], workers: int) -> list[List]:
    """What the model says of each photo without a server."""
    lister = PhotoLister(open_reader(model, workers=workers), threshold=None, draw=False, workers=workers)
    return [
        {line.sku: line.count for line in result.found.products} for result in lister(files) if result.found is not None
    ]


def measure(
    detector: Detector, *, dataset: str, side: int, count: int, clients: int, seconds: float, workers: int
) -> dict[str, Any]:
    """All figures of a served model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch), Path(scratch) / "model.onnx"
        model.write_bytes(to_onnx(detector, precision="float32"))
        paths, _ = labelled_photos(dataset, split="test", count=count)
        files = photos_of_side(paths, side=side, folder=folder)
        lists = lists_of(model, files=files, workers=workers)
        photos = [file.path.read_bytes() for file in files]
        uploads = bad_uploads(photos[0])
        given: dict[str, Any] = {"clients": clients, "photos": photos, "lists": lists}
        with serving(model, workers=workers, folder=folder) as server:
            calm = asyncio.run(phase(server, seconds=seconds, **given))
            rough = asyncio.run(phase(server, seconds=seconds / 2, uploads=uploads, replaced=model, **given))
            loads = httpx.get(f"{server.address}/health").json()["loads"]
            description = conforms(server, examples=50)
            peak = server.memory()[1]
    wanted = {name: status for name, (_, status) in uploads.items()} | {"no token": 401}
    return {
        "clients": clients,
        **figures_of("calm", calm),
        **figures_of("with bad uploads", rough),
        **{
            f"{name} (expected {wanted[name]})": ", ".join(f"{status}: {times}" for status, times in seen.items())
            for name, seen in rough.bad.items()
        },
        "models loaded": loads,
        "OpenAPI description holds": description,
        "memory MB, largest": peak,
    }


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = model_arguments(__doc__)
    parser.add_argument("--side", type=int, default=800, help="longer side of the photos, pixels")
    parser.add_argument("--photos", type=int, default=60, help="how many different photos")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result = measure(
        model_of(options),
        dataset=options.dataset,
        side=options.side,
        count=options.photos,
        clients=options.clients,
        seconds=options.seconds,
        workers=options.workers,
    )
    print_result(result, as_json=options.json, title=f"tally serve, photos of {options.dataset}")


if __name__ == "__main__":
    end_with_code(main)
