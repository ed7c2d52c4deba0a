import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.layout import first_sku
from tasks.params import LevelParams, PasteParams
from tasks.wishes import draw_items, sprite_at, turn_matrix
from tests.tasks.composing_cases import LEVELS, kit_of, params_of


def drawn(*, index=0, seed=0, level="hard", **changes):
    params = params_of(**changes)
    kit = kit_of(params)
    generator = np.random.default_rng(seed)
    return draw_items(kit, level=LEVELS[level], params=params, index=index, cell=2, generator=generator), kit


@settings(deadline=None)
@given(angle=st.floats(0, 6.3), scale=st.floats(0.5, 2), tilt=st.floats(0, 0.3), axis=st.floats(0, 3.2))
def test_turn_matrix__keeps_the_print_readable_and_shortens_one_direction(angle, scale, tilt, axis):
    matrix = np.reshape(turn_matrix(angle, scale, tilt, axis), (2, 2))
    assert np.linalg.det(matrix) > 0
    assert np.linalg.svd(matrix, compute_uv=False) == pytest.approx([scale, scale * (1 - tilt)])


def test_sprite_at__each_view_as_often_as_its_weight():
    kit = kit_of(params_of())
    chances = (np.arange(300) + 0.5) / 300
    drawn = [sprite_at(kit.table, kit.skus.index("green"), chance) for chance in chances]
    views = [one.item_id for one in kit.sprites]
    assert [views[number] for number in sorted(set(drawn))] == ["pose/green_0", "pose/green_1"]
    # Weights 1 and 2.
    assert drawn.count(min(drawn)) / 300 == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("index", range(4))
def test_draw_items__the_photos_own_product_lies_lowest(index):
    for seed in range(5):
        items, kit = drawn(index=index, seed=seed)
        lowest = kit.sprites[int(items["sprite"][0])]
        assert lowest.sku == kit.skus[first_sku(kit.weights_S, seed=0, index=index)]
        assert LEVELS["hard"].items[0] <= len(items) <= LEVELS["hard"].items[1]


def test_draw_items__crops_hold_the_turned_sprites_one_after_the_other():
    items, kit = drawn()
    ends = items["crop"] + items["rows"] * items["columns"]
    assert items["crop"][0] == 0 and np.array_equal(items["crop"][1:], ends[:-1])
    for item in items:
        height, width = kit.sprites[int(item["sprite"])].rgba_hw4.shape[:2]
        corners = np.asarray([[width, height], [-width, height]]) / 2
        matrix = np.reshape([float(item[name]) for name in ("xx", "xy", "yx", "yy")], (2, 2))
        extent = 2 * np.abs(corners @ matrix.T).max(axis=0)
        assert np.ceil(extent - 1e-5).tolist() == [item["columns"], item["rows"]]


def test_draw_items__rows_share_view_and_direction():
    items, _ = drawn(row_share=1.0)
    followers = np.flatnonzero(items["beside"])
    assert len(followers) >= 3
    for n in followers:
        assert items["sprite"][n] == items["sprite"][n - 1]
        assert abs(items["angle"][n] - items["angle"][n - 1]) < 0.3
    assert not drawn(row_share=0.0)[0]["beside"].any()
    assert not drawn(row_share=1.0, without=("layout",))[0]["beside"].any()


def test_draw_items__blends_and_overlaps_as_often_as_asked():
    made = np.concatenate(
        [drawn(seed=seed, blends={"soft": 1, "hard": 1, "feather": 2}, overlap_share=0.3)[0] for seed in range(40)]
    )
    for name, share in (("hard", 0.25), ("feather", 0.5), ("poisson", 0.0)):
        assert made[name].mean() == pytest.approx(share, abs=0.06)
    assert not (made["hard"] & made["feather"]).any()
    assert (made["overlap"] > 0).mean() == pytest.approx(0.3, abs=0.06)
    paper, _ = drawn(recipe="paper")
    assert paper["hard"].all() and not paper["feather"].any() and (paper["overlap"] == 0.5).all()


@pytest.mark.parametrize("ends", [(0, 3), (5, 2), (1, 256)])
def test_level_params__as_many_as_a_photo_can_hold(ends):
    # Beyond 255 items compiled code would write outside of its arrays: labels are bytes.
    with pytest.raises(ValueError, match="items"):
        LevelParams(share=1, skus=(1, 1), items=ends)
    with pytest.raises(ValueError, match="items"):
        PasteParams(items=ends)
    assert LevelParams(share=1, skus=(1, 3), items=(255, 255)).items == (255, 255)
