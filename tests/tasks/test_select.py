from dataclasses import replace

import numpy as np
import pytest

from storage.catalog import Category, category_records
from storage.digest import canonical_json
from storage.images import decode_rgb, encode_jpeg, encode_png
from storage.manifest import ManifestObject, ManifestRow
from storage.reviews import Decision, append_decisions, reviews_for
from storage.store import Store
from tasks.params import SelectParams
from tasks.select import calibration_on, predicted, select, unlabelled
from tasks.stage import run_stage_locally

pytestmark = pytest.mark.long

PARAMS = SelectParams(confident_score=0.8, doubtful_score=0.3, precision=0)
BOXES = {"left": (20, 20, 80, 80), "right": (130, 30, 200, 90), "low": (60, 140, 140, 200)}


def board():
    return np.full((240, 240, 3), (150, 155, 160), np.uint8)


def photo_with(*places):
    photo = board()
    for place in places:
        x0, y0, x1, y1 = BOXES[place]
        photo[y0:y1, x0:x1] = (190, 50, 40)
    return photo


def seen(place, score, sku=1):
    return ManifestObject(category=sku, sku=f"sku-{sku}", box=BOXES[place], score=score)


EVERYTHING = photo_with("left", "right", "low")
# photo, detections, what the counting view says
PHOTOS = {
    "whole": (EVERYTHING, [seen("left", 0.9), seen("right", 0.95, 2), seen("low", 0.85)], 3.1),
    "part": (EVERYTHING, [seen("left", 0.9), seen("right", 0.95), seen("low", 0.5)], 3.1),
    "stray": (EVERYTHING, [seen("left", 0.9), seen("right", 0.95)], 2.1),
    "miscounted": (EVERYTHING, [seen("left", 0.9), seen("right", 0.95), seen("low", 0.85)], 4.0),
    "unsure": (EVERYTHING, [seen("left", 0.4)], 3.0),
    "empty": (board(), [], 0.0),
}


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def committed(store, stage, rows, *, key="0"):
    publication = store.begin(stage, key=key)
    for row, data in rows:
        if data is None:
            publication.add(row)
        else:
            publication.put(data, path=f"{row.item_id.split('/')[1]}.img", row=row)
    return publication.commit(metadata={}, content={})


def pool_of(store, *, key="0", **planted):
    rows = [
        (
            ManifestRow(item_id=f"pool/{name}", width=240, height=240, media_type="image/jpeg", **planted),
            encode_jpeg(one[0]),
        )
        for name, one in PHOTOS.items()
    ]
    broken = ManifestRow(item_id="pool/broken", status="quarantined", reason="truncated")
    return committed(store, "ingest", [*rows, (broken, None)], key=key)


def inputs(store, **planted):
    rows = [
        (ManifestRow(item_id=f"pool/{name}", objects=tuple(found), attributes={"count": count}), None)
        for name, (_, found, count) in PHOTOS.items()
    ]
    return {
        "pool": pool_of(store, **planted),
        "predictions": committed(store, "predict", rows),
        "boards": committed(store, "board", [(ManifestRow(item_id="board/00"), encode_png(board()))]),
    }


def outcome(made):
    photos = [row for row in made.rows if row.status != "artifact"]
    return {row.item_id.split("/")[1]: (row.attributes.get("mode"), row.reason) for row in photos}


def test_select__every_photo_says_why(store):
    made = run_stage_locally(select, PARAMS, store=store, **inputs(store))
    assert outcome(made) == {
        "whole": ("image", "both views agree"),
        "part": ("instance", "1 doubtful: score 0.50 below 0.8"),
        "stray": ("instance", "1 unexplained on the board"),
        "miscounted": ("instance", "3 trusted, counting view says 4.00"),
        "unsure": (None, "nothing trusted"),
        "empty": (None, "nothing trusted"),
    }
    assert {row.item_id for row in made.rows if row.status == "rejected"} == {"pseudo/unsure", "pseudo/empty"}


def test_select__image_level_takes_whole_photos_only(store):
    made = run_stage_locally(select, PARAMS.model_copy(update={"mode": "image"}), store=store, **inputs(store))
    assert [row.item_id for row in made.ok] == ["pseudo/whole"]
    assert made.row("pseudo/part").reason == "1 doubtful: score 0.50 below 0.8"


