"""Media files: opened safely; their streams, packets and time stamps read, their length checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

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
from cfnsr.files import is_pointer, told_pointer
from cfnsr.media.clock import SLACK, Settled, check_clocks, in_order
from cfnsr.media.errors import MediaError
from cfnsr.media.shown import Pixels, Shown, declared_size

MISSING_SECONDS = 0.25  # a file that ends this much before its declared end is truncated

# Only these formats declare a length of their own; elsewhere FFmpeg estimates it from the bit rate.
DECLARING = frozenset({"matroska", "webm", "flv", "flac", "avi"})
# These declare it for each stream.
DECLARING_STREAMS = frozenset({"mp4", "aiff", "au"})


class Chunks(NamedTuple):
    """Layout of files that consist of named chunks; that of the sound is called "data".

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


# Of these FFmpeg reports no declared length beyond the file's end: it is read from the chunk.
UNCOMPRESSED = {
    "wav": Chunks(12, 4, "<I", 2),
    "caf": Chunks(8, 4, ">q"),
    "w64": Chunks(40, 16, "<q", 8, counts_itself=True),
}
LARGEST = 0x7FFF0000  # bytes of 32 bits; what says more was not known when it was written
UNKNOWN = 0xFFFFFFFF  # bytes of 64 bits, where a recorder knew of 32 alone
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
SIGNATURES = (
    *(b"ftyp", b"moov", b"RIFF", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"FLV", b"fLaC"),
    *(b"OggS", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3"),
)


@dataclass(frozen=True)
class MediaInfo:
    """Content of a file; zeros where it has no video or no audio.

    Args:
        duration: seconds from time 0 (see `Scan`) to the end of the last picture or sample.
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
    """Choice among a file's streams, where it has several of one kind.

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
    """Describe a file, from one pass over its packets and its first picture.

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
        if _lacks_length(path):
            options["ignore_length"] = "1"
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
    if head[8:] == b"WAVE" and not (_sound_bytes(path, UNCOMPRESSED["wav"]) or (0, 0))[1]:
        return MediaError("no sound", f"{path} has no sound: nothing follows its header; copy it again")
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
    """Say for people which stream is taken of each kind that a file has several of."""
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
    """The packets of `streams`, each stream's in the order of the file, the time stamps of sound settled.

    Raises:
        MediaError: the file is broken.
    """
    settled: dict[int, Settled] = {}
    try:
        for packet in container.demux(streams):
            if not isinstance(packet.stream, AudioStream):
                yield cast("Packet[VideoStream | AudioStream]", packet)
                continue
            stream = settled.setdefault(packet.stream.index, Settled())
            if packet.size:
                yield from stream.add(packet)
            else:  # the decoder's signal to finish
                yield from (*stream.finish(), packet)
    except av.FFmpegError as error:
        raise MediaError("broken", f"{path} is broken: {error.strerror}; copy it again") from None


@dataclass(frozen=True)
class Scan:
    """Times and rates from the packets, before anything is decoded.

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
        side: pixels of the longer side of its pictures, as declared and shown; 0 without any.
        steady: packet follows on packet in the sound, without holes and overlaps.
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
    steady: bool = True
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
        playable = (stream.index for kind in _candidates(container) for stream in kind)
        zero = min((begins[index] for index in playable if index in begins), default=0.0)
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
            side=max(declared_size(video)) if video is not None else 0,
            steady=_follow_on(heard),
            pixel=Pixels(video).aspect() if video is not None else 1.0,
            streams=wanted,
            notes=stream_notes(container, wanted),
        )


