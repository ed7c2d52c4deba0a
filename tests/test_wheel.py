"""What an installation without the checkout consists of."""

from pathlib import Path

import pytest
from setuptools import Distribution

ROOT = Path(__file__).parents[1]
_FOLDERS = ("storage", "tasks", "models", "flows", "inspector", "benchmarks")
_PAGES = {".html", ".css", ".js", ".svg"}


@pytest.fixture
def project(monkeypatch):
    """The project as setuptools reads it."""
    monkeypatch.chdir(ROOT)
    project = Distribution()
    project.parse_config_files(["pyproject.toml"])
    return project


def files(*, suffixes):
    return {path for one in _FOLDERS for path in Path(one).rglob("*") if path.suffix in suffixes}


def test_wheel__has_every_package(project):
    assert set(project.packages) == {".".join(path.parent.parts) for path in files(suffixes={".py"})}


def test_wheel__has_every_template_and_static_file(project):
    patterns = [(package, pattern) for package, several in project.package_data.items() for pattern in several]
    assert {path for package, pattern in patterns for path in Path(package).glob(pattern)} == files(suffixes=_PAGES)
