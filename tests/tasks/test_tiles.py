import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from tasks.tiles import apply_in_tiles, tile_spans


@given(
    quarters=st.integers(1, 80), tile=st.integers(40, 200), margin=st.integers(0, 15), multiple=st.sampled_from([1, 4])
)
def test_tile_spans__kept_parts_cover_everything_once_and_have_their_margins(quarters, tile, margin, multiple):
    length = quarters * 4
    spans = tile_spans(length, tile=tile, margin=margin, multiple=multiple)
    kept = [pixel for span in spans for pixel in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length))
    for span in spans:
        assert span.stop - span.start <= tile or span.stop - span.start == length <= tile
        assert span.start % multiple == 0 and span.stop % multiple == 0
        assert span.keep_start - span.start >= margin or span.start == 0
        assert span.stop - span.keep_stop >= margin or span.stop == length


def test_tile_spans__margins_without_room_are_refused():
    with pytest.raises(ValueError, match="twice the margin"):
        tile_spans(100, tile=20, margin=10, multiple=1)


@given(height=st.integers(20, 90), width=st.integers(20, 90))
def test_apply_in_tiles__equals_a_single_pass(height, width):
    picture = np.random.default_rng(0).random((height, width, 3), np.float32)

    def blur(part):
        return uniform_filter(part, size=(7, 7, 1), mode="reflect")

    tiled = apply_in_tiles(blur, picture, tile=32, margin=3, multiple=1)
    np.testing.assert_allclose(tiled, blur(picture), atol=1e-6)


def test_apply_in_tiles__the_function_sees_multiples_only():
    sizes = []

    def note(part):
        sizes.append(part.shape[:2])
        return part

    picture = np.random.default_rng(0).random((45, 50, 3), np.float32)
    assert np.array_equal(apply_in_tiles(note, picture, tile=32, margin=5, multiple=4), picture)
    assert all(side % 4 == 0 for size in sizes for side in size)
