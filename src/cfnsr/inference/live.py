"""Pictures and sound as they come -> their emotion, again and again, never falling behind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cfnsr.data import preparer
from cfnsr.data.preparer import Picture, Preparer, Span
from cfnsr.data.windows import HOP, spans
from cfnsr.errors import InputError
from cfnsr.features.base import Sound
from cfnsr.features.speech_encoder import choose_encoder
from cfnsr.inference.recogniser import Recogniser, as_recogniser
from cfnsr.inference.timeline import Window
from cfnsr.media.capture import Clock, LivePicture, LiveSound, Pace, Source
from cfnsr.media.errors import MediaError, Reason

if TYPE_CHECKING:
    from cfnsr.models.entries import Model

EVERY = 0.4  # seconds from one answer to the next
OFTEN = (0.1, 10.0)  # seconds that `every` may be
PATIENCE = 1.0  # seconds after which to look, though nothing has come
LAG = 0.5  # seconds that picture or sound waits for the other
REASONS: dict[str, Reason] = {"video": "no picture", "audio": "no sound"}
ROUNDING = 1e-6  # of a step
CLOCK = Clock()
Stream = Literal["video", "audio"]


@dataclass(frozen=True)
class Moment:
    """State of a live recognition at one moment.

    Args:
        second: of the source, up to which pictures and sound had come.
        window: the newest one and the answer; None before the first is complete.
        square: centre x, centre y and side of the face in its last picture, in pixels.
        delay: seconds from the arrival of its newest picture or sound to the answer.
        missing: seconds until the first window is complete.
        dropped, skipped: pictures never read and windows left out for want of time, so far.
    """

    second: float
    window: Window | None
    square: tuple[float, float, float] | None
    delay: float | None
    missing: float
    dropped: int
    skipped: int

    def as_json(self) -> dict[str, Any]:
        """Return the line that `cfnsr live --json` prints."""
        return {
            "second": round(self.second, 3),
            "emotion": self.window and self.window.emotion,
            "window": self.window and self.window.as_json(),
            "square": self.square and [round(value, 1) for value in self.square],
            "delay": self.delay and round(self.delay, 3),
            "missing": round(self.missing, 3),
            "dropped": self.dropped,
            "skipped": self.skipped,
        }


def live(
    model: Model | Recogniser,
    source: Source,
    *,
    window: float | None = None,
    every: float = EVERY,
    speech_encoder: str | Path | None = None,
    clock: Clock = CLOCK,
    on_answer: Callable[[Moment], object] = lambda moment: None,
) -> Generator[Moment, None, None]:
    """Recognise the emotion of the person in front of a camera, or in a file played as if live.

    The first answer comes after a window's length; until then moments have no window. It is always about the
    newest window: where a model takes longer than `every`, windows are left out, and no answer waits for
    another. An answer equals that of `predict` about the same span of a file. The threads that read the
    source end with the iterator.

    Args:
        model: see `predict`; not one of OpenFace tracks.
        source: a `Player` of a file, or `Devices`.
        window: seconds of a window; None for as much as a training clip has of sound.
        every: seconds from one answer to the next, in whole steps of the model's pictures.
        speech_encoder: see `predict`.
        on_answer: called with each moment that has a window, before it is handed on.

    Raises:
        MediaError: the source lacks pictures or sound or ends before one window; a device is missing or gone.
        InputError: a model that no live picture can be made for, or a window or time that cannot be.
    """
    recogniser = as_recogniser(model)
    if speech_encoder is not None:
        choose_encoder(str(speech_encoder))
    name, preparation = recogniser.name, recogniser.preparation
    if recogniser.normalised:
        raise InputError(
            f"model {name} was trained on speakers standardised over all their takes, and who is live has "
            "none: expected a model trained without --speaker-normalisation"
        )
    if preparation.of_openface:
        raise InputError(
            f"model {name} sees OpenFace tracks, which cannot be made live: expected a model of pictures"
        )
    spans(0.0, preparation, window, HOP)  # refuses a length that no window can have
    if not OFTEN[0] <= every <= OFTEN[1]:
        raise InputError(f"--every is {every:g} s: expected {OFTEN[0]:g} to {OFTEN[1]:g}")
    windows = LiveWindows(recogniser, source, window or preparation.skip + preparation.keep, every, clock)
    missing = [modality for modality in recogniser.reads if modality not in windows.streams]
    if missing and not (windows.streams and recogniser.handles_missing):
        reason = REASONS[missing[0]]
        raise MediaError(
            reason, f"{source.name} has {reason}: model {name} needs it; choose another source or model"
        )
    return windows.moments(on_answer)


class LiveWindows:
    """The newest window, again and again, of what the threads put into a rolling buffer.

    Times are in steps from one picture to the next.
    """

    def __init__(
        self, recogniser: Recogniser, source: Source, length: float, every: float, clock: Clock
    ) -> None:
        self.recogniser, self.source, self.clock, self.length = recogniser, source, clock, length
        self.preparer = Preparer(recogniser.preparation, length)
        self.steps = recogniser.preparation.frames
        self.step = length / self.steps
        self.stride = max(1, round(every / self.step))
        there: dict[Stream, bool] = {"video": source.has_video, "audio": source.has_audio}
        self.streams = [stream for stream in there if there[stream] and stream in recogniser.reads]
        step = self.step if recogniser.preparation.sampling == "even" else 0
        self.rolling = Rolling(self.streams, step, length + LAG + self.step, source.begun)
        self.pictures: list[tuple[Picture, float]] = []  # and the second at which each arrived
        self.searched: list[float] = []  # second of the last picture that was searched
        self.skipped = 0

    def moments(self, on_answer: Callable[[Moment], object]) -> Generator[Moment, None, None]:
        """Yield the moments, see `live`."""
        rolling = self.rolling
        with self._reading() as pace:
            due = min(self.stride, self.steps)  # when the next moment is due
            answered, over = 0, False  # when the last window ended; whether nothing more comes
            while not over:
                self.clock.wait(PATIENCE, rolling.news)
                rolling.news.clear()
                if rolling.error is not None:
                    raise rolling.error
                self._take_pictures()  # takes a while
                begin, reach, over = rolling.state()
                self._take_pictures()  # those that came meanwhile
                if begin is None:
                    continue
                now = math.floor(reach / self.step + ROUNDING)
                missing = math.ceil(begin / self.step - ROUNDING) + self.steps - now
                if missing > 0 and now >= due:
                    yield Moment(now * self.step, None, None, None, missing * self.step, *self._lost)
                    due = now + min(self.stride, missing)
                elif missing <= 0 and (now >= due or (over and now > answered)):
                    self.skipped += max(0, now - due) // self.stride if answered else 0
                    moment = self._answer(now, pace)
                    on_answer(moment)
                    yield moment
                    answered, due = now, now + self.stride
            if not answered:
                raise MediaError(
                    "too short",
                    f"{self.source.name} ends after {reach:.2f} s: expected at least {self.length:g} s, a "
                    "window; give a longer one, or use `cfnsr predict`",
                )

    @contextmanager
    def _reading(self) -> Iterator[Pace]:
        """Run a thread for each stream, while this lasts."""
        stop = Event()
        pace = Pace(self.clock, stop)
        started: list[Thread] = []
        try:
            for stream in self.streams:
                thread = Thread(target=self._read, args=(stream, pace), name=f"cfnsr {stream}", daemon=True)
                thread.start()
                started.append(thread)
            yield pace
        finally:
            stop.set()
            for thread in started:
                thread.join()

    def _read(self, stream: Stream, pace: Pace) -> None:
        def pictures() -> None:
            for picture in self.source.pictures(self.rolling.step, pace):
                self.rolling.add_picture(picture)

        def sound() -> None:
            for piece in self.source.sound(pace):
                self.rolling.add_sound(piece)

        readers = {"video": pictures, "audio": sound}
        error: BaseException | None = None
        try:
            readers[stream]()
        except BaseException as raised:  # the caller raises it
            error = raised
        self.rolling.end(stream, error)

    def _take_pictures(self) -> None:
        """Search the pictures that have come for faces, as many as `predict` does."""
        for seen in self.rolling.take():
            found = None
            if self.preparer.due(np.array([*self.searched, seen.time]))[-1]:
                self.searched = [seen.time]
                found = preparer.detector().detect(seen.frame)
            self.pictures.append((self.preparer.follow(seen.time, seen.frame, found), seen.arrived))
        if self.pictures:
            oldest = self.pictures[-1][0].time - self.rolling.keep
            self.pictures = [each for each in self.pictures if each[0].time >= oldest]

    def _answer(self, now: int, pace: Pace) -> Moment:
        """Recognise the window that ends now."""
        start = (now - self.steps) * self.step
        span = Span(start, start + self.length)
        shown: list[tuple[Picture, float]] = []
        if self.pictures:
            times = np.array([picture.time for picture, _ in self.pictures])
            shown = [self.pictures[place] for place in self.preparer.sample(times, span).tolist()]
        piece, sound = self.rolling.between(*span), None
        if self.recogniser.preparation.of_sound:
            sound = Sound(piece.samples, piece.rate, self.recogniser.preparation)
        prepared = self.preparer.prepare(span, [picture for picture, _ in shown], sound)
        ((window, answer),) = self.recogniser.recognise(prepared)
        delay = pace.second() - max([piece.arrived, *(arrived for _, arrived in shown)])
        square = tuple(window.tensors["squares"][-1].tolist()) if window.face else None
        return Moment(now * self.step, answer, square, delay, 0.0, *self._lost)

    @property
    def _lost(self) -> tuple[int, int]:
        """Pictures dropped and windows skipped so far."""
        return self.rolling.dropped + self.source.dropped, self.skipped


class Rolling:
    """Buffer filled by a thread for each stream and emptied by a reader; it holds at most `keep` seconds.

    Args:
        step: seconds between pictures; 0 where all come.
        begun: all streams begin at second 0.
    """

    def __init__(self, streams: Iterable[Stream], step: float, keep: float, begun: bool = False) -> None:
        self.step, self.keep = step, keep
        self.news = Event()  # set whenever something has come or ended
        self.dropped = 0  # pictures that nobody took in time
        self.error: BaseException | None = None
        self._lock = Lock()
        self._pictures: deque[LivePicture] = deque()
        self._sound: deque[LiveSound] = deque()
        self._running: set[Stream] = set(streams)
        self._begins: dict[Stream, float] = dict.fromkeys(self._running, 0.0) if begun else {}
        self._ends: dict[Stream, float] = {}  # up to which nothing is missing, as long as more comes
        self._last: dict[Stream, float] = {}  # of what has come

    def add_picture(self, seen: LivePicture) -> None:
        """Put a picture in; where nobody takes them, the oldest go."""
        with self._lock:
            self._pictures.append(seen)
            while self._pictures[0].time < seen.time - self.keep:
                self._pictures.popleft()
                self.dropped += 1
            # The multiple of the step that it is nearest to has its picture, so all is there until the next.
            end = (round(seen.time / self.step) + 1) * self.step if self.step else seen.time
            self._reach("video", seen.time, end, seen.time)

    def add_sound(self, piece: LiveSound) -> None:
        """Put a piece of sound in; sound older than `keep` goes."""
        with self._lock:
            self._sound.append(piece)
            while self._sound[0].end < piece.end - self.keep:
                self._sound.popleft()
            self._reach("audio", piece.first / piece.rate, piece.end, piece.end)

    def _reach(self, stream: Stream, begin: float, end: float, last: float) -> None:
        self._begins.setdefault(stream, begin)
        self._ends[stream], self._last[stream] = end, last
        self.news.set()

    def end(self, stream: Stream, error: BaseException | None = None) -> None:
        """Note that nothing more comes of a stream, and the error, if there was one."""
        with self._lock:
            self._running.discard(stream)
            self.error = self.error or error
            if stream in self._ends:
                self._ends[stream] = self._last[stream]
        self.news.set()

    def state(self) -> tuple[float | None, float, bool]:
        """State of the buffer: begin, reach and over.

        `begin` is the second at which all streams have begun, None before that; `reach` the one up to which
        all have come, or that is half a second past.
        """
        with self._lock:
            if not self._ends or not self._running <= self._begins.keys():
                return None, 0.0, not self._running
            newest = max(self._ends.values())
            reach = min((self._ends.get(stream, 0.0) for stream in self._running), default=newest)
            return max(self._begins.values()), max(reach, newest - LAG), not self._running

    def take(self) -> list[LivePicture]:
        """Take the pictures that came since the last time."""
        with self._lock:
            taken = list(self._pictures)
            self._pictures.clear()
        return taken

    def between(self, start: float, end: float) -> LiveSound:
        """Sound from one second to another, as far as it is kept; it arrived when its newest sample did."""
        with self._lock:
            parts = list(self._sound)
        rate = parts[0].rate if parts else 1
        begin = round(start * rate)
        stop = begin + round((end - start) * rate)
        parts = [part for part in parts if part.first + len(part.samples) > begin and part.first < stop]
        if not parts:
            return LiveSound(begin, 0.0, rate, np.empty(0, np.float32))
        first = parts[0].first
        samples = np.concatenate([part.samples for part in parts])[max(0, begin - first) : stop - first]
        return LiveSound(begin, parts[-1].arrived, rate, samples)
