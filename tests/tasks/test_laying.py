import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.blend import collected, thumbnail
from tasks.items import ITEM, Gathering
from tasks.laying import BESIDE, PROPOSALS, claim, find_place, put, warp_cover, warp_item
from tasks.wishes import turn_matrix
from tests.tasks.item_cases import ANYWHERE, cells_of, covered, empty_ground, empty_top, item_of


def turned(sprite, matrix, *, feather=False):
    """The sprite under a map, as `warp_item` draws it, and its record."""
    item = np.zeros(1, ITEM)[0]
    for name, value in zip(("xx", "xy", "yx", "yy"), matrix, strict=True):
        item[name] = value
    xx, xy, yx, yy = np.abs(matrix)
    height, width = sprite.shape[:2]
    item["rows"], item["columns"] = np.ceil([yx * width + yy * height - 1e-6, xx * width + xy * height - 1e-6])
    item["feather"] = feather
    crop = np.empty(item["rows"] * item["columns"], np.uint32)
    warp_item(item, collected([sprite]), crop, np.empty(2 * sprite.size, np.uint64))
    return crop.view(np.uint8).reshape(item["rows"], item["columns"], 4), item


def soft_sprite(*, height=40, width=60):
    generator = np.random.default_rng(1)
    sprite = cv2.GaussianBlur(generator.integers(0, 255, (height, width, 4), dtype=np.uint8), (0, 0), 2.0)
    sprite[..., 3] = 0
    sprite[5:-5, 5:-5, 3] = 255
    return cv2.GaussianBlur(sprite, (3, 3), 0)


@settings(deadline=None)
@given(quarters=st.integers(0, 3))
def test_warp_item__quarter_turns_equal_rot90(quarters):
    sprite = np.random.default_rng(0).integers(1, 255, (6, 9, 4), dtype=np.uint8)
    matrix = np.round(turn_matrix(quarters * np.pi / 2, 1.0, 0.0, 0.3), 9)
    # Positive angles turn x towards y, which is clockwise on the screen; rot90 turns the other way.
    assert np.array_equal(turned(sprite, matrix)[0], np.rot90(sprite, -quarters))


@settings(deadline=None)
@given(angle=st.floats(0, 6.3), scale=st.floats(0.5, 2), tilt=st.floats(0, 0.3))
def test_warp_item__agrees_with_opencv(angle, scale, tilt):
    sprite = soft_sprite()
    matrix = turn_matrix(angle, scale, tilt, 0.5)
    found, _ = turned(sprite, matrix)
    height, width = found.shape[:2]
    matrix_22 = np.reshape(matrix, (2, 2))
    offset = np.asarray([(width - 1) / 2, (height - 1) / 2]) - matrix_22 @ [(60 - 1) / 2, (40 - 1) / 2]
    expected = cv2.warpAffine(sprite, np.column_stack([matrix_22, offset]), (width, height), flags=cv2.INTER_LINEAR)
    differences = np.abs(found.astype(int) - expected)
    # Colours of transparent pixels don't matter; ours are black there. Positions are rounded to a sixteenth of a pixel.
    differences[..., :3][(found[..., 3] == 0) | (expected[..., 3] == 0)] = 0
    assert differences.max() <= 14 and differences.mean() < 0.6


def test_warp_item__keeps_hidden_colours_for_a_wider_edge():
    matrix = turn_matrix(0.3, 1.0, 0.0, 0.0)
    bare, coloured = (turned(soft_sprite(), matrix, feather=feather)[0] for feather in (False, True))
    assert np.array_equal(bare[..., 3], coloured[..., 3])
    empty = cv2.dilate(bare[..., 3], np.ones((5, 5), np.uint8)) == 0
    assert bare[empty].max() == 0 and coloured[empty].max() > 0


@settings(deadline=None)
@given(angle=st.floats(0, 6.3), cell=st.integers(2, 9))
def test_warp_cover__is_the_share_of_each_cell(angle, cell):
    sprite = np.zeros((60, 90, 4), np.uint8)
    cv2.ellipse(sprite, (45, 30), (40, 22), 15, 0, 360, (255,) * 4, -1)
    crop, item = turned(sprite, turn_matrix(angle, 1.1, 0.05, 0.5))
    rows, columns = -(-crop.shape[0] // cell), -(-crop.shape[1] // cell)
    item["cell_rows"], item["cell_columns"] = rows, columns
    cover = np.empty(rows * columns, np.uint32)
    thumbs = collected([thumbnail(sprite, cell=cell)])
    warp_cover(item, collected([sprite]), thumbs, cell, cover, np.empty(2 * sprite.size, np.uint64))
    found = (cover >> 24).reshape(rows, columns).astype(float)
    framed = np.zeros((rows * cell, columns * cell))
    framed[: crop.shape[0], : crop.shape[1]] = crop[..., 3]
    expected = framed.reshape(rows, cell, columns, cell).mean(axis=(1, 3))
    assert np.abs(found - expected).mean() < 8
    assert ((found > 127) != (expected > 127)).mean() < 0.12


def place_of(ground, mask, *, generator, overlap=0.0, limit=0.5, first=BESIDE, gathering=ANYWHERE, before=(0.0, 0.0)):
    """(x, y) of the cell where `find_place` lays a mask's corner, or None."""
    item, _ = covered(mask)
    item["overlap"], item["step"] = overlap, 8.0
    cells = cells_of(mask, ground.labels_RC.shape[1])
    at, _ = find_place(ground, item, cells, first, 0.0, before, gathering, limit, generator)
    return None if at < 0 else (at % ground.labels_RC.shape[1], at // ground.labels_RC.shape[1])


def lay(ground, mask, *, x, y):
    stride = ground.labels_RC.shape[1]
    put(ground, cells_of(mask, stride), y * stride + x)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), overlap=st.sampled_from([0.0, 0.1, 0.3]), limit=st.sampled_from([0.4, 0.8]))
