import numpy as np
import pytest

from inspector.pictures import crop_around, heat_overlay, in_window, instances_overlay, mask_overlay, under_mask

GREY = np.full((20, 30, 3), 100, np.uint8)


def test_mask_overlay__covers_the_mask_and_nothing_else():
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:15, 5:20] = 255
    film = mask_overlay(alpha)
    assert film[10, 10, 3] > 80 and film[5, 5, 3] == 255 and film[0, 0, 3] == 0
    assert (film[..., 3] > 0)[alpha > 0].all()


def test_instances_overlay__later_masks_lie_on_top_in_their_own_colours():
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:12, 2:12], masks[1, 8:18, 8:18] = True, True
    film = instances_overlay(list(masks), categories=[0, 1])
    assert tuple(film[4, 4, :3]) != tuple(film[10, 10, :3]) == tuple(film[15, 15, :3])
    assert not film[~masks.any(axis=0), 3].any()


def test_heat_overlay__is_strongest_where_the_map_is():
    density = np.zeros((4, 6), np.float32)
    density[1, 4] = 2.0
    film = heat_overlay(density, size=(30, 20))
    assert film.shape == (20, 30, 4)
    assert np.unravel_index(film[..., 3].argmax(), (20, 30))[0] in range(5, 10)
    assert film[19, 0, 3] == 0 and not heat_overlay(np.zeros((4, 6)), size=(30, 20))[..., 3].any()


@pytest.mark.parametrize("window", [(4, 2, 14, 12), (-3, -2, 7, 8), (25, 15, 35, 25), (40, 40, 50, 50)])
def test_in_window__puts_a_part_into_its_frame(window):
    x0, y0, x1, y1 = window
    whole = in_window(np.full((5, 5), 9, np.uint8), window=window, size=(30, 20))
    expected = np.zeros((20, 30), np.uint8)
    expected[max(y0, 0) : max(min(y1, 20), 0), max(x0, 0) : max(min(x1, 30), 0)] = 9
    assert np.array_equal(whole, expected)


def test_under_mask__darkens_what_is_outside_and_wants_equal_sizes():
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:15, 5:20] = 255
    shown = under_mask(GREY, alpha_HW=alpha)
    assert (shown[10, 10] == 100).all() and (shown[0, 0] == 30).all()
    with pytest.raises(ValueError, match="mask: expected shape"):
        under_mask(GREY, alpha_HW=alpha[:5])


@pytest.mark.parametrize("box", [(5, 5, 15, 10), (-20, -20, -5, -5), (25, 15, 60, 60), (3, 3, 3, 3)])
@pytest.mark.parametrize("outlined", [True, False])
def test_crop_around__is_a_square_of_its_size_wherever_the_box_is(box, outlined):
    assert crop_around(GREY, box=box, margin=0.3, side=64, outlined=outlined).shape == (64, 64, 3)


def test_crop_around__beyond_the_photo_is_grey():
    crop = crop_around(GREY, box=(0, 0, 10, 10), margin=0.5, side=60, outlined=False)
    assert (crop[0, 0] == 127).all() and (crop[30, 30] == 100).all()
