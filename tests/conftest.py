"""A few photos out of the sample as a data set, and a run of the micro preset on it, made once for all tests."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.commands import tally
from tests.order import longest_first

# How fast an example is says how busy the machine is, and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items[:] = longest_first(items)


SAMPLE = Path(__file__).parents[1] / "sample"
_PHOTOS = {"val": 4, "test": 5}


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
def shared_folder(tmp_path_factory):
    """One folder for all processes that run these tests side by side."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def _made_once(folder, make):
    """`make()` fills `folder` in the first process that comes here; the others wait and find it."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir()
            make()
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def small_dataset(shared_folder):
    root = shared_folder / "small-dataset"

    def make():
        # Every product must stay (val and test show them all), with a few views each.
        _take("instances_train2019.json", "train2019", keep=lambda image: image["id"] % 4 == 1, root=root)
        for split, count in _PHOTOS.items():
            name = f"instances_{split}2019.json"
            _take(name, f"{split}2019", keep=lambda image, n=count: image["id"] <= n, root=root)
        _take("images_pool2019.json", "pool2019", keep=lambda image: image["id"] <= 8, root=root)
        (root / "val2019" / "broken.jpg").write_bytes(b"\xff\xd8\xff")

    return _made_once(root, make)


@pytest.fixture(scope="session")
def micro_run(small_dataset, shared_folder):
    """The folder in which `tally run --preset micro` ran through Prefect, and what it printed."""
    folder = shared_folder / "micro-run"

    def make():
        done = tally("run", "--dataset", small_dataset, "--preset", "micro", folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed").write_text(done.stdout)

    _made_once(folder, make)
    return folder, (folder / "printed").read_text()
