"""A media file -> pictures and sound on one clock: the only reader of pictures and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.media.clock import SoundClock
from cfnsr.media.container import (
    USUAL,
    Scan,
    Streams,
    find_streams,
    open_media,
    picture_size,
    read_packets,
    scan_packets,
)
from cfnsr.media.downmix import Mono
from cfnsr.media.errors import MediaError as MediaError
from cfnsr.media.shown import Shown

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

    A first pass reads only the packets' time stamps and decides which pictures to keep. The second
    decodes; only the kept pictures become RGB, so memory holds little besides the result. An
    undecodable picture is replaced by the next good one.

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
        raise ValueError(
            f"{frames} frames between {low} and {high} s: expected at least one, in a span of time"
        )
    scan = scan or scan_packets(path, streams)
    if video and not scan.frame_count:
        raise MediaError("no picture", f"{path} has no pictures: give a video, or ask for the sound alone")
    if audio and not scan.sample_rate:
        raise MediaError(
            "no sound", f"{path} has no sound: give a recording with sound, or ask for pictures alone"
        )
    lasts = min(high, scan.duration) - low
    if audio and lasts > LONGEST_SOUND:
        raise MediaError(
            "too long",
            f"{path} has {lasts / 60:.1f} minutes of sound in one piece: expected at most "
            f"{LONGEST_SOUND / 60:g}; cut it into takes",
        )
    numbers = _sample(scan, frames, sampling, low, high) if video else np.empty(0, np.int64)
    if video and not len(numbers):
        raise MediaError(
            "too short",
            f"{path} has no picture from second {low:g} on: its pictures last {scan.times[-1]:.2f} s",
        )
    pictures = _Pictures(path, scan, numbers) if video else None
    sound = _Sound(path, scan, low, high) if audio else None
    for _ in _read(path, scan, pictures, sound, threads=threads, start=low):
        pass
    return Decoded(
        frames=pictures.result() if pictures else None,
        times=scan.times[numbers].astype(np.float64),
        frame_numbers=numbers,
        frame_count=scan.frame_count,
        duration=scan.duration,
        waveform=sound.result() if sound else None,
        sample_rate=sound.rate if sound else 0,
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
    pictures = _PictureStream(path, scan, numbers, shrunk)
    for _ in _read(path, scan, pictures, None, threads=threads, start=float(scan.times[numbers[0]])):
        if pictures.done:
            pictures.check()  # before the last one, after which nobody may ask for more
        yield from pictures.take()
    pictures.finish()
    yield from pictures.take()


def stream_sound(path: Path, scan: Scan) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Read the sound of a file from time 0 on, in parts: sample rate in Hz, and samples (N,) that follow on.

    A part is no longer than a second, or what one packet holds.

    Raises:
        MediaError: the file is broken, or its sound track empty.
    """
    sound = _Sound(path, scan, 0.0, math.inf)
    for _ in _read(path, scan, None, sound):
        chunks, sound.chunks = sound.chunks, []
        for part in (part for chunk in chunks for part in _cut(chunk, sound.rate)):
            if not np.isfinite(part).all():
                raise MediaError("broken", f"{path} is broken: its sound is no sound; copy it again")
            yield sound.rate, part
    sound.result()


def _cut(samples: NDArray[np.float32], rate: int) -> Iterator[NDArray[np.float32]]:
    """Cut into parts of a second: the zeros of a long silence take memory only once they are copied."""
    for first in range(0, len(samples), rate):
        yield samples[first : first + rate]


def _read(
    path: Path,
    scan: Scan,
    pictures: _Pictures | None,
    sound: _Sound | None,
    *,
    threads: int = 0,
    start: float = 0.0,
) -> Iterator[None]:
    """Decode what is wanted of a file, and pause after each packet."""
    with open_media(path) as container:
        video_stream, audio_stream = find_streams(container, scan.streams)
        if pictures is not None and video_stream is not None:
            size = picture_size(path, scan.streams) if pictures.first else None
            pictures.shown = Shown(video_stream, size=size, shrunk=pictures.shrunk)
        streams = [
            stream
            for stream, collector in ((video_stream, pictures), (audio_stream, sound))
            if stream is not None and collector is not None
        ]
        if video_stream is not None:
            video_stream.codec_context.thread_type = "AUTO"
            video_stream.codec_context.thread_count = threads
        wanted = () if pictures is None else pictures.times[:1]
        first = min([start, *wanted]) - SEEK_MARGIN
        # A file whose pictures begin later is read from its start: seeking leads to them, past the sound.
        if first > (scan.times[0] if scan.frame_count and pictures is not None else 0.0) and scan.stamped:
            with suppress(av.FFmpegError):  # as is one without an index
                ticks = math.floor((first + scan.zero) / streams[0].time_base)
                container.seek(ticks, stream=streams[0])
        for packet in read_packets(path, container, streams):
            collector = pictures if isinstance(packet.stream, VideoStream) else sound
            if collector is None or collector.done:
                if (pictures is None or pictures.done) and (sound is None or sound.done):
                    break
                continue
            if pictures is not None and isinstance(packet.stream, VideoStream):
                # A packet is decoded only if its picture is wanted or others depend on it.
                spared = packet.stream.codec_context.name in SPARING and not pictures.wants(packet.pts)
                packet.stream.codec_context.skip_frame = "NONREF" if spared else "DEFAULT"
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                collector.errors += 1
                continue
            for frame in decoded:
                collector.add(frame)  # type: ignore[arg-type]
            yield


