import orjson
import pytest

from storage.manifest import ManifestRow
from storage.store import Store
from tasks.choose import choose, compared
from tasks.params import ChooseParams
from tasks.stage import run_stage_locally


def report(cAcc, ACD=1.0):
    return {"val": {"averaged": {"cAcc": cAcc, "ACD": ACD, "mAP50": 0.5}}}


def manifests(store, figures):
    rendered, reports = [], []
    for index, figure in enumerate(figures):
        photos = store.begin("render", key=f"r{index}")
        photos.put(b"photo %d" % index, path="a.jpg", row=ManifestRow(item_id="rendered/a", media_type="image/jpeg"))
        photos.add(ManifestRow(item_id="rendered/b", status="rejected", reason="1 of 2 items drifted"))
        rendered.append(photos.commit(metadata={}))
        evaluation = store.begin("evaluate", key=f"e{index}")
        evaluation.put(orjson.dumps(figure), path="report.json", row=ManifestRow(item_id="report"))
        reports.append(evaluation.commit(metadata={}))
    return rendered, reports


def test_choose__takes_the_photos_of_the_best_on_val_and_keeps_the_table(tmp_path):
    store = Store.open(str(tmp_path))
    rendered, reports = manifests(store, [report(0.4), report(0.6), report(0.5)])
    params = ChooseParams(renderers=("none", "colour", "fastcut"))
    made = run_stage_locally(choose, params, store=store, rendered=rendered, reports=reports)
    assert [row.item_id for row in made.ok] == ["rendered/a"] and store.read(made.row("rendered/a")) == b"photo 1"
    assert made.row("rendered/b").reason == "1 of 2 items drifted"
    said = made.row("renderers").attributes
    assert said["chosen"] == "colour"
    assert [(line["renderer"], line["cAcc"], line["rejected"], line["chosen"]) for line in said["table"]] == [
        ("none", 0.4, 1, False),
        ("colour", 0.6, 1, True),
        ("fastcut", 0.5, 1, False),
    ]


@pytest.mark.parametrize(
    ("figures", "chosen"), [([(0.5, 2.0), (0.5, 1.0)], "colour"), ([(0.5, 1.0), (0.5, 1.0)], "none")]
)
def test_compared__of_equals_the_lowest_count_error_then_the_first(tmp_path, figures, chosen):
    reports = [report(*figure) for figure in figures]
    rendered, _ = manifests(Store.open(str(tmp_path)), reports)
    table = compared(("none", "colour"), rendered=rendered, reports=[[one] for one in reports])
    assert [line["renderer"] for line in table if line["chosen"]] == [chosen]


def test_choose__several_detectors_of_a_renderer_count_together(tmp_path):
    store = Store.open(str(tmp_path))
    # By the first detector of each none is better, by both colour is.
    _, reports = manifests(store, [report(0.5), report(0.1), report(0.4), report(0.4)])
    params = ChooseParams(renderers=("none", "colour"))
    made = run_stage_locally(choose, params, store=store, rendered=reports[:2], reports=reports)
    said = made.row("renderers").attributes
    assert said["chosen"] == "colour" and [line["cAcc"] for line in said["table"]] == pytest.approx([0.3, 0.4])
