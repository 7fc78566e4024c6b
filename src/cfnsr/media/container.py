"""What a media file holds: opened safely, its streams, packets and time stamps read, its length checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.media.errors import MediaError
from cfnsr.media.shown import Pixels, Shown, declared_size

MISSING_SECONDS = 0.25  # a file that ends this much before its declared end is truncated

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
        duration: seconds from the first picture, or the first sample where there are none, to the end of the
            last picture or sample.
        frame_count: pictures shown.
        fps: their mean number a second.
        width: in pixels, as shown: square ones, after the rotation that phones note in the file.
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
class Streams:
    """Which of a file's streams are taken, where it has several of one kind.

    Args:
        video: number of the stream of pictures, counted from 1 among those (cover art is none); None takes
            the one that is marked default, else the first.
        audio: the same of the sound.

    Raises:
        InputError: a number below 1.
    """

    video: int | None = None
    audio: int | None = None

    def __post_init__(self) -> None:
        for option, number in (("--video-stream", self.video), ("--audio-stream", self.audio)):
            if number is not None and number < 1:
                raise InputError(f"{option} is {number}: expected 1 or more, for streams are counted from 1")


USUAL = Streams()


def probe(path: Path | str, streams: Streams = USUAL) -> MediaInfo:
    """What a file holds, from one pass over its packets and its first picture.

    Raises:
        MediaError: the file is missing, not media, broken or truncated, or lacks a stream that was named.
    """
    path = Path(path)
    scan = scan_packets(path, streams)
    height, width = picture_size(path, streams) if scan.frame_count else (0, 0)
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


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a file and nothing else: no playlist may lead to other files or addresses.

    Raises:
        MediaError: the file is missing, empty, unreadable, damaged or not media.
    """
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


def find_streams(
    container: InputContainer, wanted: Streams = USUAL
) -> tuple[VideoStream | None, AudioStream | None]:
    """The streams of pictures and of sound that are taken of a file, see `Streams`.

    Raises:
        MediaError: there is no stream of a number that is wanted ("no picture", "no sound").
    """
    video, audio = _candidates(container)
    if (wanted.video or 0) > len(video):
        raise MediaError("no picture", _no_stream(container, "video", wanted.video, "pictures", len(video)))
    if (wanted.audio or 0) > len(audio):
        raise MediaError("no sound", _no_stream(container, "audio", wanted.audio, "sound", len(audio)))
    pictures, sound = _taken(video, wanted.video), _taken(audio, wanted.audio)
    return None if pictures is None else video[pictures], None if sound is None else audio[sound]


def _no_stream(container: InputContainer, kind: str, number: int | None, what: str, count: int) -> str:
    name = container.name.removeprefix("file:")
    expected = f"a number up to {count}" if count else f"no such option, for it has no {what}"
    return f"{name} has no stream {number} of {what}: expected {expected}; correct --{kind}-stream"


def _candidates(container: InputContainer) -> tuple[list[VideoStream], list[AudioStream]]:
    """The streams that can be decoded; an audio file's cover art is none."""
    video = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    return video, [stream for stream in container.streams.audio if stream.codec_context is not None]


def _taken(streams: Sequence[VideoStream | AudioStream], number: int | None) -> int | None:
    """Place of the stream of a number, else of the one marked default, else of the first."""
    if number is not None:
        return number - 1
    marked = (place for place, stream in enumerate(streams) if stream.disposition & Disposition.default)
    return next(marked, 0 if streams else None)


def stream_notes(container: InputContainer, wanted: Streams) -> tuple[str, ...]:
    """Which stream is taken of each kind that a file has several of, for people to read."""
    notes = []
    video, audio = _candidates(container)
    kinds: tuple[tuple[str, Sequence[VideoStream | AudioStream], int | None], ...] = (
        ("picture", video, wanted.video),
        ("sound", audio, wanted.audio),
    )
    for what, streams, number in kinds:
        place = _taken(streams, number)
        if place is None or len(streams) < 2:
            continue
        marked = bool(streams[place].disposition & Disposition.default)
        why = (
            "as asked for" if number is not None else "marked default" if marked else "none is marked default"
        )
        title = streams[place].metadata.get("title", "")
        called = f" ({title})" if title.isprintable() and title else ""
        notes.append(f"{what} stream {place + 1} of {len(streams)}{called} is taken, {why}")
    return tuple(notes)


