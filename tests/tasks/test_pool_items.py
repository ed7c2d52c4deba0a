import numpy as np
import pytest

from tasks.pool_items import item_labels, soft_alpha, stand_clear

SIDE = 100


def salient(*boxes):
    """A map that is 0.9 in the boxes (x0, y0, x1, y1) and 0.1 elsewhere."""
    found = np.full((SIDE, SIDE), 0.1, np.float32)
    for x0, y0, x1, y1 in boxes:
        found[y0:y1, x0:x1] = 0.9
    return found


def boxes_of(*boxes):
    return np.asarray(boxes, np.float32).reshape(-1, 4)


def test_item_labels__salient_pixels_of_a_box_are_the_items():
    labels = item_labels(salient((12, 12, 38, 28)), boxes_N4=boxes_of((10, 10, 40, 30)))
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[12:28, 12:38] = 1
    assert np.array_equal(labels, expected)


def test_item_labels__a_pixel_in_two_boxes_belongs_to_the_one_it_lies_deeper_in():
    labels = item_labels(salient((10, 10, 70, 40)), boxes_N4=boxes_of((10, 10, 42, 40), (38, 10, 70, 40)))
    assert (labels[10:40, 10:40] == 1).all() and (labels[10:40, 40:70] == 2).all()


def test_item_labels__specks_in_a_box_are_nobodys():
    labels = item_labels(salient((10, 10, 30, 40), (37, 12, 39, 14)), boxes_N4=boxes_of((10, 10, 40, 40)))
    assert (labels[10:40, 10:30] == 1).all() and not labels[:, 31:].any()


def test_item_labels__what_the_network_overlooked_is_an_ellipse():
    labels = item_labels(salient(), boxes_N4=boxes_of((20, 20, 60, 40)))
    assert (labels == 1).sum() == pytest.approx(np.pi / 4 * 40 * 20, rel=0.02)
    assert labels[30, 21] == 1 and labels[21, 21] == 0


@pytest.mark.parametrize(
    ("box", "others", "unknown", "clear"),
    [
        ((20, 20, 50, 40), [], [], True),
        ((20, 20, 50, 40), [(48, 20, 80, 40)], [], True),
        ((20, 20, 50, 40), [(40, 20, 80, 40)], [], False),
        ((20, 20, 50, 40), [], [(30, 10, 60, 50)], False),
        ((0, 20, 30, 40), [], [], False),
        ((70, 75, 99.5, 95), [], [], False),
    ],
)
def test_stand_clear__little_overlap_and_away_from_the_border(box, others, unknown, clear):
    boxes = boxes_of(box, *others)
    labels = item_labels(salient(*np.int64(boxes).tolist()), boxes_N4=boxes)
    assert stand_clear(labels, boxes_N4=boxes, others_M4=boxes_of(*unknown))[0] == clear


def test_stand_clear__a_ragged_piece_is_no_whole_item():
    boxes = boxes_of((20, 20, 60, 60))
    labels = item_labels(salient((20, 20, 60, 30), (20, 30, 30, 60)), boxes_N4=boxes)
    assert not stand_clear(labels, boxes_N4=boxes, others_M4=boxes_of())[0]


def test_soft_alpha__ends_softly_on_the_board_and_hard_on_another_item():
    probability = salient((20, 20, 60, 40))
    probability[19, 20:60] = 0.4
    labels = item_labels(probability, boxes_N4=boxes_of((20, 20, 40, 40), (40, 20, 60, 40)))
    alpha = soft_alpha(probability, labels_HW=labels, label=1)
    assert (alpha[20:40, 20:40] == 255).all() and not alpha[20:, 40:].any()
    assert (alpha[19, 20:38] == round(255 * 0.3)).all() and not alpha[18].any()