def _sample(scan: Scan, frames: int, sampling: Sampling, low: float, high: float) -> NDArray[np.int64]:
    """Choose the pictures to keep, in [low, high) seconds; empty where none is there."""
    first, stop = np.searchsorted(scan.times, [low, high]).tolist()
    return np.int64(first) + spread(stop - first, frames, sampling)


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
    numbers: NDArray[np.int64] = np.searchsorted((times[1:] + times[:-1]) / 2, wanted)
    return numbers


class _Pictures:
    """Keeps the wanted pictures out of those decoded, which come in the order shown."""

    def __init__(self, path: Path, scan: Scan, numbers: NDArray[np.int64], shrunk: float = 1.0) -> None:
        self.path, self.stamped = path, scan.stamped
        self.wanted, self.times = scan.keys[numbers], scan.times[numbers]
        self.awaited = set(self.wanted.tolist())
        self.frames: NDArray[np.uint8] | None = None
        self.first, self.shrunk = int(numbers[0]), shrunk
        self.shown: Shown  # of the stream, once that is open
        self.errors = self.seen = self.good = self.kept = 0

    @property
    def done(self) -> bool:
        return self.kept == len(self.wanted)

    def wants(self, stamp: int | None) -> bool:
        """True if a packet with this time stamp holds a wanted picture, as far as that is known."""
        return not self.stamped or stamp is None or stamp in self.awaited

    def add(self, frame: VideoFrame) -> None:
        key = frame.pts if self.stamped and frame.pts is not None else self.seen
        self.seen += 1
        if key < self.wanted[0] or self.done or frame.is_corrupt:
            return
        self.good += key in self.awaited
        stop = int(np.searchsorted(self.wanted, key, side="right"))
        if stop > self.kept:
            self._fill(stop, self.shown(frame))

    def _fill(self, stop: int, picture: NDArray[np.uint8]) -> None:
        if self.frames is None:
            self.frames = np.empty((len(self.wanted), *picture.shape), np.uint8)
        self.frames[self.kept : stop] = picture
        self.kept = stop

    def check(self) -> NDArray[np.uint8]:
        """Return the kept pictures; raise `MediaError` where too many could not be decoded."""
        lost, count = len(self.awaited) - self.good, len(self.awaited)
        if self.frames is None or lost > LOST_FRACTION * count:
            raise MediaError(
                "broken",
                f"{self.path} is broken: {lost} of {count} pictures cannot be decoded; copy it again",
            )
        return self.frames

    def result(self) -> NDArray[np.uint8]:
        frames = self.check()
        if not self.done:
            self._fill(len(self.wanted), frames[self.kept - 1])
        return frames


class _PictureStream(_Pictures):
    """Hands the wanted pictures on instead of keeping them."""

    def __init__(self, path: Path, scan: Scan, numbers: NDArray[np.int64], shrunk: float) -> None:
        super().__init__(path, scan, numbers, shrunk)
        self.ready: list[NDArray[np.uint8]] = []

    def _fill(self, stop: int, picture: NDArray[np.uint8]) -> None:
        picture = np.ascontiguousarray(picture)
        self.frames = picture[None]
        self.ready += [picture] * (stop - self.kept)
        self.kept = stop

    def take(self) -> list[NDArray[np.uint8]]:
        ready, self.ready = self.ready, []
        return ready

    def finish(self) -> None:
        frames = self.check()
        if not self.done:
            self._fill(len(self.wanted), frames[0])


class _Sound:
    """Lays the decoded sound on the file's clock and keeps the wanted span."""

    def __init__(self, path: Path, scan: Scan, low: float, high: float) -> None:
        self.path, self.scan, self.low, self.high = path, scan, low, high
        self.rate = scan.sample_rate
        self.clock = SoundClock(path)
        self.chunks: list[NDArray[np.float32]] = []
        self.mono = Mono()
        self.errors = self.heard = 0

    @property
    def done(self) -> bool:
        return self.clock.position is not None and self.clock.position >= self.high * self.rate

    def add(self, frame: AudioFrame) -> None:
        if self.heard == 0:
            self.rate = frame.sample_rate  # some AAC declares half of it
        elif frame.sample_rate != self.rate:
            raise MediaError(
                "broken",
                f"{self.path} changes its sample rate from {self.rate} to {frame.sample_rate} Hz: convert it",
            )
        self.heard += 1
        due = None if frame.pts is None else float(frame.pts * (frame.time_base or 1)) - self.scan.zero
        silence = self.clock.follow(due, self.rate, start=self.scan.sound_start, earliest=self.low)
        self._keep(np.zeros(silence, np.float32))
        self._keep(self.clock.cut(self.mono(frame)))

    def _keep(self, samples: NDArray[np.float32]) -> None:
        position = self.clock.position or 0
        stop = len(samples) if math.isinf(self.high) else max(0, round(self.high * self.rate) - position)
        if len(samples[:stop]):
            self.chunks.append(samples[:stop])
        self.clock.position = position + len(samples)

    def result(self) -> NDArray[np.float32]:
        lost = self.errors / max(1, self.errors + self.heard)
        waveform = np.concatenate(self.chunks) if self.chunks else np.empty(0, np.float32)
        if lost > LOST_FRACTION or not np.isfinite(waveform).all():
            raise MediaError(
                "broken", f"{self.path} is broken: {lost:.0%} of its sound cannot be decoded; copy it again"
            )
        if not self.heard and not self.low:
            raise MediaError("no sound", f"{self.path} has an empty sound track: give a recording with sound")
        self.clock.check()
        return waveform
