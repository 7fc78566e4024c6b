"""The grid on several processes: the folds are independent, so each process takes one after the other."""

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import groupby
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, TypeAlias

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.processes import SPAWN, cores, worker_pool
from cfnsr.training.crossval import train_jobs
from cfnsr.training.fold import Progress
from cfnsr.training.job import Job
from cfnsr.training.loop import Step
from cfnsr.training.prepared import PreparedCorpus

WAIT = 0.2  # seconds between two checks whether a process has failed

Reports: TypeAlias = "Queue[tuple[Job, Step]]"
# Of a worker process: where it reports its progress, and the corpus it trains on.
_reports: "Reports | None" = None
_store: Store | None = None


def crossval_in_processes(
    jobs: Sequence[Job],
    store: Store,
    runs: Path,
    *,
    workers: int,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test every cell of a grid that `check_jobs` has passed, several folds at a time.

    All models of one fold and seed go to one process, because the fused ones start from its encoders. The
    cores are divided. A CPU's sums depend on the number of threads in their last bit, so weights are the same
    bit for bit only where `cores // workers` is.

    Args:
        jobs: as `plan` orders them, of one protocol or several.

    Raises:
        InputError: what the first process to fail raised; the others are stopped.
    """
    chained = groupby(jobs, key=lambda job: (job.protocol, job.seed, job.fold.number))
    chains = [list(chain) for _, chain in chained]
    workers = min(workers, len(chains))
    reports: Reports = SPAWN.Queue()
    prepare = partial(prepare_worker, reports, max(1, cores() // workers), store)
    others = set(multiprocessing.active_children())
    with worker_pool(workers, prepare) as pool:
        futures = [pool.submit(train_chain, chain, runs, resume) for chain in chains]
        try:
            follow(futures, reports, progress)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise InputError(
                    f"one of {workers} processes died, most likely for want of memory: give fewer --workers "
                    "and go on with --resume"
                ) from error
            raise
        return [folder for future in futures for folder in future.result()]


def follow(futures: Iterable[Future[Any]], reports: Reports, progress: Progress) -> None:
    """Pass on the reports of the processes until they are done, or one has failed."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=WAIT, return_when=FIRST_EXCEPTION)
        while not reports.empty():
            progress(*reports.get())
        for future in done:
            future.result()
    while not reports.empty():  # what was put while the last of them were asked
        progress(*reports.get())


def prepare_worker(reports: Reports, threads: int, store: Store) -> None:
    """Make a fresh process ready to train."""
    import torch

    global _reports, _store
    _reports, _store = reports, store
    torch.set_num_threads(threads)


@cache
def _corpus() -> PreparedCorpus:
    """Read the corpus once for all folds that this process trains."""
    assert _store is not None  # noqa: S101 - prepared before
    return PreparedCorpus(_store)


def train_chain(jobs: Sequence[Job], runs: Path, resume: bool) -> list[Path]:
    """Train jobs one after the other in a process that is ready."""
    from cfnsr.training.devices import accelerator

    def report(job: Job, step: Step) -> None:
        if step.step == step.steps and _reports is not None:
            _reports.put((job, step))

    made = accelerator(jobs[0].recipe)
    return train_jobs(jobs, _corpus(), runs, accelerator=made, resume=resume, progress=report)
