"""Pictures and sound as they come -> the newest window of each, and how far they reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Event, Lock
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.capture import Heard, Seen

Stream = Literal["video", "audio"]

LAG = 0.5  # seconds that picture or sound waits for the other


class Sound(NamedTuple):
    """Some sound: samples (N,), their rate in Hz, and the second of its newest sample's arrival."""

    samples: NDArray[np.float32]
    rate: int
    arrived: float


class Rolling:
    """Buffer filled by a thread for each stream and emptied by a reader; it holds at most `keep` seconds.

    Args:
        step: seconds between pictures; 0 where all come.
        begun: whether all streams begin at second 0, before anything has come.
    """

    def __init__(self, streams: Iterable[Stream], step: float, keep: float, begun: bool = False) -> None:
        self.step, self.keep = step, keep
        self.news = Event()  # set whenever something has come or ended
        self.dropped = 0  # pictures that nobody took in time
        self.error: BaseException | None = None
        self._lock = Lock()
        self._pictures: deque[Seen] = deque()
        self._sound: deque[Heard] = deque()
        self._last = 0.0  # second of the newest picture
        self._running: set[Stream] = set(streams)
        self._begins: dict[Stream, float] = dict.fromkeys(self._running, 0.0) if begun else {}
        self._ends: dict[Stream, float] = {}

    def see(self, seen: Seen) -> None:
        """Put a picture in; where nobody takes them, the oldest go."""
        with self._lock:
            self._pictures.append(seen)
            while self._pictures[0].time < seen.time - self.keep:
                self._pictures.popleft()
                self.dropped += 1
            self._last = seen.time
            # The multiple of the step that it is nearest to has its picture, so all is there until the next.
            end = (round(seen.time / self.step) + 1) * self.step if self.step else seen.time
            self._reach("video", seen.time, end)
        self.news.set()

    def hear(self, heard: Heard) -> None:
        """Put a piece of sound in; sound older than `keep` goes."""
        with self._lock:
            self._sound.append(heard)
            while self._sound[0].end < heard.end - self.keep:
                self._sound.popleft()
            self._reach("audio", heard.first / heard.rate, heard.end)
        self.news.set()

    def _reach(self, stream: Stream, begin: float, end: float) -> None:
        self._begins.setdefault(stream, begin)
        self._ends[stream] = end

    def end(self, stream: Stream, error: BaseException | None = None) -> None:
        """Note that nothing more comes of a stream, and the error, if there was one."""
        with self._lock:
            self._running.discard(stream)
            self.error = self.error or error
            if stream == "video" and stream in self._ends:
                self._ends[stream] = self._last
        self.news.set()

    def state(self) -> tuple[float | None, float, bool]:
        """State of the buffer.

        Returns:
            The second at which all streams have begun, None before that; the second up to which all have
            come, or that is half a second past; whether everything is over.
        """
        with self._lock:
            if not self._ends or not self._running <= self._begins.keys():
                return None, 0.0, not self._running
            newest = max(self._ends.values())
            reach = min((self._ends.get(stream, 0.0) for stream in self._running), default=newest)
            return max(self._begins.values()), max(reach, newest - LAG), not self._running

    def take(self) -> list[Seen]:
        """Take the pictures that came since the last time."""
        with self._lock:
            taken = list(self._pictures)
            self._pictures.clear()
        return taken

    def between(self, start: float, end: float) -> Sound:
        """Sound from one second to another, as far as it is kept."""
        with self._lock:
            parts = list(self._sound)
        rate = parts[0].rate if parts else 1
        begin = round(start * rate)
        stop = begin + round((end - start) * rate)
        parts = [part for part in parts if part.first + len(part.samples) > begin and part.first < stop]
        if not parts:
            return Sound(np.empty(0, np.float32), rate, 0.0)
        first = parts[0].first
        samples = np.concatenate([part.samples for part in parts])
        return Sound(samples[max(0, begin - first) : max(0, stop - first)], rate, parts[-1].arrived)

    def size(self) -> tuple[int, int]:
        """Numbers of pictures and samples that are kept."""
        with self._lock:
            return len(self._pictures), sum(len(part.samples) for part in self._sound)
