import json

import numpy as np
import pytest
from scipy.special import expit, logit

from tasks.confidence import (
    ListConfidence,
    acceptance_at,
    acceptance_report,
    calibrated,
    confidences,
    fit_confidence,
    fit_temperature,
    largest_acceptance,
    lists_right,
    signs_of,
)
from tasks.evaluation_set import EvaluationSet, Objects


def _objects(photos, scores):
    count = len(photos)
    # Boxes side by side: the i-th of a photo lies on the i-th product of it.
    places = [photos[:index].count(photo) for index, photo in enumerate(photos)]
    boxes = np.array([(100 * place, 0, 50, 50) for place in places], np.float64).reshape(-1, 4)
    return Objects(
        photo_M=np.array(photos, np.int64),
        class_M=np.zeros(count, np.int64),
        score_M=np.array(scores, np.float64),
        xywh_M4=boxes,
    )


def _set(true, found, scores):
    photos = max([*true, *found]) + 1
    return EvaluationSet(
        photo_ids=tuple(map(str, range(photos))),
        levels=("easy",) * photos,
        category_ids=(1,),
        skus=("a",),
        truth=_objects(true, [1.0] * len(true)),
        found=_objects(found, scores),
    )


def _photos(generator, count):
    """Two products a photo, one detection of each: clear ones, and in every third photo one that may be wrong."""
    true, found, scores, counts = [], [], [], []
    for photo in range(count):
        doubtful = photo % 3 == 0
        real = generator.random() < 0.5 if doubtful else True
        true += [photo] * (1 + real)
        found += [photo] * 2
        scores += [0.95, 0.55 if doubtful else 0.97]
        counts.append(1 + real + generator.normal(0, 0.3))
    return _set(true, found, scores), counts


def test_fit_temperature__finds_the_one_that_made_the_scores():
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 2, 20000)
    right = generator.random(20000) < expit(truth)
    assert fit_temperature(expit(truth * 2.5), right_M=right) == pytest.approx(2.5, rel=0.05)
    assert fit_temperature([], right_M=[]) == 1.0


def test_calibrated__by_hand():
    assert calibrated([0.2, 0.8], temperature=1.0) == pytest.approx([0.2, 0.8])
    assert calibrated([0.8], temperature=3.0) == pytest.approx(expit(logit(0.8) / 3))


def test_signs_of__by_hand():
    certainty, closest, agreement = signs_of([0.9, 0.5, 0.2], count=2.5, threshold=0.4, temperature=1.0)
    margins = [abs(logit(score) - logit(0.4)) for score in (0.9, 0.5, 0.2)]
    assert certainty == pytest.approx(np.log(expit(margins)).sum())
    assert closest == pytest.approx(min(margins))
    assert agreement == pytest.approx(-0.5)


def test_signs_of__a_photo_without_detections_is_told_by_the_count():
    assert signs_of([], count=0.0, threshold=0.5, temperature=1.0)[2] == 0.0
    assert signs_of([], count=1.5, threshold=0.5, temperature=1.0)[2] == -1.5


def test_signs_of__beyond_two_items_too_many_or_few_a_sign_says_no_more():
    assert signs_of([], count=7.0, threshold=0.5, temperature=1.0).tolist() == [0.0, 4.0, -2.0]
    assert signs_of([1 - 1e-9] * 7, count=1.0, threshold=0.5, temperature=1.0)[1:].tolist() == [4.0, -2.0]


def test_fit_confidence__separates_sure_lists_from_doubtful_ones_on_new_photos():
    val, val_counts = _photos(np.random.default_rng(0), 120)
    test, test_counts = _photos(np.random.default_rng(1), 300)
    model = fit_confidence(val, counts_N=val_counts, threshold=0.5)
    right = lists_right(test, threshold=0.5)
    sure = confidences(model, evaluated=test, counts_N=test_counts, threshold=0.5)
    pairs = sure[right][:, None] - sure[~right][None]
    assert (pairs > 0).mean() > 0.9, "area under the ROC curve"
    assert sure.mean() == pytest.approx(right.mean(), abs=0.08), "a probability"
    accepted = acceptance_at(sure, right_N=right, cut=model.acceptable)
    assert accepted.accuracy >= 0.97 and accepted.share > 0.5


@pytest.mark.parametrize(("true", "right"), [([0, 0, 1, 1], True), ([0, 1], False)])
def test_fit_confidence__stays_finite_where_all_lists_are_right_or_all_wrong(true, right):
    val = _set(true, [0, 0, 1, 1], [0.9, 0.8, 0.9, 0.7])
    model = fit_confidence(val, counts_N=[2.0, 2.0], threshold=0.5)
    confidence = model.of([0.9, 0.8], count=2.0, threshold=0.5)
    assert (confidence > 0.5) is right and 0 < confidence < 1
    assert (model.acceptable <= 1) is right


def test_list_confidence__survives_json():
    val, counts = _photos(np.random.default_rng(0), 30)
    model = fit_confidence(val, counts_N=counts, threshold=0.5)
    assert ListConfidence.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_largest_acceptance__agrees_with_trying_every_cut():
    generator = np.random.default_rng(3)
    confidence = generator.random(200).round(2)
    right = generator.random(200) < confidence**0.1
    found = largest_acceptance(confidence, right_N=right, accuracy=0.95)
    tried = [cut for cut in np.linspace(0, 1, 101).round(2) if (confidence >= cut).any()]
    sound = [cut for cut in tried if right[confidence >= cut].mean() >= 0.95]
    assert found.share == max((confidence >= cut).mean() for cut in sound)
    assert found.accuracy >= 0.95


def test_acceptance_report__the_best_cut_is_at_least_as_good_as_the_frozen_one():
    val, val_counts = _photos(np.random.default_rng(0), 60)
    test, test_counts = _photos(np.random.default_rng(1), 150)
    model = fit_confidence(val, counts_N=val_counts, threshold=0.5)
    report = acceptance_report(model, evaluated=test, counts_N=test_counts, threshold=0.5)
    assert report["tuned"]["accuracy"] >= 0.99
    if report["frozen"]["accuracy"] >= 0.99:
        assert report["tuned"]["share"] >= report["frozen"]["share"]
    assert report["right"] == lists_right(test, threshold=0.5).mean()
