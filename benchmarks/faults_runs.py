"""Whole runs under fault: killed at random moments, their stores with flipped bits and missing files, many at once.

What was done stays in a folder, so that kills add up over several calls.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.orchestration_runs import digests, environment, run, run_command
from flows.runs import PROGRESS_FILE, read_run
from storage.digest import JSON
from storage.files import local_path
from storage.seal import open_record
from storage.store import MANIFEST_NAME, DamagedArtifactError, Store
from storage.verify import set_aside, verify
from tasks.ingest import files_digest
from tasks.params import IngestParams
from tasks.stage import execute

# A run is killed about this many times before it is through; every so many-th kill comes while the program starts.
_KILLS_A_RUN, _EARLY = 20, 10
_FOLLOWED = 0.02
_VICTIMS = ("the flow", "its children", "all of them")


def undisturbed(dataset: Path, *, preset: str, folder: Path) -> tuple[dict[str, str], float]:
    """Content digests of a run that nothing disturbs, made once, and its seconds."""
    place = folder / "undisturbed"
    note = place / "seconds.json"
    if not note.exists():
        shutil.rmtree(place, ignore_errors=True)
        seconds = run(run_command(dataset, preset=preset, folder=place, engine="local"))
        note.write_bytes(orjson.dumps(seconds))
    return digests(read_run(place / "runs" / "run")), float(orjson.loads(note.read_bytes()))


@dataclass(kw_only=True)
class Storm:
    """What a storm has done up to now, kept in a file."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("kills", "stores verified", "stores damaged", "runs finished", "runs with equal digests")
        kept = orjson.loads(self.path.read_bytes()) if self.path.exists() else {}
        self.counts = {**dict.fromkeys((*names, *(f"kills of {one}" for one in _VICTIMS)), 0), **kept}

    def add(self, name: str, count: int = 1) -> None:
        """Count something, for good."""
        self.counts[name] += count
        self.path.write_bytes(orjson.dumps(self.counts))


