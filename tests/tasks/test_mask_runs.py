import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from tasks.mask_runs import encode_label


@settings(deadline=None)
@given(
    labels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 40)), elements=st.integers(0, 3)),
    margins=st.tuples(*[st.integers(0, 3)] * 4),
    label=st.integers(1, 3),
)
def test_encode_label__equals_the_encoding_of_the_whole_mask(labels, margins, label):
    top, left, bottom, right = margins
    whole = np.pad(labels, ((top, bottom), (left, right)))
    expected = coco_mask.encode(np.asfortranarray((whole == label).astype(np.uint8)))["counts"].decode()
    window = (left, top, left + labels.shape[1], top + labels.shape[0])
    text, box = encode_label(whole, label=label, window=window)
    assert text == expected
    rows, columns = np.nonzero(whole == label)
    if len(rows):
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    else:
        assert box == (left, top, left, top)


def test_encode_label__long_runs():
    labels = np.zeros((2000, 900), np.uint8)
    labels[3:1990, 5:880] = 1
    labels[100:110, 200:210] = 0
    expected = coco_mask.encode(np.asfortranarray(labels))["counts"].decode()
    assert encode_label(labels, label=1, window=(0, 0, 900, 2000))[0] == expected
