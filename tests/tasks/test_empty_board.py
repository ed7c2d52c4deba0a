import numpy as np
import pytest

from tasks.empty_board import board_groups, fill_holes, recover_board, shrink
from tasks.light import light_gain

SIDE = 120


def true_board():
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    vignette = 165 - 45 * ((x - 0.5) ** 2 + (y - 0.45) ** 2)
    texture = 2 * np.sin(12 * x + 5 * y)
    return np.stack([vignette + texture, vignette + 2, vignette + 6 - texture], axis=-1)


def lit_photo(board, generator, *, crowded=True):
    """The board under its own light, with shadowed products that gather in the middle, and noise."""
    light = generator.normal(0, 0.03, (3, 6)) * [1, 1, 1, 0.3, 0.3, 0.3]
    photo = board * light_gain(light - light.mean(0) * 0.2, height=SIDE, width=SIDE)
    for _ in range(generator.integers(4, 9) if crowded else 0):
        x, y = np.clip(generator.normal(50, 18, 2), 3, SIDE - 32).astype(int)
        width, height = generator.integers(12, 26, 2)
        photo[y + 4 : y + height + 4, x + 4 : x + width + 4] *= 0.75
        photo[y : y + height, x : x + width] = generator.uniform(20, 230, 3)
    return np.clip(photo + generator.normal(0, 1, photo.shape), 0, 255).astype(np.uint8)


def levelled_error(found, truth):
    """Difference in grey levels after the overall colour, which no photo tells, is taken out."""
    return found / np.exp(np.mean(np.log(found) - np.log(truth), axis=(0, 1))) - truth


@pytest.fixture(scope="module")
def photos():
    generator = np.random.default_rng(1)
    return np.stack([lit_photo(true_board(), generator) for _ in range(24)])


def test_recover_board__is_close_where_a_median_has_ghosts(photos):
    found = recover_board(photos)
    error = levelled_error(found.board_HW3, true_board())
    ghosts = levelled_error(np.median(photos, axis=0), true_board())
    assert np.abs(error).mean() < 1.5 and np.abs(error).max() < 8
    assert np.abs(ghosts).max() > 20
    assert found.lights_PC6.shape == (24, 3, 6)


def test_recover_board__fills_what_no_photo_shows(photos):
    blocked = photos.copy()
    blocked[:, 48:62, 48:62] = (200, 30, 30)
    found = recover_board(blocked)
    error = levelled_error(found.board_HW3, true_board())
    assert found.holes > 0.01
    assert np.abs(error[48:62, 48:62]).max() < 10


def test_recover_board__product_masks_are_obeyed(photos):
    # A board-coloured product can't be told from the board; a mask can.
    products = np.zeros((24, SIDE, SIDE), np.float32)
    products[:, 20:40, 20:40] = 1.0
    changed = photos.copy()
    changed[:, 20:40, 20:40] = np.clip(changed[:, 20:40, 20:40] * 1.02, 0, 255).astype(np.uint8)
    free = levelled_error(recover_board(changed).board_HW3, true_board())[24:36, 24:36].mean()
    masked = levelled_error(recover_board(changed, products_Phw=products).board_HW3, true_board())[24:36, 24:36].mean()
    assert abs(masked) < abs(free)


def test_fill_holes__continues_the_surroundings():
    y, x = np.mgrid[0:60, 0:60] / 60.0
    values = np.stack([x, y, x + y], axis=-1).astype(np.float32)
    weights = np.ones((60, 60), np.float32)
    weights[20:30, 25:35] = 0
    filled = fill_holes(np.where(weights[..., None] > 0, values, 9.0).astype(np.float32), weights_hw=weights)
    assert np.abs(filled - values).max() < 0.12
    assert np.array_equal(filled[weights > 0], values[weights > 0])


def test_board_groups__tells_two_cameras_apart_and_one_not():
    generator = np.random.default_rng(2)
    other = true_board()[:, ::-1] * np.linspace(0.7, 1.2, SIDE)[None, :, None]
    mixed = [lit_photo(other if index % 3 == 0 else true_board(), generator) for index in range(30)]
    groups = board_groups(np.stack(mixed), most=3)
    assert sorted(map(len, groups)) == [10, 20]
    assert all(index % 3 == 0 for index in groups[1])
    assert len(board_groups(np.stack([one for index, one in enumerate(mixed) if index % 3]), most=3)) == 1


def test_shrink__keeps_small_pictures():
    assert shrink(np.zeros((100, 50, 3), np.uint8)).shape == (100, 50, 3)
    assert shrink(np.zeros((640, 320), np.uint8)).shape == (160, 80)
