from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.manifest import ManifestObject
from tasks.params import SelectParams
from tasks.selection import (
    Counts,
    Judged,
    as_ignored,
    consensus,
    judge,
    objection,
    put_right,
    sku_histogram,
    stray_region,
)

PARAMS = SelectParams(confident_score=0.8, doubtful_score=0.3, nms=0.5, tolerance=0.5, precision=0)


def item(score, *, sku=1, x=0.0, shift=0.0):
    return ManifestObject(category=sku, sku=f"sku-{sku}", box=(x + shift, 0, x + shift + 100, 100), score=score)


def scores(objects):
    return [one.score for one in objects]


def test_judge__trusted_doubtful_and_neither():
    judged = judge([item(0.9), item(0.5, x=200), item(0.1, x=400)], params=PARAMS)
    assert scores(judged.trusted) == [0.9]
    assert [(one.score, one.reason) for one in judged.doubtful] == [(0.5, "score 0.50 below 0.8")]


def test_judge__the_bounds_belong_to_the_better_side():
    judged = judge([item(0.8), item(0.3, x=200)], params=PARAMS)
    assert (scores(judged.trusted), scores(judged.doubtful)) == ([0.8], [0.3])


def test_judge__a_second_detection_of_the_same_product_says_nothing():
    judged = judge([item(0.9), item(0.6, shift=5)], params=PARAMS)
    assert (scores(judged.trusted), judged.doubtful) == ([0.9], ())


def test_consensus__the_nearest_box_of_a_view_takes_part():
    far, near = item(0.7, sku=2, shift=-30), item(0.5, shift=10)
    for other in ([far, near], [near, far]):
        first, second = consensus([[item(0.9)], other], params=PARAMS)
        assert (first.category, first.score) == (1, pytest.approx(0.7))
        assert (second.category, second.score) == (2, pytest.approx(0.35))


def test_judge__two_skus_claim_the_place():
    views = [[item(0.9)], [item(0.85, sku=2, shift=5)]]
    judged = judge(views[0], params=PARAMS, other_views=views[1:])
    assert judged.trusted == ()
    assert [(one.sku, one.reason) for one in judged.doubtful] == [("sku-1", "also looks like sku-2")]


@pytest.mark.parametrize(("score", "trusted"), [(0.44, [1]), (0.45, [])])
def test_judge__a_rival_in_every_view_counts_as_well(score, trusted):
    view = [item(0.9), item(score, sku=2, shift=5)]
    judged = judge(view, params=PARAMS, other_views=[view, view])
    assert [one.category for one in judged.trusted] == trusted
    assert [one.reason for one in judged.doubtful] == ["also looks like sku-2"] * (1 - len(trusted))


@pytest.mark.parametrize(("score", "trusted"), [(0.89, [1]), (0.91, [])])
def test_judge__a_rival_of_less_than_half_the_votes_says_nothing(score, trusted):
    params = PARAMS.model_copy(update={"confident_score": 0.5})
    views = [[item(0.9)], [item(0.9)], [item(score, sku=2, shift=5)]]
    judged = judge(views[0], params=params, other_views=views[1:])
    assert [one.category for one in judged.trusted] == trusted


def test_judge__neighbours_that_overlap_a_little_are_two_products():
    assert len(judge([item(0.9), item(0.9, sku=2, shift=60)], params=PARAMS).trusted) == 2


@pytest.mark.parametrize(("agreement", "trusted"), [(0.0, [0, 200]), (0.5, [0, 200]), (0.6, [0]), (1.0, [0])])
def test_judge__enough_views_must_show_it(agreement, trusted):
    params = PARAMS.model_copy(update={"agreement": agreement, "confident_score": 0.4})
    judged = judge([item(0.9), item(0.9, x=200)], params=params, other_views=[[item(0.9)]])
    assert [one.box[0] for one in judged.trusted] == trusted
    assert [one.reason for one in judged.doubtful] == ["found in 1 of 2 views"] * (2 - len(trusted))


