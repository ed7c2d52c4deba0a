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


def test_first_view__every_stretch_of_chances_gets_its_share_early():
    skus = [f"sku{number}" for number in range(5)]
    chances = [first_view(skus, seed=1, index=5 * block) for block in range(40)]
    counts, _ = np.histogram(chances, bins=8, range=(0, 1))
    assert counts.min() >= 4 and counts.max() <= 6
    assert len({first_view(skus, seed=1, index=position) for position in range(5)}) == 1
