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

from cfnsr.media.container import USUAL, Streams
from cfnsr.media.decode import nearest, stream_pictures, stream_sound
from cfnsr.media.scan import scan_packets

LATE = 1.0  # seconds after its time at which a picture of a file is dropped


class Clock:
    """The computer's clock; tests put their own in its place."""

    def now(self) -> float:
        """Seconds since some moment; it never runs back."""
        return time.monotonic()

    def wait(self, seconds: float, event: Event) -> None:
        """Return after some seconds, or as soon as the event is set."""
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
class LivePicture:
    """A picture of a source; its seconds are the source's."""

    time: float
    arrived: float  # when it was there
    frame: NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class LiveSound:
    """A piece of sound; it follows on the one before."""

    first: int  # number of its first sample, counted from second 0 of the source
    arrived: float  # second at which it was there
    rate: int  # in Hz; the same for all pieces of a source
    samples: NDArray[np.float32]  # (N,), one channel out of all, see `Mono`

    @property
    def end(self) -> float:
        """The second at which it is over."""
        return (self.first + len(self.samples)) / self.rate


class Source(Protocol):
    """Live video and audio; each of the two is read by a thread of its own."""

    name: str  # as messages call it
    has_video: bool
    has_audio: bool
    begun: bool  # both begin at second 0, though nothing has come yet; devices take a while
    dropped: int  # pictures so far, because they were late

    def pictures(self, step: float, pace: Pace) -> Iterator[LivePicture]:
        """Yield pictures as they come, until the end or until nothing more is wanted.

        Args:
            step: seconds; of all pictures those nearest to its multiples are wanted; 0 wants all.
            pace: the second of the source.

        Raises:
            MediaError: the source cannot be read, or not any more.
        """
        ...

    def sound(self, pace: Pace) -> Iterator[LiveSound]:
        """Yield sound as it comes; see `pictures`."""
        ...


class Player:
    """A file played as if live: everything comes at its own second, and nothing before.

    What comes later than that, because the computer is slow, arrived at its second all the same, so that a
    delay counts from there. A picture a second late is dropped.

    Args:
        path: anything PyAV opens.
        streams: which of its streams, where it has several.

    Raises:
        MediaError: the file is missing, not media, broken or truncated, or lacks a stream that was named.
    """

    def __init__(self, path: Path | str, streams: Streams = USUAL) -> None:
        self.path, self.name = Path(path), str(path)
        self.scan = scan_packets(self.path, streams)
        self.has_video, self.has_audio = self.scan.frame_count > 0, self.scan.sample_rate > 0
        self.begun, self.dropped = True, 0

    def pictures(self, step: float, pace: Pace) -> Iterator[LivePicture]:
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
                yield LivePicture(due, due, frame)

    def sound(self, pace: Pace) -> Iterator[LiveSound]:
        """See `Source`."""
        first = 0
        for rate, samples in stream_sound(self.path, self.scan):
            piece = LiveSound(first, (first + len(samples)) / rate, rate, samples)
            if not pace.until(piece.end):
                return
            yield piece
            first += len(samples)
