import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.places import empty_ground, find_place, put


def proposed(generator, ground, count=20):
    height, width = ground.labels_HW.shape
    return {
        "proposals_K2": generator.random((count, 2)) * (width, height),
        "chances_K": generator.random(count),
    }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), overlap=st.sampled_from([0.0, 0.1, 0.3]), limit=st.sampled_from([0.4, 0.8]))
def test_find_place__a_painter_agrees_that_everything_stays_visible(seed, overlap, limit):
    generator = np.random.default_rng(seed)
    ground = empty_ground(60, 80)
    wholes = []
    for _ in range(12):
        mask = generator.random(tuple(generator.integers(4, 14, 2))) < 0.8
        cover = (mask * 255).astype(np.uint8)
        place = find_place(ground, cover, **proposed(generator, ground), overlap=overlap, limit=limit)
        if place is None:
            continue
        x, y = place
        whole = np.zeros(ground.labels_HW.shape, bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        taken = np.any([np.zeros_like(whole), *wholes], axis=0)
        assert (whole & taken).sum() <= overlap * mask.sum() + 0.5
        put(ground, cover, x=x, y=y)
        wholes.append(whole)
        for position, below in enumerate(wholes):
            seen = below & ~np.any([np.zeros_like(whole), *wholes[position + 1 :]], axis=0)
            assert seen.sum() == ground.visible[position + 1]
            assert seen.sum() >= limit * below.sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_find_place__finds_the_only_hole(seed):
    generator = np.random.default_rng(seed)
    ground = empty_ground(60, 80)
    wall = np.full(ground.labels_HW.shape, 255, np.uint8)
    y, x = generator.integers(0, wall.shape[0] - 4), generator.integers(0, wall.shape[1] - 5)
    wall[y : y + 4, x : x + 5] = 0
    put(ground, wall, x=0, y=0)
    rest = {**proposed(generator, ground, count=1), "overlap": 0.0, "limit": 0.5}
    assert find_place(ground, np.full((4, 5), 255, np.uint8), **rest) == (x, y)
    assert find_place(ground, np.full((4, 6), 255, np.uint8), **rest) is None


def test_find_place__none_for_what_is_larger_than_the_photo():
    ground = empty_ground(40, 40)
    rest = {**proposed(np.random.default_rng(0), ground), "overlap": 0.0, "limit": 0.5}
    assert find_place(ground, np.full((99, 3), 255, np.uint8), **rest) is None


def test_find_place__likes_company():
    ground = empty_ground(200, 200)
    put(ground, np.full((10, 10), 255, np.uint8), x=40, y=40)
    lonely, beside = (12.5, 12.5), (54.5, 45.0)
    proposals = np.asarray([lonely, beside])
    small = np.full((9, 9), 255, np.uint8)
    rest = {"proposals_K2": proposals, "overlap": 0.0, "limit": 0.5}
    x, y = find_place(ground, small, chances_K=np.asarray([0.9, 0.9]), **rest)
    assert (x, y) == (50, 41)
    assert find_place(ground, small, chances_K=np.asarray([0.0, 0.9]), **rest) == (8, 8)


@pytest.mark.parametrize(("height", "width"), [(800, 800), (160, 90), (1815, 1200)])
def test_empty_ground__about_a_hundred_cells(height, width):
    ground = empty_ground(height, width)
    rows, columns = ground.labels_HW.shape
    assert rows * ground.cell <= height < (rows + 1) * ground.cell
    assert 50 <= max(rows, columns) <= 100 and columns == width // ground.cell
