import numpy as np
import pytest

from flows.stage_markdown import (
    artifact_key,
    counts_table,
    decision_markdown,
    failure_markdown,
    ladder_markdown,
    stage_markdown,
    what_to_do,
)
from flows.time_limit import TimeLimitError
from storage.images import encode_jpeg, encode_png
from storage.manifest import ManifestRow
from storage.store import DamagedArtifactError, Store
from tasks.stage import StageFailedError


@pytest.fixture
def made(tmp_path):
    """A store and a stage's result: two photos, a sprite, a mask, a dropped view and a quarantined photo."""
    store = Store.open(str(tmp_path))
    publication = store.begin("prune", key="k")
    photo = encode_jpeg(np.full((30, 40, 3), 90, np.uint8))
    for number, quality in enumerate((0.2, 0.8)):
        row = ManifestRow(item_id=f"a b/{number}", sku="tea", media_type="image/jpeg", quality=quality)
        publication.put(photo, path=f"{number}.jpg", row=row)
    sprite = ManifestRow(item_id="sprite", sku="jam", media_type="image/png")
    publication.put(encode_png(np.full((9, 9, 4), 90, np.uint8)), path="s.png", row=sprite)
    mask = ManifestRow(item_id="mask", media_type="image/png")
    publication.put(encode_png(np.full((9, 9), 90, np.uint8)), path="m.png", row=mask)
    for name in ("c", "d"):
        publication.add(ManifestRow(item_id=name, sku="jam", status="dropped", reason="seen by no camera"))
    return store, publication.commit(metadata={"metrics": {"pool_crops": 12, "loss": 0.12345}})


def test_counts_table__counts_by_status_with_qualities(made):
    lines = counts_table(made[1]).splitlines()
    assert lines[2] == "| dropped | 2 | 0.0 | 1 |  |  |  |"
    assert lines[3].startswith("| ok | 4 | 0.0 | 2 | 0.20 | 0.50 | 0.80 |")


def test_stage_markdown__shows_pictures_that_link_to_the_inspector(made, monkeypatch):
    monkeypatch.setenv("TALLY_INSPECTOR_URL", "http://shop:8420/")
    store, manifest = made
    text = stage_markdown("prune", run="night", manifest=manifest, cached=False, seconds=1.25, store=store)
    assert "computed in 1.2 s" in text and "loss 0.123, pool_crops 12" in text
    assert "- 2 × seen by no camera" in text
    assert text.count("](data:image/jpeg;base64,") == 4
    assert "(http://shop:8420/runs/night/stages/prune/item?item=a%20b%2F0)" in text


def test_stage_markdown__of_damaged_pictures_shows_the_others(made):
    store, manifest = made
    store.put_file(manifest.row("sprite").url, b"x")
    text = stage_markdown("prune", run="r", manifest=manifest, cached=True, seconds=0, store=store)
    assert "taken from the store" in text and text.count("data:image/jpeg") == 3


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ValueError("preset: expected …"), "what was expected"),
        (StageFailedError("stage train was killed by signal 9; whole log: …"), "Memory was too short"),
        (StageFailedError("torch.OutOfMemoryError: CUDA out of memory"), "Memory was too short"),
        (StageFailedError("stage train ended with exit code 1"), "end of the log"),
        (OSError(28, "No space left on device"), "tally gc"),
        (ConnectionError("refused"), "did not answer"),
        (DamagedArtifactError("file:///a", problem="gone"), "computed again"),
        (TimeLimitError("time_limit: 2 hours are over"), "time_limit"),
        (ZeroDivisionError("division by zero"), "mistake of the program"),
    ],
)
def test_failure_markdown__says_what_to_do(error, advice):
    assert advice in " ".join(what_to_do(error))
    text = failure_markdown("train.source", run="night", error=error)
    assert str(error) in text and "goes on from there" in text


def test_ladder_markdown__has_a_line_for_each_rung():
    figures = {"cAcc": 0.5, "ACD": 1.0, "mCIoU": 0.7, "mAP50": 0.9}
    ladder = {"source": {"easy": figures, "averaged": figures}, "render": {"easy": figures, "averaged": figures}}
    lines = ladder_markdown(ladder, champion="render", protocol="unlabelled-target").splitlines()
    assert lines[2] == "| rung | cAcc averaged | cAcc easy | ACD | mCIoU | mAP50 |"
    assert lines[5] == "| **render** | 0.500 | 0.500 | 1.000 | 0.700 | 0.900 |"
    assert "champion is number 3" in decision_markdown({"action": "rejected", "champion": 3, "reasons": ["worse"]})


def test_artifact_key__is_one_that_prefect_takes():
    assert artifact_key("predict.image_level.pool", of="stage ") == "stage-predict-image-level-pool"
