"""Time stamps and samples that disagree -> sound on one clock, by one rule for all that read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from cfnsr.media.errors import MediaError

Kind = TypeVar("Kind", bound=np.generic)

SLACK = 0.05  # seconds by which time stamps and samples may differ: less is rounding
LASTING = 0.5  # seconds for which time stamps must differ from samples, before and behind, to be believed
SHORTEST = 0.005  # seconds; packets that last less, or have no duration, count as this
MOST_MOVED = 0.5  # seconds by which a burst or a delay differs at most
REORDER = 16  # pictures that one may come after its place, as H.264 and HEVC reorder them
LONGEST_BACK = 5.0  # seconds; a clock that runs back by more is another recording's
LONGEST_LEAP = 2 * 3600.0  # seconds without picture and sound; a longer one is a wrong clock
LONGEST_FILE = 100 * 3600.0  # seconds; the same
MOST_REPEATED = 0.25  # of the sound may be stamped with seconds that have passed


class SoundClock:
    """Lay sound, which comes piece by piece, where its time stamps say.

    A piece follows on as long as stamps and samples agree to `SLACK`. A hole is filled with silence. Where
    pieces overlap, because a clock runs back or samples come faster than time, the repeated seconds are left
    out. So sound stays beside the pictures, as in players.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: int | None = None  # of the next sample to be laid, counted from time 0
        self._repeated = 0  # samples still to be left out
        self._early = 0  # of them, before laying begins
        self._left_out = self._all = 0

    def follow(self, second: float | None, rate: int, *, start: float, earliest: float | None = None) -> int:
        """Note when the next piece is due, at `rate` samples a second.

        Args:
            second: by its time stamp; None where it has none: it follows on, the first comes at `start`.
            start: second at which the sound begins in the file.
            earliest: second at which laying begins; None for that of the first piece, but not before 0.

        Returns:
            Samples of silence to put before it.
        """
        if self.position is None:
            first = round((start if second is None else second) * rate)
            self.position = max(0, first) if earliest is None else round(earliest * rate)
            self._repeated = self._early = max(0, self.position - first)
            return max(0, first - self.position)
        if second is None:
            return 0
        apart = round(second * rate) - (self.position - self._repeated)
        if abs(apart) > SLACK * rate:
            self._repeated -= apart
        silence, self._repeated = max(0, -self._repeated), max(0, self._repeated)
        return silence

    def cut(self, samples: NDArray[Kind]) -> NDArray[Kind]:
        """Cut off the part of a piece (..., N) whose seconds have passed."""
        count = min(self._repeated, samples.shape[-1])
        early = min(count, self._early)
        self._repeated, self._early = self._repeated - count, self._early - early
        self._left_out += count - early
        self._all += samples.shape[-1] - early
        return samples[..., count:]

    def check(self) -> None:
        """Raise `MediaError` ("broken") where too much had to be left out."""
        if self._left_out > MOST_REPEATED * self._all:
            share = f"{self._left_out / self._all:.0%} of its sound has times of other sound"
            advice = "its clocks cannot be reconciled, so convert it"
            raise MediaError("broken", f"{self.path} is broken: {share}; {advice}")


class StampFilter:
    """Median filter of one sound stream's time stamps, which takes out those that differ for a moment.

    A recorder that writes what arrives stamps a packet late, or five with the time at which they came
    together, while samples and time agree in the long run. So the distance between them is smoothed by a
    running median, which keeps steps that last, and all that only grows or only falls, as they are:
    holes, overlaps and clocks of another speed. Give it the packets in the order of the file.
    """

    def __init__(self) -> None:
        self._waiting: list[Packet[Any]] = []
        self._around = 0  # packets considered before one and behind it
        # Ticks from samples to stamps, of the packets that wait and of those around them.
        self._apart: list[int] = []
        self._samples = 0  # ticks of all so far

    def add(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Add a packet; yields packets whose time stamps are final."""
        if packet.pts is None:
            yield from self.finish()
            yield packet
            return
        duration = packet.duration or 0
        apart = packet.pts - self._samples
        self._samples += duration
        if not self._apart:
            self._around = round(LASTING / max(SHORTEST, duration * float(packet.time_base)))
            self._apart = [apart] * self._around
        self._waiting.append(packet)
        self._apart.append(apart)
        if len(self._waiting) > self._around:
            yield self._filtered()

    def finish(self) -> Iterator[Packet[Any]]:
        """Yield the packets that still wait."""
        while self._waiting:
            self._apart += self._apart[-1:] * (2 * self._around + 1 - len(self._apart))
            yield self._filtered()
        self._apart = []

    def _filtered(self) -> Packet[Any]:
        packet = self._waiting.pop(0)
        wrong = self._apart[self._around] - sorted(self._apart)[self._around]
        del self._apart[0]
        if packet.pts is not None and SLACK / 4 < abs(wrong * float(packet.time_base)) <= MOST_MOVED:
            packet.pts -= wrong
            packet.dts = packet.pts  # sound is decoded in the order played
        return packet


def in_order(stamps: NDArray[np.number]) -> NDArray[np.bool_]:
    """Mark pictures, in the order of the file, whose time stamps are not too late to be shown.

    >>> in_order(np.array([0, 3, 1, 2, 4])).all()
    np.True_
    """
    ranks = np.empty(len(stamps), np.int64)
    ranks[np.argsort(stamps, kind="stable")] = np.arange(len(stamps))
    return np.asarray(np.arange(len(stamps)) - ranks <= REORDER)


def check_clocks(
    path: Path, pictures: NDArray[np.floating], sound: NDArray[np.floating], duration: float
) -> None:
    """Refuse a file whose time stamps leap or run back so far that nobody knows what comes when.

    Args:
        pictures: seconds of the pictures, as they follow in the file.
        sound: seconds of the packets of sound, likewise.

    Raises:
        MediaError: they do ("broken").
    """
    leap = float(np.diff(np.sort(np.concatenate([pictures, sound]))).max(initial=0.0))
    whole, gap = f"declares {duration / 3600:.0f} hours", f"has nothing for {leap / 3600:.1f} hours"
    for found, longest, what in ((duration, LONGEST_FILE, whole), (leap, LONGEST_LEAP, gap)):
        if found > longest:
            expected = f"expected at most {longest / 3600:g}; its time stamps leap, so convert it"
            raise MediaError("broken", f"{path} {what}: {expected}")
    for seconds, counted in ((pictures, ~in_order(pictures)), (sound, slice(None))):
        back = (np.maximum.accumulate(seconds) - seconds)[counted].max(initial=0.0)
        if back > LONGEST_BACK:
            far = f"time stamps that run back by {back:.1f} s: expected at most {LONGEST_BACK:g} s"
            advice = "it may be several recordings in one, so cut or convert it"
            raise MediaError("broken", f"{path} has {far}; {advice}")
