"""Which checkpoint of a training is its best one, by the log that its folder keeps."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.training import TrainingFolder


def _folder(path, ranks):
    folder = TrainingFolder(path)
    folder.log = [{"step": step, "val": {}, "rank": [rank]} for step, rank in enumerate(ranks)]
    folder.log.insert(1, {"step": 0.5, "losses": {}})
    return folder


def test_best__of_equals_the_one_that_has_learnt_for_longest(tmp_path):
    assert _folder(tmp_path, [0.5, 0.7, 0.7, 0.6]).best["step"] == 2


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_since_better__an_equal_is_no_better(ranks):
    folder = _folder(None, ranks)
    assert folder.best["rank"] == [max(ranks)]
    assert folder.since_better() == sum(max(ranks[: place + 1]) == max(ranks) for place in range(len(ranks))) - 1
