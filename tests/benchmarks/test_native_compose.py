"""What deployments/docker-compose.yml and Dockerfile promise, read from them."""

import re

import pytest
import yaml

from benchmarks.native_compose import COMPOSE_FILE, Native, read_secrets, read_services

BODY = yaml.safe_load(COMPOSE_FILE.read_text())
DOCKERFILE = (COMPOSE_FILE.parent / "Dockerfile").read_text()
LASTING = [name for name, service in BODY["services"].items() if service.get("restart") != "no"]


def test_services__are_those_of_an_installation():
    assert set(BODY["services"]) >= {"postgres", "s3", "server", "worker-cpu", "worker-gpu", "inspector"}
    assert BODY["services"]["worker-gpu"]["profiles"] == ["gpu"]
    assert {"data", "postgres", "objects"} <= set(BODY["volumes"])


@pytest.mark.parametrize("name", LASTING)
def test_services__that_last_have_a_health_check_and_listen_on_loopback(name):
    service = BODY["services"][name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", LASTING)
def test_services__that_last_have_no_root_no_rights_and_write_into_volumes_only(name):
    service = BODY["services"][name]
    assert service["read_only"] and "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Images that are built here have their user in the Dockerfile, see below.
    assert ("user" in service) != ("build" in service)
    assert int(service.get("user", "10001:10001").split(":")[0]) > 0
    assert not any(str(volume).startswith(("/", ".")) for volume in service["volumes"])


def test_services__only_the_one_that_gives_a_volume_away_is_root_and_it_has_no_network():
    rooted = {name: one for name, one in BODY["services"].items() if one.get("user") == "root"}
    assert list(rooted) == ["owner"]
    assert rooted["owner"]["network_mode"] == "none" and rooted["owner"]["restart"] == "no"
    assert rooted["owner"]["cap_add"] == ["CHOWN"] and rooted["owner"]["volumes"] == ["objects:/objects"]


def test_server__asks_for_a_password():
    server, worker = (BODY["services"][name]["environment"] for name in ("server", "worker-cpu"))
    secret = "${TALLY_PREFECT_AUTH:?run deployments/make_secrets}"
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == secret == worker["PREFECT_API_AUTH_STRING"]


def test_secrets__are_in_no_file_and_must_be_given(tmp_path):
    text = COMPOSE_FILE.read_text()
    secret = "PASSWORD|AUTH_STRING|SECRET_ACCESS_KEY|ACCESS_KEY_ID|USER"
    named = re.findall(rf"(?m)^\s*[A-Z0-9_]*(?:{secret})[A-Z_]*: (\S+)", text)
    assert named and all(value.startswith("${TALLY_") or value == "prefect" for value in named)
    with pytest.raises(ValueError, match="run deployments/make_secrets"):
        read_services(COMPOSE_FILE, variables={})
    first, second = (read_secrets(tmp_path / name) for name in "ab")
    assert all(len(value) >= 32 for name, value in first.items() if name != "TALLY_S3_USER")
    assert first["TALLY_PREFECT_AUTH"] != second["TALLY_PREFECT_AUTH"]
    assert (tmp_path / "a" / ".env").stat().st_mode & 0o077 == 0


def test_dockerfile__has_both_targets_and_none_runs_as_root():
    stages = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    targets = {stage.splitlines()[0].rpartition(" AS ")[2]: stage for stage in stages}
    assert {"cpu", "cuda"} <= set(targets)
    for name in ("cpu", "cuda"):
        assert re.findall(r"(?m)^USER (\w+)", targets[name]) == ["tally"]


def test_native__puts_free_ports_and_folders_in_place(tmp_path):
    native = Native(tmp_path, database="127.0.0.1:5")
    ports = native.ports
    assert native.text("http://server:4200/api") == f"http://127.0.0.1:{ports['server']}/api"
    assert (
        native.text("postgresql+asyncpg://a:b@postgres:5432/prefect") == "postgresql+asyncpg://a:b@127.0.0.1:5/prefect"
    )
    assert native.command(["--host", "0.0.0.0", "--port", "8420"]) == [
        "--host",
        "127.0.0.1",
        "--port",
        ports["inspector"],
    ]
    assert native.text("/data/runs") == f"{tmp_path}/data/runs"
    assert native.text("s3://tally/data") == "s3://tally/data"
