import numpy as np

from benchmarks.export import list_accuracy
from tasks.photo_reader import Reading


def test_list_accuracy__whole_lists():
    readings = [
        Reading(
            boxes_N4=np.zeros((0, 4), np.float32),
            scores_N=np.zeros(0, np.float32),
            labels_N=np.zeros(0, np.int64),
            products_C=np.array(counts),
            count=0.0,
        )
        for counts in ((2, 0), (0, 1), (0, 0))
    ]
    truth = [{"tea": 2}, {"oats": 2}, {}]
    assert list_accuracy(readings, truth=truth, skus=("tea", "oats")) == 2 / 3
