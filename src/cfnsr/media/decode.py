"""A media file -> pictures and sound on one clock: the only reader of pictures and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.media.errors import MediaError as MediaError

Sampling = Literal["even", "consecutive"]

MISSING_SECONDS = 0.25  # a file that ends this much before its declared end is truncated
LOST_FRACTION = 0.1  # with more undecodable pictures or sound than this a file is broken
GAP_SECONDS = (0.05, 10.0)  # holes in the sound filled with silence; less is rounding, more a wrong clock
SEEK_MARGIN = 1.0  # seconds of run-in before the wanted span, for decoders that need what came before

# Only these formats declare a length of their own; elsewhere FFmpeg estimates it from the bit rate.
DECLARING = frozenset({"mov", "mp4", "matroska", "webm", "flv", "flac", "wav", "avi"})
# Playlists and descriptions open other files and addresses, tty draws text as video: never a recording.
NO_RECORDINGS = frozenset(
    {
        "alsa",
        "concat",
        "dash",
        "fbdev",
        "hls",
        "image2",
        "imf",
        "lavfi",
        "oss",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "tty",
    }
)
SIGNATURES = (b"ftyp", b"moov", b"RIFF", b"FLV", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3")


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds; zeros where it has no pictures or no sound.

    Args:
        duration: seconds from time 0 (see `Decoded`) to the end of the last picture or sample.
        frame_count: pictures shown.
        fps: their mean number a second.
        width: in pixels, as shown: after the rotation that phones note in the file.
        height: in pixels, as shown.
        sample_rate: of the sound, in Hz.
    """

    duration: float
    frame_count: int
    fps: float
    width: int
    height: int
    has_video: bool
    has_audio: bool
    sample_rate: int


@dataclass(frozen=True)
class Decoded:
    """Sampled pictures and the sound of one file on one clock.

    Time 0 is the file's first picture, or its first sample where it has no pictures.

    Args:
        frames: (T, H, W, 3) uint8 RGB, or None where no pictures were asked for.
        times: (T,) second of each picture.
        frame_numbers: (T,) position of each picture in the whole video, from 0.
        frame_count: pictures of the whole video.
        duration: seconds of the whole file.
        waveform: (N,) float32, the mean of the channels, from time 0 (or `start`) on; None if not asked for.
        sample_rate: of the waveform, in Hz; 0 without one.
        sound_start: second at which the sound begins in the file; the waveform is padded or cut to agree.
    """

    frames: NDArray[np.uint8] | None
    times: NDArray[np.float64]
    frame_numbers: NDArray[np.int64]
    frame_count: int
    duration: float
    waveform: NDArray[np.float32] | None
    sample_rate: int
    sound_start: float


