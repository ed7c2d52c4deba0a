import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from storage.rle import decode_mask, decode_union, encode_mask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS)
def test_encode_mask__equals_pycocotools(mask):
    expected = reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_mask(mask) == expected


@given(MASKS)
def test_decode_mask__undoes_encode(mask):
    height, width = mask.shape
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), height=height, width=width), mask)


@given(st.integers(0, 4), arrays(np.bool_, st.tuples(st.just(4), st.integers(1, 12), st.integers(1, 12))))
def test_decode_union__is_what_any_mask_covers(count, masks):
    union = decode_union([encode_mask(mask) for mask in masks[:count]], height=masks.shape[1], width=masks.shape[2])
    np.testing.assert_array_equal(union, masks[:count].any(axis=0))
