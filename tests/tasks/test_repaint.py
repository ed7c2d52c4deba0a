import numpy as np
import pytest

from tasks.repaint import LitBoard, box_mask, closest_board, grown, lit_board, paint_board, stray_boxes

SIZE = 320
NONE = np.empty((0, 4), np.float32)


def board(seed=0):
    """A grey board, lighter in the middle, with a little grain."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    grey = 150 - 30 * (x**2 + y**2)
    grain = np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE, 3))
    return np.clip(grey[..., None] + grain, 0, 255).astype(np.uint8)


def lit(picture, gain=(0.8, 0.85, 0.9), slope=0.1):
    """The picture under another light: a gain a channel, and darker to the right."""
    shade = np.linspace(1 + slope, 1 - slope, SIZE)[None, :, None]
    return np.clip(picture * np.array(gain) * shade, 0, 255).astype(np.uint8)


def with_products(photo, boxes, colour=(200, 40, 40)):
    photo = photo.copy()
    for x0, y0, x1, y1 in boxes:
        photo[y0:y1, x0:x1] = colour
    return photo


BOXES = [(40, 40, 100, 100), (200, 60, 260, 140), (90, 200, 160, 280)]
BOXES_N4 = np.array(BOXES, np.float32)


def test_box_mask__touched_pixels_inside_the_photo_only():
    mask = box_mask(np.array([[-3, 1.5, 2.2, 3]], np.float32), height=4, width=5)
    assert mask.astype(int).tolist() == [[0] * 5, [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0] * 5]


def test_grown__by_the_longer_side():
    assert grown(np.array([[10, 10, 30, 20]], np.float32), margin=0.1).tolist() == [[8, 8, 32, 22]]
    assert grown(NONE, margin=0.1).shape == (0, 4)


def test_lit_board__nothing_departs_from_a_bare_board_in_other_light():
    fitted = lit_board(lit(board(1)), board_HW3=board(), boxes_N4=NONE)
    assert np.abs(fitted.departure_hw3).mean() < 0.01


def test_lit_board__photo_full_of_boxes():
    everything = np.array([[0, 0, SIZE, SIZE]], np.float32)
    assert lit_board(board(), board_HW3=board(), boxes_N4=everything) is None


def test_closest_board__the_one_of_the_same_pattern():
    striped = board().copy()
    striped[::8] = 60
    found = closest_board(lit(board(1)), boards=[striped, board()], boxes_N4=NONE)
    assert np.array_equal(found.board_HW3, board())


def test_stray_boxes__the_product_no_box_covers():
    photo = with_products(lit(board(1)), BOXES)
    fitted = lit_board(photo, board_HW3=board(), boxes_N4=BOXES_N4[:2])
    strays = stray_boxes(fitted, contrast=0.06, least_area=400)
    assert strays == pytest.approx(BOXES_N4[2:], abs=3)


def test_stray_boxes__none_where_all_is_covered_and_shadows_are_no_things():
    photo = with_products(lit(board(1)), BOXES).astype(np.float32)
    photo[100:130, 40:100] *= 0.6
    photo = photo.astype(np.uint8)
    fitted = lit_board(photo, board_HW3=board(), boxes_N4=BOXES_N4)
    assert len(stray_boxes(fitted, contrast=0.06, least_area=100)) == 0


def test_stray_boxes__too_small_to_count():
    photo = with_products(lit(board(1)), BOXES)
    fitted = lit_board(photo, board_HW3=board(), boxes_N4=BOXES_N4[:2])
    assert len(stray_boxes(fitted, contrast=0.06, least_area=10_000)) == 0


def painted(photo, doubtful, kept, margin=0.08):
    boxes = np.concatenate([doubtful, kept])
    fitted = lit_board(photo, board_HW3=board(), boxes_N4=grown(boxes, margin=0.06))
    return paint_board(photo, lit=fitted, doubtful_N4=doubtful, kept_N4=kept, margin=margin)


def test_paint_board__the_hole_looks_like_the_bare_board_there():
    bare = lit(board(1))
    photo = with_products(bare, BOXES)
    result, touched = painted(photo, BOXES_N4[2:], BOXES_N4[:2])
    inside = box_mask(BOXES_N4[2:], height=SIZE, width=SIZE)
    assert touched[inside].all()
    assert np.abs(result[inside].astype(int) - bare[inside]).mean() < 3


def test_paint_board__no_pixel_of_a_kept_box_changes():
    doubtful = np.array([[80, 80, 220, 220]], np.float32)
    photo = with_products(lit(board(1)), BOXES)
    result, touched = painted(photo, doubtful, BOXES_N4)
    kept = box_mask(BOXES_N4, height=SIZE, width=SIZE)
    assert np.array_equal(result[kept], photo[kept])
    assert not touched[kept].any()
    assert np.array_equal(result[~touched], photo[~touched])


def test_paint_board__the_edge_is_soft():
    photo = np.where(board() > 0, 255, 0).astype(np.uint8)
    fitted = lit_board(lit(board(1)), board_HW3=board(), boxes_N4=NONE)
    doubtful = np.array([[100, 100, 200, 200]], np.float32)
    result, _ = paint_board(photo, lit=fitted, doubtful_N4=doubtful, kept_N4=NONE, margin=0.2)
    outwards = result[150, 200:222, 0].astype(int)
    assert (np.diff(outwards) >= 0).all()
    assert np.diff(outwards).max() < 15


def test_paint_board__nothing_doubtful():
    photo = lit(board(1))
    result, touched = painted(photo, NONE, BOXES_N4)
    assert np.array_equal(result, photo)
    assert not touched.any()


@pytest.mark.parametrize(("least_area", "found"), [(399.0, [[40, 60, 60, 80]]), (401.0, [])])
def test_stray_boxes__areas_are_those_in_the_photo(least_area, found):
    departure = np.zeros((160, 160, 3), np.float32)
    departure[30:40, 20:30] = (0.3, 0.0, -0.3)
    shown = LitBoard(
        board_HW3=np.zeros((320, 320, 3), np.uint8),
        light_C6=np.zeros((3, 6), np.float32),
        departure_hw3=departure,
        free_hw=np.ones((160, 160), bool),
        spread=0.0,
    )
    assert stray_boxes(shown, contrast=0.06, least_area=least_area).tolist() == found


def test_paint_board__fades_alike_to_all_sides():
    shown = LitBoard(
        board_HW3=np.full((60, 60, 3), 200, np.uint8),
        light_C6=np.zeros((3, 6), np.float32),
        departure_hw3=np.zeros((60, 60, 3), np.float32),
        free_hw=np.ones((60, 60), bool),
        spread=0.0,
    )
    middle = np.array([[20, 20, 40, 40]], np.float32)
    photo = np.full((60, 60, 3), 100, np.uint8)
    painted, touched = paint_board(photo, lit=shown, doubtful_N4=middle, kept_N4=NONE, margin=0.2)
    for turns in range(1, 4):
        assert np.array_equal(np.rot90(painted, turns), painted) and np.array_equal(np.rot90(touched, turns), touched)
    assert (painted[20:40, 20:40] == 200).all() and 100 < painted[30, 41, 0] < painted[30, 40, 0] < 200
