"""Pictures and sound as they come -> their emotion, again and again, never falling behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cfnsr.data import clip
from cfnsr.errors import InputError
from cfnsr.features.speech_encoder import choose_encoder
from cfnsr.inference.predict import answers, as_recogniser, tolerates
from cfnsr.inference.prediction import Window
from cfnsr.inference.rolling import LAG, Rolling, Stream
from cfnsr.inference.windows import (
    HOP,
    SEARCH,
    Picture,
    Span,
    Stretch,
    cut,
    heard,
    main_first,
    present,
    sampled,
    searched,
    spans,
)
from cfnsr.media.capture import Clock, Pace, Source, SystemClock
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.face import Follower

if TYPE_CHECKING:
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.models.zoo import Model

EVERY = 0.4  # seconds from one answer to the next
OFTEN = (0.1, 10.0)  # seconds that `every` may be
PATIENCE = 1.0  # seconds after which to look, though nothing has come
REASONS: dict[str, Reason] = {"video": "no picture", "audio": "no sound"}
ROUNDING = 1e-6  # of a step
CLOCK = SystemClock()
Item = TypeVar("Item")


@dataclass(frozen=True)
class Moment:
    """State of a live recognition at one moment.

    Args:
        second: of the source, up to which pictures and sound had come.
        window: the newest one and the answer; None before the first is complete.
        square: centre x, centre y and side of the face in its last picture, in pixels; None without a face.
        delay: seconds from the arrival of its newest picture or sound to the answer; None without a window.
        missing: seconds until the first window is complete; 0 from then on.
        dropped: pictures that were never read, so far.
        skipped: windows that were due and left out, because the one before took too long, so far.
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
            "emotion": None if self.window is None else self.window.emotion,
            "window": None if self.window is None else self.window.as_json(),
            "square": None if self.square is None else [round(value, 1) for value in self.square],
            "delay": None if self.delay is None else round(self.delay, 3),
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

    An answer is about a window as long as the sound the model was trained on, so the first one comes after
    that time; until then moments have no window. It is always about the newest window: where a model takes
    longer than `every`, windows are left out, and no answer waits for another. Only one window of pictures
    and sound is kept. An answer equals that of `predict` about the same span of a file.

    The threads that read the source end with the iterator: at the end of a file, on an error, on Ctrl-C, and
    when it is closed.

    Args:
        model: see `predict`; not one of OpenFace tracks.
        source: a `Player` of a file, or `Devices`.
        window: seconds of a window; None for as much as a training clip has of sound.
        every: seconds from one answer to the next, in whole steps of the model's pictures: 0.39 s as 0.4 s is
            four of thirty in 2.95 s.
        speech_encoder: see `predict`.
        on_answer: called with each moment that has a window, before it is handed on.

    Raises:
        MediaError: the source lacks pictures or sound or ends before one window; a device is missing or gone.
        InputError: a model that no live picture can be made for, or a window or time that cannot be.
    """
    recogniser = as_recogniser(model)
    if speech_encoder is not None:
        choose_encoder(str(speech_encoder))
    _check(recogniser, source, window, every)
    preparation = recogniser.preparation
    length = preparation.skip + preparation.keep if window is None else window
    return _Listener(recogniser, source, length, every, clock).moments(on_answer)


def _check(recogniser: Recogniser, source: Source, window: float | None, every: float) -> None:
    name = recogniser.name
    if recogniser.normalised:
        raise InputError(
            f"model {name} was trained on speakers standardised over all their takes, and who is live has "
            "none: expected a model trained without --speaker-normalisation"
        )
    if recogniser.preparation.of_file("openface"):
        raise InputError(
            f"model {name} sees OpenFace tracks, which cannot be made live: expected a model of pictures"
        )
    spans(0.0, recogniser.preparation, window, HOP)  # refuses a length that no window can have
    if not OFTEN[0] <= every <= OFTEN[1]:
        raise InputError(f"--every is {every:g} s: expected {OFTEN[0]:g} to {OFTEN[1]:g}")
    there: dict[str, bool] = {"video": source.pictured, "audio": source.sounding}
    some = any(there[modality] for modality in recogniser.reads)
    for modality, reason in REASONS.items():
        if modality in recogniser.reads and not there[modality] and not (some and tolerates(recogniser)):
            raise MediaError(
                reason, f"{source.name} has {reason}: model {name} needs it; choose another source or model"
            )


class _Listener:
    """Assembles the newest window from what the threads put down.

    Times are counted in steps from one picture to the next: a window has as many as a clip has pictures.
    """

    def __init__(
        self, recogniser: Recogniser, source: Source, length: float, every: float, clock: Clock
    ) -> None:
        self.recogniser, self.preparation = recogniser, recogniser.preparation
        self.source, self.clock, self.length = source, clock, length
        self.steps = self.preparation.frames
        self.step = length / self.steps
        self.stride = max(1, round(every / self.step))
        self.sees, self.hears = "video" in recogniser.reads, "audio" in recogniser.reads
        self.even = self.preparation.sampling == "even"
        self.streams: list[Stream] = ["video"] if self.sees and source.pictured else []
        self.streams += ["audio"] if self.hears and source.sounding else []
        self.rolling = Rolling(
            self.streams, self.step if self.even else 0, length + LAG + self.step, source.begun
        )
        self.pictures: list[tuple[Picture, float]] = []  # and the second at which each arrived
        self.follower = Follower(forget=math.ceil(length / max(SEARCH, self.step)))
        self.looked: list[float] = []  # second of the last picture that was searched
        self.main: int | None = None
        self.skipped = 0

    def moments(self, on_answer: Callable[[Moment], object]) -> Generator[Moment, None, None]:
        """Yield the moments, see `live`."""
        rolling = self.rolling
        with self._reading() as pace:
            due = min(self.stride, self.steps)  # when the next moment is due
            told, over = 0, False  # when the last window ended; whether nothing more comes
            while not over:
                self.clock.wait(PATIENCE, rolling.news)
                rolling.news.clear()
                if rolling.error is not None:
                    raise rolling.error
                self._look()  # takes a while
                begin, reach, over = rolling.state()
                self._look()  # in what came meanwhile
                if begin is None:
                    continue
                now = math.floor(reach / self.step + ROUNDING)
                missing = math.ceil(begin / self.step - ROUNDING) + self.steps - now
                if missing > 0 and now >= due:
                    yield self._moment(now, missing=missing * self.step)
                    due = now + min(self.stride, missing)
                elif missing <= 0 and (now >= due or (over and now > told)):
                    self.skipped += max(0, now - due) // self.stride if told else 0
                    moment = self._answer(now, pace)
                    on_answer(moment)
                    yield moment
                    told, due = now, now + self.stride
            if not told:
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
        jobs: dict[Stream, Callable[[], object]] = {
            "video": lambda: self._read(
                "video", self.source.pictures(self.rolling.step, pace), self.rolling.see
            ),
            "audio": lambda: self._read("audio", self.source.sound(pace), self.rolling.hear),
        }
        threads = [Thread(target=jobs[name], name=f"cfnsr {name}", daemon=True) for name in self.streams]
        try:
            for thread in threads:
                thread.start()
            yield pace
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()

    def _read(self, stream: Stream, items: Iterator[Item], put: Callable[[Item], None]) -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
        except BaseException as raised:  # the caller raises it
            error = raised
        self.rolling.end(stream, error)

    def _look(self) -> None:
        """Search the pictures that have come for faces, as many as `predict` does."""
        for seen in self.rolling.take():
            *_, due = searched(np.array([*self.looked, seen.time]))
            found = None
            if due or not self.even:
                self.looked = [seen.time]
                found = self.follower.add(clip.detector().detect(seen.frame))
            self.pictures.append((Picture(seen.time, seen.frame, found), seen.arrived))
        if self.pictures:
            oldest = self.pictures[-1][0].time - self.rolling.keep
            self.pictures = [each for each in self.pictures if each[0].time >= oldest]

    def _answer(self, now: int, pace: Pace) -> Moment:
        """Recognise the window that ends now."""
        start = (now - self.steps) * self.step
        span = Span(start, start + self.length)
        tensors: dict[str, np.ndarray] = {}
        arrived = 0.0
        speech = False if self.hears else None
        if "audio" in self.streams:
            sound = self.rolling.between(*span)
            tensors |= heard(sound.samples, sound.rate, self.preparation)
            speech = bool(tensors) and clip.loud(sound.samples, sound.rate, self.preparation)
            arrived = sound.arrived
        pictures = self._pictures(span)
        arrived = max([arrived, *(each for _, each in pictures)])
        people = main_first(present([picture for picture, _ in pictures]), self.main)
        person = square = None
        if people:
            person, track = people[0]
            self.main = person
            tensors |= cut([picture for picture, _ in pictures], track, self.preparation)
            x, y, side = tensors["squares"][-1].tolist()
            square = x, y, side
        stretch = Stretch(span, tensors, bool(people) if self.sees else None, speech, person)
        ((_, window),) = answers(self.recogniser, [stretch])
        return self._moment(now, window, square, pace.second() - arrived)

    def _pictures(self, span: Span) -> list[tuple[Picture, float]]:
        """Pictures of a window."""
        if not self.pictures:
            return []
        times = np.array([picture.time for picture, _ in self.pictures])
        return [self.pictures[at] for at in sampled(times, span, self.length, self.preparation).tolist()]

    def _moment(
        self,
        now: int,
        window: Window | None = None,
        square: tuple[float, float, float] | None = None,
        delay: float | None = None,
        missing: float = 0.0,
    ) -> Moment:
        dropped = self.rolling.dropped + self.source.dropped
        return Moment(now * self.step, window, square, delay, missing, dropped, self.skipped)
