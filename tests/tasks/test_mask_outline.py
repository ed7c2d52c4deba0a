"""What an outline says, on shapes whose areas and lengths are known."""

import numpy as np
import pytest

from tasks.backdrop import to_lab
from tasks.mask_outline import boundary_contrast, closing_share, convexity, outline_signs


def _square(*, side=60, low=15, high=45):
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


def _photo(mask):
    photo = np.full((*mask.shape, 3), 190, np.uint8)
    photo[mask] = (180, 40, 30)
    return photo


def test_boundary_contrast__ground_in_the_mask_and_product_outside_of_it_are_seen():
    mask = _square()
    lab = to_lab(_photo(mask))
    too_wide, too_narrow = mask.copy(), mask.copy()
    too_wide[45:47, 15:45] = True
    too_narrow[43:45, 15:45] = False
    assert boundary_contrast(lab, mask) == (1.0, 1.0)
    inside, outside = boundary_contrast(lab, too_wide)
    assert inside == pytest.approx(1 - 60 / 960, abs=0.01)
    assert outside == 1.0
    inside, outside = boundary_contrast(lab, too_narrow)
    assert inside == 1.0
    assert outside == pytest.approx(1 - 60 / 840, abs=0.01)


def test_closing_share__a_notch_is_closed_and_a_wide_bay_is_not():
    mask = _square(side=200, low=20, high=180)
    notched, bayed = mask.copy(), mask.copy()
    notched[20:40, 98:102] = False
    bayed[20:40, 60:140] = False
    assert closing_share(mask) == 1.0
    # The disk does not reach into the corners of the notch's mouth; all but that is given back.
    assert closing_share(notched) == pytest.approx(1 - 80 / mask.sum(), abs=2e-4)
    assert closing_share(bayed) > closing_share(notched)


def test_convexity__by_hand():
    mask = _square(side=200, low=20, high=180)
    slit = mask.copy()
    slit[20:100, 100] = False
    assert convexity(mask) == pytest.approx(1.0)
    # OpenCV's outlines run through the middles of pixels: down one bank of the slit and up the other one.
    assert convexity(slit) == pytest.approx(4 * 159 / (4 * 159 + 2 * 79), abs=0.01)


def test_outline_signs__nothing_speaks_against_an_empty_mask():
    mask = _square() & False
    assert set(outline_signs(_photo(_square()), mask).values()) == {1.0}
