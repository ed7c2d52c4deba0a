from dataclasses import replace

import numpy as np
import pytest

from storage.images import encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.store import Store
from tasks.compose import compose, compose_photo
from tasks.feedback import (
    PhotoLight,
    beside_its_like,
    common_shift,
    corrected_share,
    level_of,
    overlapping,
    photo_light,
    relit_boards,
    seen_levels,
    seen_places,
    seen_tones,
    size_factors,
)
from tasks.look import PLACES, PhotoLook
from tasks.params import LevelParams
from tasks.stage import run_stage_locally
from tests.tasks.composing_cases import (
    COLOURS,
    LEVELS,
    SIDE,
    board_picture,
    board_row,
    committed,
    inputs_of,
    kit_of,
    look,
    params_of,
)

RPC_LEVELS = {
    "easy": LevelParams(share=1, skus=(3, 5), items=(3, 10)),
    "medium": LevelParams(share=1, skus=(5, 8), items=(10, 15)),
    "hard": LevelParams(share=1, skus=(8, 10), items=(15, 20)),
}


def item(box, sku="red", **changes):
    return ManifestObject(category=1, sku=sku, box=tuple(map(float, box)), **changes)


def manifest(*photos, counts=None):
    rows = tuple(
        ManifestRow(
            item_id=f"pseudo/{number:03d}",
            width=SIDE,
            height=SIDE,
            objects=tuple(objects),
            attributes={} if counts is None else {"count": counts[number]},
        )
        for number, objects in enumerate(photos)
    )
    return Manifest(stage="select", key="", url="", content_digest="", rows=rows)


def boxes_drawn(number, *, factor=1.0, sku="red", seed=0):
    """Boxes around a 30 x 20 rectangle at all turns, times a factor."""
    turns = np.random.default_rng(seed).uniform(0, np.pi, number)
    wide = factor * (30 * np.abs(np.cos(turns)) + 20 * np.abs(np.sin(turns)))
    high = factor * (30 * np.abs(np.sin(turns)) + 20 * np.abs(np.cos(turns)))
    return [item((50, 50, 50 + w, 50 + h), sku) for w, h in zip(wide, high, strict=True)]


def test_size_factors__finds_how_much_larger_each_product_is_seen():
    seen = manifest(boxes_drawn(400, factor=1.2), boxes_drawn(400, factor=0.9, sku="blue"))
    composed = manifest(boxes_drawn(2000, seed=1), boxes_drawn(2000, sku="blue", seed=2))
    factors = size_factors(seen, composed=composed)
    assert factors == {"red": pytest.approx(1.2, rel=0.03), "blue": pytest.approx(0.9, rel=0.03)}


def test_size_factors__few_items_are_drawn_towards_all_products():
    seen = manifest(boxes_drawn(400, factor=1.2), boxes_drawn(5, sku="blue"))
    composed = manifest(boxes_drawn(2000), boxes_drawn(2000, sku="blue"), boxes_drawn(50, sku="green"))
    factors = size_factors(seen, composed=composed)
    assert 1.02 < factors["blue"] < factors["green"] < factors["red"]
    assert size_factors(manifest([]), composed=composed) == {}


def test_size_factors__ignored_places_have_no_size():
    seen = manifest([replace(one, status="ignore") for one in boxes_drawn(50, factor=3)])
    assert size_factors(seen, composed=manifest(boxes_drawn(50))) == {}


def test_common_shift__another_mixture_of_views_is_no_other_size():
    tops, sides = np.linspace(1.0, 1.1, 50), np.linspace(1.5, 1.6, 50)
    mostly_tops, mostly_sides = [*tops, *sides[:20]], [*tops[:20], *sides]
    assert abs(common_shift(mostly_sides, mostly_tops)) < 0.05
    assert common_shift([value + 0.2 for value in mostly_tops], mostly_tops) == pytest.approx(0.2)
    assert common_shift([value - 0.2 for value in mostly_tops], mostly_tops) == pytest.approx(-0.2)