def test_judge__the_others_put_a_view_right():
    params = PARAMS.model_copy(update={"confident_score": 0.5})
    others = [[item(0.9), item(0.8, x=300)]] * 3
    judged = judge([item(0.95, sku=2), item(0.6, sku=2, x=600)], params=params, other_views=others)
    assert [(one.sku, round(one.box[0]), one.score) for one in judged.trusted] == [
        ("sku-1", 0, pytest.approx(0.675)),
        ("sku-1", 300, pytest.approx(0.6)),
    ]
    assert [(one.box[0], one.reason) for one in judged.doubtful] == [(600, "found in 1 of 4 views")]


def test_judge__the_box_is_the_mean_by_score():
    judged = judge([item(0.9)], params=PARAMS, other_views=[[item(0.8, shift=17)]])
    (one,) = judged.trusted
    assert one.box == pytest.approx((8, 0, 108, 100)) and one.score == pytest.approx(0.85)


@pytest.mark.parametrize(("score", "doubtful"), [(0.85, 1), (0.75, 0)])
def test_judge__what_a_single_view_trusts_is_doubtful(score, doubtful):
    others = [[item(0.9)]] * 2 + [[item(0.9), item(score, x=300)]]
    judged = judge([item(0.9)], params=PARAMS, other_views=others)
    assert [one.box[0] for one in judged.trusted] == [0]
    assert [(one.box[0], one.reason) for one in judged.doubtful] == [(300, "found in 1 of 4 views")] * doubtful


