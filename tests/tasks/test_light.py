import numpy as np
import pytest

from tasks.light import fit_surface, light_gain, surface_terms

LIGHT = np.asarray([[0.1, 0.05, -0.02, 0.03, 0.0, -0.01], [0.0] * 6, [-0.2, 0, 0.1, 0, 0.02, 0]], np.float32)


def test_light_gain__is_the_exponential_of_the_polynomial():
    gain = light_gain(LIGHT, height=5, width=9)
    x, y = -1 + 2 * 3 / 8, -1 + 2 * 1 / 4
    expected = np.exp([0.1 + 0.05 * x - 0.02 * y + 0.03 * x * x - 0.01 * y * y, 0, -0.2 + 0.1 * y + 0.02 * x * y])
    assert gain[1, 3] == pytest.approx(expected, rel=1e-5)


def test_light_gain__large_sizes_are_interpolated_closely():
    terms = surface_terms(200, 300)
    assert np.allclose(light_gain(LIGHT, height=200, width=300), np.exp(terms @ LIGHT.T), rtol=2e-3)


def test_fit_surface__finds_the_light_under_shadows_and_products():
    generator = np.random.default_rng(0)
    terms = surface_terms(40, 40).reshape(-1, 6)
    values = terms @ LIGHT.T + generator.normal(0, 0.003, (1600, 3))
    values[generator.random(1600) < 0.2] -= generator.uniform(0.1, 1.0)
    values[generator.random(1600) < 0.05] += 0.5
    assert np.allclose(fit_surface(terms, values), LIGHT, atol=0.006)
