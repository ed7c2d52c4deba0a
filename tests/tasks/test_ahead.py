import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.ahead import ahead


def test_ahead__results_in_the_order_of_the_items():
    with ThreadPoolExecutor(3) as executor:
        assert list(ahead(lambda item: item * item, range(20), executor=executor, most=4)) == [n * n for n in range(20)]


def test_ahead__asks_for_no_more_items_than_it_may():
    asked = []
    items = (asked.append(item) or item for item in range(10))
    with ThreadPoolExecutor(2) as executor:
        results = ahead(str, items, executor=executor, most=3)
        assert next(results) == "0"
        assert asked == [0, 1, 2]
        results.close()


def test_ahead__an_error_comes_in_its_place_and_what_waits_is_not_started():
    gate = threading.Event()
    started = []

    def work(item):
        started.append(item)
        if item == 0:
            raise ValueError("first")
        gate.wait(5)

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="first"):
            list(ahead(work, range(5), executor=executor, most=5))
        gate.set()
    assert started in ([0], [0, 1])
