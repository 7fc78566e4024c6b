"""What a media file holds: opened safely, its streams, packets and time stamps read, its length checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.files import is_pointer, told_pointer
from cfnsr.media.errors import MediaError

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


def probe(path: Path | str) -> MediaInfo:
    """What a file holds, from one pass over its packets and its first picture.

    Raises:
        MediaError: the file is missing, not media, broken or truncated.
    """
    path = Path(path)
    scan = scan_packets(path)
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
    if is_pointer(path):
        return MediaError("not media", told_pointer(path))
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


def find_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The first stream of pictures (not an audio file's cover art) and of sound that can be decoded."""
    video = (
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    )
    audio = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(video, None), next(audio, None)


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
        side: pixels of the longer side of its pictures, as declared; 0 without any.
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

    @property
    def frame_count(self) -> int:
        return len(self.keys)


def scan_packets(path: Path) -> Scan:
    """Read a file's packets and their time stamps, and decode nothing.

    Raises:
        MediaError: the file is missing, not media, broken or truncated.
    """
    with open_media(path) as container:
        video, audio = find_streams(container)
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
            side=max(video.codec_context.width, video.codec_context.height) if video is not None else 0,
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


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How a picture is to be shown, by the display matrix that cameras write.

    The matrix sends (x, y) to (a x + c y, b x + d y); cameras use quarter turns and mirrors only.

    Returns:
        Whether its rows become its columns, and whether then the order of its rows, and that of its columns,
        is reversed.
    """
    sides: Any = frame.side_data  # its type stub is wrong
    matrix = next((bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return False, False, False
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)


def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width of the first picture as shown, in pixels."""
    with open_media(path) as container:
        video, _ = find_streams(container)
        with suppress(av.FFmpegError):
            for frame in cast("Iterator[VideoFrame]", container.decode(video)):
                frame.reformat(format="rgb24")  # fails where the picture could not be shown
                turned, _, _ = orientation(frame)
                return (frame.width, frame.height) if turned else (frame.height, frame.width)
    raise MediaError("broken", f"{path} is broken: none of its pictures can be decoded; copy it again")
