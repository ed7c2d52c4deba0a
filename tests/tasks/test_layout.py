import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.layout import (
    cell_side,
    draw_counts,
    draw_gathering,
    draw_name,
    draw_skus,
    first_sku,
    first_view,
)


@given(skus=st.integers(1, 10), extra=st.integers(0, 12), seed=st.integers(0, 99))
def test_draw_counts__adds_up_and_forgets_none(skus, extra, seed):
    counts = draw_counts(skus, skus + extra, generator=np.random.default_rng(seed))
    assert len(counts) == skus and min(counts) >= 1 and sum(counts) == skus + extra


def test_draw_skus__look_alikes_come_together_as_often_as_asked():
    mates = [1, *[-1] * 19]

    def share(mate_share):
        draws = [
            draw_skus(
                4,
                first=0,
                weights_S=np.ones(20),
                mates_S=mates,
                mate_share=mate_share,
                generator=np.random.default_rng(seed),
            )
            for seed in range(200)
        ]
        assert all(len(set(draw)) == 4 and draw[0] == 0 for draw in draws)
        return np.mean([1 in draw for draw in draws])

    assert share(0.0) < 0.3
    assert share(0.6) > 0.55
    alone = {"first": 0, "weights_S": np.ones(1), "mates_S": [-1], "mate_share": 1}
    assert draw_skus(5, **alone, generator=np.random.default_rng(0)) == [0]


def test_draw_skus__by_weight():
    weights, generator = np.asarray([1.0, 1.0, 1.0, 6.0]), np.random.default_rng(0)
    rest = {"first": 0, "weights_S": weights, "mates_S": [-1] * 4, "mate_share": 0.3, "generator": generator}
    seconds = [draw_skus(2, **rest)[1] for _ in range(1000)]
    # The first one is taken out of the draw.
    assert seconds.count(3) / 1000 == pytest.approx(6 / 8, abs=0.05)


def test_first_sku__every_block_is_a_shuffle_of_all():
    blocks = [[first_sku(np.ones(7), seed=3, index=7 * block + k) for k in range(7)] for block in range(4)]
    assert all(sorted(block) == list(range(7)) for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1


def test_first_sku__by_weight():
    weights = np.asarray([1.0, 2.0, 0.5])
    firsts = [first_sku(weights, seed=1, index=index) for index in range(70)]
    assert [firsts.count(number) for number in range(3)] == pytest.approx([20, 40, 10], abs=2)


@pytest.mark.parametrize(("kind", "pile", "places"), [("pool", False, 4), ("pile", True, 1), ("uniform", False, 1)])
def test_draw_gathering__what_the_arrangement_says(kind, pile, places):
    gathering = draw_gathering(kind, places=np.arange(4.0), generator=np.random.default_rng(0))
    assert gathering.pile is pile and len(gathering.places) == places
    assert 0.2 < gathering.x < 0.8 and 0.12 <= gathering.spread <= 0.2


@pytest.mark.parametrize(("height", "width"), [(800, 800), (160, 90), (1815, 1200)])
def test_cell_side__about_a_hundred_cells(height, width):
    cells = max(height, width) / cell_side(height, width)
    assert 50 <= cells <= 100


def test_draw_name__as_often_as_their_shares():
    generator = np.random.default_rng(0)
    drawn = [draw_name({"a": 1, "b": 3, "c": 0}, generator=generator) for _ in range(2000)]
    assert drawn.count("c") == 0 and drawn.count("b") / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("weights", [np.ones(5), np.asarray([1.0, 2.0, 1.0, 1.0, 1.0])])
def test_first_view__every_stretch_of_chances_gets_its_share_early(weights):
    chances = [
        first_view(weights, seed=1, index=index) for index in range(600) if first_sku(weights, seed=1, index=index) == 1
    ]
    counts, _ = np.histogram(chances, bins=8, range=(0, 1))
    assert counts.min() >= 0.7 * len(chances) / 8 and counts.max() <= 1.3 * len(chances) / 8