def read_packets(
    path: Path, container: InputContainer, streams: list[VideoStream | AudioStream]
) -> Iterator[Packet[VideoStream | AudioStream]]:
    """The packets of `streams`, in the order of the file.

    Raises:
        MediaError: the file is broken.
    """
    try:
        yield from container.demux(streams)  # type: ignore[misc]
    except av.FFmpegError as error:
        raise MediaError("broken", f"{path} is broken: {error.strerror}; copy it again") from None


@dataclass(frozen=True)
class Scan:
    """What the packets tell before anything is decoded.

    Args:
        keys: (F,) what identifies each picture, in the order shown: its time stamp, in ticks of its stream,
            or where a packet has none (`stamped` is False) its position.
        times: (F,) second of each picture; the first is at 0.
        stamped: the pictures have time stamps.
        fps: mean number of pictures a second; 0 without any.
        zero: second of time 0 on the file's own clock: its first picture, or its first sample.
        sample_rate: of the sound as declared, in Hz; 0 without any.
        sound_start: second at which the sound begins, from time 0.
        duration: seconds from time 0 to the end of the last picture or sample.
        side: pixels of the longer side of its pictures, as declared and shown; 0 without any.
        pixel: how many times as wide as high its pixels are, as declared.
        streams: which of its streams this is of.
        notes: what people should know of how the file was read, a line each.
    """

    keys: NDArray[np.int64]
    times: NDArray[np.floating]
    stamped: bool
    fps: float
    zero: float
    sample_rate: int
    sound_start: float
    duration: float
    side: int = 0
    pixel: float = 1.0
    streams: Streams = USUAL
    notes: tuple[str, ...] = ()

    @property
    def frame_count(self) -> int:
        return len(self.keys)


def scan_packets(path: Path, wanted: Streams = USUAL) -> Scan:
    """Read a file's packets and their time stamps, and decode nothing.

    Raises:
        MediaError: the file is missing, not media, broken or truncated, or lacks a stream that was named.
    """
    with open_media(path) as container:
        video, audio = find_streams(container, wanted)
        streams = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise MediaError(
                "not media", f"{path} holds neither pictures nor sound: give a video or a recording"
            )
        stamps: list[int | None] = []
        sound_stamps: list[float] = []
        ends = {stream.index: 0.0 for stream in streams}  # seconds on the file's own clock
        cut = {stream.index: False for stream in streams}
        for packet in read_packets(path, container, streams):
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
        return Scan(
            keys=keys,
            times=times,
            stamped=stamped,
            fps=rate if len(keys) else 0.0,
            zero=zero,
            sample_rate=audio.codec_context.sample_rate if audio is not None and sound_stamps else 0,
            sound_start=first_sound - zero if sound_stamps else 0.0,
            duration=max(ends.values()) - zero,
            side=max(declared_size(video)) if video is not None else 0,
            pixel=Pixels(video).aspect() if video is not None else 1.0,
            streams=wanted,
            notes=stream_notes(container, wanted),
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


def picture_size(path: Path, streams: Streams) -> tuple[int, int]:
    """Height and width of the first picture as shown, in pixels.

    Raises:
        MediaError: none can be decoded ("broken").
    """
    with open_media(path) as container:
        video, _ = find_streams(container, streams)
        with suppress(av.FFmpegError):
            shown = Shown(cast("VideoStream", video))
            for frame in cast("Iterator[VideoFrame]", container.decode(video)):
                height, width, _ = shown(frame).shape  # fails where the picture could not be shown
                return height, width
    raise MediaError("broken", f"{path} is broken: none of its pictures can be decoded; copy it again")
