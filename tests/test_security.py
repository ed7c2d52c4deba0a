"""What no lint rule holds: tensors are loaded as tensors only, nothing is pickled, every installation checks hashes."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("storage", "tasks", "models", "flows", "inspector", "benchmarks", "deployments", "docs", "tests")
SOURCES = [
    path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")) if "node_modules" not in path.parts
]
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def trees():
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in SOURCES]


def test_torch_load__takes_weights_only():
    calls = [
        (path, call)
        for path, tree in trees()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load"
    ]
    assert calls
    for path, call in calls:
        assert "weights_only=True" in [ast.unparse(one) for one in call.keywords], f"{path}:{call.lineno}"


def test_imports__nothing_that_runs_what_it_reads():
    # Functions travel between the processes of one run, and a test of that.
    allowed = {Path("tasks/mapping.py"), Path("tests/tasks/test_gathering.py")}
    for path, tree in trees():
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.partition(".")[0] for name in names} & PICKLES
            assert not found or path in allowed, f"{path}: {found}"


@pytest.mark.parametrize("name", ["Makefile", "deployments/Dockerfile"])
def test_installations__check_the_hashes_of_the_lock(name):
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    installs = [line for line in lines if re.search(r"pip install\b", line)]
    assert installs
    for line in installs:
        for command in re.findall(r"pip install[^&|;]*", line):
            assert "--require-hashes" in command or "--no-deps" in command, command


def test_lock__has_hashes_for_every_package():
    for name in ("requirements.lock", "requirements-uv.lock"):
        packages = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text().strip())
        assert packages and all("--hash=sha256:" in one for one in packages if "==" in one), name
