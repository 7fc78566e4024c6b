"""A map over processes: all results, one crash costs one item, an exception ends it."""

import operator
import os
from functools import partial
from typing import Any

import pytest

from cfnsr.processes import map_surviving


def results(items: list[Any], workers: int) -> list[tuple[int, object]]:
    """The items' places and what calling each gave, in the order of the items."""
    done = map_surviving(operator.call, items, workers, lambda item: "died")
    return sorted((items.index(item), result) for item, result in done)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_its_result(workers: int) -> None:
    assert results([partial(int, number) for number in range(20)], workers) == [(n, n) for n in range(20)]
    assert results([], workers) == []


def test_a_process_that_dies_costs_its_item_alone() -> None:
    items = [partial(int, number) for number in range(12)]
    items[3:3] = [partial(os._exit, 1)]  # type: ignore[list-item]
    found = [result for _, result in results(items, 2)]
    assert found == [0, 1, 2, "died", *range(3, 12)]


def test_an_exception_ends_the_map() -> None:
    with pytest.raises(ZeroDivisionError):
        results([partial(operator.floordiv, 1, number) for number in range(4)], 2)
