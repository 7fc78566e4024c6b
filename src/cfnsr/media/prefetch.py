"""Prefetch: the next items are made in threads while the ones before are in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting = deque(thread.submit(next, items, END) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not END:
                waiting.append(thread.submit(next, items, END))
                yield item  # type: ignore[misc]
        finally:
            _cancel(waiting)


def mapped(
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
        _cancel(waiting)


def _cancel(waiting: Iterable[Future[Made]]) -> None:
    for each in waiting:
        each.cancel()