def probe(path: Path | str) -> MediaInfo:
    """What a file holds, from one pass over its packets and its first picture.

    Raises:
        MediaError: the file is missing, not media, broken or truncated.
    """
    path = Path(path)
    scan = _scan(path)
    height, width = _picture_size(path) if scan.frame_count else (0, 0)
    return MediaInfo(
        duration=scan.duration,
        frame_count=scan.frame_count,
        fps=scan.fps,
        width=width,
        height=height,
        has_video=scan.frame_count > 0,
        has_audio=scan.sample_rate > 0,
        sample_rate=scan.sample_rate,
    )


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

    Raises:
        MediaError: the file is missing, not media, broken or truncated, or lacks what was asked for.
        ValueError: `frames` below 1 or an empty span of time.
    """
    path = Path(path)
    low, high = 0.0 if start is None else start, math.inf if end is None else end
    if frames < 1 or not low < high:
        raise ValueError(
            f"{frames} frames between {low} and {high} s: expected at least one, in a span of time"
        )
    scan = _scan(path)
    if video and not scan.frame_count:
        raise MediaError("no picture", f"{path} has no pictures: give a video, or ask for the sound alone")
    if audio and not scan.sample_rate:
        raise MediaError(
            "no sound", f"{path} has no sound: give a recording with sound, or ask for pictures alone"
        )
    numbers = _sample(scan, frames, sampling, low, high) if video else np.empty(0, np.int64)
    if video and not len(numbers):
        raise MediaError(
            "too short",
            f"{path} has no picture from second {low:g} on: its pictures last {scan.times[-1]:.2f} s",
        )
    pictures = _Pictures(path, scan, numbers) if video else None
    sound = _Sound(path, scan, low, high) if audio else None
    with _open(path) as container:
        video_stream, audio_stream = _streams(container)
        streams = [
            stream
            for stream, collector in ((video_stream, pictures), (audio_stream, sound))
            if stream is not None and collector is not None
        ]
        if video_stream is not None:
            video_stream.codec_context.thread_type = "AUTO"
            video_stream.codec_context.thread_count = threads
        if low > SEEK_MARGIN and scan.stamped:
            first = min([low, *scan.times[numbers[:1]]]) + scan.zero - SEEK_MARGIN
            with suppress(av.FFmpegError):  # a file without an index is read from its start
                container.seek(math.floor(first / streams[0].time_base), stream=streams[0])
        for packet in _packets(path, container, streams):
            collector = pictures if isinstance(packet.stream, VideoStream) else sound
            if collector is None or collector.done:
                if (pictures is None or pictures.done) and (sound is None or sound.done):
                    break
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                collector.errors += 1
                continue
            for frame in decoded:
                collector.add(frame)  # type: ignore[arg-type]
    return Decoded(
        frames=pictures.result() if pictures else None,
        times=scan.times[numbers].astype(np.float64),
        frame_numbers=numbers,
        frame_count=scan.frame_count,
        duration=scan.duration,
        waveform=sound.result() if sound else None,
        sample_rate=sound.rate if sound else 0,
        sound_start=scan.sound_start,
    )


@dataclass(frozen=True)
class _Scan:
    """What the packets tell before anything is decoded.

    `keys` identify the pictures in the order shown: their time stamps, or where a packet has none
    (`stamped` is False) their positions.
    """

    keys: NDArray[np.int64]
    times: NDArray[np.floating]
    stamped: bool
    fps: float
    zero: float
    sample_rate: int
    sound_start: float
    duration: float

    @property
    def frame_count(self) -> int:
        return len(self.keys)


def _scan(path: Path) -> _Scan:
    with _open(path) as container:
        video, audio = _streams(container)
        streams = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise MediaError(
                "not media", f"{path} holds neither pictures nor sound: give a video or a recording"
            )
        stamps: list[int | None] = []
        sound_stamps: list[float] = []
        ends = {stream.index: 0.0 for stream in streams}  # seconds on the file's own clock
        cut = {stream.index: False for stream in streams}
        for packet in _packets(path, container, streams):
            if not packet.size:
                continue  # the decoder's signal to finish
            index, pts = packet.stream_index, packet.pts
            begin = ends[index] if pts is None else float(pts * packet.time_base)
            ends[index] = max(ends[index], begin + float((packet.duration or 0) * packet.time_base))
            cut[index] = packet.is_corrupt
            if packet.is_discard:
                continue  # an edit list hides it
            if isinstance(packet.stream, VideoStream):
                stamps.append(pts)
            else:
                sound_stamps.append(begin)
        _check_length(path, container, streams, ends, cut)

        rate = float((video and (video.average_rate or video.guessed_rate)) or 25)
        stamped = None not in stamps
        if video is not None and stamped and stamps:
            keys = np.unique(np.array(stamps, np.int64))
            seconds = keys * float(video.time_base or 1)
        else:
            keys = np.arange(len(stamps))
            seconds = keys / rate
        first_sound = min(sound_stamps, default=0.0)
        if audio is not None and audio.start_time is not None:
            first_sound = float(audio.start_time * (audio.time_base or 1))  # knows of the encoder's run-in
        zero = float(seconds[0]) if len(keys) else first_sound
        times = seconds - zero
        if len(keys) > 1:
            rate = (len(keys) - 1) / float(times[-1])
        return _Scan(
            keys=keys,
            times=times,
            stamped=stamped,
            fps=rate if len(keys) else 0.0,
            zero=zero,
            sample_rate=audio.codec_context.sample_rate if audio is not None and sound_stamps else 0,
            sound_start=first_sound - zero if sound_stamps else 0.0,
            duration=max(ends.values()) - zero,
        )


def _check_length(
    path: Path,
    container: InputContainer,
    streams: list[VideoStream | AudioStream],
    ends: dict[int, float],
    cut: dict[int, bool],
) -> None:
    """Fail where the file ends before it says: its tail was lost in a copy or a crash."""
    formats = set(container.format.name.split(","))
    spans = []  # (declared end, read end)
    if "mp4" in formats:  # tells each stream's own length, so that lost pictures beside whole sound show
        for stream in streams:
            if stream.duration and stream.time_base:
                ticks = (stream.start_time or 0) + stream.duration
                spans.append((float(ticks * stream.time_base), ends[stream.index]))
    elif formats & DECLARING and container.duration:
        declared = max(container.start_time or 0, 0) + container.duration
        spans.append((declared / av.time_base, max(ends.values())))
    for told, read in spans:
        if told - read > MISSING_SECONDS:
            raise MediaError(
                "truncated",
                f"{path} is truncated: it tells of {told:.2f} s but ends at {read:.2f} s; copy it again",
            )
    if any(cut.values()):
        raise MediaError("truncated", f"{path} is truncated: it ends inside a packet; copy it again")


def _sample(scan: _Scan, frames: int, sampling: Sampling, low: float, high: float) -> NDArray[np.int64]:
    """Positions of the pictures to keep, in [low, high) seconds; empty where none is there."""
    first, stop = np.searchsorted(scan.times, [low, high]).tolist()
    return np.int64(first) + spread(stop - first, frames, sampling)


def spread(count: int, frames: int, sampling: Sampling = "even") -> NDArray[np.int64]:
    """Positions of `frames` out of `count` pictures; where there are too few, some are repeated.

    >>> spread(10, 4), spread(10, 4, "consecutive"), spread(2, 4)
    (array([0, 3, 6, 9]), array([3, 4, 5, 6]), array([0, 0, 1, 1]))
    """
    if count < 1:
        return np.empty(0, np.int64)
    if sampling == "even":
        return np.rint(np.linspace(0, count - 1, frames)).astype(np.int64)
    return np.minimum(max(0, (count - frames) // 2) + np.arange(frames), count - 1)


class _Pictures:
    """Keeps the wanted pictures out of those decoded, which come in the order shown."""

    def __init__(self, path: Path, scan: _Scan, numbers: NDArray[np.int64]) -> None:
        self.path, self.stamped = path, scan.stamped
        self.wanted = scan.keys[numbers]
        self.expected = int(numbers[-1] - numbers[0]) + 1
        self.frames: NDArray[np.uint8] | None = None
        self.errors = self.seen = self.good = self.kept = 0

    @property
    def done(self) -> bool:
        return self.kept == len(self.wanted)

    def add(self, frame: VideoFrame) -> None:
        key = frame.pts if self.stamped and frame.pts is not None else self.seen
        self.seen += 1
        if key < self.wanted[0] or self.done or frame.is_corrupt:
            return
        self.good += 1
        stop = int(np.searchsorted(self.wanted, key, side="right"))
        if stop > self.kept:
            self._fill(stop, _rgb(frame, self.frames))

    def _fill(self, stop: int, picture: NDArray[np.uint8]) -> None:
        if self.frames is None:
            self.frames = np.empty((len(self.wanted), *picture.shape), np.uint8)
        self.frames[self.kept : stop] = picture
        self.kept = stop

    def result(self) -> NDArray[np.uint8]:
        lost = self.expected - self.good
        if self.frames is None or lost > LOST_FRACTION * self.expected:
            raise MediaError(
                "broken",
                f"{self.path} is broken: {lost} of {self.expected} pictures cannot be decoded; copy it again",
            )
        if not self.done:
            self._fill(len(self.wanted), self.frames[self.kept - 1])
        return self.frames


class _Sound:
    """Lays the decoded sound on the clock of the pictures and keeps the wanted span."""

    def __init__(self, path: Path, scan: _Scan, low: float, high: float) -> None:
        self.path, self.scan, self.low, self.high = path, scan, low, high
        self.rate = scan.sample_rate
        self.position: int | None = None  # of the next sample, counted from time 0
        self.chunks: list[NDArray[np.float32]] = []
        self.errors = self.heard = 0

    @property
    def done(self) -> bool:
        return self.position is not None and self.position >= self.high * self.rate

    def add(self, frame: AudioFrame) -> None:
        if self.heard == 0:
            self.rate = frame.sample_rate  # some AAC declares half of it
        elif frame.sample_rate != self.rate:
            raise MediaError(
                "broken",
                f"{self.path} changes its sample rate from {self.rate} to {frame.sample_rate} Hz: convert it",
            )
        self.heard += 1
        clock = None if frame.pts is None else float(frame.pts * (frame.time_base or 1)) - self.scan.zero
        if self.position is None:
            begin = round((self.scan.sound_start if clock is None else clock) * self.rate)
            self.position = min(begin, round(self.low * self.rate))
            self._keep(np.zeros(begin - self.position, np.float32))
        elif clock is not None:
            gap = clock - self.position / self.rate
            if GAP_SECONDS[0] < gap < GAP_SECONDS[1]:
                self._keep(np.zeros(round(gap * self.rate), np.float32))
        self._keep(_mono(frame))

    def _keep(self, samples: NDArray[np.float32]) -> None:
        position = self.position or 0
        first = max(0, round(self.low * self.rate) - position)
        stop = len(samples) if math.isinf(self.high) else max(0, round(self.high * self.rate) - position)
        if len(samples[first:stop]):
            self.chunks.append(samples[first:stop])
        self.position = position + len(samples)

    def result(self) -> NDArray[np.float32]:
        lost = self.errors / max(1, self.errors + self.heard)
        waveform = np.concatenate(self.chunks) if self.chunks else np.empty(0, np.float32)
        if lost > LOST_FRACTION or not np.isfinite(waveform).all():
            raise MediaError(
                "broken", f"{self.path} is broken: {lost:.0%} of its sound cannot be decoded; copy it again"
            )
        if not self.heard and not self.low:
            raise MediaError("no sound", f"{self.path} has an empty sound track: give a recording with sound")
        return waveform


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    """The mean of a frame's channels (FFmpeg's own downmix is not normalised), full scale 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono: NDArray[np.float64] = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mono = mono / 128 - 1
    elif samples.dtype.kind == "i":
        mono = mono / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return mono.astype(np.float32)


