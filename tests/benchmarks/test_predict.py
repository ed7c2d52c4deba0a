import numpy as np
import pytest

from benchmarks.predict import Cost, agreement, in_turns, photos_of_side, summarised
from storage.images import encode_png, picture_size
from tasks.shopping_list import ListedProduct, ShoppingList


def listed(photo, state, **counts):
    products = tuple(ListedProduct(sku=sku, name=sku, count=n, confidence=0.9) for sku, n in counts.items())
    return ShoppingList(photo=photo, products=products, confidence=0.9, state=state)


def test_agreement__accepted_lists_apart_from_the_others():
    lists = [listed("a", "accepted", tea=2), listed("b", "accepted", tea=1), listed("c", "needs-review", oats=1)]
    found = agreement(lists, truth={"a": {"tea": 2}, "b": {"oats": 1}, "c": {"oats": 1}})
    assert found == {
        "right": pytest.approx(2 / 3),
        "right among the accepted": 0.5,
        "right among needs-review": 1.0,
        "accepted": pytest.approx(2 / 3),
    }


def test_summarised__ratios_round_by_round():
    costs = {
        "network alone": [Cost(wall=0.1, processor=0.2), Cost(wall=0.2, processor=0.2)],
        "disk to list": [Cost(wall=0.15, processor=0.3), Cost(wall=0.3, processor=0.3)],
    }
    found = summarised(costs)
    assert found["disk to list: ratio to the network alone, wall"] == pytest.approx(1.5)
    assert found["network alone: photos/s"] == pytest.approx(1 / 0.15)
    assert found["disk to list: processor ms a photo"] == pytest.approx(300)


def test_in_turns__after_a_round_that_warms_up():
    done = []
    costs = in_turns({name: lambda name=name: done.append(name) for name in "ab"}, photos=1, rounds=2)
    assert done == list("ababab") and [len(rows) for rows in costs.values()] == [2, 2]


def test_photos_of_side__enlarged_as_jpeg(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((20, 40, 3), np.uint8)))
    (file,) = photos_of_side([tmp_path / "a.png"], side=80, folder=tmp_path)
    assert picture_size(file.path.read_bytes()) == (80, 40) and file.name == "a"
