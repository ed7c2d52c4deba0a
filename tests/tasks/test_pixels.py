import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.blend import packed
from tasks.pixels import GAIN_ONE, MOST_ITEMS, blend, claim, shade_board

FULL = np.empty((0, 0), np.float32)


def window_of(crop):
    return 0, 0, crop.shape[1], crop.shape[0]


@settings(deadline=None)
@given(canvas=hnp.arrays(np.uint8, (6, 9, 3)), crop=hnp.arrays(np.uint8, (4, 5, 4)), gain=st.floats(0.3, 1.8))
def test_blend__is_alpha_blending(canvas, crop, gain):
    alpha = crop[..., 3:] / 255
    expected = canvas.astype(float)
    lit = np.minimum(crop[..., :3] * [gain, 1, 1], 255)
    expected[1:5, 2:7] = expected[1:5, 2:7] * (1 - alpha) + lit * alpha
    blend(canvas, packed(crop), 2, 1, window_of(crop), (round(GAIN_ONE * gain), GAIN_ONE, GAIN_ONE), False, FULL, 4)
    assert np.abs(canvas - expected).max() <= 1.3


@given(canvas=hnp.arrays(np.uint8, (4, 5, 3)), crop=hnp.arrays(np.uint8, (4, 5, 4)))
def test_blend__hard_edges_are_cut_at_one_half(canvas, crop):
    expected = np.where(crop[..., 3:] >= 128, crop[..., :3], canvas)
    blend(canvas, packed(crop), 0, 0, window_of(crop), (GAIN_ONE,) * 3, True, FULL, 4)
    assert np.array_equal(canvas, expected)


def test_blend__light_changes_smoothly_from_corner_to_corner():
    light = np.asarray([[1.0, 0.5], [1.0, 0.5]], np.float32)
    canvas, crop = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 4), (200, 200, 200, 255), np.uint8)
    blend(canvas, packed(crop), 0, 0, window_of(crop), (GAIN_ONE,) * 3, False, light, 8)
    expected = 200 * (1 - 0.5 * (np.arange(8) + 0.5) / 8)
    assert np.abs(canvas[..., 1] - expected).max() <= 1.5


@settings(deadline=None)
@given(corners=hnp.arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)), cell=st.integers(2, 9))
def test_shade_board__is_bilinear_between_the_corners_of_cells(corners, cell):
    height, width = 3 * cell - 1, 4 * cell - 1
    board = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    canvas = np.empty_like(board)
    shade_board(board, corners, cell, canvas)
    y, x = ((np.arange(size) + 0.5) / cell for size in (height, width))
    rows = np.stack([np.interp(x, np.arange(5), row) for row in corners])
    light = np.stack([np.interp(y, np.arange(4), column) for column in rows.T], axis=1)
    assert np.abs(canvas - board * light[..., None]).max() <= 3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from([0.0, 0.3, 0.8]))
def test_claim__a_painter_agrees(seed, limit):
    generator = np.random.default_rng(seed)
    labels, areas = np.zeros((30, 40), np.uint8), np.zeros(MOST_ITEMS + 1, np.int64)
    visible, bounds = areas.copy(), np.empty(4, np.int64)
    wholes = []
    for _ in range(8):
        crop = generator.integers(0, 256, (*generator.integers(1, 18, 2), 4), dtype=np.uint8)
        x, y = int(generator.integers(0, 41 - crop.shape[1])), int(generator.integers(0, 31 - crop.shape[0]))
        whole = np.zeros(labels.shape, bool)
        whole[y : y + crop.shape[0], x : x + crop.shape[1]] = crop[..., 3] >= 128
        before = labels.copy()
        left = [below & ~np.any([whole, *wholes[position + 1 :]], axis=0) for position, below in enumerate(wholes)]
        hides = [
            seen.sum() < limit * below.sum() and (before[whole] == position + 1).any()
            for position, (seen, below) in enumerate(zip(left, wholes, strict=True))
        ]
        label = claim(labels, packed(crop), x, y, limit, areas, visible, bounds)
        if any(hides) or not whole.any():
            assert label == 0 and np.array_equal(labels, before)
            continue
        wholes.append(whole)
        assert label == len(wholes) == areas[0]
        assert np.array_equal(labels, np.where(whole, label, before))
        rows, columns = np.nonzero(whole)
        assert bounds.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert areas[1 : label + 1].tolist() == [one.sum() for one in wholes]
        assert visible[1 : label + 1].tolist() == [(labels == one).sum() for one in range(1, label + 1)]
