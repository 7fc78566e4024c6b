"""The grid on several processes: the folds are independent, so each process takes one after the other."""

import multiprocessing
import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from itertools import groupby
from pathlib import Path

from cfnsr.machine import cores, leave_with_parent
from cfnsr.models.plugin import load_plugin, loaded
from cfnsr.training.crossval import Job, PreparedCorpus, Progress, crossval
from cfnsr.training.loop import Step

WAIT = 0.2  # seconds between two looks at whether a process has failed

Report = tuple[Job, Step]


def crossval_in_processes(
    jobs: Sequence[Job],
    data: Path,
    runs: Path,
    *,
    workers: int,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test every cell of a grid as `crossval` does, several folds at a time.

    All models of one fold and seed go to one process, because the fused ones start from its encoders. The
    cores are shared out; on two cores, two processes of one thread do more than one of two.

    Args:
        jobs: as `plan` orders them, of one protocol or several.
        data: folder of the prepared clips.
        workers: processes.

    Raises:
        InputError: what the first process to fail raised; the others are stopped.
    """
    chains = [
        list(chain) for _, chain in groupby(jobs, key=lambda job: (job.protocol, job.seed, job.fold.number))
    ]
    context = multiprocessing.get_context("spawn")  # a fork of a process that has run torch may hang
    with context.Manager() as manager:
        reports: queue.Queue[Report] = manager.Queue()
        settings = (max(1, cores() // workers), list(loaded()))
        with ProcessPoolExecutor(
            min(workers, len(chains)), context, initializer=_start, initargs=settings
        ) as pool:
            futures = [pool.submit(_train, chain, data, runs, resume, reports) for chain in chains]
            try:
                _follow(futures, reports, progress)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return [folder for future in futures for folder in future.result()]


def _follow(
    futures: Sequence[Future[list[Path]]], reports: "queue.Queue[Report]", progress: Progress
) -> None:
    """Pass on what the processes report until they are done, or one has failed."""
    while True:
        done, pending = wait(futures, timeout=WAIT, return_when=FIRST_EXCEPTION)
        while not reports.empty():
            progress(*reports.get())
        for future in done:
            future.result()
        if not pending:
            return


def _start(threads: int, plugins: Sequence[Path]) -> None:
    import torch

    leave_with_parent()
    torch.set_num_threads(threads)
    for path in plugins:
        load_plugin(path)


def _train(
    jobs: Sequence[Job], data: Path, runs: Path, resume: bool, reports: "queue.Queue[Report]"
) -> list[Path]:
    from cfnsr.data.store import Store
    from cfnsr.training.devices import accelerator

    def report(job: Job, step: Step) -> None:
        if step.step == step.steps:
            reports.put((job, step))

    return crossval(
        jobs,
        PreparedCorpus(Store(data)),
        runs,
        accelerator=accelerator(jobs[0].recipe),
        resume=resume,
        progress=report,
    )