def test_find_place__a_painter_agrees_that_everything_stays_visible(seed, overlap, limit):
    generator = np.random.default_rng(seed)
    ground = empty_ground(30, 40)
    wholes = []
    for _ in range(12):
        mask = generator.random(tuple(generator.integers(4, 14, 2))) < 0.8
        place = place_of(ground, mask, generator=generator, overlap=overlap, limit=limit)
        if place is None:
            continue
        x, y = place
        whole = np.zeros(ground.labels_RC.shape, bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        taken = np.any([np.zeros_like(whole), *wholes], axis=0)
        assert (whole & taken).sum() <= overlap * mask.sum() + 0.5
        lay(ground, mask, x=x, y=y)
        wholes.append(whole)
        assert np.array_equal(ground.near_RC > 0, cv2.dilate((taken | whole).astype(np.uint8), np.ones((3, 3))) > 0)
        for position, below in enumerate(wholes):
            seen = below & ~np.any([np.zeros_like(whole), *wholes[position + 1 :]], axis=0)
            assert seen.sum() == ground.visible[position + 1]
            assert seen.sum() >= limit * below.sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_find_place__finds_the_only_hole(seed):
    generator = np.random.default_rng(seed)
    ground = empty_ground(30, 40)
    wall = np.ones((30, 40), bool)
    y, x = generator.integers(0, 26), generator.integers(0, 35)
    wall[y : y + 4, x : x + 5] = False
    lay(ground, wall, x=0, y=0)
    assert place_of(ground, np.ones((4, 5), bool), generator=generator) == (x, y)
    assert place_of(ground, np.ones((4, 6), bool), generator=generator) is None


def test_find_place__none_for_what_is_larger_than_the_photo():
    assert place_of(empty_ground(20, 20), np.ones((21, 3), bool), generator=np.random.default_rng(0)) is None


def test_find_place__likes_company():
    generator = np.random.default_rng(0)
    beside = 0
    for _ in range(100):
        ground = empty_ground(100, 100)
        lay(ground, np.ones((30, 30), bool), x=35, y=35)
        x, y = place_of(ground, np.ones((9, 9), bool), generator=generator)
        beside += x in (26, 65) or y in (26, 65)
    # Four sides of about 39 places each, one cell wide, would make up 2 % of all places.
    assert 0.08 < beside / 100 < 0.35


@pytest.mark.parametrize(
    ("gathering", "middle"),
    [
        (Gathering(pile=True, x=0.3, y=0.7, spread=0.01, places=np.ones(1)), (30, 70)),
        (Gathering(pile=False, x=0, y=0, spread=0, places=np.cumsum(np.eye(1, 256, 37))), (34.4, 15.6)),
    ],
)
def test_find_place__goes_where_products_gather(gathering, middle):
    places = [
        place_of(
            empty_ground(100, 100), np.ones((4, 6), bool), generator=np.random.default_rng(seed), gathering=gathering
        )
        for seed in range(20)
    ]
    assert np.mean(places, axis=0) + np.array([3, 2]) == pytest.approx(middle, abs=2.5)


def test_find_place__beside_the_item_before():
    ground = empty_ground(100, 100)
    lay(ground, np.ones((6, 6), bool), x=47, y=47)
    generator = np.random.default_rng(0)
    places = [
        place_of(ground, np.ones((6, 6), bool), generator=generator, first=0, before=(50.0, 50.0)) for _ in range(40)
    ]
    x, y = np.mean(np.abs(np.asarray(places) + 3 - 50.0), axis=0)
    assert x == pytest.approx(8, abs=1) and y < 2
    assert len({x > 47 for x, _ in places}) == 2
    assert BESIDE < PROPOSALS


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from([0.0, 0.3, 0.8]))
def test_claim__a_painter_agrees(seed, limit):
    generator = np.random.default_rng(seed)
    top = empty_top(30, 40)
    wholes = []
    for _ in range(8):
        rgba = generator.integers(0, 256, (*generator.integers(1, 18, 2), 4), dtype=np.uint8)
        x, y = int(generator.integers(0, 41 - rgba.shape[1])), int(generator.integers(0, 31 - rgba.shape[0]))
        whole = np.zeros(top.labels_HW.shape, bool)
        whole[y : y + rgba.shape[0], x : x + rgba.shape[1]] = rgba[..., 3] >= 128
        before = top.labels_HW.copy()
        left = [below & ~np.any([whole, *wholes[position + 1 :]], axis=0) for position, below in enumerate(wholes)]
        hides = [
            seen.sum() < limit * below.sum() and (before[whole] == position + 1).any()
            for position, (seen, below) in enumerate(zip(left, wholes, strict=True))
        ]
        item, crop = item_of(rgba, x=x, y=y, label=0)
        if any(hides) or not whole.any():
            assert not claim(top, item, crop, limit) and item["label"] == 0
            assert np.array_equal(top.labels_HW, before)
            continue
        assert claim(top, item, crop, limit)
        wholes.append(whole)
        label = len(wholes)
        assert item["label"] == label == top.areas[0]
        assert np.array_equal(top.labels_HW, np.where(whole, label, before))
        rows, columns = np.nonzero(whole)
        bounds = [item[name] for name in ("left", "top", "right", "bottom")]
        assert bounds == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert top.areas[1 : label + 1].tolist() == [one.sum() for one in wholes]
        assert top.visible[1 : label + 1].tolist() == [(top.labels_HW == one).sum() for one in range(1, label + 1)]
