"""A function over many items by an executor: results in their order, only so many ahead of whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# `map`, or one that works on several items at once and keeps their order.
Mapped = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, executor: Executor, most: int
) -> Iterator[Result]:
    """Results of `function` in the order of `items`; at most `most` are under way or wait to be taken.

    Items are asked for one by one, as places become free: they may come from another such iterator.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
