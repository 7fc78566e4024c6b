"""A media file -> pictures and sound on one clock: the only reader of pictures and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from cfnsr.media.clock import SoundClock
from cfnsr.media.container import USUAL, Streams, check_pixels, find_streams, open_media, read_packets
from cfnsr.media.display import Display
from cfnsr.media.downmix import Mono
from cfnsr.media.errors import MediaError as MediaError
from cfnsr.media.scan import Scan, first_picture, scan_packets

Sampling = Literal["even", "consecutive"]

LONGEST_SOUND = 15 * 60.0  # seconds of sound in one piece; a small file may declare hours
LOST_FRACTION = 0.1  # with more undecodable pictures or sound than this a file is broken
SEEK_MARGIN = 1.0  # seconds of run-in before the wanted span, for decoders that need what came before
# Codecs whose pictures declare whether others depend on them. HEVC's declare it of their own temporal
# layer alone.
SPARING = ("h264",)


@dataclass(frozen=True)
class Decoded:
    """Sampled pictures and the sound of one file on one clock.

    Time 0 is what players show as 0: where the earliest of the file's pictures and sounds begins.

    Args:
        frames: (T, H, W, 3) uint8 RGB, or None where no pictures were asked for.
        times: (T,) second of each picture.
        frame_numbers: (T,) position of each picture in the whole video, from 0.
        frame_count: pictures of the whole video.
        duration: seconds of the whole file.
        waveform: (N,) float32, one channel out of all (see `Mono`), from time 0 (or `start`) on; None if not
            asked for.
        sample_rate: of the waveform, in Hz; 0 without one.
        sound_start: second at which the sound begins in the file; the waveform is padded or cut to agree.
        pixel: width of the file's pixels over their height; those of `frames` are square.
        notes: remarks on how the file was read, a line each.
    """

    frames: NDArray[np.uint8] | None
    times: NDArray[np.float64]
    frame_numbers: NDArray[np.int64]
    frame_count: int
    duration: float
    waveform: NDArray[np.float32] | None
    sample_rate: int
    sound_start: float
    pixel: float = 1.0
    notes: tuple[str, ...] = ()


def decode(
    path: Path | str,
    *,
    frames: int = 30,
    sampling: Sampling = "even",
    video: bool = True,
    audio: bool = True,
    start: float | None = None,
    end: float | None = None,
    threads: int = 0,
    streams: Streams = USUAL,
    scan: Scan | None = None,
) -> Decoded:
    """Decode a file once: the sampled pictures and the sound.

    Only the kept pictures become RGB, so memory holds little besides the result. An undecodable picture is
    replaced by the next good one.

    Args:
        path: any file FFmpeg reads.
        frames: pictures to return, T; where the video has fewer, some are repeated.
        sampling: "even" spreads them from the first picture to the last; "consecutive" takes the middle run.
        video: return pictures, and fail where there are none.
        audio: return sound, and fail where there is none.
        start: leave out what comes before, in seconds; the waveform then begins here.
        end: leave out what comes from here on, in seconds.
        threads: of the video decoder; 0 lets FFmpeg choose, 1 suits one process a core.
        streams: which of the file's streams, where it has several.
        scan: of this file, from `scan_packets`, if it was made before; its streams go first.

    Raises:
        MediaError: the file is missing, not media, broken or truncated, lacks what was asked for, or has more
            sound than memory should hold (`stream_sound` reads that).
        ValueError: `frames` below 1 or an empty span of time.
    """
    path = Path(path)
    low, high = 0.0 if start is None else start, math.inf if end is None else end
    if frames < 1 or not low < high:
        raise ValueError(f"{frames} frames from {low} to {high} s: expected at least one, in a span of time")
    scan = scan or scan_packets(path, streams)
    if video and not scan.frame_count:
        raise MediaError("no picture", f"{path} has no pictures: give a video, or ask for the sound alone")
    if audio and not scan.sample_rate:
        message = f"{path} has no sound: give a recording with sound, or ask for pictures alone"
        raise MediaError("no sound", message)
    lasts = min(high, scan.duration) - low
    if audio and lasts > LONGEST_SOUND:
        much, most = f"{lasts / 60:.1f} minutes of sound in one piece", f"{LONGEST_SOUND / 60:g}"
        raise MediaError("too long", f"{path} has {much}: expected at most {most}; cut it into takes")
    numbers = np.empty(0, np.int64)
    if video:
        first, stop = np.searchsorted(scan.times, [low, high]).tolist()
        numbers = np.int64(first) + spread(stop - first, frames, sampling)
    if video and not len(numbers):
        message = f"{path} has no picture from second {low:g} on: its pictures last {scan.times[-1]:.2f} s"
        raise MediaError("too short", message)
    pictures = _Pictures(path, scan, numbers) if video else None
    sound = _Sound(path, scan, low, high) if audio else None
    kept, count = np.empty(0, np.uint8), 0
    for _ in _read(path, scan, pictures, sound, threads=threads, start=low):
        for picture in pictures.take() if pictures is not None else ():
            if not count:
                kept = np.empty((len(numbers), *picture.shape), np.uint8)
            kept[count] = picture
            count += 1
    return Decoded(
        frames=kept if video else None,
        times=scan.times[numbers].astype(np.float64),
        frame_numbers=numbers,
        frame_count=scan.frame_count,
        duration=scan.duration,
        waveform=np.concatenate([np.empty(0, np.float32), *sound.ready]) if sound is not None else None,
        sample_rate=sound.rate if sound is not None else 0,
        sound_start=scan.sound_start,
        pixel=scan.pixel,
        notes=scan.notes,
    )


def stream_pictures(
    path: Path, scan: Scan, numbers: NDArray[np.int64], *, shrunk: float = 1.0, threads: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Read some pictures (H, W, 3) uint8 RGB of a file, one by one, so that a long file needs no more memory.

    Args:
        scan: of this file, from `scan_packets`.
        numbers: positions of the pictures in the whole video, in rising order; repeated ones come repeatedly.
        shrunk: factor by which the pictures are made smaller.
        threads: of the decoder; 0 lets FFmpeg choose.

    Raises:
        MediaError: the file is broken; only once its end is reached, where it is broken in many places.
    """
    if not len(numbers):
        return
    pictures = _Pictures(path, scan, numbers, shrunk)
    for _ in _read(path, scan, pictures, None, threads=threads, start=float(scan.times[numbers[0]])):
        yield from (np.ascontiguousarray(picture) for picture in pictures.take())


