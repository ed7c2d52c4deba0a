"""deployments/docker-compose.yml without containers: its services' own commands as processes of this machine.

What containers would give is put in their place: names of services become loopback ports that were free, /data and
/app become folders, secrets become files, PostgreSQL comes from the system and S3 from moto's server. Commands,
environments and health checks are those of the file, which is thereby tried out where no container engine runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.services import Stack, free_port, postgres, process, wait_until

PROJECT = Path(__file__).parents[1]
COMPOSE_FILE = PROJECT / "deployments" / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<how>:\?|:-)?(?P<text>[^}]*)\}")
_PORTS = {"server": "4200", "inspector": "8420", "health": "8080", "s3": "9000"}


def read_services(path: Path, *, variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of a compose file with its variables put in.

    Raises:
        ValueError: a variable that the file requires is not set.
    """
    return _interpolated(yaml.safe_load(path.read_text())["services"], variables=variables)


def _interpolated(value: Any, *, variables: Mapping[str, str]) -> Any:  # noqa: ANN401 - YAML
    def found(match: re.Match[str]) -> str:
        name = match["name"]
        if name in variables:
            return variables[name]
        if match["how"] == ":-":
            return match["text"]
        raise ValueError(f"{name}: {match['text'] or 'expected a value, got none'}")

    if isinstance(value, str):
        return _VARIABLE.sub(found, value).replace("$$", "$")
    if isinstance(value, dict):
        return {name: _interpolated(one, variables=variables) for name, one in value.items()}
    return [_interpolated(one, variables=variables) for one in value] if isinstance(value, list) else value


def read_secrets(folder: Path) -> dict[str, str]:
    """What deployments/make_secrets writes, made in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "make_secrets"
    script.write_text((PROJECT / "deployments" / "make_secrets").read_text())
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line)


class Native:
    """Where things are that the compose file names."""

    def __init__(self, folder: Path, *, database: str) -> None:
        """`database`: host and port of PostgreSQL."""
        self.folder = folder
        self.ports = {name: str(free_port()) for name in _PORTS}
        self._replaced = {
            "@postgres:5432": f"@{database}",
            "/run/secrets": str(folder / "secrets"),
            "0.0.0.0": "127.0.0.1",
            **{f"{name}:{port}": f"127.0.0.1:{self.ports[name]}" for name, port in _PORTS.items()},
            **{f"127.0.0.1:{port}": f"127.0.0.1:{self.ports[name]}" for name, port in _PORTS.items()},
        }

    def text(self, value: str) -> str:
        """A command's word or a variable's value as it is here."""
        ports = {port: self.ports[name] for name, port in _PORTS.items()}
        if value in ports:
            return ports[value]
        for before, after in self._replaced.items():
            value = value.replace(before, after)
        value = re.sub(r"(?<![\w/])/data(?=/|$)", str(self.folder / "data"), value)
        return re.sub(r"(?<![\w/])/app(?=/|$)", str(PROJECT), value)

    def command(self, words: Sequence[str]) -> list[str]:
        """A service's command."""
        return [self.text(word) for word in words]

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """A service's environment; the programs are those of this interpreter's environment."""
        bare = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "TALLY_"))
        }
        own = {name: self.text(str(value)) for name, value in (service.get("environment") or {}).items()}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        image = {"PREFECT_HOME": str(self.folder / "prefect"), "PYTHONSAFEPATH": "1"}
        health = {"PREFECT_WORKER_WEBSERVER_PORT": self.ports["health"]}
        return {**bare, **image, **health, **own, "PATH": programs, "TALLY_CACHE": str(self.folder / "cache")}

    def healthy(self, service: Mapping[str, Any]) -> bool:
        """Whether the service's own health check passes."""
        test = service["healthcheck"]["test"]
        assert test[0] == "CMD", "health checks are commands, not lines of a shell"
        done = subprocess.run(self.command(test[1:]), env=self.environment(service), capture_output=True, check=False)
        return done.returncode == 0


@contextmanager
def native_compose(folder: Path) -> Iterator[Stack]:
    """All services of the compose file but the GPU's worker, in the order in which they depend on each other."""
    variables = read_secrets(folder / "secrets")
    (folder / "secrets" / "inspector_token").write_text(variables["TALLY_INSPECTOR_TOKEN"])
    (folder / "data").mkdir()
    services = read_services(COMPOSE_FILE, variables=variables)
    with ExitStack() as running:
        database = running.enter_context(postgres()).rpartition("@")[2].partition("/")[0]
        native = Native(folder, database=database)
        moto = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", native.ports["s3"])
        log = folder / "s3.log"
        running.enter_context(process(moto, log=log, environment=dict(os.environ), folder=folder))
        wait_until(lambda: "Running on" in log.read_text(), what=f"moto's S3, see {log}")
        for name in ("bucket", "server", "deploy", "worker-cpu", "inspector"):
            running.enter_context(_started(name, services[name], native=native))
        environment = native.environment(services["worker-cpu"])
        yield Stack(folder=folder / "data", api=environment["PREFECT_API_URL"], environment=environment)


@contextmanager
def _started(name: str, service: Mapping[str, Any], *, native: Native) -> Iterator[None]:
    """A service that is healthy, or has ended well where it is to end."""
    log, command = native.folder / f"{name}.log", native.command(service["command"])
    where = {"environment": native.environment(service), "folder": native.folder / "data"}
    with process(command, log=log, **where) as child:
        if service.get("restart") == "no":
            if child.wait(timeout=300) != 0:
                raise RuntimeError(f"{name} ended with {child.returncode}:\n{log.read_text()}")
        else:
            wait_until(lambda: native.healthy(service), what=f"{name}, see {log}", every=1.0)
        yield