def storm(dataset: Path, *, preset: str, folder: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """`kills` kills -9 at random moments of whole runs: of the flow, of its children or of all; with earlier ones.

    After every kill the store is verified. Each run goes on from kill to kill until it is through; then its digests are
    compared with the undisturbed run's, and the next one starts with an empty store.
    """
    wanted, seconds = undisturbed(dataset, preset=preset, folder=folder)
    done, attempt = Storm(path=folder / "storm.json"), folder / "attempt"
    before, command = done.counts["kills"], run_command(dataset, preset=preset, folder=attempt, engine="local")
    while (number := done.counts["kills"]) < before + kills:
        draw = random.Random(f"{seed} {number} {done.counts['runs finished']}")
        killed_once(command, place=attempt, draw=draw, longest=2 * seconds / _KILLS_A_RUN, done=done)
        _look(attempt, wanted=wanted, done=done)
        if done.counts["kills"] > number:
            print(f"{done.counts}", file=sys.stderr, flush=True)
    if attempt.exists():
        run(command)
        _look(attempt, wanted=wanted, done=done)
    return {"undisturbed, s": seconds, **done.counts}


def killed_once(command: list[str], *, place: Path, draw: random.Random, longest: float, done: Storm) -> None:
    """Start a run and kill it, or some of it, unless it ends before: at most `longest` seconds after it went to work.

    Most of the time that a run with many kills takes is its start, where there is little to lose: few kills fall there.
    """
    progress = place / "runs" / "run" / PROGRESS_FILE
    progress.unlink(missing_ok=True)
    flow = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    victim, early = draw.choice(_VICTIMS), draw.randrange(_EARLY) == 0
    while not early and flow.poll() is None and not _at_work(progress):
        time.sleep(_FOLLOWED)
    try:
        flow.wait(timeout=draw.uniform(0, longest))
    except subprocess.TimeoutExpired:
        _kill(flow, victim=victim, done=done)
    _, told = flow.communicate()
    # Of a killed child the flow tells and ends with 1.
    if flow.returncode not in (0, 1, -signal.SIGKILL):
        raise RuntimeError(f"{' '.join(command)} ended with {flow.returncode}:\n{told.decode()}")


def _at_work(progress: Path) -> bool:
    """Whether a stage is computed by now."""
    try:
        return not orjson.loads(progress.read_bytes())["cached"]
    except FileNotFoundError:
        return False


def _kill(flow: subprocess.Popen[bytes], *, victim: str, done: Storm) -> None:
    children = _children(flow.pid)
    if victim != "its children":
        flow.send_signal(signal.SIGKILL)
    for child in children if victim != "the flow" else ():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    if victim != "its children" or children:
        done.add("kills")
        done.add(f"kills of {victim}")


def _children(process: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _look(attempt: Path, *, wanted: dict[str, str], done: Storm) -> None:
    """Verify a store; where its run is through compare it and make room for the next."""
    if not (attempt / "store").exists():
        return
    done.add("stores verified")
    done.add("stores damaged", bool(verify(Store.open(str(attempt / "store"))).damage))
    record = attempt / "runs" / "run" / "run.json"
    made = read_run(record.parent) if record.exists() else {}
    if made.get("state") == "completed":
        done.add("runs finished")
        unlike = {name for name, _ in digests(made).items() ^ wanted.items()}
        done.add("runs with equal digests", not unlike)
        if unlike:
            print(f"other digests: {', '.join(sorted(unlike))}; kept", file=sys.stderr, flush=True)
            attempt.rename(attempt.with_name(f"unlike{done.counts['runs finished']}"))
        else:
            shutil.rmtree(attempt)


def corruption(dataset: Path, *, preset: str, folder: Path, seed: int = 0) -> dict[str, Any]:
    """One bit flipped in every file of a finished run's store, then every file missing; at last all stages at once.

    Found when it is read and by verification; what was set aside is made again with equal digests.
    """
    wanted, _ = undisturbed(dataset, preset=preset, folder=folder)
    place = folder / "corrupted"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "undisturbed", place)
    # A run's note belongs to the folder that it was made in.
    run(run_command(dataset, preset=preset, folder=place, engine="local"))
    store, draw = Store.open(str(place / "store")), random.Random(seed)
    found: dict[str, Any] = {"files": len(_files(store))}
    for kind, spoil in (("flipped", lambda path: _flip(path, draw=draw)), ("missing", Path.unlink)):
        seen = {"read": 0, "verify": 0, "spoiled": 0}
        for batch in _batches(store, kind=kind):
            _spoiled(store, batch, spoil=spoil, seen=seen)
        found |= {f"{kind}, spoiled": seen["spoiled"], f"{kind}, found by tally verify": seen["verify"]}
        found |= {f"{kind}, found on read": seen["read"]}
    return found | _remade(dataset, preset=preset, place=place, wanted=wanted, draw=draw)


def _remade(dataset: Path, *, preset: str, place: Path, wanted: dict[str, str], draw: random.Random) -> dict[str, Any]:
    """One file of every stage spoiled at once: set aside, made again by the next run."""
    store = Store.open(str(place / "store"))
    by_folder: dict[Path, list[Path]] = {}
    for path in _files(store):
        if path.is_relative_to(_artifacts(store)):
            stage, key = path.relative_to(_artifacts(store)).parts[:2]
            by_folder.setdefault(_artifacts(store) / stage / key, []).append(path)
    chosen = [draw.choice(paths) for paths in by_folder.values()]
    for path in chosen:
        _flip(path, draw=draw)
    moved = set_aside(store, verify(store).damage)
    run(run_command(dataset, preset=preset, folder=place, engine="local"))
    return {
        "set aside at once": f"{moved} of {len(chosen)}",
        "made again with equal digests": digests(read_run(place / "runs" / "run")) == wanted,
        "damage afterwards": len(verify(store).damage),
    }


def _artifacts(store: Store) -> Path:
    return local_path(store.url) / "artifacts"


def _files(store: Store) -> list[Path]:
    """Every file of a store that must not change: artifacts, manifests and records."""
    root = local_path(store.url)
    areas = ("artifacts", "catalogs", "champions", "reviews", "roots")
    found = (path for area in areas for path in (root / area).rglob("*") if path.is_file())
    return sorted(path for path in found if path.name != ".used")


def _batches(store: Store, *, kind: str) -> Iterator[list[Path]]:
    """Artifacts, manifests and records, each kind at once: a broken manifest hides its files.

    A record that is lost leaves no trace but a gap.
    """
    artifacts = [path for path in _files(store) if path.is_relative_to(_artifacts(store))]
    yield [path for path in artifacts if path.name != MANIFEST_NAME]
    yield [path for path in artifacts if path.name == MANIFEST_NAME]
    if kind != "missing":
        yield [path for path in _files(store) if path not in artifacts]


def _spoiled(store: Store, batch: list[Path], *, spoil: Callable[[Path], object], seen: dict[str, int]) -> None:
    readers = _readers(store, batch)
    kept = {path: path.read_bytes() for path in batch}
    for path in batch:
        spoil(path)
    named = {one.url for one in verify(store).damage}
    for path in batch:
        seen["spoiled"] += 1
        seen["verify"] += f"file://{path}" in named
        try:
            readers[path]()
        except (DamagedArtifactError, ValueError, FileNotFoundError):
            seen["read"] += 1
    for path, data in kept.items():
        path.write_bytes(data)


def _readers(store: Store, paths: list[Path]) -> dict[Path, Callable[[], object]]:
    """How a run reads each of some files of a store."""
    folders = {
        path.relative_to(_artifacts(store)).parts[:2] for path in paths if path.is_relative_to(_artifacts(store))
    }
    loaded = (store.load(store.manifest_url(stage, key=key)) for stage, key in folders)
    rows = {row.url: row for manifest in loaded for row in manifest.rows}
    readers: dict[Path, Callable[[], object]] = {}
    for path in paths:
        url = f"file://{path}"
        if url in rows:
            readers[path] = partial(store.read, rows[url])
        elif path.name == MANIFEST_NAME:
            readers[path] = partial(store.load, url)
        else:
            readers[path] = partial(_read_record, path)
    return readers


def _read_record(path: Path) -> object:
    return open_record(path.read_bytes(), url=f"file://{path}")


def _flip(path: Path, *, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = draw.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def at_once(dataset: Path, *, folder: Path, processes: int = 8, rounds: int = 5) -> dict[str, Any]:
    """Processes that ask for one stage key at the same moment; and a lock whose owner was killed while it held it."""
    computed, equal, waits = [], 0, []
    params = IngestParams(dataset=str(dataset), split="catalog", files_digest=files_digest(dataset, split="catalog"))
    for number in range(rounds):
        store = Store.open(str(folder / f"once{number}"))
        results = forked(lambda store=store: _asked(params, store), processes=processes)
        computed.append(sum(not one["cached"] for one in results))
        equal += len({one["digest"] for one in results}) == 1
        forked(lambda store=store: _killed_with_lock(store), processes=1)
        started = time.monotonic()
        with store.lock("stage", key="key"):
            waits.append(time.monotonic() - started)
    return {
        "processes": processes,
        "rounds": rounds,
        "computed in each round": computed,
        "rounds with one result": equal,
        "wait for a killed owner's lock, ms": 1e3 * max(waits),
    }


def _asked(params: IngestParams, store: Store) -> JSON:
    manifest, result = execute(params, inputs={}, store=store)
    return {"cached": result.cached, "digest": manifest.content_digest}


def _killed_with_lock(store: Store) -> JSON:
    with store.lock("stage", key="key"):
        os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], JSON], *, processes: int) -> list[Any]:
    """What `work` gives in each of several processes that start it at the same moment."""
    gate_read, gate_write = os.pipe()
    children = []
    for _ in range(processes):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(gate_write)
                os.read(gate_read, 1)
                os.write(write, orjson.dumps(work()))
            finally:
                os._exit(0)
        os.close(write)
        children.append((child, read))
    os.close(gate_write)
    results = []
    for child, read in children:
        with os.fdopen(read, "rb") as told:
            data = told.read()
        os.waitpid(child, 0)
        results += [orjson.loads(data)] if data else []
    os.close(gate_read)
    return results