def stream_sound(path: Path, scan: Scan) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Read the sound of a file from time 0 on, in parts: sample rate in Hz, and samples (N,) that follow on.

    A part is no longer than a second, or what one packet holds.

    Raises:
        MediaError: the file is broken, or its sound track empty.
    """
    sound = _Sound(path, scan, 0.0, math.inf)
    for _ in _read(path, scan, None, sound):
        chunks, sound.ready = sound.ready, []
        for chunk in chunks:
            # the zeros of a long silence take memory only once they are copied
            for first in range(0, len(chunk), sound.rate):
                yield sound.rate, chunk[first : first + sound.rate]


def _read(
    path: Path,
    scan: Scan,
    pictures: _Pictures | None,
    sound: _Sound | None,
    *,
    threads: int = 0,
    start: float = 0.0,
) -> Iterator[None]:
    """Decode what is wanted of a file; pause after each packet and at the end."""
    with open_media(path) as container:
        video, audio = find_streams(container, scan.streams)
        collectors: dict[int, _Pictures | _Sound] = {}
        if video is not None and pictures is not None:
            check_pixels(path, video)
            collectors[video.index] = pictures
            size = first_picture(path, scan.streams)[1] if pictures.first else None
            pictures.display = Display(video, size=size, shrunk=pictures.shrunk)
            video.codec_context.thread_type, video.codec_context.thread_count = "AUTO", threads
        if audio is not None and sound is not None:
            collectors[audio.index] = sound
        streams: list[Any] = [container.streams[index] for index in collectors]
        # A file whose pictures begin later is read from its start: seeking leads to them, past the sound.
        begin = 0.0
        if pictures is not None:
            start, begin = min(start, float(pictures.times[0])), float(scan.times[0])
        if start - SEEK_MARGIN > begin and scan.stamped:
            with suppress(av.FFmpegError):  # as is one without an index
                ticks = math.floor((start - SEEK_MARGIN + scan.zero) / streams[0].time_base)
                container.seek(ticks, stream=streams[0])
        for packet in read_packets(path, container, streams):
            collector = collectors[packet.stream.index]
            if collector.done:
                if all(each.done for each in collectors.values()):
                    break
                continue
            if isinstance(collector, _Pictures):
                # A packet is decoded only if its picture is wanted or others depend on it.
                context, stamp = packet.stream.codec_context, packet.pts
                known = context.name in SPARING and scan.stamped and stamp is not None
                context.skip_frame = "NONREF" if known and stamp not in collector.awaited else "DEFAULT"
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                collector.errors += 1
                continue
            for frame in decoded:
                collector.add(frame)  # type: ignore[arg-type]
            yield
        for collector in collectors.values():
            collector.finish()
        yield


def spread(count: int, frames: int, sampling: Sampling = "even") -> NDArray[np.int64]:
    """Choose `frames` positions out of `count` pictures; where there are too few, some are repeated.

    Returns:
        (frames,) positions from 0, in rising order; (0,) where there are no pictures.

    >>> spread(10, 4), spread(10, 4, "consecutive"), spread(2, 4)
    (array([0, 3, 6, 9]), array([3, 4, 5, 6]), array([0, 0, 1, 1]))
    """
    if count < 1:
        return np.empty(0, np.int64)
    if sampling == "even":
        return np.rint(np.linspace(0, count - 1, frames)).astype(np.int64)
    return np.minimum(max(0, (count - frames) // 2) + np.arange(frames), count - 1)


def nearest(times: NDArray[np.floating], wanted: NDArray[np.floating]) -> NDArray[np.int64]:
    """Positions of the pictures at `times`, rising, nearest to the `wanted` seconds; ties take the first.

    >>> nearest(np.array([0.0, 1.0, 2.0]), np.array([-3.0, 0.5, 1.7, 9.0]))
    array([0, 0, 2, 2])
    """
    return np.asarray(np.searchsorted((times[1:] + times[:-1]) / 2, wanted))


class _Pictures:
    """Picks the wanted pictures out of those decoded, which come in the order shown."""

    def __init__(self, path: Path, scan: Scan, numbers: NDArray[np.int64], shrunk: float = 1.0) -> None:
        self.path, self.stamped = path, scan.stamped
        self.wanted, self.times = scan.keys[numbers], scan.times[numbers]
        self.awaited = set(self.wanted.tolist())
        self.first, self.shrunk = int(numbers[0]), shrunk
        self.display: Display  # of the stream, once that is open
        self.ready: list[NDArray[np.uint8]] = []
        self.last: NDArray[np.uint8] | None = None
        self.errors = self.decoded = self.good = self.kept = 0

    @property
    def done(self) -> bool:
        return self.kept == len(self.wanted)

    def add(self, frame: VideoFrame) -> None:
        key = frame.pts if self.stamped and frame.pts is not None else self.decoded
        self.decoded += 1
        if key < self.wanted[0] or self.done or frame.is_corrupt:
            return
        self.good += key in self.awaited
        stop = int(np.searchsorted(self.wanted, key, side="right"))
        if stop > self.kept:
            self._fill(stop, self.display(frame))

    def _fill(self, stop: int, picture: NDArray[np.uint8]) -> None:
        self.ready += [picture] * (stop - self.kept)
        self.last, self.kept = picture, stop
        if self.done:
            self._check()  # before the last one is taken, after which nobody may ask for more

    def take(self) -> list[NDArray[np.uint8]]:
        ready, self.ready = self.ready, []
        return ready

    def finish(self) -> None:
        self._check()
        if self.last is not None:
            self._fill(len(self.wanted), self.last)

    def _check(self) -> None:
        lost, count = len(self.awaited) - self.good, len(self.awaited)
        if self.last is None or lost > LOST_FRACTION * count:
            message = f"{self.path} is broken: {lost} of {count} pictures cannot be decoded; copy it again"
            raise MediaError("broken", message)


class _Sound:
    """Lays the decoded sound on the file's clock and keeps the wanted span."""

    def __init__(self, path: Path, scan: Scan, low: float, high: float) -> None:
        self.path, self.scan, self.low, self.high = path, scan, low, high
        self.rate = scan.sample_rate
        self.clock = SoundClock(path)
        self.ready: list[NDArray[np.float32]] = []
        self.mono = Mono()
        self.errors = self.decoded = 0

    @property
    def done(self) -> bool:
        return self.clock.position is not None and self.clock.position >= self.high * self.rate

    def add(self, frame: AudioFrame) -> None:
        if self.decoded == 0:
            self.rate = frame.sample_rate  # some AAC declares half of it
        elif frame.sample_rate != self.rate:
            changes = f"changes its sample rate from {self.rate} to {frame.sample_rate} Hz"
            raise MediaError("broken", f"{self.path} {changes}: convert it")
        self.decoded += 1
        due = None if frame.pts is None else float(frame.pts * (frame.time_base or 1)) - self.scan.zero
        silence = self.clock.follow(due, self.rate, start=self.scan.sound_start, earliest=self.low)
        self._keep(np.zeros(silence, np.float32))
        samples = self.clock.cut(self.mono(frame))
        if not np.isfinite(samples).all():
            raise MediaError("broken", f"{self.path} is broken: its sound is no sound; copy it again")
        self._keep(samples)

    def _keep(self, samples: NDArray[np.float32]) -> None:
        position = self.clock.position or 0
        stop = len(samples) if math.isinf(self.high) else max(0, round(self.high * self.rate) - position)
        if len(samples[:stop]):
            self.ready.append(samples[:stop])
        self.clock.position = position + len(samples)

    def finish(self) -> None:
        lost = self.errors / max(1, self.errors + self.decoded)
        if lost > LOST_FRACTION:
            message = f"{self.path} is broken: {lost:.0%} of its sound cannot be decoded; copy it again"
            raise MediaError("broken", message)
        if not self.decoded and not self.low:
            raise MediaError("no sound", f"{self.path} has an empty sound track: give a recording with sound")
        self.clock.check()
