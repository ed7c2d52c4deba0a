import numpy as np
import pytest

from benchmarks.serve import Load, bad_uploads, jpeg_claiming, png_of
from flows.serve_app import Limits
from storage.images import decode_rgb, encode_jpeg, picture_size

PHOTO = encode_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_png_of__is_sound_and_small_for_its_pixels():
    data = png_of(300, 200)
    assert decode_rgb(data).shape == (200, 300, 3) and len(data) < 400


def test_jpeg_claiming__only_the_header_lies():
    data = jpeg_claiming(PHOTO, side=60_000)
    assert picture_size(data) == (60_000, 60_000) and len(data) == len(PHOTO)


def test_bad_uploads__each_is_what_it_says():
    uploads = {name: data for name, (data, _) in bad_uploads(PHOTO).items()}
    assert len(uploads["too many bytes"]) > Limits().most_bytes > len(uploads["PNG bomb"])
    assert np.prod(picture_size(uploads["PNG bomb"])) > Limits().most_pixels
    with pytest.raises(ValueError, match="truncated"):
        decode_rgb(uploads["truncated"])


def test_load__percentiles_in_milliseconds():
    load = Load(seconds=[0.1, 0.2, 0.3])
    assert (load.latency(0.5), load.latency(1.0)) == (pytest.approx(200), pytest.approx(300))
