import numpy as np
import pytest

from tasks.shadow import Lamp, LampStrength, draw_lamp, kernels_of, shadow_length, sweep_kernel


@pytest.mark.parametrize("angle", np.deg2rad([0, 50, 180, 300]))
def test_sweep_kernel__sums_to_one_and_points_away_from_the_product(angle):
    kernel = sweep_kernel(8, angle=angle, blur=1.0)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    middle = kernel.shape[0] // 2
    y, x = np.mgrid[-middle : middle + 1, -middle : middle + 1]
    pull = np.asarray([(kernel * x).sum(), (kernel * y).sum()])
    assert pull / np.hypot(*pull) == pytest.approx([np.cos(angle), np.sin(angle)], abs=0.08)


def test_kernels_of__each_longer_than_the_one_before_and_all_sum_to_one():
    shadows = kernels_of(Lamp(angle=0.0, slope=0.5, softness=0.2, cast=0.5, contact=0.1))
    reaches = []
    for begin, rows, columns, _, column in shadows.table_L5:
        assert shadows.values[begin : begin + rows * columns].sum() == pytest.approx(1, abs=1e-4)
        reaches.append(column + columns - 1)
    assert reaches[2:] == sorted(reaches[2:]) and reaches[-1] > 2 * reaches[2]
    # The foot's shadow lies around the cell, across and then down.
    assert shadows.table_L5[0, 1:].tolist() == [1, 15, 0, -7] and shadows.table_L5[1, 1:].tolist() == [15, 1, -7, 0]


def test_draw_lamp__darker_pools_have_darker_lamps():
    faint, strong = (
        draw_lamp(
            LampStrength(ambient=a, directed=d, angle=1.0, slope=0.4, length=8), generator=np.random.default_rng(0)
        )
        for a, d in ((0.05, 0.01), (0.3, 0.08))
    )
    assert strong.cast > faint.cast and strong.contact > faint.contact
    assert strong.angle == pytest.approx(1.0, abs=0.11) and faint.angle != pytest.approx(1.0, abs=0.11)


def test_draw_lamp__the_same_darkening_takes_a_lighter_shadow_where_it_is_longer():
    short, long = (
        draw_lamp(
            LampStrength(ambient=0.1, directed=0.05, angle=1.0, slope=length / 20, length=length),
            generator=np.random.default_rng(0),
        )
        for length in (4, 12)
    )
    assert long.slope > short.slope and long.cast < short.cast


def test_draw_lamp__flat_products_have_a_lamp_too():
    flat = LampStrength(ambient=0.1, directed=0.05, angle=1.0, slope=0.0, length=shadow_length(0.0, height=0))
    assert 0 < draw_lamp(flat, generator=np.random.default_rng(0)).cast <= 0.8


def test_shadow_length__usual_where_nothing_was_measured_and_longer_for_longer_shadows():
    usual = shadow_length(0.0, height=20)
    assert shadow_length(1.8, height=20) < usual < shadow_length(6.0, height=20)
    assert shadow_length(99.0, height=20) <= 20