def test_select__a_whole_photo_refers_to_the_pool(store):
    given = inputs(store)
    row = run_stage_locally(select, PARAMS, store=store, **given).row("pseudo/whole")
    origin = given["pool"].row("pool/whole")
    assert (row.url, row.digest, row.bytes, row.parents) == (origin.url, origin.digest, origin.bytes, ("pool/whole",))
    assert [item.score for item in row.objects] == pytest.approx([0.95, 0.9, 0.85])
    assert np.array_equal(decode_rgb(store.read(row)), decode_rgb(store.read(origin)))


def test_select__a_doubtful_place_is_painted_over_and_ignored(store):
    made = run_stage_locally(select, PARAMS, store=store, **inputs(store))
    row = made.row("pseudo/part")
    assert sorted((item.status, item.box) for item in row.objects) == [
        ("ignore", BOXES["low"]),
        ("ok", BOXES["left"]),
        ("ok", BOXES["right"]),
    ]
    photo = decode_rgb(store.read(row)).astype(int)
    assert np.abs(photo[150:190, 70:130] - board()[0, 0]).max() < 12
    assert np.abs(photo[30:70, 30:70] - (190, 50, 40)).max() < 12


def test_select__something_unexplained_is_ignored_too(store):
    row = run_stage_locally(select, PARAMS, store=store, **inputs(store)).row("pseudo/stray")
    ignored = [item for item in row.objects if item.status == "ignore"]
    assert len(ignored) == 1
    assert ignored[0].box == pytest.approx(BOXES["low"], abs=4)


def test_select__a_rejected_photo_tells_what_was_proposed_and_teaches_nothing(store):
    row = run_stage_locally(select, PARAMS, store=store, **inputs(store)).row("pseudo/unsure")
    assert row.status == "rejected" and not row.path
    assert {item.status for item in row.objects} == {"ignore"} and all(item.reason for item in row.objects)


def reviewed(store, item_id, verdict, *, skus):
    judged = canonical_json(skus).decode()
    one = Decision(time="", reviewer="Ada", kind="pseudo", item_id=item_id, judged=judged, verdict=verdict)
    append_decisions(store, [one])
    return run_stage_locally(select, PARAMS, store=store, **inputs(store), reviews=reviews_for(store, stage="select"))


def test_select__a_list_that_a_person_marked_is_taken_or_not(store):
    reviewed(store, "pseudo/whole", "bad", skus={"sku-1": 2, "sku-2": 1})
    made = reviewed(store, "pseudo/part", "good", skus={"sku-1": 2})
    assert outcome(made)["whole"] == (None, "a person marked this list as bad")
    assert outcome(made)["part"] == ("image", "a person marked this list as good")
    assert {item.status for item in made.row("pseudo/part").objects} == {"ok"}


def test_select__a_decision_about_another_list_is_none(store):
    made = reviewed(store, "pseudo/whole", "bad", skus={"sku-1": 2})
    assert outcome(made)["whole"] == ("image", "both views agree")


def test_select__guard_rails_count_what_was_taken(store):
    figures = run_stage_locally(select, PARAMS, store=store, **inputs(store)).metadata["guard_rails"]
    assert figures.pop("estimated_precision") == pytest.approx(0.91)
    assert figures == {
        "photos": 6,
        "image": 1,
        "instance": 3,
        "rejected": 2,
        "items": 10,
        "ignored": 2,
        "skus": {"sku-1": 9, "sku-2": 1},
        "expected": {"sku-1": 9.05, "sku-2": 0.95},
        "flags": [],
        "disagreement": None,
    }


def test_select__tells_how_far_it_disagrees_with_the_round_before_and_decides_the_same(store):
    given = inputs(store)
    first = run_stage_locally(select, PARAMS, store=store, **given)
    second = run_stage_locally(select, PARAMS, store=store, **given, former=first)
    assert second.metadata["guard_rails"]["disagreement"] == 0
    assert second.content_digest == first.content_digest
    assert store.read(first.row("plot/guard_rails")).startswith(b"<?xml")


def test_select__labels_planted_in_the_pool_change_nothing(store):
    plain = run_stage_locally(select, PARAMS, store=store, **inputs(store))
    planted = inputs(
        store, key="planted", level="easy", sku="sku-1", split="test", quality=1.0, attributes={"truth": ["sku-1"]}
    )
    again = run_stage_locally(select, PARAMS, store=store, **planted)
    assert again.key != plain.key
    assert again.content_digest == plain.content_digest


