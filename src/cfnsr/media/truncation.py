"""Truncated files: the length that a file declares, beside what it holds."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from cfnsr.media.errors import MediaError

MISSING_SECONDS = 0.25  # a file that ends this much before its declared end is truncated
# Only these formats declare a length of their own; elsewhere FFmpeg estimates it from the bit rate.
DECLARING = frozenset({"matroska", "webm", "flv", "flac", "avi"})
# These declare it for each stream.
DECLARING_STREAMS = frozenset({"mp4", "aiff", "au"})
LARGEST = 0x7FFF0000  # bytes of 32 bits; what says more was not known when it was written
UNKNOWN = 0xFFFFFFFF  # bytes of 64 bits, where a recorder knew of 32 alone


class Chunks(NamedTuple):
    """Layout of files that consist of named chunks; that of the sound is called "data"."""

    first: int  # byte at which the first chunk begins
    name: int  # bytes of a name
    size: str  # of a chunk's length, for `struct`
    multiple: int = 1  # of which the place of each chunk is one
    counts_itself: bool = False  # a length includes name and length


# Of these FFmpeg reports no declared length beyond the file's end: it is read from the chunk.
UNCOMPRESSED = {
    "wav": Chunks(12, 4, "<I", 2),
    "caf": Chunks(8, 4, ">q"),
    "w64": Chunks(40, 16, "<q", 8, counts_itself=True),
}


def check_length(
    path: Path,
    container: InputContainer,
    streams: Sequence[VideoStream | AudioStream],
    ends: Mapping[int, float],
    cut: bool,
) -> None:
    """Refuse a file that ends before it says: its tail was lost in a copy or a crash.

    Only what is declared of the pictures and the sound that are read counts, where that is known, because
    subtitles and other tracks may go on for longer.

    Args:
        streams: those that are read.
        ends: of each stream by its index, the second at which its last packet ends.
        cut: the last packet of one of them is incomplete.

    Raises:
        MediaError: it does ("truncated").
    """
    for declared, read in _declared_ends(path, container, streams, ends):
        if declared - read > MISSING_SECONDS:
            raise MediaError(
                "truncated",
                f"{path} is truncated: it declares {declared:.2f} s but ends at {read:.2f} s; copy it again",
            )
    if cut and container.format.name not in UNCOMPRESSED:  # there a wrong length sets it, too
        raise MediaError("truncated", f"{path} is truncated: it ends inside a packet; copy it again")


def _declared_ends(
    path: Path,
    container: InputContainer,
    streams: Sequence[VideoStream | AudioStream],
    ends: Mapping[int, float],
) -> Iterator[tuple[float, float]]:
    """Yield seconds at which a file should end, and at which it does."""
    formats = set(container.format.name.split(","))
    if formats & DECLARING_STREAMS:  # so that lost pictures beside whole sound show
        for stream in streams:
            if stream.duration and stream.time_base:
                declared = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
                if "mp4" in formats or declared * (getattr(stream, "bit_rate", None) or 0) / 8 < LARGEST:
                    yield declared, ends[stream.index]
    elif formats & UNCOMPRESSED.keys():
        end = max(ends[stream.index] for stream in streams)
        length, there = sound_bytes(path, container.format.name) or (0, 0)
        yield end * length / max(1, there), end
    elif "mp3" in formats:
        for stream in streams:
            if isinstance(stream, AudioStream):
                yield _tagged_length(path, stream.codec_context.sample_rate), ends[stream.index]
    elif formats & DECLARING and container.duration:
        whole = container.duration / av.time_base  # from second 0 of the clock
        yield whole, max(ends.values())
        for stream in streams:  # Matroska may declare each one
            declared = _read_clock(stream.metadata.get("DURATION", ""))
            yield min(declared, whole), ends[stream.index]


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


def _tagged_length(path: Path, rate: int) -> float:
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


def sound_bytes(path: Path, kind: str) -> tuple[int, int] | None:
    """Bytes of sound that a file of `UNCOMPRESSED` declares, and those there; None where it has no sound.

    Recorders that cannot return to the header leave a length there that is none: 0, -1, or about the largest.
    It counts as 0.
    """
    chunks = UNCOMPRESSED[kind]
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


def lacks_length(path: Path) -> bool:
    """Recognise an RF64 file of unknown length, which FFmpeg would take for one without sound."""
    with path.open("rb") as file:
        wide = file.read(4) in (b"RF64", b"BW64")
    return wide and (sound_bytes(path, "wav") or (1, 0))[0] == 0
