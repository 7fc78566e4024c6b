"""What a media file holds: opened safely, its streams, packets and time stamps read, its length checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.media.clock import SLACK, check_clocks, in_order
from cfnsr.media.errors import MediaError

MISSING_SECONDS = 0.25  # a file that ends this much before its declared end is truncated

# Only these formats declare a length of their own; elsewhere FFmpeg estimates it from the bit rate.
DECLARING = frozenset({"mov", "mp4", "matroska", "webm", "flv", "flac", "avi"})


class Chunks(NamedTuple):
    """How files are laid out that consist of named chunks: of sound, the one called "data".

    Args:
        first: byte at which the first chunk begins.
        name: bytes of a name.
        size: of a chunk's length, for `struct`.
        multiple: of which the place of each chunk is one.
        counts_itself: a length includes name and length.
    """

    first: int
    name: int
    size: str
    multiple: int = 1
    counts_itself: bool = False


# Of these FFmpeg tells no declared length beyond the file's end: it is read from the chunk.
UNCOMPRESSED = {
    "wav": Chunks(12, 4, "<I", 2),
    "caf": Chunks(8, 4, ">q"),
    "w64": Chunks(40, 16, "<q", 8, counts_itself=True),
}
LARGEST = 0x7FFF0000  # bytes of 32; what says more was not known when it was written
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
        duration: seconds from time 0 (see `Scan`) to the end of the last picture or sample.
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
        times: (F,) second of each picture, from time 0.
        stamped: the pictures have time stamps.
        fps: mean number of pictures a second; 0 without any.
        zero: second of time 0 on the file's own clock: where the earliest of all its pictures and sounds
            begins, also of streams that nobody asked for; what edit lists hide does not count. Players show
            it as 0.
        sample_rate: of the sound as declared, in Hz; 0 without any.
        sound_start: second at which the sound begins, from time 0.
        duration: seconds from time 0 to the end of the last picture or sample.
        side: pixels of the longer side of its pictures, as declared; 0 without any.
        steady: packet follows on packet in the sound, without holes and overlaps.
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
    steady: bool = True

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
        sounds: list[tuple[float, float]] = []  # when each packet begins and ends
        begins: dict[int, float] = {}  # seconds on the file's own clock, of what is shown, by stream
        ends: dict[int, float] = dict.fromkeys((stream.index for stream in container.streams), 0.0)
        cut = {stream.index: False for stream in streams}
        shown = 0.0  # the end of what is shown and heard
        for packet in read_packets(path, container, list(container.streams)):  # type: ignore[arg-type]
            if not packet.size:
                continue  # the decoder's signal to finish
            index, pts = packet.stream_index, packet.pts
            begin = ends[index] if pts is None else float(pts * packet.time_base)
            end = begin + float((packet.duration or 0) * packet.time_base)
            ends[index] = max(ends[index], end)
            if index in cut:
                cut[index] = packet.is_corrupt
            if packet.is_discard:
                continue  # an edit list hides it
            begins[index] = min(begin, begins.get(index, begin))
            if index not in cut:
                continue
            shown = max(shown, end)
            if isinstance(packet.stream, VideoStream):
                stamps.append(pts)
            else:
                sounds.append((begin, end))
        _check_length(path, container, streams, ends, cut)

        rate = float((video and (video.average_rate or video.guessed_rate)) or 25)
        stamped = None not in stamps
        if video is not None and stamped and stamps:
            follow = np.array(stamps, np.int64)
            keys = np.unique(follow[in_order(follow)])
            unit = float(video.time_base or 1)
        else:
            follow = keys = np.arange(len(stamps))
            unit = 1 / rate
        if video is not None and len(keys):
            begins[video.index] = float(keys[0] * unit)
        for stream in container.streams.audio:
            if stream.start_time is not None and stream.index in begins:  # knows of the encoder's run-in
                begins[stream.index] = float(stream.start_time * (stream.time_base or 1))
        zero = min((begins[index] for index in _playable(container) if index in begins), default=0.0)
        times = keys * unit - zero
        heard = np.array(sounds).reshape(-1, 2)
        check_clocks(path, follow * unit, heard[:, 0], shown - zero)
        if len(keys) > 1:
            rate = (len(keys) - 1) / float(times[-1] - times[0])
        return Scan(
            keys=keys,
            times=times,
            stamped=stamped,
            fps=rate if len(keys) else 0.0,
            zero=zero,
            sample_rate=audio.codec_context.sample_rate if audio is not None and sounds else 0,
            sound_start=begins[audio.index] - zero if audio is not None and sounds else 0.0,
            duration=max(0.0, shown - zero),
            side=max(video.codec_context.width, video.codec_context.height) if video is not None else 0,
            steady=_follow_on(heard),
        )


def _follow_on(packets: NDArray[np.floating]) -> bool:
    """Whether each packet of sound, of (N, 2) seconds at which they begin and end, follows on the one before.

    One that takes twice as long as usual is followed by a hole: MP4 has no other way to tell of it.
    """
    begins, ends = packets.T
    lasts = ends - begins
    lasts = np.minimum(lasts, 2 * np.median(lasts)) if len(lasts) else lasts
    apart = np.abs(np.diff(begins) - lasts[:-1])
    return bool((apart[lasts[:-1] > 0] <= SLACK).all())


def _playable(container: InputContainer) -> list[int]:
    """Numbers of the streams of pictures (not an audio file's cover art) and of sound that can be decoded."""
    return [
        stream.index
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]


def _check_length(
    path: Path,
    container: InputContainer,
    streams: list[VideoStream | AudioStream],
    ends: dict[int, float],
    cut: dict[int, bool],
) -> None:
    """Fail where the file ends before it says: its tail was lost in a copy or a crash.

    Only what is said of the pictures and the sound that are read counts, where that is known, because
    subtitles and other tracks may go on for longer.
    """
    formats = set(container.format.name.split(","))
    spans = []  # (declared end, read end)
    if "mp4" in formats:  # tells each stream's own length, so that lost pictures beside whole sound show
        for stream in streams:
            if stream.duration and stream.time_base:
                ticks = (stream.start_time or 0) + stream.duration
                spans.append((float(ticks * stream.time_base), ends[stream.index]))
    elif formats & UNCOMPRESSED.keys():
        end = max(ends[stream.index] for stream in streams)
        spans.append((end * _declared_part(path, UNCOMPRESSED[container.format.name]), end))
    elif formats & DECLARING and container.duration:
        declared = container.duration / av.time_base  # from second 0 of the clock
        spans.append((declared, max(ends.values())))
        for stream in streams:  # Matroska may tell of each one
            told = _seconds(stream.metadata.get("DURATION", ""))
            spans.append((min(told, declared), ends[stream.index]))
    for told, read in spans:
        if told - read > MISSING_SECONDS:
            raise MediaError(
                "truncated",
                f"{path} is truncated: it tells of {told:.2f} s but ends at {read:.2f} s; copy it again",
            )
    if any(cut.values()) and not formats & UNCOMPRESSED.keys():  # there it is told of a wrong length, too
        raise MediaError("truncated", f"{path} is truncated: it ends inside a packet; copy it again")


def _seconds(told: str) -> float:
    """Seconds of "hours:minutes:seconds"; 0 for anything else.

    >>> _seconds("01:00:03.500000000"), _seconds("")
    (3603.5, 0.0)
    """
    try:
        hours, minutes, seconds = told.split(":")
        return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _declared_part(path: Path, chunks: Chunks) -> float:
    """How many times longer than it is a file of chunks says its sound is; 1 where it does not say.

    Recorders that cannot return to the header leave a length there that is none: 0, -1, or about the largest.
    """
    there, size = path.stat().st_size, struct.calcsize(chunks.size)
    with path.open("rb") as file:
        at, wide = chunks.first, None
        while at + chunks.name + size <= there:
            file.seek(at)
            name = file.read(chunks.name)[:4]
            (length,) = struct.unpack(chunks.size, file.read(size))
            begin = at + chunks.name + size
            length -= chunks.name + size if chunks.counts_itself else 0
            if name == b"ds64" and length >= 16:  # RF64: lengths that need more than 32 bits
                (wide,) = struct.unpack("<8xQ", file.read(16))
            if name == b"data":
                length = int(length if wide is None else wide)
                if there <= begin or not 0 < length < (LARGEST if size == 4 and wide is None else 2**62):
                    return 1.0
                return max(1.0, length / (there - begin))
            at = begin + max(0, length)
            at += -at % chunks.multiple
    return 1.0


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
