"""No label of the pool can reach training: what is planted in the pool's listing leaves every artifact as it was."""

import json
import shutil

from flows.execution import climb_of
from flows.options import RunOptions
from flows.runner import LocalRunner
from storage.store import Store


def plant_labels(dataset):
    """Write boxes, lists and levels of the pool's photos into its listing, as an annotation file would have them."""
    (path,) = dataset.glob("images_pool*.json")
    listing = json.loads(path.read_text())
    category = listing["categories"][0]["id"]
    for image in listing["images"]:
        image |= {"level": "easy", "products": [category], "sku": "truth"}
    boxes = [
        {"id": number, "image_id": image["id"], "category_id": category, "bbox": [10, 10, 60, 60], "area": 3600}
        for number, image in enumerate(listing["images"], start=1)
    ]
    path.write_text(json.dumps({**listing, "annotations": boxes}))


def test_pipeline__labels_planted_in_the_pool_change_no_artifact(micro_run, small_dataset, tmp_path):
    folder, _ = micro_run
    shutil.copytree(folder / "store", tmp_path / "store")
    planted = shutil.copytree(small_dataset, tmp_path / "planted")
    before = {one["name"]: one for one in json.loads((folder / "runs/micro/run.json").read_text())["stages"]}
    plant_labels(planted)
    options = RunOptions(dataset=str(planted), preset="micro", store=str(tmp_path / "store"))
    run = LocalRunner(store=Store.open(options.store))
    climb_of(options)(run)
    after = run.results
    assert {name: one.content_digest for name, one in after.items()} == {
        name: before[name]["content_digest"] for name in after
    }
    assert {name.split(".")[0] for name, one in after.items() if not one.cached} == {"ingest"}
    assert "train.instance_level" in after
