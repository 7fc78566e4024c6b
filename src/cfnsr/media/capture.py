"""Pictures and sound that come at their own second: what a source of them is; a file played as if live."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.container import USUAL, Streams, scan_packets
from cfnsr.media.decode import nearest, stream_pictures, stream_sound

LATE = 1.0  # seconds after its time at which a picture of a file is passed over


class Clock(Protocol):
    """Source of time and of waiting; tests put their own in its place."""

    def now(self) -> float:
        """Seconds since some moment; it never runs back."""
        ...

    def wait(self, seconds: float, event: Event) -> None:
        """Return after some seconds, or as soon as the event is set."""
        ...


class SystemClock:
    """The computer's clock."""

    def now(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def wait(self, seconds: float, event: Event) -> None:
        """See `Clock`."""
        event.wait(seconds)


class Pace:
    """The second of a source, counted from when this was made.

    Args:
        clock: source of the time.
        stop: set when nothing more is wanted.
    """

    def __init__(self, clock: Clock, stop: Event) -> None:
        self.clock, self.stop, self._begin = clock, stop, clock.now()

    def second(self) -> float:
        """Now."""
        return self.clock.now() - self._begin

    def until(self, second: float) -> bool:
        """Wait for a second to come; whether anything is wanted then."""
        while not self.stop.is_set() and (left := second - self.second()) > 0:
            self.clock.wait(left, self.stop)
        return not self.stop.is_set()


@dataclass(frozen=True)
class Seen:
    """A picture.

    Args:
        time: second of the source.
        arrived: second at which it was there to be looked at.
        frame: (H, W, 3) uint8 RGB.
    """

    time: float
    arrived: float
    frame: NDArray[np.uint8]


@dataclass(frozen=True)
class Heard:
    """A piece of sound; it follows on the one before.

    Args:
        first: number of its first sample, counted from second 0 of the source.
        arrived: second at which it was there to be listened to.
        rate: in Hz; the same for all pieces of a source.
        samples: (N,) float32, one channel out of all, see `Mono`.
    """

    first: int
    arrived: float
    rate: int
    samples: NDArray[np.float32]

    @property
    def end(self) -> float:
        """The second at which it is over."""
        return (self.first + len(self.samples)) / self.rate


class Source(Protocol):
    """Live video and audio; each of the two is read by a thread of its own."""

    @property
    def name(self) -> str:
        """As messages call it."""
        ...

    @property
    def pictured(self) -> bool:
        """True if there is video."""
        ...

    @property
    def sounding(self) -> bool:
        """True if there is audio."""
        ...

    @property
    def begun(self) -> bool:
        """True if both begin at second 0, though nothing has come yet; devices take a while."""
        ...

    @property
    def dropped(self) -> int:
        """Pictures passed over so far, because they were late."""
        ...

    def pictures(self, step: float, pace: Pace) -> Iterator[Seen]:
        """Pictures as they come, until the end or until nothing more is wanted.

        Args:
            step: seconds; of all pictures those nearest to its multiples are wanted; 0 wants all.
            pace: the second of the source.

        Raises:
            MediaError: the source cannot be read, or not any more.
        """
        ...

    def sound(self, pace: Pace) -> Iterator[Heard]:
        """Sound as it comes; see `pictures`."""
        ...


class Player:
    """A file played as if live: everything comes at its own second, and nothing before.

    What comes later than that, because the computer is slow, arrived at its second all the same, so that a
    delay counts from there. A picture a second late is passed over.

    Args:
        path: anything PyAV opens.
        streams: which of its streams, where it has several.

    Raises:
        MediaError: the file is missing, not media, broken or truncated, or lacks a stream that was named.
    """

    def __init__(self, path: Path | str, streams: Streams = USUAL) -> None:
        self.path, self.name = Path(path), str(path)
        self.scan = scan_packets(self.path, streams)
        self.pictured, self.sounding = self.scan.frame_count > 0, self.scan.sample_rate > 0
        self.begun = True
        self.dropped = 0

    def pictures(self, step: float, pace: Pace) -> Iterator[Seen]:
        """See `Source`."""
        times = self.scan.times
        numbers = np.arange(len(times))
        if step:
            numbers = np.unique(nearest(times, np.arange(math.ceil(times[-1] / step) + 1) * step))
        frames = stream_pictures(self.path, self.scan, numbers)
        for due, frame in zip(times[numbers].tolist(), frames, strict=True):
            if not pace.until(due):
                return
            if pace.second() - due > LATE:
                self.dropped += 1
            else:
                yield Seen(due, due, frame)

    def sound(self, pace: Pace) -> Iterator[Heard]:
        """See `Source`."""
        first = 0
        for rate, samples in stream_sound(self.path, self.scan):
            end = (first + len(samples)) / rate
            if not pace.until(end):
                return
            yield Heard(first, end, rate, samples)
            first += len(samples)
