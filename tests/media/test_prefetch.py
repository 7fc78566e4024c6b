"""What is made ahead comes in order, no further ahead than it may, and leaves no thread behind."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from cfnsr.media.prefetch import map_ordered, prefetch


def numbers(made: list[int], stop: int = 100, error: Exception | None = None) -> Iterator[int]:
    for number in range(stop):
        made.append(number)
        yield number
    if error is not None:
        raise error


def settled(made: list[int]) -> int:
    """How many were made, once no more come."""
    before = -1
    while before != len(made):
        before = len(made)
        time.sleep(0.05)
    return before


def test_items_are_made_ahead_by_another_thread() -> None:
    made: list[int] = []
    makers = set()

    def items() -> Iterator[int]:
        for number in numbers(made):
            makers.add(threading.get_ident())
            yield number

    before = threading.active_count()
    with closing(prefetch(items(), 3)) as coming:
        assert made == [], "nothing before it is asked for"
        assert next(coming) == 0 and settled(made) == 4
        assert next(coming) == 1 and settled(made) == 5
        assert list(coming) == list(range(2, 100))
    assert len(makers) == 1 and threading.get_ident() not in makers
    assert threading.active_count() == before


def test_closing_ends_the_thread() -> None:
    made: list[int] = []
    before = threading.active_count()
    coming = prefetch(numbers(made), 3)
    next(coming)
    coming.close()
    assert threading.active_count() == before and settled(made) <= 5


def test_an_error_comes_where_the_item_would_have() -> None:
    coming = prefetch(numbers([], 5, ValueError("five")), 3)
    assert [next(coming) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(coming)
    assert list(coming) == []


def test_what_is_made_in_a_pool_comes_in_order() -> None:
    made: list[int] = []
    both = threading.Barrier(2)

    def double(number: int) -> int:
        if number < 2:
            both.wait(10)  # which only two at once can pass
        time.sleep(0.01 * (number % 3 == 0))
        return 2 * number

    with ThreadPoolExecutor(2) as pool:
        coming = map_ordered(double, numbers(made), pool, 4)
        assert next(coming) == 0 and len(made) == 5
        assert list(coming) == [2 * number for number in range(1, 100)]


def test_an_error_in_a_pool_comes_in_its_place() -> None:
    def half(number: int) -> float:
        return 1 / (number - 3)

    with ThreadPoolExecutor(2) as pool:
        coming = map_ordered(half, numbers([], 9), pool, 2)
        assert [next(coming) for _ in range(3)] == [-1 / 3, -1 / 2, -1]
        with pytest.raises(ZeroDivisionError):
            next(coming)
        coming = map_ordered(float, numbers([], 4, ValueError("four")), pool, 2)
        with pytest.raises(ValueError, match="four"):
            list(coming)
