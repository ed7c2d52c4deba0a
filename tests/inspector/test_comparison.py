from types import SimpleNamespace

import pytest

from inspector.comparison import Delta, product_deltas, turn_of
from inspector.confusion_matrix import NOTHING, confusion_matrix, mistake_pairs
from inspector.products import rivals_of


@pytest.mark.parametrize(
    ("before", "after", "turn"),
    [(0, 1, "became wrong"), (2, 0, "became right"), (1, 3, "worse"), (3, 1, "better"), (0, 0, "same"), (2, 2, "same")],
)
def test_turn_of(before, after, turn):
    assert turn_of(before, after) == turn


@pytest.mark.parametrize(
    ("name", "before", "after", "better"),
    [("cAcc", 0.5, 0.6, True), ("cAcc", 0.6, 0.5, False), ("ACD", 1.0, 0.5, True), ("mCCD", 0.1, 0.2, False)]
    + [("cAcc", 0.5, 0.5, None), ("cAcc", None, 0.5, None)],
)
def test_delta__knows_which_way_is_better(name, before, after, better):
    assert Delta(name=name, before=before, after=after).better is better


def mistake(kind, true, found):
    return {"kind": kind, "true_sku": true, "found_sku": found}


MISTAKES = [
    mistake("wrong SKU", "tea", "oats"),
    mistake("wrong SKU", "tea", "oats"),
    mistake("missed", "tea", None),
    mistake("background", None, "rice"),
    mistake("double", "tea", "tea"),
]


def test_mistake_pairs__nothing_stands_for_what_is_missed_or_not_there():
    assert mistake_pairs(MISTAKES) == [
        ("tea", "oats", 2),
        (NOTHING, "rice", 1),
        (NOTHING, "tea", 1),
        ("tea", NOTHING, 1),
    ]


def test_confusion_matrix__places_every_pair_and_nothing_last():
    matrix = confusion_matrix(mistake_pairs(MISTAKES))
    assert (matrix.rows, matrix.columns) == (["tea", NOTHING], ["oats", "rice", "tea", NOTHING])
    assert {(cell.true, cell.found, cell.times) for cell in matrix.cells} == set(mistake_pairs(MISTAKES))
    assert len({(cell.x, cell.y) for cell in matrix.cells}) == 4
    assert max(matrix.cells, key=lambda cell: cell.strength).times == 2


def test_confusion_matrix__of_a_large_catalog_stays_small():
    pairs = [(f"sku{number}", f"sku{number + 1}", 200 - number) for number in range(200)]
    matrix = confusion_matrix(pairs)
    assert len(matrix.rows) <= 24 and matrix.left_out == 200 - len(matrix.cells)


def test_rivals_of__counts_both_directions():
    rivals = rivals_of(
        [{"true_sku": "a", "found_sku": "b", "times": 2}, {"true_sku": "b", "found_sku": "a", "times": 3}]
    )
    assert rivals == {"a": [("b", 5)], "b": [("a", 5)]}


def test_product_deltas__a_new_product_comes_first_and_is_not_as_before():
    figures = {"products": 5, "precision": 0.5, "recall": 0.25, "photos_miscounted": 4}
    old, worse = ({"sku": sku, **figures} for sku in ("oats", "tea"))
    before = SimpleNamespace(rows=lambda _: [old, worse])
    after = SimpleNamespace(rows=lambda _: [old, {**worse, "photos_miscounted": 9}, {"sku": "rice", **figures}])
    deltas = product_deltas(before, after)
    assert [(one.sku, bool(one.weight)) for one in deltas] == [("rice", True), ("tea", True), ("oats", False)]
