import numpy as np
import pytest

from benchmarks.compose import exactly
from benchmarks.compose_realism import in_directions, kernel_inception_distance, separation
from benchmarks.compose_speed import paper_script_photo


def features(count, *, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1.0, (count, 12))


def test_separation__half_for_the_same_and_one_for_different_sets():
    assert separation(features(80, seed=1), features(80, seed=2)) == pytest.approx(0.5, abs=0.15)
    assert separation(features(60, seed=1), features(60, seed=2, shift=3.0)) > 0.99


def test_kernel_inception_distance__equals_the_sums_of_its_definition():
    own, pool = features(9, seed=1), features(7, seed=2, shift=0.4)
    middle, spread = pool.mean(0), pool.std(0) + 1e-6
    x, y = (own - middle) / spread, (pool - middle) / spread
    kernel = lambda a, b: (a @ b / 12 + 1) ** 3  # noqa: E731 - the definition, on one line
    expected = (
        np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * np.mean([kernel(a, b) for a in x for b in y])
    )
    assert kernel_inception_distance(own, pool) == pytest.approx(expected)


def test_paper_script_photo__pastes_every_sprite():
    sprites = [np.full((40, 60, 4), (200 - 60 * number, 30, 60 * number, 255), np.uint8) for number in range(3)]
    photo = paper_script_photo(sprites, np.full((300, 300, 3), 128, np.uint8), np.random.default_rng(0))
    for sprite in sprites:
        assert (np.abs(photo.astype(int) - sprite[0, 0, :3]).max(-1) == 0).sum() > 100


def test_exactly__asks_for_so_many_items():
    assert exactly(12)["hard"].items == (12, 12)


def test_in_directions__spread_falls_and_what_pool_photos_share_is_lost():
    pool = features(40, seed=1) * np.arange(1, 13)
    pool[:, 3] = 7.0
    other = features(30, seed=2)
    projected = in_directions(pool, pool)
    assert projected.shape == (40, 12) and projected.mean(0) == pytest.approx(np.zeros(12), abs=1e-9)
    assert (np.diff(projected.std(0)) <= 1e-9).all()
    assert in_directions(other, pool).shape == (30, 12)
