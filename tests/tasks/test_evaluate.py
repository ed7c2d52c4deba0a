import io
import json
import math

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.manifest import ManifestRow
from storage.store import Store
from tasks.evaluate import (
    counting_error,
    encode_report,
    evaluate,
    evaluate_sets,
    from_results,
    honest_metrics,
    markdown_table,
    rpctool_table,
)
from tasks.params import EvaluateParams
from tasks.stage import run_stage_locally
from tests.tasks.evaluation_cases import evaluation_set, labelled, predictions_for

pytestmark = pytest.mark.long


def coco(truth, *, levels):
    images = [{"id": index, "file_name": f"{index}.jpg", "level": level} for index, level in enumerate(levels)]
    annotations = [
        {"id": place, "image_id": photo, "category_id": category, "bbox": [10, 10, 20, 20]}
        for place, (photo, category) in enumerate(truth)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def results(rows):
    return [{"image_id": n, "category_id": k, "score": s, "bbox": [10, 10, 20, 20]} for n, k, s in rows]


ANNOTATIONS = coco([(0, 1), (1, 1), (1, 2)], levels=["easy", "hard"])
RESULTS = results([(0, 1, 0.995), (1, 1, 0.995)])


def evaluate_results(results, annotations, *, val=None, **options):
    return evaluate_sets(from_results(results, annotations, val=val), rng=np.random.default_rng(0), **options)


def test_honest_metrics__a_photo_without_detections_counts():
    evaluated = evaluation_set([(0, 0), (1, 0)], [(0, 0, 0.995)], photos=2, classes=1)
    assert honest_metrics(evaluated, threshold=0.5)["cAcc"] == 0.5


def test_evaluate_results__both_protocols_by_level():
    report = evaluate_results(RESULTS, ANNOTATIONS, threshold=0.5, resamplings=10)
    assert report["threshold"] == 0.5
    assert list(report["honest"]) == ["easy", "hard", "averaged"]
    assert report["honest"]["averaged"]["cAcc"] == 0.5
    assert report["honest"]["hard"]["mCCD"] == 0.5
    assert report["absent_classes"]["easy"] == {"b": 0}
    assert report["compat"]["note"] == "tuned on test"
    assert math.isnan(report["compat"]["easy"]["mCCD"])


@pytest.mark.parametrize(("protocol", "absent"), [("honest", "compat"), ("compat", "honest")])
def test_evaluate_results__one_protocol_only(protocol, absent):
    report = evaluate_results(RESULTS, ANNOTATIONS, protocol=protocol, threshold=0.5, resamplings=10)
    assert protocol in report
    assert absent not in report


def test_evaluate_results__threshold_from_val():
    val = (results([(0, 1, 0.4), (0, 2, 0.2)]), coco([(0, 1)], levels=["easy"]))
    report = evaluate_results(RESULTS, ANNOTATIONS, val=val, resamplings=10)
    assert 0.2 < report["threshold"] < 0.4
    assert report["val"]["averaged"]["cAcc"] == 1.0


def test_evaluate_results__untuned_threshold_is_said():
    assert "not tuned" in evaluate_results(RESULTS, ANNOTATIONS, resamplings=10)["warnings"][-1]


def test_evaluate_results__threshold_and_val_exclude_each_other():
    with pytest.raises(ValueError, match="got both"):
        evaluate_results(RESULTS, ANNOTATIONS, threshold=0.5, val=(RESULTS, ANNOTATIONS))


# (photo, class, score): the score's place in a list without ties, because COCO's mAP lets the order decide ties.
DETECTIONS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 2), st.integers(0, 1000)), max_size=20, unique_by=lambda one: one[2]
)
PRODUCTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 2)), max_size=12)
LEVELS = ["easy", "medium", "hard"] * 2


def placed(rows):
    """Results whose boxes differ in place and size, so that matching has something to decide."""
    return [
        {"image_id": n, "category_id": k, "score": s / 1000, "bbox": [10 + s % 7, 10, 20 + s % 5, 20]}
        for n, k, s in rows
    ]


@settings(max_examples=20, deadline=None)
@given(PRODUCTS, DETECTIONS, st.randoms(use_true_random=False))
def test_evaluate_results__order_of_photos_products_and_detections_does_not_matter(products, detections, random):
    annotations, found = coco(products, levels=LEVELS), placed(detections)
    mixed = {name: random.sample(values, len(values)) for name, values in annotations.items()}
    first = evaluate_results(found, annotations, threshold=0.5, resamplings=5)
    second = evaluate_results(random.sample(found, len(found)), mixed, threshold=0.5, resamplings=5)
    assert encode_report(first) == encode_report(second)


@settings(max_examples=20, deadline=None)
@given(PRODUCTS, DETECTIONS, st.lists(st.integers(1, 2), max_size=4))
def test_evaluate_results__a_perfect_photo_never_lowers_cacc(products, detections, more):
    found = placed(detections)
    before = evaluate_results(found, coco(products, levels=LEVELS), threshold=0.5, resamplings=1)
    perfect = results([(6, category, 0.9) for category in more])
    annotations = coco([*products, *((6, category) for category in more)], levels=[*LEVELS, "hard"])
    after = evaluate_results([*found, *perfect], annotations, threshold=0.5, resamplings=1)
    for level in ("hard", "averaged"):
        assert after["honest"][level]["cAcc"] >= before["honest"][level]["cAcc"]
        assert after["honest"][level]["ACD"] <= before["honest"][level]["ACD"]


def test_evaluate_results__val_of_another_catalog():
    val = (RESULTS, {**ANNOTATIONS, "categories": [{"id": 1}, {"id": 3}], "annotations": []})
    with pytest.raises(ValueError, match="val: expected the category ids of the test annotations"):
        evaluate_results([], ANNOTATIONS, val=([], val[1]))