def _rgb(frame: VideoFrame, like: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """A picture as shown: RGB, and turned or mirrored by the display matrix that cameras write.

    The matrix sends (x, y) to (a x + c y, b x + d y); cameras use quarter turns and mirrors only.
    `like`, where given, is a batch of pictures whose size this one takes (a stream may change size).
    """
    sides: Any = frame.side_data  # its type stub is wrong
    matrix = next((bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    (a, b), (c, d) = (1, 0), (0, 1)
    if matrix is not None:
        (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    turned = abs(b) > abs(a)
    width, height = frame.width, frame.height
    if like is not None:
        width, height = (like.shape[1], like.shape[2]) if turned else (like.shape[2], like.shape[1])
    picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=height)  # type: ignore[assignment]
    if turned:
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _picture_size(path: Path) -> tuple[int, int]:
    with _open(path) as container:
        video, _ = _streams(container)
        with suppress(av.FFmpegError):
            for frame in container.decode(video):
                return _rgb(frame).shape[:2]  # type: ignore[arg-type]
    raise MediaError("broken", f"{path} is broken: none of its pictures can be decoded; copy it again")


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    """Open a file and nothing else: no playlist may lead to other files or addresses."""
    if not path.exists():
        raise MediaError("missing", f"{path} does not exist: expected a video or sound file; check the name")
    if not path.is_file():
        raise MediaError("not media", f"{path} is not a file: expected a video or sound file; name one")
    options = {"protocol_whitelist": "file", "format_whitelist": _formats()}
    try:
        if not path.stat().st_size:
            raise MediaError("broken", f"{path} is empty: expected a video or sound file; copy it again")
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise _refusal(path, error) from None
    with container:
        yield container


@cache
def _formats() -> str:
    return ",".join(sorted(av.formats_available - NO_RECORDINGS))


def _refusal(path: Path, error: Exception) -> MediaError:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as unreadable:
        return MediaError("broken", f"{path} cannot be read: {unreadable.strerror}; check its permissions")
    if any(signature in head for signature in SIGNATURES):
        return MediaError(
            "broken",
            f"{path} cannot be opened: it begins as media, but its index is lost or damaged; copy it again",
        )
    return MediaError(
        "not media", f"{path} is not media: expected a video or sound file ({type(error).__name__})"
    )


def _streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The first stream of pictures (not an audio file's cover art) and of sound that can be decoded."""
    video = (
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    )
    audio = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(video, None), next(audio, None)


def _packets(
    path: Path, container: InputContainer, streams: list[VideoStream | AudioStream]
) -> Iterator[Packet[VideoStream | AudioStream]]:
    try:
        yield from container.demux(streams)  # type: ignore[misc]
    except av.FFmpegError as error:
        raise MediaError("broken", f"{path} is broken: {error.strerror}; copy it again") from None
