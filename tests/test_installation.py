"""Python source is compiled once, not by every process: of PyTorch that takes longer than most processes live."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_makefile__programs_keep_what_python_compiled():
    command = ["make", "--eval", "seen: ; @env", "seen"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "PYTHONUNBUFFERED=1" in done.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout


def test_dockerfile__packages_are_compiled_where_nothing_can_be_written_later():
    base = (ROOT / "deployments/Dockerfile").read_text().partition("AS build")[0]
    settings = dict(re.findall(r"\b([A-Z_]+)=(\S+)", base))
    assert settings["PYTHONDONTWRITEBYTECODE"] == settings["UV_COMPILE_BYTECODE"] == "1"