def test_overlapping__and_beside_its_like():
    row = [item((0, 0, 20, 20)), item((21, 0, 41, 20)), item((100, 100, 120, 120))]
    pair = [item((0, 60, 40, 80), "blue"), item((30, 60, 70, 80), "blue")]
    assert overlapping([*row, *pair]) == (2, 5)
    # The third red one lies far off; the blue ones' middles are 30 apart, more than 1.3 times their short side.
    assert beside_its_like([*row, *pair, item((50, 50, 60, 60), "green")]) == (2, 5)


@pytest.mark.parametrize(("items", "level"), [(1, "easy"), (10, "easy"), (11, "medium"), (15, "medium"), (40, "hard")])
def test_level_of__the_closest_range(items, level):
    assert level_of(items, levels=RPC_LEVELS) == level


def test_seen_levels__shares_are_those_of_the_counts_and_ends_reach_as_far():
    pseudo = manifest(*[[]] * 100, counts=[2.1] * 10 + [6.0] * 40 + [12.2] * 45 + [25.4] * 5)
    found = seen_levels(RPC_LEVELS, pseudo=pseudo)
    assert {name: one.share for name, one in found.items()} == {
        "easy": pytest.approx(51 / 103, abs=1e-4),
        "medium": pytest.approx(46 / 103, abs=1e-4),
        "hard": pytest.approx(6 / 103, abs=1e-4),
    }
    assert found["easy"].items == (2, 10) and found["easy"].skus == (2, 5)
    assert found["hard"].items == (15, 25) and found["medium"].items == (10, 15)
    assert seen_levels(RPC_LEVELS, pseudo=manifest([])) == RPC_LEVELS


def composed_by(**shares):
    params = params_of(arrangements={"pile": 1.0}, **shares)
    kit = kit_of(params)
    return manifest(*[compose_photo(kit, params=params, index=index).objects for index in range(40)])


@pytest.mark.parametrize(("share", "figure"), [("overlap_share", overlapping), ("row_share", beside_its_like)])
def test_corrected_share__moves_towards_what_is_seen_as_composing_shows(share, figure):
    low, high = composed_by(**{share: 0.1}), composed_by(**{share: 0.9})
    assert corrected_share(0.1, seen=low, composed=low, levels=LEVELS, figure=figure) == pytest.approx(0.1, abs=1e-3)
    assert 0.13 < corrected_share(0.1, seen=high, composed=low, levels=LEVELS, figure=figure) < 0.95
    assert 0.05 < corrected_share(0.9, seen=low, composed=high, levels=LEVELS, figure=figure) < 0.87


def test_corrected_share__nothing_seen_changes_nothing():
    assert corrected_share(0.3, seen=manifest([]), composed=manifest([]), levels=LEVELS, figure=overlapping) == 0.3


def photo(gain=1.0):
    """A photo with one red item under another light than the board's."""
    found = board_picture().astype(np.float32) * gain
    found[60:100, 60:100] = np.float32(COLOURS["red"]) * gain
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def saliency():
    found = np.zeros((SIDE, SIDE), np.float32)
    found[60:100, 60:100] = 1.0
    return found


def test_photo_light__is_told_by_what_is_bare_around_the_boxes():
    row = manifest([item((60, 60, 100, 100))]).rows[0]
    dark = np.full_like(board_picture(), 40)
    light = photo_light(photo(0.8), row=row, boards=[dark, board_picture()], saliency_hw=saliency())
    assert light.board == 1
    assert np.asarray(light.look.light_C6)[:, 0] == pytest.approx(np.log(0.8), abs=0.02)
    ((sku, colours),) = light.colours
    assert sku == "red" and np.median(colours, axis=0) == pytest.approx(COLOURS["red"], abs=6)


def test_photo_light__none_where_nothing_is_bare():
    row = manifest([item((0, 0, SIDE, SIDE))]).rows[0]
    assert photo_light(photo(), row=row, boards=[board_picture()], saliency_hw=saliency()) is None


