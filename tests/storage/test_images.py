import io
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from storage.images import (
    MAX_PIXELS,
    decode_grey,
    decode_reduced,
    decode_rgb,
    decode_rgba,
    encode_jpeg,
    encode_png,
    picture_size,
)


def photo(height=20, width=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_decode_rgb__agrees_with_pillow_on_a_png():
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG")
    np.testing.assert_array_equal(decode_rgb(buffer.getvalue()), photo())


def test_encode_png__is_read_by_pillow_with_alpha():
    with Image.open(io.BytesIO(encode_png(photo(channels=4)))) as read:
        np.testing.assert_array_equal(np.asarray(read), photo(channels=4))
    np.testing.assert_array_equal(decode_rgba(encode_png(photo(channels=4))), photo(channels=4))


def test_encode_jpeg__is_read_by_pillow_in_rgb_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    with Image.open(io.BytesIO(encode_jpeg(red, quality=95))) as read:
        assert np.asarray(read)[8, 8, 0] > 240
        assert np.asarray(read)[8, 8, 2] < 15


def test_decode_grey__keeps_a_mask_exactly():
    mask = photo()[..., 0]
    np.testing.assert_array_equal(decode_grey(encode_png(mask)), mask)


@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_picture_size__equals_pillow(suffix, size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, suffix)
    assert picture_size(buffer.getvalue()) == size


@given(st.floats(0, 0.98))
def test_decode_rgb__refuses_a_truncated_jpeg(share):
    whole = encode_jpeg(photo(64, 64))
    with pytest.raises(ValueError, match="picture"):
        decode_rgb(whole[: int(len(whole) * share)])


@given(st.floats(0, 0.98))
def test_decode_rgb__refuses_a_truncated_png(share):
    whole = encode_png(photo(64, 64))
    with pytest.raises(ValueError, match="picture"):
        decode_rgb(whole[: int(len(whole) * share)])


@given(st.binary(max_size=200))
def test_decode_rgb__never_fails_in_another_way(data):
    with pytest.raises(ValueError, match="picture"):
        decode_rgb(data)


def test_decode_rgb__refuses_huge_pictures_before_decoding():
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (MAX_PIXELS).to_bytes(4, "big") + (2).to_bytes(4, "big")
    with pytest.raises(ValueError, match="at most"):
        decode_rgb(header + b"IEND")


def test_decode_rgb__makes_no_room_for_a_chunk_that_is_not_there():
    whole = encode_png(photo())
    claimed = whole[:33] + (2**31 - 1).to_bytes(4, "big") + whole[37:]
    with pytest.raises(ValueError, match="truncated PNG"):
        decode_rgb(claimed)


def test_decode_rgb__takes_a_png_with_something_behind_its_end():
    np.testing.assert_array_equal(decode_rgb(encode_png(photo()) + bytes(100_000)), photo())


def test_decode_rgba__refuses_a_picture_without_alpha():
    with pytest.raises(ValueError, match="4 channels"):
        decode_rgba(encode_png(photo()))


@pytest.mark.parametrize(
    ("least_side", "size"), [(300, (300, 200)), (150, (150, 100)), (151, (300, 200)), (75, (75, 50)), (10, (38, 25))]
)
@pytest.mark.parametrize("encode", [partial(encode_jpeg, quality=95), encode_png])
def test_decode_reduced__the_smallest_that_is_not_below(encode, least_side, size):
    data = encode(smooth(width=300, height=200))
    reduced = decode_reduced(data, least_side=least_side)
    assert reduced.shape == (size[1], size[0], 3)
    with Image.open(io.BytesIO(data)) as read:
        expected = np.asarray(read.resize(size, Image.Resampling.BOX), np.int16)
    assert np.abs(reduced - expected).max() <= 4


def test_decode_reduced__turned_upright():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(width=300, height=200)).save(buffer, "JPEG", exif=exif)
    assert decode_reduced(buffer.getvalue(), least_side=150).shape == (150, 100, 3)


def test_decode_reduced__refuses_a_truncated_jpeg():
    with pytest.raises(ValueError, match="truncated"):
        decode_reduced(encode_jpeg(photo(64, 64))[:300], least_side=8)


def smooth(*, width, height):
    across, down = np.linspace(20, 220, width), np.linspace(0, 30, height)
    return np.repeat((across[None] + down[:, None])[..., None], 3, axis=2).astype(np.uint8)
