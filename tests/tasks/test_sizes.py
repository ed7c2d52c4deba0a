import numpy as np
import pytest

from tasks.sizes import ViewExtent, camera_factors, edges_of, global_scale, height_of_view, sku_factors


def test_camera_factors__compare_the_widest_views_of_the_same_turntable_series():
    views = [
        ViewExtent(turn=turn, camera=camera, width=width / {0: 1.0, 2: 1.25}[camera] * share)
        for camera in (0, 2)
        for turn, width in (("a", 100), ("b", 60), ("c", 30))
        for share in (0.5, 1.0)
    ]
    lonely = ViewExtent(turn="d", camera=3, width=10)
    assert camera_factors([*views, lonely]) == pytest.approx({0: 1.0, 2: 1.25, 3: 1.0})
    assert camera_factors([]) == {}


def test_sku_factors__make_pixels_agree_with_millimetres():
    longest = {"a": 100.0, "b": 300.0, "c": 50.0, "d": 80.0}
    factors = sku_factors(longest, millimetres={"a": 50, "b": 100, "c": 25})
    assert factors == pytest.approx({"a": 1.0, "b": 2 / 3, "c": 1.0})
    assert sku_factors(longest, millimetres={}) == {}


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_global_scale__explains_single_blobs_among_touching_ones(scale):
    generator = np.random.default_rng(0)
    sprites = np.asarray([[100, 60], [150, 90], [80, 80], [200, 40]], np.float32)
    singles = sprites[generator.integers(0, 4, 40)] * scale * np.exp(generator.normal(0, 0.02, (40, 2)))
    pairs = sprites[generator.integers(0, 4, 15)] * scale * [1.0, 2.0]
    pairs = np.sort(pairs, axis=1)[:, ::-1]
    assert global_scale(np.concatenate([singles, pairs]), sprites) == pytest.approx(scale, rel=0.03)


def test_global_scale__needs_blobs():
    with pytest.raises(ValueError, match="blobs"):
        global_scale(np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32))


def test_height_of_view__is_the_edge_that_does_not_show():
    edges = edges_of([(200, 120), (200, 40), (120, 40)])
    assert edges == (200, 120, 40)
    assert height_of_view((200, 120), edges=edges) == 40
    assert height_of_view((120, 40), edges=edges) == 200
    assert height_of_view((30, 20), edges=edges) == 200
