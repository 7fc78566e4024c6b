"""Times and rates of a file's pictures and sound, from its packets: nothing is decoded but one picture."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.media.clock import SLACK, check_clocks, in_order
from cfnsr.media.container import (
    USUAL,
    Streams,
    check_pixels,
    decode_packet,
    find_streams,
    open_media,
    playable_streams,
    read_packets,
    stream_notes,
)
from cfnsr.media.display import Display, PixelAspect, declared_size
from cfnsr.media.errors import MediaError
from cfnsr.media.truncation import check_length


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
            message = f"{path} holds neither pictures nor sound: give a video or a recording"
            raise MediaError("not media", message)
        times = _Times(container, [stream.index for stream in streams])
        for packet in read_packets(path, container, list(container.streams)):  # type: ignore[arg-type]
            if packet.size:  # else it is the decoder's signal to finish
                times.add(packet)
        check_length(path, container, streams, times.ends, any(times.cut.values()))

        fps = float((video and (video.average_rate or video.guessed_rate)) or 25)
        stamped = None not in times.stamps
        if video is not None and times.stamps and stamped:
            follow = np.array(times.stamps, np.int64)
            keys = np.unique(follow[in_order(follow)])
            unit = float(video.time_base or 1)
        else:
            follow = keys = np.arange(len(times.stamps))
            unit = 1 / fps
        begins = times.begins
        if video is not None and len(keys):
            begins[video.index] = float(keys[0] * unit)
        for stream in container.streams.audio:
            if stream.start_time is not None and stream.index in begins:  # knows of the encoder's run-in
                begins[stream.index] = float(stream.start_time * (stream.time_base or 1))
        playable = (stream.index for kind in playable_streams(container) for stream in kind)
        zero = min((begins[index] for index in playable if index in begins), default=0.0)
        seconds = keys * unit - zero
        sounds = np.array(times.sounds).reshape(-1, 2)
        check_clocks(path, follow * unit, sounds[:, 0], times.shown - zero)
        if len(keys) > 1:
            fps = (len(keys) - 1) / float(seconds[-1] - seconds[0])
        audible = audio is not None and len(sounds) > 0
        return Scan(
            keys=keys,
            times=seconds,
            stamped=stamped,
            fps=fps if len(keys) else 0.0,
            zero=zero,
            sample_rate=audio.codec_context.sample_rate if audio is not None and audible else 0,
            sound_start=begins[audio.index] - zero if audio is not None and audible else 0.0,
            duration=max(0.0, times.shown - zero),
            side=max(declared_size(video)) if video is not None else 0,
            steady=_follow_on(sounds),
            pixel=PixelAspect(video).ratio() if video is not None else 1.0,
            streams=wanted,
            notes=stream_notes(container, wanted),
        )


class _Times:
    """Times of a file's packets, in seconds of its own clock.

    Args:
        wanted: indices of the streams that are read.
    """

    def __init__(self, container: InputContainer, wanted: list[int]) -> None:
        self.stamps: list[int | None] = []  # of the pictures, in ticks
        self.sounds: list[tuple[float, float]] = []  # when each packet of sound begins and ends
        self.begins: dict[int, float] = {}  # of what is shown, by stream
        self.ends = dict.fromkeys((stream.index for stream in container.streams), 0.0)
        self.cut = dict.fromkeys(wanted, False)  # the last packet of a wanted stream is incomplete
        self.shown = 0.0  # the end of what is shown and heard

    def add(self, packet: Packet[Any]) -> None:
        index = packet.stream_index
        begin = self.ends[index] if packet.pts is None else float(packet.pts * packet.time_base)
        end = begin + float((packet.duration or 0) * packet.time_base)
        self.ends[index] = max(self.ends[index], end)
        if index in self.cut:
            self.cut[index] = packet.is_corrupt
        if packet.is_discard:
            return  # an edit list hides it
        self.begins[index] = min(begin, self.begins.get(index, begin))
        if index not in self.cut:
            return
        self.shown = max(self.shown, end)
        if isinstance(packet.stream, VideoStream):
            self.stamps.append(packet.pts)
        else:
            self.sounds.append((begin, end))


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


def first_picture(path: Path, streams: Streams = USUAL) -> tuple[VideoFrame, tuple[int, int]]:
    """First picture that can be decoded, and its height and width in pixels, as displayed.

    Raises:
        MediaError: none can be decoded ("broken"), or they are too large.
    """
    with open_media(path) as container:
        video, _ = find_streams(container, streams)
        video = cast("VideoStream", video)
        check_pixels(path, video)
        display = Display(video)
        for packet in read_packets(path, container, [video]):
            for frame in decode_packet(packet):
                if not frame.is_corrupt:
                    with suppress(av.FFmpegError):  # of a picture that cannot be converted
                        height, width, _ = display(frame).shape
                        return frame, (height, width)
    raise MediaError("broken", f"{path} is broken: none of its pictures can be decoded; copy it again")