def test_seen_tones__no_product_drowns_the_others():
    def light(sku, grey):
        colours = np.full((3200, 3), grey, np.float32)
        return PhotoLight(board=0, look=PhotoLook(**look()), colours=((sku, colours),))

    tones = seen_tones([*[light("red", 50)] * 100, *[light("blue", 200)] * 10])
    assert tones[0][8] == 50 and tones[0][10] == 200
    assert seen_tones([]) == []


def test_seen_places__shares_of_where_items_lie():
    places = np.asarray(seen_places(manifest([item((0, 0, SIDE / 2, SIDE / 2))])))
    assert places.shape == (PLACES, PLACES) and places.sum() == pytest.approx(1, abs=1e-3)
    assert places[: PLACES // 2, : PLACES // 2].sum() > 0.98


def test_relit_boards__a_board_that_nobody_shows_keeps_its_looks(tmp_path):
    rows = [(board_row(number, looks=[look(noise=9.0)]), b"x") for number in range(2)]
    boards = committed(Store.open(str(tmp_path)), "board", rows)
    seen = PhotoLight(board=1, look=PhotoLook(**look(noise=1.0)), colours=())
    found = relit_boards(boards, lights=[seen], places=[[1.0]])
    assert [one["noise"] for one in found.row("board/00").attributes["looks"]] == [9.0]
    assert [one["noise"] for one in found.row("board/01").attributes["looks"]] == [1.0]
    assert found.row("board/00").attributes["places"] == [[1.0]]


@pytest.fixture
def network_free(monkeypatch):
    monkeypatch.setattr("tasks.feedback.saliency_predictor", lambda *args, **rest: lambda photo_HW3: saliency())


def composed_with(tmp_path, *, photos):
    """Composed before and after so many pool photos were accepted, whose items are half as large again."""
    store = Store.open(str(tmp_path))
    inputs, params = inputs_of(store), params_of(photos=12)
    before = run_stage_locally(compose, params, store=store, **inputs)
    larger = [
        replace(one, box=(one.box[0], one.box[1], 1.5 * one.box[2] - one.box[0] / 2, 1.5 * one.box[3] - one.box[1] / 2))
        for row in before.rows
        for one in row.objects
    ]
    objects = [larger[number * 5 : number * 5 + 5] for number in range(photos)]
    rows = [
        (replace(row, media_type="image/jpeg"), encode_jpeg(photo()))
        for row in manifest(*objects, counts=[4.0] * photos).rows
    ]
    pseudo, network = committed(store, "select", rows), committed(store, "saliency", [])
    return before, run_stage_locally(
        compose, params, store=store, **inputs, pseudo=pseudo, composed=before, network=network
    )


def median_side(made):
    return np.median([one.amodal_box[2] - one.amodal_box[0] for row in made.rows for one in row.objects])


def test_compose__pseudo_labels_replace_first_guesses(tmp_path, network_free):
    before, after = composed_with(tmp_path, photos=10)
    assert median_side(after) > 1.15 * median_side(before)
    told = after.metadata["feedback"]
    assert set(told["sizes"]) == set(COLOURS) and told["levels"]["easy"]["share"] > told["levels"]["hard"]["share"]
    assert told["lights"] > 0
    assert sum(row.level == "easy" for row in after.rows) > sum(row.level == "easy" for row in before.rows)


def test_compose__few_accepted_photos_change_nothing(tmp_path, network_free):
    before, after = composed_with(tmp_path, photos=7)
    assert after.content_digest == before.content_digest and "feedback" not in after.metadata


def test_compose__pseudo_labels_need_something_to_compare_with(tmp_path):
    store = Store.open(str(tmp_path))
    with pytest.raises(ValueError, match="composed before"):
        run_stage_locally(compose, params_of(), store=store, pseudo=manifest([]), **inputs_of(store))
