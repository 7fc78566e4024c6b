"""Recordings decoded in a process of their own: whatever a hostile one does to it, the server goes on."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cfnsr.data.preparer import PreparedWindow, Span
from cfnsr.data.windows import Windows
from cfnsr.features.preparation import Preparation
from cfnsr.media.container import Streams, find_streams, open_media
from cfnsr.media.display import declared_size
from cfnsr.media.errors import MediaError
from cfnsr.media.scan import scan_packets
from cfnsr.processes import Worker, WorkerDied, time_limit


class Measured(NamedTuple):
    """Sizes of a recording: seconds, and pixels of a picture."""

    duration: float
    pixels: int


class Decoder:
    """A process that reads one recording at a time; another takes its place when it dies.

    Args:
        memory: bytes that it may take.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._worker: Worker | None = None

    def measure(self, file: Path, streams: Streams) -> Measured:
        """Measure a recording; nothing is decoded."""
        found: Measured = self.call(file, _measure, file, streams)
        return found

    def windows(self, file: Path, preparation: Preparation, **settings: Any) -> RemoteWindows:
        """Read a recording as `Windows` does, but there."""
        return RemoteWindows(self, file, self.call(file, _open, file, preparation, settings))

    def call(self, file: Path, function: Any, *arguments: object) -> Any:
        """Let the process do something with a recording.

        Raises:
            MediaError: it died of it.
        """
        self._worker = worker = self._worker or Worker(self.memory)
        try:
            return worker.call(function, *arguments)
        except WorkerDied as death:
            self._worker = None
            raise MediaError("broken", f"{file} cannot be decoded: {death}; convert it") from None

    def forget(self) -> None:
        """Let go of the recording that was read, also where not to its end."""
        if self._worker is not None:
            with suppress(MediaError):
                self.call(Path(), _forget)

    def end(self) -> None:
        """End the process, also while it works."""
        if self._worker is not None:
            self._worker.process.kill()


class RemoteWindows:
    """The windows of a recording that another process reads, as `predict` and `explain` need them."""

    def __init__(
        self, decoder: Decoder, file: Path, facts: tuple[float, Sequence[Span], tuple[str, ...]]
    ) -> None:
        self._decoder, self._file = decoder, file
        self.duration, self.spans, self.notes = facts

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[PreparedWindow]:
        while (window := self._decoder.call(self._file, _next)) is not None:
            yield window

    def one(self, place: int) -> list[PreparedWindow]:
        """Prepare a single window, see `Windows.one`."""
        made: list[PreparedWindow] = self._decoder.call(self._file, _one, place)
        return made


# In that process: the recording that is being read, and those of its windows that are still to come.
_windows: Windows | None = None
_coming: Iterator[PreparedWindow] = iter(())


def _measure(file: Path, streams: Streams) -> Measured:
    with time_limit(file):
        scan = scan_packets(file, streams)
        if not scan.frame_count:
            return Measured(scan.duration, 0)
        with open_media(file) as container:
            video, _ = find_streams(container, streams)
            return Measured(scan.duration, 0 if video is None else math.prod(declared_size(video)))


def _open(
    file: Path, preparation: Preparation, settings: dict[str, Any]
) -> tuple[float, Sequence[Span], tuple[str, ...]]:
    global _windows, _coming
    with time_limit(file):
        _windows = Windows(file, preparation, **settings)
        _coming = iter(_windows)
    return _windows.duration, _windows.spans, _windows.notes


def _next() -> PreparedWindow | None:
    with time_limit():
        return next(_coming, None)


def _forget() -> None:
    global _windows, _coming
    _windows, _coming = None, iter(())
    gc.collect()  # PyAV's containers are cycles, and hold the threads of their decoders


def _one(place: int) -> list[PreparedWindow]:
    assert _windows is not None  # noqa: S101 - opened before
    with time_limit():
        return _windows.one(place)