views_of_a_photo = st.lists(
    st.lists(
        st.builds(
            item, st.floats(0.05, 1), sku=st.integers(1, 3), x=st.sampled_from([0, 90, 300]), shift=st.floats(0, 60)
        ),
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@given(views=views_of_a_photo)
def test_consensus__each_view_has_one_vote_a_place(views):
    params = PARAMS.model_copy(update={"confident_score": 0.0, "doubtful_score": 0.0, "agreement": 0.0})
    items = consensus(views, params=params)
    assert sum(one.score for one in items) * len(views) <= sum(one.score for view in views for one in view) + 1e-9
    assert all(0 <= one.score <= 1 for one in items)
    assert {one.category for one in items} <= {one.category for view in views for one in view}


@given(views=views_of_a_photo, data=st.data())
def test_consensus__order_of_views_and_detections_does_not_matter(views, data):
    shuffled = [data.draw(st.permutations(view)) for view in data.draw(st.permutations(views))]
    assert consensus(shuffled, params=PARAMS) == consensus(views, params=PARAMS)


def test_consensus__of_one_view_are_its_detections():
    seen = [item(0.9), item(0.85, sku=2, x=200)]
    assert consensus([seen], params=PARAMS) == seen


def test_judge__order_of_detections_does_not_matter():
    seen = [item(0.9), item(0.9, sku=2, shift=3), item(0.5, x=200), item(0.95, x=400)]
    assert judge(seen, params=PARAMS) == judge(seen[::-1], params=PARAMS)


def test_judge__nothing_seen():
    assert judge([], params=PARAMS, other_views=[[]]) == Judged(trusted=(), doubtful=())


@pytest.mark.parametrize(
    ("trusted", "doubtful", "strays", "count", "reason"),
    [
        (2, 0, 0, 2.4, ""),
        (2, 0, 0, 2.6, "2 trusted, counting view says 2.60"),
        (2, 0, 1, 2.0, "1 unexplained on the board"),
        (2, 1, 0, 2.0, "1 doubtful: score 0.50 below 0.8"),
        (0, 1, 0, 1.0, "nothing trusted"),
    ],
)
def test_objection__first_thing_that_speaks_against_the_photo(trusted, doubtful, strays, count, reason):
    seen = [item(0.9, x=200 * place) for place in range(trusted)]
    seen += [item(0.5, x=200 * place, sku=2) for place in range(5, 5 + doubtful)]
    assert objection(judge(seen, params=PARAMS), counts=Counts(total=count), strays=strays, params=PARAMS) == reason


@pytest.mark.parametrize(
    ("views_that_see_it", "reason"),
    [(1, ""), (2, "1 doubtful: found in 2 of 5 views"), (3, "1 doubtful: score 0.51 below 0.8")],
)
def test_objection__only_what_some_views_together_see_is_one(views_that_see_it, reason):
    views = [[item(0.9)] + [item(0.85, x=300)] * (view < views_that_see_it) for view in range(5)]
    judged = judge(views[0], params=PARAMS, other_views=views[1:])
    assert len(judged.doubtful) == 1
    assert objection(judged, counts=Counts(total=1.0), strays=0, params=PARAMS) == reason


@pytest.mark.parametrize(
    ("trusted", "count", "agrees"), [(1, 1.45, True), (1, 1.55, False), (9, 9.85, True), (9, 8.05, False)]
)
def test_counts_agrees__larger_piles_are_counted_less_exactly(trusted, count, agrees):
    counts = Counts(total=count, error=0.15)
    params = PARAMS.model_copy(update={"count_errors": 2.0})
    assert counts.agrees(count, found=trusted, params=params) == agrees
    judged = judge([item(0.9, x=200 * place) for place in range(trusted)], params=params)
    assert bool(objection(judged, counts=counts, strays=0, params=params)) != agrees


@pytest.mark.parametrize(
    ("plain", "mistakes"),
    [
        ([item(0.9), item(0.9, x=300)], 0),
        ([item(0.9)], 1),
        ([item(0.9), item(0.7, x=300)], 1),
        ([item(0.9, sku=2), item(0.9, x=300)], 2),
        ([item(0.9, shift=60), item(0.9, x=300)], 2),
        ([item(0.9), item(0.9, x=300), item(0.9, sku=3, x=600)], 0),
        ([item(0.9), item(0.9, x=300), item(0.9, x=900)], 1),
        ([item(0.9), item(0.9, x=300), item(0.9, x=1200)], 1),
        ([], 2),
    ],
)
def test_put_right__missed_ghosts_and_other_skus(plain, mistakes):
    doubtful = (replace(item(0.4, x=600), reason="score"), replace(item(0.1, x=900), reason="found in 1 of 5 views"))
    judged = Judged(trusted=(item(0.8), item(0.8, x=300)), doubtful=doubtful)
    assert put_right(judged, plain=plain, params=PARAMS) == mistakes


def test_sku_histogram__ignored_places_do_not_count():
    objects = [item(0.9), item(0.9), item(0.9, sku=2), as_ignored(item(0.5)), stray_region((0, 0, 5, 5))]
    assert sku_histogram(objects) == {"sku-1": 2, "sku-2": 1}


def test_objection__right_totals_with_wrong_channels():
    judged = judge([item(0.9), item(0.9, x=200)], params=PARAMS)
    channels = {"by_channel": (1.0, 1.1), "channel_of": {1: 0, 2: 1}}
    said = objection(judged, counts=Counts(total=2.1, **channels), strays=0, params=PARAMS)
    assert said == "2 trusted, counting view says 1.00 in channel 0 (sku-1)"
    mixed = judge([item(0.9), item(0.9, sku=2, x=200)], params=PARAMS)
    assert objection(mixed, counts=Counts(total=2.1, **channels), strays=0, params=PARAMS) == ""


def test_objection__few_items_are_expected_to_be_right():
    params = PARAMS.model_copy(update={"precision": 0.9})
    judged = judge([item(0.95), item(0.83, x=200)], params=params)
    assert judged.precision == pytest.approx(0.89)
    said = objection(judged, counts=Counts(total=2), strays=0, params=params)
    assert said == "expected precision 0.89 below 0.9"


@pytest.mark.parametrize(
    ("rule", "count", "reason"),
    [("paper", 2.4, ""), ("paper", 2.6, "2 trusted, counting view says 2.60"), ("all", 9.0, "")],
)
def test_objection__rules_to_compare_with(rule, count, reason):
    params = PARAMS.model_copy(update={"rule": rule, "precision": 1.0})
    seen = [item(0.9), item(0.85, sku=2, shift=5), item(0.9, x=200), item(0.5, x=400)]
    judged = judge(seen, params=params, other_views=[[]])
    assert scores(judged.trusted) == [0.9, 0.9] and judged.doubtful == ()
    assert objection(judged, counts=Counts(total=count), strays=3, params=params) == reason
