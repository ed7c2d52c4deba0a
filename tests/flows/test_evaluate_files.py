import json

import pytest

from flows.evaluate_files import Files, photo_reader, printed, read_files, report_of, write_analysis
from storage.store import Store
from tests.tasks.evaluation_cases import labelled, predictions_for


@pytest.fixture
def manifests(tmp_path):
    """Files of test, in which one product has the other's SKU, and of val, in which all is right."""
    store = Store.open(str(tmp_path / "store"))
    val, test = labelled(store, "val"), labelled(store, "test")
    return tuple(
        Files(results=predictions_for(store, photos, wrong=wrong).url, annotations=photos.url)
        for photos, wrong in ((test, 1), (val, 0))
    )


def report_on(files, *, val=None):
    evaluated = read_files(files, val=val)
    return evaluated, report_of(evaluated, protocol="both", threshold=None, target_protocol="transductive")


def test_read_files__manifests_are_evaluated_as_in_a_run(manifests):
    test, val = manifests
    _, report = report_on(test, val=val)
    assert report["honest"]["averaged"]["cAcc"] == 0.75 and report["val"]["averaged"]["cAcc"] == 1.0
    assert report["acceptance"]["right"] == 0.75
    assert "transductive" in printed(report, as_json=False)


def test_read_files__manifests_without_val(manifests):
    _, report = report_on(manifests[0])
    assert "not tuned" in report["warnings"][-1] and report["honest"]["averaged"]["photos"] == 4


def test_write_analysis__manifests_know_their_photos(manifests, tmp_path):
    evaluated, report = report_on(manifests[0], val=manifests[1])
    write_analysis(evaluated, report=report, out=tmp_path / "out", read=photo_reader(manifests[0], photos=None))
    assert (tmp_path / "out/plots/confusions.png").exists()
    assert json.loads((tmp_path / "out/report.json").read_text())["error_kinds"]["wrong SKU"] == 1


def test_read_files__a_manifest_that_is_not_there(tmp_path):
    files = Files(results=str(tmp_path / "none.parquet"), annotations=str(tmp_path / "none.parquet"))
    with pytest.raises(ValueError, match="expected a manifest, got .*which does not exist"):
        read_files(files, val=None)
