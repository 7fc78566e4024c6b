"""A Ray cluster: a map over its nodes that survives when a worker or a node dies."""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cfnsr.console import say
from cfnsr.errors import InputError, require
from cfnsr.plugin import load_plugin, loaded
from cfnsr.processes import Worker, WorkerDied, apply, cores, memory_for, one_thread

if TYPE_CHECKING:
    import ray

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of what a worker or a node died at: nodes that are rented by the minute go at any moment
QUEUED = 4  # items under way for each CPU: enough to keep it busy, few enough to stop soon
PATIENCE = 10  # seconds until a cluster answers
OURS = "CFNSR_"  # begins the names of the environment variables that cfnsr reads


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster while the context lasts.

    cfnsr is installed on every node, and files are on each under the same path. Environment variables of
    cfnsr's go along.

    Args:
        address: host and port; None takes what `RAY_ADDRESS` names, else a cluster that runs on this machine,
            else starts one.

    Raises:
        InputError: ray is not installed, or there is no such cluster.
    """
    require("ray", "ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry; read as ray is imported
    import ray

    variables = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    try:
        if address is not None:  # ray tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), PATIENCE).close()
        ray.init(
            address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"no Ray cluster at {address or 'the address that is set'} ({first}): expected host:port of one "
            "that `ray start --head` started, with the same versions of Python and ray"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def task_of(
    function: Callable[[Item], Result], *, cpus: float = 1, gpus: float = 0, retries: int = 0
) -> Callable[..., "ray.ObjectRef[Result]"]:
    """Make a function of one item a task, which is called with the item and with tasks to wait for.

    A process of the cluster that runs it has the plugins and the folder of this one, and one thread.

    Args:
        cpus, gpus: of the cluster, that it has to itself.
        retries: after its worker or node died.
    """
    import ray

    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(_run)
    ready = partial(task.remote, loaded(), Path.cwd(), pickle.dumps(function))
    return lambda item, *after: ready(pickle.dumps(item), *after)


def _run(plugins: Sequence[Path], folder: Path, function: bytes, item: bytes, *after: object) -> object:
    return _ready(plugins, folder, function)(pickle.loads(item))  # noqa: S301 - of the process that asks


@cache
def _ready(plugins: Sequence[Path], folder: Path, function: bytes) -> Callable[[object], object]:
    """Make a fresh process ready, and unpickle the function, which may be a plugin's, once for all items."""
    with suppress(OSError):  # a node without the folder can do what has absolute paths
        os.chdir(folder)
    one_thread()
    for path in plugins:
        load_plugin(path)
    return pickle.loads(function)  # type: ignore[no-any-return]  # noqa: S301


def map_on_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], failed: Callable[[Item, WorkerDied], Result]
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items on the cluster; gives each item with its result, in the order done.

    As `processes.map_surviving`: an item whose worker or node died is tried again, one that was too late is
    not. What `function` raises ends it. As many items are under way as keep all CPUs of the cluster busy,
    also when nodes join or leave.

    Args:
        function: of one item, for which it has one CPU; a process unpickles it once.
        failed: makes the result of an item at which a worker or a node died `TRIES` times.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    task = task_of(_Apart(pickle.dumps(function)))
    queue = [(item, 1) for item in reversed(items)]
    running: dict[Future[Result], tuple[Item, int]] = {}
    most = 0
    while queue or running:
        if len(running) <= most // 2:  # to ask how many CPUs there are takes as long as a task
            most = QUEUED * max(1, int(ray.cluster_resources().get("CPU", 0)))
            while queue and len(running) < most:
                item, tries = queue.pop()
                running[task(item).future()] = item, tries
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            item, tries = running.pop(future)
            try:
                result = future.result()
            except RayTaskError as error:
                if not isinstance(error.cause, WorkerDied):
                    raise error.cause from None
                death = error.cause
            except RayError:
                death = WorkerDied()
            else:
                yield item, result
                continue
            if tries < TRIES and not death.late:
                queue.append((item, tries + 1))
            else:
                yield item, failed(item, death)


@dataclass
class _Apart:
    """Applies a function in a process below Ray's own, where limits of time and memory hold as locally.

    Args:
        function: pickled.
    """

    function: bytes
    workers: list[Worker] = field(default_factory=list)  # the one that is kept between items

    def __call__(self, item: object) -> Any:
        if not self.workers:
            self.workers.append(Worker(memory_for(cores())))
        try:
            return self.workers[0].call(apply, self.function, item)
        except WorkerDied:
            self.workers.clear()
            raise


def say_if_waiting(cpus: float, gpus: float) -> None:
    """Say so where no node has what a task asks for, which would else wait without a word."""
    import ray

    asked = {"CPU": cpus, "GPU": gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= many for name, many in asked.items()) for node in nodes):
        say(f"no node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs: waiting until one joins")
