"""Worker processes: how many, started how, and a map over them that survives when one dies."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cfnsr.plugin import load_plugin, loaded

Item = TypeVar("Item")
Result = TypeVar("Result")
# A map over items that gives each with its result, as `map_surviving` with its number of workers does.
Spread: TypeAlias = Callable[..., Iterator[tuple[Any, Any]]]

# Spawned, not forked: a fork of a process that has run threads of torch, FFmpeg or OpenCV may hang.
SPAWN = multiprocessing.get_context("spawn")
QUEUED = 4  # items waiting for each worker: enough to keep it busy, few enough to stop soon


def cores() -> int:
    """Cores this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_surviving(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    crashed: Callable[[Item], Result],
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items in worker processes; gives each item with its result, in the order done.

    A process that dies, as a decoder can on a damaged file, takes only its own item with it: those under way
    are tried again, each in a process of its own. What `function` raises ends it.

    Args:
        function: of one item; it and what it gives must be picklable.
        workers: processes; 1 stays in this one.
        crashed: the result of an item whose process died.
    """
    if workers == 1 or len(items) <= 1:
        yield from ((item, function(item)) for item in items)
        return
    queue = list(reversed(items))
    running: dict[Future[Result], Item] = {}
    try:
        with worker_pool(min(workers, len(items))) as pool:
            try:
                while queue or running:
                    while queue and len(running) < QUEUED * workers:
                        item = queue.pop()
                        running[pool.submit(function, item)] = item
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()  # before it leaves `running`, so that a crash loses no item
                        yield running.pop(future), result
            finally:
                for future in running:
                    future.cancel()
    except BrokenProcessPool:
        for item in running.values():
            with worker_pool(1) as pool:
                try:
                    result = pool.submit(function, item).result()
                except BrokenProcessPool:
                    result = crashed(item)
            yield item, result
        yield from map_surviving(function, queue[::-1], workers, crashed)


def one_thread() -> None:
    """Keep OpenCV to one thread: one process a core, one core a process."""
    import cv2

    cv2.setNumThreads(1)


def worker_pool(workers: int, prepare: Callable[[], None] = one_thread) -> ProcessPoolExecutor:
    """Fresh processes, each of which runs `prepare` and the plugins first, and ends with its parent."""
    return ProcessPoolExecutor(workers, SPAWN, initializer=_start, initargs=(prepare, loaded()))


def _start(prepare: Callable[[], None], plugins: Sequence[Path]) -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    prepare()
    for path in plugins:
        load_plugin(path)
