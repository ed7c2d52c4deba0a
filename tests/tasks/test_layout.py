import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.layout import (
    bump,
    cover_of,
    draw_counts,
    draw_skus,
    empty_ground,
    find_place,
    first_sku,
    gathering,
    put,
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), overlap=st.sampled_from([0.0, 0.1, 0.3]), limit=st.sampled_from([0.4, 0.8]))
def test_find_place__a_painter_agrees_that_everything_stays_visible(seed, overlap, limit):
    generator = np.random.default_rng(seed)
    ground = empty_ground(60, 80)
    wholes = []
    for _ in range(12):
        mask = generator.random(tuple(generator.integers(4, 14, 2))) < 0.8
        density = np.ones(ground.labels_HW.shape, np.float32)
        place = find_place(ground, mask, density_HW=density, overlap=overlap, limit=limit, generator=generator)
        if place is None:
            continue
        x, y = place
        whole = np.zeros(ground.labels_HW.shape, bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        taken = np.any([np.zeros_like(whole), *wholes], axis=0)
        assert (whole & taken).sum() <= overlap * mask.sum() + 0.5
        put(ground, mask, x=x, y=y)
        wholes.append(whole)
        for position, below in enumerate(wholes):
            seen = below & ~np.any([np.zeros_like(whole), *wholes[position + 1 :]], axis=0)
            assert seen.sum() == ground.visible[position + 1]
            assert seen.sum() >= limit * below.sum()


def test_find_place__none_where_there_is_no_room_or_no_welcome():
    generator = np.random.default_rng(0)
    ground = empty_ground(40, 40)
    ones = np.ones(ground.labels_HW.shape, np.float32)
    whole = np.ones(ground.labels_HW.shape, bool)
    rest = {"overlap": 0.0, "limit": 0.5, "generator": generator}
    assert find_place(ground, np.ones((99, 3), bool), density_HW=ones, **rest) is None
    assert find_place(ground, np.ones((3, 3), bool), density_HW=0 * ones, **rest) is None
    put(ground, whole, x=0, y=0)
    assert find_place(ground, np.ones((3, 3), bool), density_HW=ones, **rest) is None


def test_find_place__goes_where_it_is_welcome():
    generator = np.random.default_rng(0)
    ground = empty_ground(200, 200)
    height, width = ground.labels_HW.shape
    hill = bump(height, width, x=70, y=30, spread=1.0)
    x, y = find_place(ground, np.ones((5, 7), bool), density_HW=hill, overlap=0, limit=0.5, generator=generator)
    assert abs(x + 3 - 70) <= 4 and abs(y + 2 - 30) <= 4


def test_cover_of__is_the_share_of_each_cell():
    alpha = np.zeros((9, 10), np.uint8)
    alpha[:4, :6] = 255
    cover = cover_of(alpha, cell=4)
    assert cover.shape == (3, 3)
    assert cover[0, 0] == 255 and cover[0, 1] in (127, 128) and cover[1:].max() == 0


@given(skus=st.integers(1, 10), extra=st.integers(0, 12), seed=st.integers(0, 99))
def test_draw_counts__adds_up_and_forgets_none(skus, extra, seed):
    counts = draw_counts(skus, skus + extra, generator=np.random.default_rng(seed))
    assert len(counts) == skus and min(counts) >= 1 and sum(counts) == skus + extra


def test_draw_skus__look_alikes_come_together_as_often_as_asked():
    skus = [f"sku{number}" for number in range(20)]
    mates = {"sku0": "sku1"}

    def share(mate_share):
        draws = [
            draw_skus(
                4, first="sku0", skus=skus, mates=mates, mate_share=mate_share, generator=np.random.default_rng(seed)
            )
            for seed in range(200)
        ]
        assert all(len(set(draw)) == 4 and draw[0] == "sku0" for draw in draws)
        return np.mean(["sku1" in draw for draw in draws])

    assert share(0.0) < 0.3
    assert share(0.6) > 0.55
    assert draw_skus(5, first="a", skus=["a"], mates={}, mate_share=1, generator=np.random.default_rng(0)) == ["a"]


def test_first_sku__every_block_is_a_shuffle_of_all():
    skus = [f"sku{number}" for number in range(7)]
    blocks = [[first_sku(skus, seed=3, index=7 * block + position) for position in range(7)] for block in range(4)]
    assert all(sorted(block) == skus for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1


@pytest.mark.parametrize("kind", ["pool", "pile", "uniform"])
def test_gathering__is_a_density(kind):
    places = np.zeros((16, 16), np.float32)
    places[2, 3] = 1
    density = gathering(kind, places_hw=places, height=100, width=80, generator=np.random.default_rng(0))
    assert density.shape == (100, 80) and density.min() >= 0 and density.max() > 0
    if kind == "pool":
        y, x = np.unravel_index(density.argmax(), density.shape)
        assert abs(y - 2.5 / 16 * 100) < 7 and abs(x - 3.5 / 16 * 80) < 6
