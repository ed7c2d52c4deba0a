"""Twenty steps of DPSNet on the sample's labelled val photos, compared with losses that are kept in tests/golden.

A change that is meant to change them: `python -m tests.tasks.test_golden_losses` writes the file anew.
"""

import json
import sys
from pathlib import Path
from statistics import mean

import pytest
import torch

from models.dpsnet import DPSNet
from models.training.loop import train_steps
from models.training.world import ALONE
from storage.catalog import Category
from storage.formats.rpc import read_split
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.store import Store
from tasks.loading import batches
from tasks.params import TrainParams
from tasks.photo_source import PhotoSource, collated
from tasks.train import make_trainer, network_config, network_losses, scaled_plan

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "losses.json"
# Steps whose losses are the same on all processors.
_SAME = 5
PARAMS = TrainParams(
    image_size=128,
    width=16,
    head_width=32,
    proposals=50,
    samples=16,
    frozen_stages=2,
    steps=20,
    batch=2,
    warmup=5,
    loader_workers=0,
    device="cpu",
)


def _photos(store):
    """The sample's val photos as a manifest, and its products."""
    listing = read_split(ROOT / "sample", split="val")
    publication = store.begin("photos", key="golden")
    skus = {category.id: category.sku for category in listing.categories}
    for photo in listing.photos[:8]:
        objects = tuple(
            ManifestObject(category=item.category, sku=skus[item.category], box=tuple(item.box))
            for item in photo.objects
        )
        row = ManifestRow(item_id=photo.path.name, width=photo.width, height=photo.height, objects=objects)
        publication.put(photo.path.read_bytes(), path=photo.path.name, row=row)
    manifest: Manifest = publication.commit(metadata={})
    return manifest, [Category(id=one.id, sku=one.sku) for one in listing.categories]


def losses_of_twenty_steps(folder):
    """The losses of each step, by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store = Store.open(str(folder))
    manifest, categories = _photos(store)
    torch.manual_seed(0)
    network = DPSNet(network_config(PARAMS, categories=categories, photos=[manifest]), pretrained=True)
    how, plan, _ = scaled_plan(PARAMS)
    losses = network_losses(network, params=PARAMS)
    trainer = make_trainer(network, losses=losses, how=how, params=PARAMS, world=ALONE)
    source = PhotoSource(store, photos=[manifest], categories=categories, params=PARAMS, kit=None, workers=0)
    drawn = batches(source, collate=collated, batch=plan.batch, steps=range(plan.steps), world=ALONE, workers=0)
    made = [report.losses for report in train_steps(trainer, drawn, clock=lambda: 0.0)]
    torch.set_num_threads(threads)
    return made


def test_golden__losses_of_twenty_steps_on_the_sample(tmp_path):
    expected, got = json.loads(GOLDEN.read_text()), losses_of_twenty_steps(tmp_path)
    assert [set(step) for step in got] == [set(step) for step in expected]
    for number, (one, other) in enumerate(zip(expected[:_SAME], got[:_SAME], strict=True)):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5), f"step {number}"
    # Processors sum in different orders: what differs by 1e-7 at first lets another region be sampled some steps later,
    # and from there on a step's losses are near to the others' on average only.
    for name in expected[0]:
        one, other = (mean(step[name] for step in steps[_SAME:]) for steps in (expected, got))
        assert other == pytest.approx(one, rel=0.1), name
    first, last = (sum(sum(step.values()) for step in part) for part in (got[:5], got[-5:]))
    assert last < first, "twenty steps taught nothing"


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    rounded = [{name: round(value, 7) for name, value in step.items()} for step in losses_of_twenty_steps(sys.argv[1])]
    GOLDEN.write_text(json.dumps(rounded, indent=1) + "\n")
