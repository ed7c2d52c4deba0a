"""A stage in a process of its own: `python -m tasks.process < request` runs it and prints its events as JSON lines.

Training inside the flow's process would keep its memory, could not be killed, and its loaders could not fork. The child
ends when its parent does: the parent holds the child's standard input open, and its end is the signal to stop.

A stage with `many_processes` becomes torch elastic where there are several GPUs, with one process each. The environment
says otherwise: TALLY_PROCESSES (how many on this machine), TALLY_NODES and TALLY_RENDEZVOUS (how many machines, and
HOST:PORT of the first). The command for the other machines stands in the stage's log. All read one store.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from storage.digest import JSON
from storage.files import replace_file
from storage.manifest import Manifest
from storage.store import DamagedArtifactError, Store
from tasks.context import EventSink, discard_event
from tasks.mapping import THREADS
from tasks.params import StageParams
from tasks.stage import Input, KilledStageError, StageFailedError, load_input, load_stage, publish

_LOG_TAIL = 20
_DAMAGED = "damaged"
_children: set[subprocess.Popen[bytes]] = set()
# Those that this process ended itself, which is no reason to try again.
_stopped: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def run_in_child(
    params: StageParams,
    *,
    key: str,
    inputs: Mapping[str, Input],
    store: Store,
    workers: int,
    runner: str = THREADS,
    events: EventSink,
) -> None:
    """Run a stage in a child process and pass its events on; the child publishes the result itself.

    Raises:
        StageFailedError: the child failed; the next run goes on from what it left in its scratch folder.
        DamagedArtifactError: a file that the child read is missing or damaged.
    """
    request = {
        "stage": params.stage,
        "params": params.model_dump(mode="json"),
        "key": key,
        "store": store.url,
        "workers": workers,
        "runner": runner,
        "inputs": {name: _reference(value) for name, value in inputs.items()},
    }
    log = store.scratch("logs", key=params.stage) / f"{key}.log"
    with log.open("wb") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
            env=_environment(),
        )
        _children.add(child)
        try:
            code = _follow(child, request, events=events)
        except BaseException:
            _stop(child)
            raise
        finally:
            _children.discard(child)
    if code != 0:
        kind = KilledStageError if code < 0 and child not in _stopped else StageFailedError
        raise kind(_failure(params.stage, code=code, log=log))


def _environment() -> dict[str, str]:
    # A training step takes and gives back hundreds of megabytes, which by small pages keeps the kernel busy.
    # Other C libraries than glibc don't look at it; what the user says about glibc stays.
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ}


def _follow(child: subprocess.Popen[bytes], request: dict[str, JSON], *, events: EventSink) -> int:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(orjson.dumps(request) + b"\n")
    child.stdin.flush()
    for line in child.stdout:
        event = orjson.loads(line)
        if event["kind"] == _DAMAGED:
            raise DamagedArtifactError(event["url"], problem=event["problem"])
        events(event)
    return child.wait()


def stop_children() -> None:
    """End every stage process. For signal handlers: a thread that waits for a child can't be interrupted."""
    for child in list(_children):
        _stopped.add(child)
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    # The child leads its own session: the signal reaches its loaders too.
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, kind)
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue


def _failure(stage: str, *, code: int, log: Path) -> str:
    tail = log.read_text(errors="replace").strip().splitlines()[-_LOG_TAIL:]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "\n".join([f"stage {stage} {how}; whole log: {log}", *tail])


def _reference(value: Input) -> JSON:
    if value is None:
        return None
    if isinstance(value, Manifest):
        return value.url
    return [manifest.url for manifest in value]


def elastic_processes(params: StageParams) -> int:
    """How many processes of this machine torch elastic shall start for the stage; 0: none, this one runs it alone.

    Raises:
        ValueError: TALLY_PROCESSES is no number.
    """
    if not params.many_processes:
        return 0
    alone = 1 if os.environ.get("TALLY_RENDEZVOUS") else 0
    wanted = os.environ.get("TALLY_PROCESSES", "")
    if wanted:
        if not wanted.isdecimal() or not int(wanted):
            raise ValueError(f"TALLY_PROCESSES: expected a number of processes, got {wanted!r}")
        return int(wanted) if int(wanted) > 1 else alone
    if getattr(params, "device", "auto") == "cpu":
        return alone
    import torch

    return count if (count := torch.cuda.device_count()) > 1 else alone


def elastic_command(request: Path, *, key: str, processes: int) -> list[str]:
    """The command line by which torch elastic starts the processes of one machine."""
    endpoint = os.environ.get("TALLY_RENDEZVOUS", "")
    nodes = os.environ.get("TALLY_NODES", "1")
    where = ["--nnodes", nodes, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", key]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *(where if endpoint else ["--standalone"]),
        *("-m", "tasks.process", str(request)),
    ]


def _become_elastic(line: bytes, *, request: dict[str, JSON], processes: int) -> None:
    """Go on as torch elastic: same process, same standard streams."""
    stage, key = str(request["stage"]), str(request["key"])
    file = Store.open(str(request["store"])).scratch("requests", key=stage) / f"{key}.json"
    replace_file(file, line)
    command = elastic_command(file, key=key, processes=processes)
    print("one process a device:", *command, file=sys.stderr, flush=True)
    os.execv(command[0], command)  # noqa: S606 - our own interpreter, no word of which comes from outside


def _end_with_parent(descriptor: int) -> None:
    # Read from the descriptor: a buffered reader's lock, held here, would crash the interpreter's end.
    while os.read(descriptor, 1024):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    """Read a request (from the file that is named, else from standard input), run its stage, print events.

    Errors go to standard error. Of several processes only the first publishes and tells of what it does.
    """
    named = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    line = named.read_bytes() if named else sys.stdin.buffer.readline()
    request = orjson.loads(line)
    params = load_stage(request["stage"]).params_class(**request["params"])
    if named is None and (processes := elastic_processes(params)):
        _become_elastic(line, request=request, processes=processes)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), daemon=True).start()
    leads = int(os.environ.get("RANK", "0")) == 0
    try:
        if leads:
            _run(request, params=params, target=request["store"], events=lambda one: _print_event(one, output=output))
        else:
            # What the others make is the same, and thrown away.
            with tempfile.TemporaryDirectory() as folder:
                _run(request, params=params, target=folder, events=discard_event)
    except DamagedArtifactError as error:
        _print_event({"kind": _DAMAGED, "url": error.url, "problem": error.problem}, output=output)
    # Threads of native libraries must not hold up the end, and everything is published.
    os._exit(0)


def _run(request: dict[str, Any], *, params: StageParams, target: str, events: EventSink) -> None:
    """Run the stage on its inputs in the request's store and publish it in the store `target`."""
    source = Store.open(request["store"])
    publish(
        params,
        key=request["key"],
        inputs={name: load_input(value, store=source) for name, value in request["inputs"].items()},
        store=Store.open(target),
        workers=request["workers"],
        runner=request["runner"],
        events=events,
    )


def _print_event(event: dict[str, JSON], *, output: IO[bytes]) -> None:
    output.write(orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


if __name__ == "__main__":
    main()
