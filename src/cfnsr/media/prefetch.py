"""Prefetch: the next items are made in threads while the ones before are in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
END = object()


def prefetch(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """Prefetch items, in their order, in a thread of their own.

    The thread ends with the iterator, also where that is closed early. An error of `items` is raised where
    the item would have come.

    Args:
        items: made one at a time.
        count: of them that wait at most.
    """
    with (
        ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread,
        closing(map_ordered(lambda _: next(items, END), repeat(None), thread, count)) as made,
    ):
        for item in made:
            if item is END:
                return
            yield item  # type: ignore[misc]


def map_ordered(
    function: Callable[[Item], Made], items: Iterable[Item], pool: Executor, count: int
) -> Generator[Made, None, None]:
    """Map a function over items by the threads of a pool, in order.

    Args:
        function: called for several items at once.
        items: read by the thread that iterates.
        pool: lasts longer than this.
        count: of items that are read before the first result is yielded.
    """
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
