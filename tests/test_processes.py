"""A map over processes: all results, one crash or hang costs one item, an exception ends it."""

import multiprocessing
import operator
import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cfnsr import processes
from cfnsr.errors import InputError
from cfnsr.media.errors import MediaError
from cfnsr.processes import Worker, WorkerDied, map_surviving, more_time, restart_limit, time_limit


def results(items: list[Any], workers: int) -> list[tuple[int, object]]:
    """The items' places and what calling each gave, in the order of the items."""
    done = map_surviving(operator.call, items, workers, lambda item, death: str(death))
    return sorted((items.index(item), result) for item, result in done)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_item_has_its_result(workers: int) -> None:
    assert results([partial(int, number) for number in range(20)], workers) == [(n, n) for n in range(20)]
    assert results([], workers) == []


def hang(seconds: float) -> None:
    """As a codec does: no Python runs any more."""
    processes.PATIENCE = seconds
    with time_limit(None):
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()) - {signal.SIGALRM})
        while True:
            time.sleep(0.1)


def die_once(path: Path) -> str:
    """As a worker that somebody else killed."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_costs_its_item_alone(workers: int, tmp_path: Path) -> None:
    items: list[Any] = [partial(int, number) for number in range(12)]
    items[3:3] = [partial(os._exit, 1), partial(hang, 0.2), partial(die_once, tmp_path / "died")]
    found = [result for _, result in results(items, workers)]
    died, late = "the process that read it died (1)", "it took too long"
    assert found == [0, 1, 2, died, late, "alive", *range(3, 12)]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_exception_ends_the_map(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        results([partial(operator.floordiv, 1, number) for number in range(4)], workers)
    assert not multiprocessing.active_children()


class Counting:
    """A function that keeps something between calls, as one does that loads a model."""

    calls = 0

    def __call__(self, item: str) -> int:
        self.calls += 1
        return self.calls


def test_a_process_keeps_what_its_function_has_loaded() -> None:
    function = Counting()
    found = [result for _, result in map_surviving(function, "abc", 1, lambda item, death: 0)]
    assert found == [1, 2, 3] and function.calls == 0


@pytest.mark.parametrize("code", [None, 1, -signal.SIGKILL, -signal.SIGALRM])
def test_a_death_is_told_between_processes(code: int | None) -> None:
    death = WorkerDied(code)
    found = pickle.loads(pickle.dumps(death))  # noqa: S301
    assert (str(found), found.late) == (str(death), death.late)


def refuse() -> None:
    raise MediaError("too long", "it is")


def test_what_a_worker_raises_arrives() -> None:
    worker = Worker(processes.LEAST_MEMORY)
    with pytest.raises(InputError, match="it is") as error:
        worker.call(refuse)
    assert isinstance(error.value, MediaError) and error.value.reason == "too long"
    assert "in refuse" in error.value.__notes__[0], "its traceback, for --debug"
    assert worker.call(operator.add, 1, 1) == 2
    worker.end()


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux limits it")
def test_a_worker_may_not_take_all_memory() -> None:
    worker = Worker(1 << 30)
    with pytest.raises(MemoryError):
        worker.call(np.ones, 1 << 28)
    assert worker.call(np.ones, 3).sum() == 3
    worker.end()


def test_a_worker_takes_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of NumPy's library, whose idle threads wait busily."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.delenv("OMP_NUM_THREADS")  # of the tests themselves
    worker = Worker(processes.LEAST_MEMORY)
    assert worker.call(cv2.getNumThreads) == 1
    worker.call(np.ones, 1)
    pools = [each for each in worker.call(threadpoolctl.threadpool_info) if each["user_api"] == "blas"]
    assert pools and all(each["num_threads"] == 1 for each in pools)
    worker.end()


def limits(file: Path) -> list[float]:
    """Seconds left with a file, with a long one, after some progress, and behind it."""
    with time_limit(file):
        first = signal.getitimer(signal.ITIMER_REAL)[0]
        more_time(1_000)
        then = signal.getitimer(signal.ITIMER_REAL)[0]
        restart_limit(1_000)
        kept = signal.getitimer(signal.ITIMER_REAL)[0]
        restart_limit(2_000)
        again = signal.getitimer(signal.ITIMER_REAL)[0]
    restart_limit(2_000)
    return [first, then, kept, again, signal.getitimer(signal.ITIMER_REAL)[0]]


def test_a_larger_or_longer_file_may_take_longer_and_this_process_has_no_limit(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 10**9)
    assert limits(tmp_path / "file") == [0] * 5
    worker = Worker(processes.LEAST_MEMORY)
    found = worker.call(limits, tmp_path / "file")
    worker.end()
    assert found == pytest.approx([500, 1_500, 1_500, 2_000, 0], abs=100)
