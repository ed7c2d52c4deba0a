import pytest

from storage.words import some_of


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, ""), (1, "0"), (8, "0, 1, 2, 3, 4, 5, 6, 7"), (9, "0, 1, 2, 3, 4, 5, 6, 7 and 1 more")],
)
def test_some_of__names_eight_and_counts_the_others(count, expected):
    assert some_of([str(index) for index in range(count)]) == expected
