import numpy as np
import pytest

from tasks.shadow import Lamp, LampStrength, darken, draw_lamp, sweep_kernel


def lamp(**changes):
    return Lamp(**{"angle": 0.0, "slope": 0.5, "softness": 0.2, "cast": 0.6, "contact": 0.0, **changes})


def shaded(one, *, x=80, y=80, size=10):
    canvas = np.full((200, 200, 3), 200, np.uint8)
    darken(canvas, np.full((size, size), 255, np.uint8), cell=4, x=x, y=y, height=60, lamp=one)
    return canvas


@pytest.mark.parametrize("step", [0, 5, 18, 30])
def test_sweep_kernel__sums_to_one_and_points_back_at_the_product(step):
    kernel = sweep_kernel(8, step, 10)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    middle = kernel.shape[0] // 2
    y, x = np.mgrid[-middle : middle + 1, -middle : middle + 1]
    pull = np.asarray([(kernel * x).sum(), (kernel * y).sum()])
    angle = np.deg2rad(step * 10)
    assert pull / np.hypot(*pull) == pytest.approx([-np.cos(angle), -np.sin(angle)], abs=0.08)


@pytest.mark.parametrize(
    ("angle", "dark", "bright"), [(0.0, (100, 128), (100, 70)), (np.pi / 2, (128, 100), (70, 100))]
)
def test_darken__the_cast_shadow_falls_in_its_direction(angle, dark, bright):
    canvas = shaded(lamp(angle=angle))
    assert canvas[dark].max() < 160 and canvas[bright].min() > 185


def test_darken__the_contact_shadow_lies_all_around():
    canvas = shaded(lamp(cast=0.0, contact=0.5))
    sides = [canvas[100, 76, 0], canvas[100, 123, 0], canvas[76, 100, 0], canvas[123, 100, 0]]
    assert max(sides) < 190 and max(sides) - min(sides) <= 6
    assert (canvas[:50] == 200).all()


@pytest.mark.parametrize(("x", "y"), [(-8, 60), (190, 60), (60, -8), (60, 190)])
def test_darken__reaches_over_the_edges_of_the_photo(x, y):
    canvas = shaded(lamp(contact=0.5), x=x, y=y)
    assert canvas.shape == (200, 200, 3) and canvas.min() < 190


def test_draw_lamp__darker_pools_have_darker_lamps():
    faint = draw_lamp(LampStrength(ambient=0.05, directed=0.01), generator=np.random.default_rng(0))
    strong = draw_lamp(LampStrength(ambient=0.3, directed=0.08), generator=np.random.default_rng(0))
    assert strong.cast > faint.cast and strong.contact > faint.contact
    assert strong.angle == faint.angle
