import numpy as np
import pytest

from tasks.pixels import shade_board, throw_shadow
from tasks.shadow import Lamp, LampStrength, draw_lamp, shadow_parts, sweep_kernel


def lamp(**changes):
    return Lamp(**{"angle": 0.0, "slope": 0.5, "softness": 0.2, "cast": 0.6, "contact": 0.0, **changes})


def shaded(one, *, x=20, y=20, size=10):
    """A board of grey 200 with a product of size x size cells of 4 pixels, its corner at cell (x, y)."""
    light = np.ones((51, 51), np.float32)
    throw_shadow(light, np.full((size, size), 255, np.uint8), x, y, shadow_parts(one, height=60, cell=4))
    canvas = np.empty((200, 200, 3), np.uint8)
    shade_board(np.full((200, 200, 3), 200, np.uint8), light, 4, canvas)
    return canvas


@pytest.mark.parametrize("step", [0, 5, 18, 30])
def test_sweep_kernel__sums_to_one_and_points_away_from_the_product(step):
    kernel, row, column = sweep_kernel(8, step, 10)
    assert kernel.sum() == pytest.approx(1, abs=0.01)
    y, x = np.mgrid[row : row + kernel.shape[0], column : column + kernel.shape[1]]
    pull = np.asarray([(kernel * x).sum(), (kernel * y).sum()])
    angle = np.deg2rad(step * 10)
    assert pull / np.hypot(*pull) == pytest.approx([np.cos(angle), np.sin(angle)], abs=0.08)


@pytest.mark.parametrize(
    ("angle", "dark", "bright"), [(0.0, (100, 128), (100, 70)), (np.pi / 2, (128, 100), (70, 100))]
)
def test_throw_shadow__the_cast_shadow_falls_in_its_direction(angle, dark, bright):
    canvas = shaded(lamp(angle=angle))
    assert canvas[dark].max() < 160 and canvas[bright].min() > 185


def test_throw_shadow__the_contact_shadow_lies_all_around():
    canvas = shaded(lamp(cast=0.0, contact=0.5))
    sides = [canvas[100, 77, 0], canvas[100, 122, 0], canvas[77, 100, 0], canvas[122, 100, 0]]
    assert max(sides) < 190 and max(sides) - min(sides) <= 2
    assert (canvas[:50] == 200).all()


@pytest.mark.parametrize(("x", "y"), [(-2, 15), (47, 15), (15, -2), (15, 47)])
def test_throw_shadow__reaches_over_the_edges_of_the_photo(x, y):
    canvas = shaded(lamp(contact=0.5), x=x, y=y)
    assert canvas.shape == (200, 200, 3) and canvas.min() < 190


def test_draw_lamp__darker_pools_have_darker_lamps():
    faint, strong = (
        draw_lamp(LampStrength(ambient=a, directed=d, angle=1.0), generator=np.random.default_rng(0))
        for a, d in ((0.05, 0.01), (0.3, 0.08))
    )
    assert strong.cast > faint.cast and strong.contact > faint.contact
    assert strong.angle == pytest.approx(1.0, abs=0.1) and faint.angle != pytest.approx(1.0, abs=0.1)
