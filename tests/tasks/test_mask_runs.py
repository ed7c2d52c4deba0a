import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from tasks.mask_runs import encode_crop


@given(
    mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))),
    margins=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_encode_crop__equals_the_encoding_of_the_whole_mask(mask, margins):
    top, left, bottom, right = margins
    whole = np.pad(mask, ((top, bottom), (left, right)))
    expected = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()
    assert encode_crop(mask, x=left, y=top, height=whole.shape[0], width=whole.shape[1]) == expected
