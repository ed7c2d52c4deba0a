"""PostgreSQL, a Prefect server and workers as processes of this machine, for measurements and tests against real ones.

Everything lives in one folder, listens on loopback ports that were free, and ends with the context. PostgreSQL's
programs come from the system (Debian: `apt-get install postgresql`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from flows.environment import set_prefect_defaults

_POSTGRES_USER, _DATABASE_USER = "postgres", "prefect"
_START_SECONDS = 180.0
PREFECT = (sys.executable, "-m", "prefect")
TALLY = (sys.executable, "-m", "flows.cli")


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl, of the newest version that is installed; None where there is none."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    usable = [path for path in candidates if (path / "pg_ctl").is_file()]
    return usable[-1] if usable else None


@contextmanager
def postgres(*, connections: int = 200) -> Iterator[str]:
    """A PostgreSQL server in a temporary folder; gives the URL that Prefect's server wants.

    Raises:
        RuntimeError: PostgreSQL is not installed or does not start.
    """
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL: expected initdb and pg_ctl, got neither; apt-get install postgresql")
    # PostgreSQL refuses to run as root: it becomes the user that its package made, who has to reach the folder.
    become = ("runuser", "-u", _POSTGRES_USER, "--") if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(prefix="tally-postgres-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        if become:
            shutil.chown(folder, user=_POSTGRES_USER)
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c max_connections={connections} -c fsync=off"
        control = (*become, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-t", "60")
        client = ("-h", "127.0.0.1", "-p", str(port), "-U", _DATABASE_USER)
        _run(
            (*become, str(programs / "initdb"), "-D", str(folder / "data"))
            + ("-U", _DATABASE_USER, "-A", "trust", "-E", "UTF8")
        )
        _run((*control, "-l", str(folder / "log"), "-o", options, "start"))
        try:
            _run((*become, str(programs / "createdb"), *client, "prefect"))
            yield f"postgresql+asyncpg://{_DATABASE_USER}@127.0.0.1:{port}/prefect"
        finally:
            _run((*control, "-m", "immediate", "stop"))


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


@contextmanager
def process(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own; ended politely (SIGINT), and with everything it started."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            # A worker that starts with SIGINT ignored, as programs in the background do, never stops.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes], *, grace: float = 15.0) -> None:
    """End a program and its session."""
    for kind, wait in ((signal.SIGINT, grace), (signal.SIGKILL, 5.0)):
        if child.poll() is None:
            child.send_signal(kind)
            try:
                child.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                continue
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        # Nobody is left of its session.
        return


def wait_until(ready: Callable[[], bool], *, what: str, seconds: float = _START_SECONDS, every: float = 0.2) -> float:
    """Wait for something; returns how long it took.

    Raises:
        RuntimeError: it did not come in time.
    """
    started = time.monotonic()
    while not ready():
        if time.monotonic() - started > seconds:
            raise RuntimeError(f"{what}: nothing within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - started


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A Prefect server on PostgreSQL. `folder`: where everything lies; `environment`: what its clients need."""

    folder: Path
    api: str
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as a client of the server."""
        done = subprocess.run(
            command, env=self.environment, cwd=folder or self.folder, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    @contextmanager
    def worker(self, pool: str, *, limit: int = 8, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process worker of a work pool, ready to take runs."""
        log = self.folder / f"worker-{pool}.log"
        command = (*PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--limit", str(limit))
        with process(command, log=log, environment={**self.environment, **environment}, folder=self.folder) as child:
            wait_until(lambda: "started!" in log.read_text(errors="replace"), what=f"worker of {pool}, see {log}")
            yield child

    @property
    def _auth(self) -> tuple[str, str] | None:
        user, _, password = self.environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
        return (user, password) if password else None

    def ask(self, path: str, **body: object) -> list[dict] | dict:
        """What the server's API answers to a POST."""
        answer = httpx.post(f"{self.api}{path}", json=body, timeout=60, auth=self._auth)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> dict:
        """What the server's API answers to a GET."""
        answer = httpx.get(f"{self.api}{path}", timeout=60, auth=self._auth)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def prefect_stack(folder: Path, **settings: str) -> Iterator[Stack]:
    """A Prefect server on a PostgreSQL of its own, with `settings` in the environment of both server and clients."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            # Prefect runs a script of a folder that has a `storage.py`, which would stand for our package.
            "PYTHONSAFEPATH": "1",
            **settings,
        }
        set_prefect_defaults(environment)
        made = Stack(folder=folder, api=environment["PREFECT_API_URL"], environment=environment)
        command = (*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port))
        log = folder / "server.log"
        stack.enter_context(process(command, log=log, environment=environment, folder=folder))
        wait_until(lambda: _answers(f"{made.api}/health"), what=f"Prefect server, see {log}")
        yield made


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
