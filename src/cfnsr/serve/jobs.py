"""The queue: who waits, who is worked on, what is kept and when it is deleted.

Each upload lies in a folder of its own, in one that only this user may enter. It is deleted as soon as its
prediction is made, has failed or was cancelled, when its client goes away while it uploads or waits for an
answer, and when the server stops; what a killed server left behind, the next deletes. There is one exception:
a job that was sent with `explain` keeps its recording for `keep_seconds` after its prediction, so that single
windows can be explained on demand, and the page says so. `DELETE` ends that time at once.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.inference.timeline import Prediction
from cfnsr.processes import memory_for
from cfnsr.serve.decoding import Decoder
from cfnsr.serve.limits import MOST_KEPT, MOST_UPLOADS_KEPT, Limits
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.schemas import Options
from cfnsr.serve.uploads import private_folder
from cfnsr.serve.work import Stopped, explain_all, explain_one, recognise

if TYPE_CHECKING:
    from cfnsr.inference.explained import Explained
    from cfnsr.inference.recogniser import Recogniser

USUAL_SECONDS = 2.0  # of work for a recording, until one was measured

State = Literal["waiting", "working", "done", "failed", "cancelled"]
Result = TypeVar("Result")


@dataclass(eq=False)
class Job:
    """One recording and what becomes of it."""

    id: str  # 128 random bits: who knows it may ask for the result
    folder: Path  # of the upload
    options: Options
    keep: bool  # the upload for a while, so that single windows can be explained
    file: Path | None = None  # the upload, while it is there
    state: State = "waiting"
    done: int = 0  # windows
    total: int = 0
    prediction: Prediction | None = None
    explained: list[dict[str, Any]] = field(default_factory=list)  # all windows, if asked for and not kept
    refusal: Refusal | None = None  # why there is no prediction
    # Person, window and explanation that were asked for last, so that its picture costs no second.
    latest: tuple[int | None, int, Explained] | None = None
    stopped: Event = field(default_factory=Event)  # set when nobody waits for it any more
    over: asyncio.Event = field(default_factory=asyncio.Event)  # set when its worker has ended
    future: Future[None] | None = None
    forget: asyncio.TimerHandle | None = None

    def report(self, done: int, total: int) -> None:
        """Note progress; here a job notices that it was stopped."""
        self.done, self.total = done, total
        if self.stopped.is_set():
            raise Stopped

    def seconds_left(self) -> float | None:
        """Count the seconds until it is forgotten; None while it is not over."""
        return None if self.forget is None else max(0.0, self.forget.when() - time.monotonic())

    def answer(self, person: int | None = None) -> Prediction:
        """Return the prediction, or that of one person; `Refusal` where there is none, or not yet."""
        if self.refusal is not None:
            raise self.refusal
        if self.state == "cancelled":
            raise Refusal(409, "gone", "the job was cancelled: send the recording again")
        if self.state != "done" or self.prediction is None:
            raise Refusal(409, "not done", f"the job is {self.state}: ask for its result later")
        people = {None: self.prediction, **{each.person: each for each in self.prediction.people}}
        if person not in people:
            raise Refusal(404, "not found", f"there is no person {person}: {len(people) - 1} were followed")
        return people[person]

    def delete_upload(self) -> None:
        """Keep no more than the result."""
        self.file = self.latest = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Jobs:
    """The jobs of one server; all but a worker's part happens in the event loop."""

    def __init__(self, recogniser: Recogniser, limits: Limits) -> None:
        self.recogniser, self.limits = recogniser, limits
        self.sees_faces = bool(recogniser.preparation.of_pictures)
        self.jobs: dict[str, Job] = {}  # in order of arrival
        self.busy = 0  # uploads that arrive, wait or are worked on, and explanations
        self.seconds = USUAL_SECONDS  # of work for a recording, a running mean

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the context lasts; afterwards nothing is left, neither threads nor files."""
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="cfnsr-serve")
        memory = memory_for(self.limits.workers)
        self._decoders = [Decoder(memory) for _ in range(self.limits.workers)]
        self._free = list(self._decoders)
        with private_folder() as self.root:
            try:
                yield
            finally:
                self.stop()
                self.jobs.clear()
                for decoder in self._decoders:  # one may hang
                    decoder.end()
                await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
                await asyncio.sleep(0)  # lets the last jobs end

    def stop(self) -> None:
        """Give up all jobs: their requests are answered at once, as cancelled."""
        for job in self.jobs.values():
            job.stopped.set()
            if job.future is not None:
                job.future.cancel()

    def waiting(self) -> list[Job]:
        """Jobs that wait for a worker, the next one first."""
        return [job for job in self.jobs.values() if job.state == "waiting" and job.future is not None]

    def open(self, options: Options, *, keep: bool) -> Job:
        """Open a job for an upload that arrives, unless too many wait; `begin` or `remove` must follow."""
        self._admit()
        job = Job(secrets.token_urlsafe(16), self.root / secrets.token_hex(8), options, keep)
        self.jobs[job.id] = job
        return job

    def begin(self, job: Job, file: Path) -> None:
        """Let a job wait for a worker, now that its upload is there."""
        job.file = file
        job.future = self._submit(lambda: self._work(job, file), lambda: self._ended(job))

    def remove(self, job: Job) -> None:
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
        job.delete_upload()

    def find(self, identity: str) -> Job:
        """Find a job by its id; `Refusal` where there is none, or no longer."""
        if identity in self.jobs:
            return self.jobs[identity]
        kept = f"for {self.limits.keep_seconds:g} s"
        raise Refusal(404, "not found", f"there is no such job: results are kept {kept}; send it again")

    def explainer(self) -> TorchRecogniser:
        """Return the model, if it can be explained; `Refusal` of one that shows nothing of its inside."""
        if explains(self.recogniser):
            return self.recogniser
        message = (
            "a model that is exported, or kept to some emotions, cannot be explained: serve its checkpoint, "
            "without --only"
        )
        raise Refusal(501, "unsupported", message)

    async def explain(
        self, job: Job, number: int, person: int | None, *, png: bool
    ) -> dict[str, Any] | bytes:
        """Explain a window of a job's recording, in numbers or as a picture."""
        recogniser, prediction, file = self.explainer(), job.answer(person), job.file
        if file is None:
            why = "its time is over" if job.keep else "the job was sent without explain=true"
            raise Refusal(410, "gone", f"the recording was deleted ({why}): send it again")

        def work() -> dict[str, Any] | bytes:
            latest = job.latest
            if latest is None or latest[:2] != (person, number):
                with self._decoder() as decoder:
                    explained = explain_one(recogniser, file, prediction, number, job.options, decoder)
                latest = person, number, explained
                job.latest = latest
            return latest[2].as_png(prediction.file) if png else latest[2].explanation.as_json()

        self._admit()
        return await asyncio.wrap_future(self._submit(work))

    def _admit(self) -> None:
        if self.busy >= self.limits.places:
            seconds = min(60, max(1, round(self.seconds * self.busy / self.limits.workers)))
            message = f"{self.busy} recordings wait or are worked on: try again in {seconds} s"
            raise Refusal(429, "busy", message, {"retry-after": str(seconds)})
        self.busy += 1

    def _submit(self, work: Callable[[], Result], after: Callable[[], None] = lambda: None) -> Future[Result]:
        """Let a worker do something; afterwards there is a place more."""

        def ended() -> None:
            self.busy -= 1
            after()

        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(ended))
        return future

    @contextmanager
    def _decoder(self) -> Iterator[Decoder]:
        """Have a decoder, of which there are as many as threads of the pool."""
        decoder = self._free.pop()
        try:
            yield decoder
        finally:
            decoder.forget()
            self._free.append(decoder)

    def _ended(self, job: Job) -> None:
        if job.state == "waiting":  # cancelled before it began
            job.state = "cancelled"
        job.over.set()
        if job.id not in self.jobs:
            return
        job.forget = self._loop.call_later(self.limits.keep_seconds, self.remove, job)
        over = [other for other in self.jobs.values() if other.over.is_set()]
        for old in over[:-MOST_KEPT]:
            self.remove(old)
        for old in [other for other in over if other.file is not None][:-MOST_UPLOADS_KEPT]:
            old.delete_upload()

    def _work(self, job: Job, file: Path) -> None:
        """Do a worker's part of a job, which is over only when its upload is deleted."""
        state: State = "failed"
        began = time.monotonic()
        try:
            job.report(0, 0)
            job.state = "working"
            options = job.options
            with self._decoder() as decoder:
                found = recognise(self.recogniser, file, self.limits, options, job.report, decoder)
                if options.explain and not job.keep:
                    job.explained = explain_all(self.explainer(), file, found, options, job.report, decoder)
            job.prediction = found
            state = "done"
        except Stopped:
            state = "cancelled"
        except Refusal as refusal:
            job.refusal = refusal
        finally:
            if job.stopped.is_set():  # what failed then, failed because of it
                state, job.refusal = "cancelled", None
            if state != "done" or not job.keep:
                job.delete_upload()
            self.seconds += 0.2 * (time.monotonic() - began - self.seconds)
            job.state = state


def explains(recogniser: Recogniser) -> TypeGuard[TorchRecogniser]:
    """Tell a PyTorch model from others, which show nothing of their inside."""
    return isinstance(recogniser, TorchRecogniser)
