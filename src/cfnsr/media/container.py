"""Media files: opened safely; which of their streams are read, and the packets of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from cfnsr.errors import InputError
from cfnsr.files import is_pointer, pointer_message
from cfnsr.media.clock import StampFilter
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.truncation import lacks_length, sound_bytes

AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)

# Playlists and descriptions open other files and addresses, tty draws text as video: never a recording.
PLAYLISTS = {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp", "tty"}
DEVICES = {"alsa", "fbdev", "lavfi", "oss"}
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - PLAYLISTS - DEVICES)),
}
MOST_PIXELS = 8192 * 4608  # of a picture: 8K
SIGNATURES = (
    *(b"ftyp", b"moov", b"RIFF", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"FLV", b"fLaC"),
    *(b"OggS", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3"),
)


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a file and nothing else: no playlist may lead to other files or addresses.

    Raises:
        MediaError: the file is missing, empty, unreadable, damaged or not media.
    """
    check_is_file(path)
    try:
        if not path.stat().st_size:
            raise MediaError("broken", f"{path} is empty: expected a video or sound file; copy it again")
        options = OPTIONS | ({"ignore_length": "1"} if lacks_length(path) else {})
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise _refusal(path, error) from None
    with container:
        yield container


def check_is_file(path: Path) -> None:
    """Raise `MediaError` for what is missing, or has no end, as a pipe or a device."""
    if not path.exists():
        raise MediaError("missing", f"{path} does not exist: expected a video or sound file; check the name")
    if not path.is_file():
        raise MediaError("not media", f"{path} is not a file: expected a video or sound file; name one")


def _refusal(path: Path, error: Exception) -> MediaError:
    if is_pointer(path):
        return MediaError("not media", pointer_message(path))
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as unreadable:
        return MediaError("broken", f"{path} cannot be read: {unreadable.strerror}; check its permissions")
    if head[8:] == b"WAVE" and not (sound_bytes(path, "wav") or (0, 0))[1]:
        return MediaError("no sound", f"{path} has no sound: nothing follows its header; copy it again")
    if any(signature in head for signature in SIGNATURES):
        begins = "it begins as media, but its index is lost or damaged"
        return MediaError("broken", f"{path} cannot be opened: {begins}; copy it again")
    expected = f"expected a video or sound file ({type(error).__name__})"
    return MediaError("not media", f"{path} is not media: {expected}")


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


def find_streams(
    container: InputContainer, wanted: Streams = USUAL
) -> tuple[VideoStream | None, AudioStream | None]:
    """Find the streams of pictures and of sound that are read of a file, see `Streams`.

    Raises:
        MediaError: there is no stream of a number that is wanted ("no picture", "no sound").
    """
    video, audio = playable_streams(container)
    asked: tuple[tuple[str, str, Reason, int | None, int], ...] = (
        ("video", "pictures", "no picture", wanted.video, len(video)),
        ("audio", "sound", "no sound", wanted.audio, len(audio)),
    )
    for kind, what, reason, number, count in asked:
        if number is not None and number > count:
            name = container.name.removeprefix("file:")
            expected = f"a number up to {count}" if count else f"no such option, for it has no {what}"
            message = f"{name} has no stream {number} of {what}: expected {expected}"
            raise MediaError(reason, f"{message}; correct --{kind}-stream")
    chosen = _chosen(video, wanted.video)
    if chosen is not None:  # pictures may become larger on the way
        chosen.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return chosen, _chosen(audio, wanted.audio)


def check_pixels(path: Path, stream: VideoStream) -> None:
    """Raise `MediaError` ("too large") for pictures that need too much memory."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        message = (
            f"{path} has pictures of {width} x {height}: expected at most {MOST_PIXELS / 1e6:.0f} million"
        )
        raise MediaError("too large", f"{message} pixels; shrink them")


def playable_streams(container: InputContainer) -> tuple[list[VideoStream], list[AudioStream]]:
    """List the streams that can be decoded; an audio file's cover art is none."""
    video = [stream for stream in container.streams.video if stream.codec_context is not None]
    audio = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return [stream for stream in video if not stream.disposition & Disposition.attached_pic], audio


def _chosen(streams: Sequence[AnyStream], number: int | None) -> AnyStream | None:
    """Choose the stream of a number, else the one marked default, else the first."""
    if number is not None:
        return streams[number - 1]
    marked = (stream for stream in streams if stream.disposition & Disposition.default)
    return next(marked, streams[0] if streams else None)


def stream_notes(container: InputContainer, wanted: Streams) -> tuple[str, ...]:
    """Say for people which stream is read of each kind that a file has several of."""
    notes = []
    video, audio = playable_streams(container)
    kinds: Any = (("picture", video, wanted.video), ("sound", audio, wanted.audio))
    for what, streams, number in kinds:
        if len(streams) < 2:
            continue
        stream: Any = _chosen(streams, number)
        why = "marked default" if stream.disposition & Disposition.default else "none is marked default"
        why = why if number is None else "as asked for"
        title = stream.metadata.get("title", "")
        called = f" ({title})" if title.isprintable() and title else ""
        notes.append(f"{what} stream {streams.index(stream) + 1} of {len(streams)}{called} is taken, {why}")
    return tuple(notes)


def read_packets(
    path: Path, container: InputContainer, streams: Sequence[VideoStream | AudioStream]
) -> Iterator[Packet[Any]]:
    """Yield the packets of `streams`, each stream's in the order of the file; stamps of sound are filtered.

    Raises:
        MediaError: the file is broken.
    """
    filters: dict[int, StampFilter] = {}
    try:
        for packet in container.demux(streams):
            if not isinstance(packet.stream, AudioStream):
                yield packet
                continue
            stamps = filters.setdefault(packet.stream.index, StampFilter())
            if packet.size:
                yield from stamps.add(packet)
            else:  # the decoder's signal to finish
                yield from (*stamps.finish(), packet)
    except av.FFmpegError as error:
        raise MediaError("broken", f"{path} is broken: {error.strerror}; copy it again") from None
    except IndexError:  # PyAV's, of a packet of a stream that it does not know
        late = "one of its streams is not in its header and begins later"
        raise MediaError("broken", f"{path} is broken: {late}; convert it") from None


def decode_packet(packet: Packet[Any]) -> list[Any]:
    """Decode the frames of a packet; none of one that is damaged."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []
