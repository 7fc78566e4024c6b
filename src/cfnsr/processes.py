"""Worker processes: how many, started how, and a map over them that survives when one dies."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cfnsr.plugin import load_plugin, loaded

Item = TypeVar("Item")
Result = TypeVar("Result")
# A map over items that gives each with its result, as `map_surviving` with its number of workers does.
Spread: TypeAlias = Callable[..., Iterator[tuple[Any, Any]]]

# Spawned, not forked: a fork of a process that has run threads of torch, FFmpeg or OpenCV may hang.
SPAWN = multiprocessing.get_context("spawn")
LEAST_MEMORY = 4 << 30  # bytes a worker may take at least: a large speech encoder, or a take of 4K pictures
PATIENCE = 300.0  # seconds to read a file, in which a slow disk loads all networks too
LEAST_SPEED = 5e6  # bytes a second; FFmpeg skips empty chunks of a WAV at 8e6
TIDYING = 2.0  # seconds a worker has to delete what it has half written
_is_worker = False  # this process is a `Worker`'s, and may be ended by `time_limit`


def cores() -> int:
    """Cores this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerDied(Exception):  # noqa: N818 - it is what happened
    """A worker's process ended before it answered.

    Args:
        code: of its exit, minus the signal that ended it; None where nobody knows.
    """

    def __init__(self, code: int | None = None) -> None:
        super().__init__(code)  # as it is unpickled, when it comes from a cluster
        self.code = code
        self.late = code == -getattr(signal, "SIGALRM", 0) != 0

    def __str__(self) -> str:
        if self.late:
            return "it took too long"
        return "the process that read it died" + ("" if self.code is None else f" ({self.code})")


class Worker:
    """A process that answers one call at a time. Whatever a codec does to it, its parent goes on.

    Args:
        memory: bytes that it may take, where the platform can tell; what asks for more fails.
    """

    def __init__(self, memory: int) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(theirs, loaded(), memory), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, function: Callable[..., object], *arguments: object) -> None:
        """Begin a call; it and its result must be picklable."""
        with suppress(OSError):  # it died, which `receive` says
            self.pipe.send((function, arguments))

    def receive(self) -> Any:
        """Wait for the result of the call; raises what that raised, or `WorkerDied`."""
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            raise WorkerDied(self.process.exitcode or 0) from None
        if error is not None:
            raise error
        return result

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Do both."""
        self.send(function, *arguments)
        result: Result = self.receive()
        return result

    def end(self) -> None:
        """End the process: it may tidy up for a moment, unless it hangs."""
        self.pipe.close()
        self.process.join(0 if self.process.is_alive() else None)
        if self.process.exitcode is None:
            self.process.terminate()
            self.process.join(TIDYING)
            self.process.kill()
        self.process.join()


def map_surviving(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    failed: Callable[[Item, WorkerDied], Result],
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items in worker processes; gives each item with its result, in the order done.

    A process that dies, as a decoder can on a damaged file, costs its own item alone, and that only if it
    dies of it twice, or by its `time_limit`. What `function` raises ends it.

    Args:
        function: of one item; it and what it gives must be picklable. A process unpickles it once, so it
            may keep what it has loaded.
        workers: processes; 0 stays in this one, and dies with it.
        failed: makes the result of an item whose process died.
    """
    if workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    queue = [(item, False) for item in reversed(items)]
    alive, idle = set[Worker](), list[Worker]()
    busy: dict[Any, tuple[Worker, Item, bool]] = {}
    memory, pickled = memory_for(workers), pickle.dumps(function)
    try:
        while queue or busy:
            while queue and len(busy) < workers:
                worker = idle.pop() if idle else Worker(memory)
                alive.add(worker)
                item, again = queue.pop()
                worker.send(apply, pickled, item)
                busy[worker.pipe] = worker, item, again
            for pipe in connection.wait(busy):
                worker, item, again = busy.pop(pipe)
                try:
                    result = worker.receive()
                except WorkerDied as death:
                    alive.remove(worker)
                    if death.late or again:
                        yield item, failed(item, death)
                    else:
                        queue.append((item, True))
                    continue
                idle.append(worker)
                yield item, result
    finally:
        for worker in alive:
            worker.end()


def apply(function: bytes, item: Any) -> Any:
    """Apply a pickled function, which a process keeps between items: it may have loaded a model."""
    return _unpickled(function)(item)


@lru_cache(maxsize=1)
def _unpickled(function: bytes) -> Callable[[Any], Any]:
    return pickle.loads(function)  # type: ignore[no-any-return]  # noqa: S301 - of the parent


def memory_for(workers: int) -> int:
    """Bytes that each of some workers may take: its part of the machine's, and never too few for a model."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 0
    return max(LEAST_MEMORY, machine // workers)


@contextmanager
def time_limit(*files: Path | None) -> Iterator[None]:
    """End this process, if it is a `Worker`'s, where reading some files takes far longer than it can.

    The system does that: a codec that hangs lets no Python run.
    """
    if not _is_worker:
        yield
        return
    size = sum(file.stat().st_size for file in files if file is not None and file.is_file())
    signal.setitimer(signal.ITIMER_REAL, PATIENCE + size / LEAST_SPEED)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def more_time(seconds: float) -> None:
    """Lengthen the time limit, if there is one, now that it is known how much there is to do."""
    if _is_worker and (left := signal.getitimer(signal.ITIMER_REAL)[0]):
        signal.setitimer(signal.ITIMER_REAL, left + seconds)


def restart_limit(seconds: float) -> None:
    """Give the time limit, if there is one, at least some seconds again: there is progress."""
    if _is_worker and (left := signal.getitimer(signal.ITIMER_REAL)[0]):
        signal.setitimer(signal.ITIMER_REAL, max(left, seconds))


def _work(pipe: Connection, plugins: Sequence[Path], memory: int) -> None:
    """Answer calls, in a process of its own, until the parent hangs up."""
    global _is_worker
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which deletes what was half written
    with suppress(ImportError, ValueError, OSError):  # there is none on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    _is_worker = hasattr(signal, "setitimer")
    with suppress(EOFError, OSError, KeyboardInterrupt, SystemExit):
        _start(one_thread, plugins)
        while True:
            function, arguments = pipe.recv()
            result = raised = None
            try:
                result = function(*arguments)
            except Exception as error:
                error.add_note(traceback.format_exc())
                raised = error
            pipe.send((result, raised))
    os._exit(0)  # at once: libraries take their time


def one_thread() -> None:
    """Keep OpenCV and NumPy to one thread: one process a core, one core a process."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's, once it is loaded; idle they would keep a core busy
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
