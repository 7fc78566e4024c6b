"""The grid on a Ray cluster: each cell is a task, which starts once the encoders it needs are trained."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cfnsr.cluster import TRIES, say_if_waiting, task_of
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.training.fold import Progress
from cfnsr.training.job import Job
from cfnsr.training.parallel import follow, prepare_worker, train_chain


def crossval_on_cluster(
    jobs: Sequence[Job],
    store: Store,
    runs: Path,
    *,
    cpus: float = 1,
    gpus: float = 0,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test every cell of a grid that `check_jobs` has passed, on the cluster that is connected.

    A cell whose worker or node died goes on elsewhere from its last epoch.

    Args:
        jobs: as `plan` orders them, of one protocol or several.
        runs: a folder that all nodes share, as is the store's.
        cpus: of a cell, which has as many threads.
        gpus: of a cell; several share one with a part each.

    Raises:
        InputError: what the first cell to fail raised; the others are stopped.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    say_if_waiting(cpus, gpus)
    # On this node, which alone must not die.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    prepare = partial(prepare_worker, reports, max(1, int(cpus)), store)
    task = task_of(partial(_train_cell, prepare, runs), cpus=cpus, gpus=gpus, retries=TRIES - 1)
    cells: dict[Job, ray.ObjectRef[Path]] = {}
    for job in jobs:
        cells[job] = task(job, *(cells[encoder] for encoder in job.encoders))
    futures = [cell.future() for cell in cells.values()]
    try:
        follow(futures, reports, progress)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise InputError(
            f"a run's worker died {TRIES} times, most likely for want of memory: give more "
            "--cpus-per-run, so that fewer runs share a node, and go on with --resume"
        ) from error
    return [future.result() for future in futures]


def _train_cell(prepare: Callable[[], None], runs: Path, job: Job) -> Path:
    """Train a cell; what an earlier try of it left is resumed."""
    prepare()
    return train_chain([job], runs, resume=True)[0]