def test_select__a_pool_with_objects_is_refused(store):
    given = inputs(store, key="labelled", objects=(seen("left", 1.0),))
    with pytest.raises(ValueError, match="expected a pool without labels, got 1 objects in pool/"):
        run_stage_locally(select, PARAMS, store=store, **given)


def test_select__another_view_must_agree(store):
    given = inputs(store)
    blind = [(ManifestRow(item_id=row.item_id), None) for row in given["predictions"].rows]
    other = committed(store, "predict", blind, key="flipped")
    made = run_stage_locally(select, PARAMS, store=store, **given, other_views=[other])
    assert made.ok == ()


def test_select__what_one_of_many_views_sees_is_none(store):
    given = inputs(store)
    ghost = ManifestObject(category=2, sku="sku-2", box=(180, 160, 230, 220), score=0.85)
    views = [
        [(replace(row, objects=(*row.objects, *more)), None) for row in given["predictions"].rows]
        for more in ([], [], [ghost])
    ]
    others = [committed(store, "predict", rows, key=f"view{number}") for number, rows in enumerate(views)]
    row = run_stage_locally(select, PARAMS, store=store, **given, other_views=others).row("pseudo/whole")
    assert (row.attributes["mode"], row.url) == ("image", given["pool"].row("pool/whole").url)
    assert [item.status for item in row.objects] == ["ok"] * 3
    assert not any(item.box == ghost.box for item in row.objects)


def test_select__a_photo_whose_other_views_know_better_weighs_more(store):
    given = inputs(store)
    params = PARAMS.model_copy(update={"emphasis": 6.0, "confident_score": 0.7, "agreement": 0.5})
    rows = given["predictions"].rows
    blind = [
        (
            replace(
                row, objects=tuple(one for one in row.objects if row.item_id != "pool/whole" or one.sku == "sku-1")
            ),
            None,
        )
        for row in rows
    ]
    others = [
        committed(store, "predict", [(replace(row, objects=row.objects), None) for row in rows], key=f"view{number}")
        for number in range(4)
    ]
    made = run_stage_locally(
        select,
        params,
        store=store,
        **{**given, "predictions": committed(store, "predict", blind, key="blind")},
        other_views=others,
    )
    # One of three items is unseen: 1 + 6 / 3. Where the views say the same there is nothing to tell.
    weights = {row.item_id: row.attributes.get("weight") for row in made.ok}
    assert weights.pop("pseudo/whole") == pytest.approx(3.0)
    assert weights and set(weights.values()) == {None}


def test_select__same_bytes_for_any_number_of_workers(store, tmp_path):
    given = inputs(store)
    made = [
        run_stage_locally(select, PARAMS, store=Store.open(str(tmp_path / str(workers))), workers=workers, **given)
        for workers in (1, 3)
    ]
    assert made[0].content_digest == made[1].content_digest


def labelled_val(store, *, right, count=None):
    """200 photos in which a product is found with score 0.9; in `right` of ten it is there."""
    publication = store.begin("ingest", key="val")
    predictions = store.begin("predict", key="val")
    for index in range(200):
        truth = (seen("left", None),) if index % 10 < right else ()
        publication.add(ManifestRow(item_id=f"val/{index}", objects=truth))
        counted = {} if count is None else {"count": count}
        predictions.add(ManifestRow(item_id=f"val/{index}", objects=(seen("left", 0.9),), attributes=counted))
    categories = category_records([Category(id=1, sku="sku-1"), Category(id=2, sku="sku-2")])
    val = publication.commit(metadata={}, content={"categories": categories})
    return {"val": val, "val_predictions": predictions.commit(metadata={}, content={})}


def test_select__scores_that_val_confirms_stay_trusted(store):
    honest = run_stage_locally(select, PARAMS, store=store, **inputs(store), **labelled_val(store, right=9))
    assert [row.item_id for row in honest.ok if row.attributes["mode"] == "image"] == ["pseudo/whole"]
    assert honest.metadata["guard_rails"]["estimated_precision"] == pytest.approx(0.91, abs=0.02)


def test_select__overconfident_scores_lose_trust(store):
    made = run_stage_locally(select, PARAMS, store=store, **inputs(store), **labelled_val(store, right=5))
    assert made.ok == ()
    assert made.row("pseudo/whole").reason == "nothing trusted"