def _follow_on(packets: NDArray[np.floating]) -> bool:
    """Check that each packet of sound, (N, 2) seconds of begin and end, follows on the one before.

    Of two that begin at once, one would be lost. One that takes twice as long as usual is followed by a hole:
    MP4 cannot store it otherwise.
    """
    begins, ends = packets.T
    lasts = ends - begins
    lasts = np.minimum(lasts, 2 * np.median(lasts)) if len(lasts) else lasts
    apart = np.abs(np.diff(begins) - lasts[:-1])
    return bool((np.diff(begins) > 0).all() and (apart[lasts[:-1] > 0] <= SLACK).all())


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
    if formats & DECLARING_STREAMS:  # so that lost pictures beside whole sound show
        for stream in streams:
            if stream.duration and stream.time_base:
                ticks = (stream.start_time or 0) + stream.duration
                declared = float(ticks * stream.time_base)
                if "mp4" in formats or declared * (getattr(stream, "bit_rate", None) or 0) / 8 < LARGEST:
                    spans.append((declared, ends[stream.index]))
    elif formats & UNCOMPRESSED.keys():
        end = max(ends[stream.index] for stream in streams)
        length, there = _sound_bytes(path, UNCOMPRESSED[container.format.name]) or (0, 0)
        spans.append((end * length / max(1, there), end))
    elif "mp3" in formats:
        spans += [
            (_tagged(path, stream.codec_context.sample_rate), ends[stream.index])
            for stream in streams
            if isinstance(stream, AudioStream)
        ]
    elif formats & DECLARING and container.duration:
        whole = container.duration / av.time_base  # from second 0 of the clock
        spans.append((whole, max(ends.values())))
        for stream in streams:  # Matroska may declare each one
            declared = _read_clock(stream.metadata.get("DURATION", ""))
            spans.append((min(declared, whole), ends[stream.index]))
    for declared, read in spans:
        if declared - read > MISSING_SECONDS:
            raise MediaError(
                "truncated",
                f"{path} is truncated: it declares {declared:.2f} s but ends at {read:.2f} s; copy it again",
            )
    if any(cut.values()) and not formats & UNCOMPRESSED.keys():  # there a wrong length sets it, too
        raise MediaError("truncated", f"{path} is truncated: it ends inside a packet; copy it again")


def _read_clock(declared: str) -> float:
    """Seconds of "hours:minutes:seconds"; 0 for anything else.

    >>> _read_clock("01:00:03.500000000"), _read_clock("")
    (3603.5, 0.0)
    """
    try:
        hours, minutes, seconds = declared.split(":")
        return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _tagged(path: Path, rate: int) -> float:
    """Seconds declared in the first frame of an MP3 file (a tag of Xing's); 0 without one.

    FFmpeg reports only its guess from the bit rate.
    """
    with path.open("rb") as file:
        head = file.read(10)
        length = sum(byte << 7 * place for place, byte in enumerate(head[:5:-1]))  # seven bits a byte
        file.seek(10 + length if head[:3] == b"ID3" else 0)
        frame = file.read(64)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 12:
        return 0.0
    flags, count = struct.unpack_from(">II", frame, at + 4)
    return float(count * (1152 if rate >= 32_000 else 576) / rate) if flags & 1 else 0.0


def _sound_bytes(path: Path, chunks: Chunks) -> tuple[int, int] | None:
    """Bytes of sound that a file of chunks declares, and those there; None where it has no chunk of sound.

    Recorders that cannot return to the header leave a length there that is none: 0, -1, or about the largest.
    It counts as 0.
    """
    end, size = path.stat().st_size, struct.calcsize(chunks.size)
    with path.open("rb") as file:
        at, wide = chunks.first, None
        while at + chunks.name + size <= end:
            file.seek(at)
            name = file.read(chunks.name)[:4]
            (length,) = struct.unpack(chunks.size, file.read(size))
            begin = at + chunks.name + size
            length -= chunks.name + size if chunks.counts_itself else 0
            if name == b"ds64" and length >= 16:  # RF64: lengths that need more than 32 bits
                (wide,) = struct.unpack("<8xQ", file.read(16))
            if name == b"data":
                length = int(length if wide is None else wide)
                known = 0 < length < (LARGEST if size == 4 and wide is None else 2**62) and length != UNKNOWN
                return length if known else 0, end - begin
            at = begin + max(0, length)
            at += -at % chunks.multiple
    return None


def _lacks_length(path: Path) -> bool:
    """Recognise an RF64 file of unknown length, which FFmpeg would take for one without sound."""
    with path.open("rb") as file:
        wide = file.read(4) in (b"RF64", b"BW64")
    return wide and (_sound_bytes(path, UNCOMPRESSED["wav"]) or (1, 0))[0] == 0


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