def test_evaluate_results__a_threshold_that_is_none():
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\], got 50"):
        evaluate_results(RESULTS, ANNOTATIONS, threshold=50)


def test_markdown_table__intervals_and_left_out_classes_stand_beside_the_honest_figures():
    annotations = {**ANNOTATIONS, "categories": [*ANNOTATIONS["categories"], {"id": 3, "name": "c"}]}
    found = [*RESULTS, *results([(0, 3, 0.9)])]
    honest, compat = markdown_table(evaluate_results(found, annotations, threshold=0.5)).split("\n\ncompat: ")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in honest.splitlines()]
    assert ["easy", "1", "0.0% to 0.0%", "1.0 to 1.0", "0.0 to 0.0", "100.0% to 100.0%"] in cells
    assert "left out of mCCD and mCIoU: easy: b, c (found 1×); hard: c; averaged: c (found 1×)" in honest
    assert "(2 photos)" in compat.splitlines()[-1]


def test_rpctool_table__its_roundings_and_alignment():
    figures = {
        "averaged": {"cAcc": 0.477777, "mCIoU": 0.4, "ACD": 1.0888, "mCCD": math.inf, "mAP50": 0.9, "mmAP": None}
    }
    assert rpctool_table(figures, method="mine") == (
        "|    level | method |   cAcc | mCIoU |  ACD | mCCD | mAP50 | mmAP |\n"
        "|     ---: |   ---: |   ---: |  ---: | ---: | ---: |  ---: | ---: |\n"
        "| averaged |   mine | 47.78% | 40.0% | 1.09 |  inf | 90.0% | nan% |"
    )


def test_markdown_table__says_protocol_and_target_beside_the_figures():
    report = evaluate_results(RESULTS, ANNOTATIONS, threshold=0.5, target_protocol="transductive", resamplings=10)
    honest, compat = markdown_table(report).split("\n\ncompat: ")
    assert "one threshold (0.5000)" in honest
    assert "tuned on test" in compat
    assert honest.count("transductive") == compat.count("transductive") == 1


def test_encode_report__figures_that_do_not_exist_are_null():
    assert json.loads(encode_report({"a": [math.nan, 1.5], "b": {"c": math.inf}})) == {
        "a": [None, 1.5],
        "b": {"c": None},
    }


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def run(store, *, wrong=1):
    val, test = labelled(store, "val"), labelled(store, "test")
    return run_stage_locally(
        evaluate,
        EvaluateParams(resamplings=20, target_protocol="transductive"),
        store=store,
        val=val,
        val_predictions=predictions_for(store, val, wrong=0),
        test=test,
        test_predictions=predictions_for(store, test, wrong=wrong),
    )


def test_evaluate__report_tables_plots(store):
    made = run(store)
    report = orjson.loads(store.read(made.row("report")))
    assert report["target_protocol"] == "transductive"
    assert report["honest"]["averaged"]["cAcc"] == 0.75
    assert report["honest"]["averaged"]["photos"] == 4
    assert report["val"]["averaged"]["cAcc"] == 1.0
    assert report["error_kinds"]["wrong SKU"] == 1
    assert report["counting_view"] == {"mean_absolute_error": 1.5, "right": 0.25}
    confused = pq.read_table(io.BytesIO(store.read(made.row("table/confusions")))).to_pylist()
    assert confused == [{"true_sku": "sku-1", "found_sku": "sku-2", "times": 1}]
    assert {"plot/threshold_curve", "plot/reliability", "picture/confusions", "table/skus"} <= set(made.by_id)


def test_evaluate__both_views_decide_unless_told_otherwise(store):
    val, test = labelled(store, "val"), labelled(store, "test")
    given = {
        "val": val,
        "val_predictions": predictions_for(store, val, wrong=0),
        "test": test,
        "test_predictions": predictions_for(store, test, wrong=0),
    }
    reports = {}
    for decision in ("both views", "detection view"):
        made = run_stage_locally(evaluate, EvaluateParams(resamplings=5, decision=decision), store=store, **given)
        reports[decision] = orjson.loads(store.read(made.row("report")))
    assert reports["both views"]["count_scale"] == pytest.approx(8 / 14)
    assert reports["detection view"]["count_scale"] is None
    assert reports["both views"]["threshold"] != reports["detection view"]["threshold"]
    alone = reports["both views"]["detection_view"]
    assert alone["threshold"] == reports["detection view"]["threshold"]
    assert alone["cAcc"] == reports["detection view"]["honest"]["averaged"]["cAcc"]


def test_evaluate__same_inputs_same_bytes(store, tmp_path):
    assert run(store).content_digest == run(Store.open(str(tmp_path / "again"))).content_digest


def test_evaluate__a_model_that_finds_nothing(store):
    val, test = labelled(store, "val"), labelled(store, "test")

    def nothing(photos):
        publication = store.begin("predict", key=f"none-{photos.key}")
        for row in photos.ok:
            publication.add(ManifestRow(item_id=row.item_id))
        return publication.commit(metadata={}, content={})

    made = run_stage_locally(
        evaluate,
        EvaluateParams(resamplings=5),
        store=store,
        val=val,
        val_predictions=nothing(val),
        test=test,
        test_predictions=nothing(test),
    )
    report = orjson.loads(store.read(made.row("report")))
    assert report["honest"]["averaged"]["cAcc"] == 0.0
    assert report["warnings"][:2] == ["no detection on val", "no detection on test"]


def test_counting_error__without_a_counting_view(store):
    test = labelled(store, "test", photos=1)
    publication = store.begin("predict", key="blind")
    publication.add(ManifestRow(item_id="test/0"))
    assert counting_error(test.ok, predictions=publication.commit(metadata={}, content={})) == {}
