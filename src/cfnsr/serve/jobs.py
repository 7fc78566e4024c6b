"""The queue: who waits, who is worked on, what is kept and when it is deleted.

What becomes of an upload. Each lies in a folder of its own, in one that only this user may enter. It is
deleted as soon as its prediction is made, has failed or was cancelled, when its client goes away while it
uploads or waits for an answer, and when the server stops; what a killed server left behind, another deletes.
There is one exception: a job that was sent with `explain` keeps its recording for `keep_seconds` after its
prediction, so that single windows can be explained on demand, and the page says so. Explaining all windows
beforehand would cost several times the prediction, and keeping the clips of all windows a hundred times the
recording. `DELETE` ends that time at once.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from cfnsr.inference.prediction import Prediction
from cfnsr.serve.limits import MOST_KEPT, MOST_SHEETS, MOST_UPLOADS_KEPT, Limits
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.uploads import private_folder, release, sweep
from cfnsr.serve.work import Options, Stopped, explain_all, explain_one, recognise, refusing

if TYPE_CHECKING:
    from cfnsr.inference.explained import Explained
    from cfnsr.inference.recogniser import Recogniser, TorchRecogniser

State = Literal["waiting", "working", "done", "failed", "cancelled"]
HEARTBEAT = 60.0  # seconds between the signs of life that keep a server's folder
USUAL_SECONDS = 2.0  # of work for a recording, until one was measured

Result = TypeVar("Result")


class Sheet(NamedTuple):
    """An explanation as it is kept: small, and without the recording. The picture is drawn when asked for."""

    told: dict[str, Any]
    png: bytes | None


@dataclass(eq=False)
class Job:
    """One recording and what becomes of it.

    Args:
        id: 128 random bits: who knows it may ask for the result.
        folder: of the upload.
        options: how to predict.
        file: the upload, while it is there.
        state: where it is.
        done: windows that are recognised.
        total: windows of the recording.
        prediction: once it is there.
        explained: of all windows, where `options.explain` asked for it.
        refusal: why there is no prediction.
        sheets: explanations that were asked for, by person and window.
        latest: the last of these with its clip, so that its picture costs no second explanation.
    """

    id: str
    folder: Path
    options: Options
    file: Path | None = None
    state: State = "waiting"
    done: int = 0
    total: int = 0
    prediction: Prediction | None = None
    explained: list[dict[str, Any]] = field(default_factory=list)
    refusal: Refusal | None = None
    sheets: dict[tuple[int | None, int], Sheet] = field(default_factory=dict)
    latest: tuple[tuple[int | None, int], Explained] | None = None
    stopped: Event = field(default_factory=Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    future: Future[None] | None = None
    forget: asyncio.TimerHandle | None = None

    def report(self, done: int, total: int) -> None:
        """Progress, and the place where a job notices that it was stopped."""
        self.done, self.total = done, total
        if self.stopped.is_set():
            raise Stopped

    def seconds_left(self) -> float | None:
        """Until it is forgotten; None while it is not over."""
        if self.forget is None:
            return None
        return max(0.0, self.forget.when() - asyncio.get_running_loop().time())

    def answer(self, person: int | None = None) -> Prediction:
        """The prediction, or that of one person.

        Raises:
            Refusal: there is none, or not yet.
        """
        if self.refusal is not None:
            raise self.refusal
        if self.state == "cancelled":
            raise Refusal(409, "gone", "the job was cancelled: send the recording again")
        if self.state != "done" or self.prediction is None:
            raise Refusal(409, "not done", f"the job is {self.state}: ask for its result later")
        if person is None:
            return self.prediction
        for each in self.prediction.people:
            if each.person == person:
                return each
        people = len(self.prediction.people)
        raise Refusal(404, "not found", f"there is no person {person}: {people} were followed")


class Jobs:
    """The jobs of one server; what is not said to be a worker's happens in the event loop.

    Args:
        recogniser: the model.
        limits: how much is taken.
    """

    def __init__(self, recogniser: Recogniser, limits: Limits) -> None:
        self.recogniser, self.limits = recogniser, limits
        self.jobs: dict[str, Job] = {}  # in order of arrival
        self.busy = 0  # uploads that arrive, wait or are worked on, and explanations
        self.seconds = USUAL_SECONDS  # of work for a recording, a running mean
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Jobs]:
        """Work while the context lasts; afterwards nothing is left, neither threads nor files."""
        self._loop = asyncio.get_running_loop()
        self.root = await asyncio.to_thread(private_folder)
        self._pool = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="cfnsr-serve")
        alive = asyncio.create_task(self._stay_alive())
        try:
            yield self
        finally:
            alive.cancel()
            for job in self.jobs.values():
                job.stopped.set()
            self.jobs.clear()
            await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
            await asyncio.sleep(0)  # lets the last jobs end
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)
            release(self.root)

    def stop(self) -> None:
        """Give up all jobs: their requests are answered at once, as cancelled."""
        for job in self.jobs.values():
            job.stopped.set()
            if job.future is not None:
                job.future.cancel()

    async def _stay_alive(self) -> None:
        while True:
            with suppress(OSError):
                self.root.touch()
            await asyncio.to_thread(sweep)
            await asyncio.sleep(HEARTBEAT)

    def working(self) -> int:
        """Recordings that are worked on."""
        return sum(job.state == "working" for job in self.jobs.values())

    def waiting(self) -> list[Job]:
        """Jobs that wait for a worker, the next one first."""
        return [job for job in self.jobs.values() if job.state == "waiting" and job.future is not None]

    async def open(self, options: Options) -> Job:
        """A job with a folder, to receive an upload; `begin` or `remove` must follow.

        Raises:
            Refusal: too many wait.
        """
        self._admit()
        try:
            folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self.root))
        except BaseException:
            self.busy -= 1
            raise
        job = Job(secrets.token_urlsafe(16), folder, options)
        self.jobs[job.id] = job
        return job

    def begin(self, job: Job, file: Path) -> None:
        """Let a job wait for a worker, now that its upload is there."""
        job.file = file
        job.future = self._submit(lambda: self._work(job, file), lambda: self._ended(job))

    async def remove(self, job: Job) -> None:
        """Stop a job, whatever its state, and delete all there is of it."""
        if self.jobs.pop(job.id, None) is None:
            return
        job.stopped.set()
        if job.forget is not None:
            job.forget.cancel()
        if job.future is None:  # the upload never came
            self.busy -= 1
        else:
            job.future.cancel()
        await self._delete(job)

    def find(self, identity: str) -> Job:
        """The job of that id.

        Raises:
            Refusal: there is none, or no longer.
        """
        job = self.jobs.get(identity)
        if job is None:
            kept = f"for {self.limits.keep_seconds:g} s"
            raise Refusal(404, "not found", f"there is no such job: results are kept {kept}; send it again")
        return job

    async def explain(self, job: Job, number: int, person: int | None, *, drawn: bool) -> Sheet:
        """Explain a window of a job's recording, with a picture where it is to be `drawn`.

        Raises:
            Refusal: no such window or person, no recording any more, too many wait, or an exported model.
        """
        recogniser, file = explainable(self.recogniser), job.file
        prediction = job.answer(person)
        key = person, number
        if key in job.sheets and (job.sheets[key].png is not None or not drawn):
            return job.sheets[key]
        if file is None:
            why = "its time is over" if job.options.keep else "the job was sent without explain=true"
            raise Refusal(410, "gone", f"the recording was deleted ({why}): send it again")

        def work() -> Sheet:
            with refusing(file):
                latest = job.latest
                if latest is None or latest[0] != key:
                    latest = key, explain_one(recogniser, file, prediction, number, job.options)
                    job.latest = latest
                explained = latest[1]
                png = explained.as_png(prediction.file) if drawn else None
                return Sheet(explained.explanation.as_json(), png)

        self._admit()
        sheet = await asyncio.wrap_future(self._submit(work))
        job.sheets.pop(key, None)
        while len(job.sheets) >= MOST_SHEETS:
            del job.sheets[next(iter(job.sheets))]
        job.sheets[key] = sheet
        return sheet

    def _admit(self) -> None:
        if self.busy >= self.limits.places:
            seconds = min(60, max(1, round(self.seconds * self.busy / self.limits.workers)))
            message = f"{self.busy} recordings wait or are worked on: try again in {seconds} s"
            raise Refusal(429, "busy", message, {"retry-after": str(seconds)})
        self.busy += 1

    def _submit(self, work: Callable[[], Result], after: Callable[[], None] | None = None) -> Future[Result]:
        """Let a worker do something; afterwards there is a place more."""

        def ended() -> None:
            self.busy -= 1
            if after is not None:
                after()

        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(ended))
        return future

    def _ended(self, job: Job) -> None:
        if job.state == "waiting":  # cancelled before it began
            job.state = "cancelled"
        job.over.set()
        if job.id not in self.jobs:
            self._later(self._delete(job))
            return
        job.forget = self._loop.call_later(self.limits.keep_seconds, lambda: self._later(self.remove(job)))
        over = [other for other in self.jobs.values() if other.over.is_set()]
        for old in over[:-MOST_KEPT]:
            self._later(self.remove(old))
        for old in [other for other in over if other.file is not None][:-MOST_UPLOADS_KEPT]:
            self._later(self._delete(old))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, job: Job) -> None:
        job.file = job.latest = None
        job.sheets.clear()
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    def _work(self, job: Job, file: Path) -> None:
        """What a worker does with a job; it is over only when its upload is deleted."""
        state: State = "failed"
        began = time.monotonic()
        try:
            job.report(0, 0)
            job.state = "working"
            job.prediction = recognise(self.recogniser, file, self.limits, job.options, job.report)
            if job.options.explain:
                recogniser = explainable(self.recogniser)
                job.explained = explain_all(recogniser, file, job.prediction, job.options, job.report)
            state = "done"
        except Stopped:
            state = "cancelled"
        except Refusal as refusal:
            job.refusal = refusal
        finally:
            if job.stopped.is_set():  # what failed then, failed because of it
                state, job.refusal = "cancelled", None
            if state != "done" or not job.options.keep:
                job.file = None
                shutil.rmtree(job.folder, ignore_errors=True)
            self.seconds += 0.2 * (time.monotonic() - began - self.seconds)
            job.state = state


def explainable(recogniser: Recogniser) -> TorchRecogniser:
    """A model that can be explained, which needs its inside.

    Raises:
        Refusal: it is an exported one.
    """
    if "torch" in sys.modules:  # which an exported model does without
        from cfnsr.inference.recogniser import TorchRecogniser

        if isinstance(recogniser, TorchRecogniser):
            return recogniser
    raise Refusal(501, "unsupported", "an exported model cannot be explained: serve its checkpoint instead")