def test_select__a_counting_view_that_counts_too_much_is_put_right(store):
    val = labelled_val(store, right=10, count=1.35)
    made = run_stage_locally(select, PARAMS, store=store, **inputs(store), **val)
    assert made.row("pseudo/miscounted").attributes["mode"] == "image"
    assert made.row("pseudo/miscounted").attributes["count"] == pytest.approx(4.0 / 1.35)


def test_calibration_on__error_of_counts_over_the_root_of_their_numbers(store):
    rows = {"a": (4, 4.2), "b": (9, 8.7), "c": (1, 1.1)}
    val = [
        (ManifestRow(item_id=f"val/{name}", objects=(seen("left", None),) * number), None)
        for name, (number, _) in rows.items()
    ]
    found = [
        (ManifestRow(item_id=f"val/{name}", attributes={"count": count}), None) for name, (_, count) in rows.items()
    ]
    labelled = replace(
        committed(store, "ingest", val, key="val"),
        content={"categories": category_records([Category(id=1, sku="sku-1")])},
    )
    made = calibration_on(labelled, predictions=committed(store, "predict", found, key="val"), params=PARAMS)
    assert made.count_scale == pytest.approx(1.0)
    assert made.count_error == pytest.approx(0.1)


def test_calibration_on__one_half_is_not_enough(store):
    with pytest.raises(ValueError, match="val and val_predictions together"):
        calibration_on(labelled_val(store, right=5)["val"], predictions=None, params=PARAMS)


def test_select__without_a_board(store):
    given = {**inputs(store), "boards": committed(store, "board", [], key="none")}
    with pytest.raises(ValueError, match="at least one board"):
        run_stage_locally(select, PARAMS, store=store, **given)


def test_predicted__missing_prediction_or_count(store):
    photo = unlabelled(ManifestRow(item_id="pool/a"))
    blind = committed(store, "predict", [(ManifestRow(item_id="pool/a"), None)], key="blind")
    with pytest.raises(ValueError, match="counting view's count of pool/a"):
        predicted(photo, predictions=blind)
    with pytest.raises(ValueError, match="got none for pool/b"):
        predicted(replace(photo, item_id="pool/b"), predictions=blind)


def test_select__a_limit_draws_of_what_would_be_taken(store):
    given = inputs(store)
    everything = PARAMS.model_copy(update={"rule": "all", "mode": "image"})
    all_of_them = run_stage_locally(select, everything, store=store, **given)
    assert [row.item_id for row in all_of_them.ok] == [
        f"pseudo/{name}" for name in ("miscounted", "part", "stray", "whole")
    ]
    drawn = set()
    for seed in range(12):
        made = run_stage_locally(select, everything.model_copy(update={"most": 2, "seed": seed}), store=store, **given)
        assert len(made.ok) == 2 and len(made.rows) == len(all_of_them.rows)
        drawn |= {row.item_id for row in made.ok}
        reasons = {row.reason for row in made.rows if row.status == "rejected"} - {"nothing trusted"}
        assert reasons == {"not drawn: at most 2 photos are taken (taken without a choice)"}
    assert drawn == {row.item_id for row in all_of_them.ok}


def test_calibration_on__votes_of_several_views_are_worth_what_val_says(store):
    given = labelled_val(store, right=9)
    half = store.begin("predict", key="turned")
    for index in range(200):
        objects = (seen("left", 0.9),) if index % 10 < 8 else ()
        half.add(ManifestRow(item_id=f"val/{index}", objects=objects))
    views = [half.commit(metadata={}, content={})]
    params = PARAMS.model_copy(update={"confident_score": 0.2})
    found = calibration_on(given["val"], predictions=given["val_predictions"], other_views=views, params=params)
    # Where both views show it, it is there; where one does, in half of the photos.
    assert found.votes([0.9, 0.45]) == pytest.approx([1, 0.5], abs=0.03)


def test_select__other_views_of_val_are_those_of_the_pool(store):
    given = {**inputs(store), **labelled_val(store, right=9)}
    with pytest.raises(ValueError, match="expected the 0 of the pool, got 1"):
        run_stage_locally(select, PARAMS, store=store, **given, val_other_views=[given["val_predictions"]])
