"""A data set of a few photos out of the sample, and a finished run of the micro preset on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.store import Store
from tasks import stage as stage_module
from tests.flows import small_pipeline

SAMPLE = Path(__file__).parents[2] / "sample"
_PHOTOS = {"val": 4, "test": 5}
_SKUS = 3


def _take(name, folder, *, keep, root):
    """Copy the JSON with the kept images and link their pictures."""
    listing = json.loads((SAMPLE / name).read_text())
    images = [image for image in listing["images"] if keep(image)]
    kept = {image["id"] for image in images}
    listing["images"] = images
    if "annotations" in listing:
        listing["annotations"] = [one for one in listing["annotations"] if one["image_id"] in kept]
    (root / name).write_text(json.dumps(listing))
    (root / folder).mkdir()
    for image in images:
        (root / folder / image["file_name"]).symlink_to(SAMPLE / folder / image["file_name"])


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    # Every product must stay (val and test show them all), with a few views each.
    _take("instances_train2019.json", "train2019", keep=lambda image: image["id"] % 4 == 1, root=root)
    for split, count in _PHOTOS.items():
        _take(f"instances_{split}2019.json", f"{split}2019", keep=lambda image, n=count: image["id"] <= n, root=root)
    _take("images_pool2019.json", "pool2019", keep=lambda image: image["id"] <= 8, root=root)
    (root / "val2019" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def tally(*arguments, folder):
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    # Python puts the working directory on the path for -m: the packages come from the installation.
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def micro_run(small_dataset, tmp_path_factory):
    """The folder in which `tally run --preset micro` ran through Prefect, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    done = tally("run", "--dataset", small_dataset, "--preset", "micro", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store for the small pipeline."""
    small_pipeline.COMPUTED.clear()
    monkeypatch.setattr(stage_module, "load_stage", small_pipeline.STAGES.__getitem__)
    return Store.open(str(tmp_path / "store"))
