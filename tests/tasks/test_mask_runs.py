import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from tasks.mask_runs import encode_labels


@settings(deadline=None)
@given(
    labels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 40)), elements=st.integers(0, 3)),
    margins=st.tuples(*[st.integers(0, 3)] * 4),
    label=st.integers(1, 3),
)
def test_encode_labels__equals_the_encoding_of_the_whole_mask(labels, margins, label):
    top, left, bottom, right = margins
    whole = np.pad(labels, ((top, bottom), (left, right)))
    expected = coco_mask.encode(np.asfortranarray((whole == label).astype(np.uint8)))["counts"].decode()
    window = (left, top, left + labels.shape[1], top + labels.shape[0])
    texts, boxes = encode_labels(whole, windows_N4=np.asarray([window] * label))
    assert len(texts) == label and texts[-1] == expected
    rows, columns = np.nonzero(whole == label)
    if len(rows):
        assert boxes[-1].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    else:
        assert boxes[-1].tolist() == [left, top, left, top]


def test_encode_labels__long_runs():
    labels = np.zeros((2000, 900), np.uint8)
    labels[3:1990, 5:880] = 1
    labels[100:110, 200:210] = 0
    expected = coco_mask.encode(np.asfortranarray(labels))["counts"].decode()
    assert encode_labels(labels, windows_N4=np.asarray([[0, 0, 900, 2000]]))[0] == [expected]


def test_encode_labels__nothing_to_encode():
    texts, boxes = encode_labels(np.zeros((5, 5), np.uint8), windows_N4=np.zeros((0, 4), np.int64))
    assert texts == [] and boxes.shape == (0, 4)
