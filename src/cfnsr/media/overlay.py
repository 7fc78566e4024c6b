"""A film -> the same film with every picture drawn on: its times and its sound stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.media.clock import SoundClock
from cfnsr.media.container import USUAL, Streams, decode_packet, find_streams, open_media, read_packets
from cfnsr.media.decode import LOST_FRACTION
from cfnsr.media.display import Display
from cfnsr.media.encode import add_audio, add_video, create, write_samples, yuv_frame
from cfnsr.media.errors import MediaError
from cfnsr.media.scan import Scan, first_picture, scan_packets

Draw = Callable[[NDArray[np.uint8], float], object]
Progress = Callable[[int, int], object]

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
# Codecs of sound that players expect in a file of that suffix; Matroska takes all.
KEPT = {
    ".mp4": {"aac", "alac", "flac", "mp3", "opus"},
    ".m4v": {"aac", "alac"},
    ".mov": {"aac", "alac", "mp3", "pcm_s16le"},
}
LEAST_MP3_RATE = 16_000  # Hz, that MP4 and QuickTime allow
TICKS = 60_000  # a second: exact for 24, 25, 30, 60 and 29.97 pictures; MPEG-4 allows no more than 65,535
# Plays while it loads; in coarser ticks the edit list of a track that begins late may hide its last picture.
MP4_OPTIONS = {"movflags": "+faststart", "movie_timescale": str(TICKS)}
THREADS = min(4, os.cpu_count() or 1)  # of decoder and encoder; each holds pictures
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
UNSPECIFIED = 2  # FFmpeg's number for an unspecified colour matrix
BT601 = 6  # the matrix that OpenCV turns RGB into YUV by
LIMITED = 1  # so is its range


def write_overlay(
    source: Path | str,
    out: Path | str,
    draw: Draw,
    *,
    below: int = 0,
    progress: Progress | None = None,
    streams: Streams = USUAL,
) -> Path:
    """Write a film again with every picture drawn on, and with its sound.

    Pictures are decoded, drawn on and encoded (H.264) one by one, and sound goes packet by packet, so that
    memory does not grow with the film. Every picture keeps its own time, at a constant rate or not, and is
    written as it is shown: upright, whatever rotation a phone has noted, of square pixels, and of one size
    (what has another shape stands between black bars). Sound is copied as it is where players expect its
    codec in such a file and it has neither holes nor overlaps, else it becomes AAC, by the rule of
    `SoundClock`. An odd row or column at the end is cut off, for H.264 has none.
    The file appears whole or not at all.

    Args:
        source: any file with pictures that FFmpeg reads.
        out: a file ending in one of `SUFFIXES`; its folder is made.
        draw: given each picture (H, W, 3) uint8 RGB, to draw on in place, and its second. H has the
            rows of `below`, and H and W are even.
        below: rows to add beneath each picture, white; an even number.
        progress: given the number of pictures written and of those in all, after each.
        streams: which of the file's streams, where it has several.

    Raises:
        MediaError: the source is missing, not media, broken or truncated, or has no pictures.
        InputError: `out` has another suffix, or is the source itself.
        OSError: the file cannot be written (a full disk, a read-only folder).
    """
    source, out = Path(source), Path(out)
    if out.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"cannot write a video as {out.name!r}: expected one of {known}; change the suffix")
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out} is the source itself: expected another file to write to; give another name")
    scan = scan_packets(source, streams)
    if not scan.frame_count:
        raise MediaError("no picture", f"{source} has no pictures to draw upon: give a video")
    first = first_picture(source, streams)
    options = {} if out.suffix.lower() == ".mkv" else MP4_OPTIONS
    with open_media(source) as reading, create(out, options) as writing:
        video, audio = find_streams(reading, streams)
        video = cast("VideoStream", video)  # its packets were just counted
        pictures = _DrawnVideo(source, video, scan, writing, first, draw, below, progress)
        tracks: dict[int, _DrawnVideo | _CopiedAudio | _EncodedAudio] = {video.index: pictures}
        if audio is not None and scan.sample_rate:
            kept = scan.steady and _can_keep(audio, writing, out)
            kind = _CopiedAudio if kept else _EncodedAudio
            tracks[audio.index] = kind(source, audio, scan, writing)
        read: list[Any] = [reading.streams[index] for index in tracks]
        for packet in read_packets(source, reading, read):
            tracks[packet.stream.index].add(packet)
        for track in tracks.values():
            track.finish()
    return out


def _can_keep(audio: AudioStream, writing: OutputContainer, out: Path) -> bool:
    codec = audio.codec_context.codec.canonical_name
    if codec == "mp3" and audio.codec_context.sample_rate < LEAST_MP3_RATE and out.suffix.lower() != ".mkv":
        return False
    return codec in KEPT.get(out.suffix.lower(), writing.supported_codecs)


class _DrawnVideo:
    """Decodes, draws on and encodes pictures one by one."""

    def __init__(
        self,
        path: Path,
        source: VideoStream,
        scan: Scan,
        writing: OutputContainer,
        first: tuple[VideoFrame, tuple[int, int]],
        draw: Draw,
        below: int,
        progress: Progress | None,
    ) -> None:
        self.path, self.scan, self.writing = path, scan, writing
        self.draw, self.below, self.progress = draw, below, progress
        frame, (height, width) = first  # their size is needed before the sound is written
        self.height, self.width = height // 2 * 2, width // 2 * 2
        if not self.height or not self.width:
            raise InputError(f"{path} has pictures of {width} x {height}: expected 2 x 2 or more")
        source.codec_context.thread_type, source.codec_context.thread_count = "AUTO", THREADS
        self.display = Display(source, size=(height, width), bars=True)
        rate = Fraction(min(max(scan.fps, 1.0), 1000.0)).limit_denominator(1001)  # a hint: each has its time
        self.stream = add_video(writing, rate, self.width, self.height + below, THREADS)
        context: Any = self.stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.color_range = LIMITED
        if frame.colorspace != UNSPECIFIED:  # else the planes come out as they went in, and players guess
            context.colorspace = BT601
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        self.decoded = self.written = 0
        self.last = -1  # ticks of the picture before

    def add(self, packet: Packet[Any]) -> None:
        for frame in decode_packet(packet):
            place = min(self.decoded, self.scan.frame_count - 1)
            self.decoded += 1
            if self.scan.stamped and frame.pts is not None:
                place = int(np.searchsorted(self.scan.keys, frame.pts))
                if place == self.scan.frame_count or self.scan.keys[place] != frame.pts:
                    continue  # an edit list hides it
            if not frame.is_corrupt:  # else the picture before stays in its place
                self._write(frame, float(self.scan.times[place]))

    def _write(self, frame: VideoFrame, second: float) -> None:
        ticks = round(second * TICKS)
        if ticks <= self.last:
            return
        picture = np.full((self.height + self.below, self.width, 3), 255, np.uint8)
        picture[: self.height] = self.display(frame)[: self.height, : self.width]
        self.draw(picture, second)
        drawn = yuv_frame(picture)
        drawn.pts, drawn.time_base = ticks, Fraction(1, TICKS)
        if frame.duration and frame.time_base:
            drawn.duration = round(frame.duration * frame.time_base * TICKS)
        self.writing.mux(self.stream.encode(drawn))
        self.last = ticks
        self.written += 1
        if self.progress is not None:
            self.progress(self.written, self.scan.frame_count)

    def finish(self) -> None:
        self.writing.mux(self.stream.encode(None))
        lost = self.scan.frame_count - self.written
        if lost > LOST_FRACTION * self.scan.frame_count:
            share = f"{lost} of {self.scan.frame_count} pictures"
            raise MediaError("broken", f"{self.path} is broken: {share} cannot be decoded; copy it again")


class _CopiedAudio:
    """Passes the packets of the sound on as they are."""

    def __init__(self, path: Path, source: AudioStream, scan: Scan, writing: OutputContainer) -> None:
        self.writing = writing
        self.stream = writing.add_stream_from_template(source)
        self.shift = round(scan.zero / source.time_base) if source.time_base else 0
        self.last: int | None = None  # time stamp of the packet before
        self.end = 0

    def add(self, packet: Packet[Any]) -> None:
        if not packet.size:
            return  # the decoder's signal to finish
        stamp = packet.dts if packet.dts is not None else packet.pts
        stamp = self.end if stamp is None else stamp - self.shift
        if self.last is not None and stamp <= self.last:
            return  # damaged: time does not run backwards
        self.last, self.end = stamp, stamp + (packet.duration or 1)
        packet.dts = packet.pts = stamp
        packet.stream = self.stream
        self.writing.mux(packet)

    def finish(self) -> None:
        pass


class _EncodedAudio:
    """Decodes the sound and writes it as AAC where its time stamps say, as `decode` does."""

    def __init__(self, path: Path, source: AudioStream, scan: Scan, writing: OutputContainer) -> None:
        self.path, self.scan, self.writing = path, scan, writing
        declared = source.codec_context.sample_rate
        self.rate = declared if declared in AAC_RATES else AAC_RATES[-1]
        self.channels = 1 if source.codec_context.layout.nb_channels == 1 else 2
        self.stream = add_audio(writing, "aac", self.rate, self.channels)
        self.resampler: av.AudioResampler | None = None
        self.form: tuple[object, ...] = ()  # of the frames that the resampler takes
        self.clock = SoundClock(path)
        self.lost = self.decoded = 0

    def add(self, packet: Packet[Any]) -> None:
        frames = decode_packet(packet)
        self.lost += bool(packet.size and not frames)
        self.decoded += bool(frames)
        for frame in frames:
            due = None if frame.pts is None else float(frame.pts * (frame.time_base or 1)) - self.scan.zero
            if silence := self.clock.follow(due, self.rate, start=self.scan.sound_start):
                self._flush()  # what was read before it
                self._write(np.zeros((self.channels, silence), np.float32))
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != self.form:
                self._flush()
                self.form, layout = form, self.stream.layout.name
                self.resampler = av.AudioResampler(format="fltp", layout=layout, rate=self.rate)
            frame.pts = None  # the count of samples is the clock
            self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        if self.resampler is not None:
            for part in self.resampler.resample(frame):
                if part is not None and part.samples:
                    self._write(self.clock.cut(part.to_ndarray()))

    def _flush(self) -> None:
        self._resample(None)
        self.resampler, self.form = None, ()

    def _write(self, samples: NDArray[Any]) -> None:
        position = self.clock.position or 0
        for first in range(0, samples.shape[1], self.rate):  # a long silence takes little memory
            part = samples[:, first : first + self.rate].astype(np.float32, copy=False)
            write_samples(self.writing, self.stream, np.clip(np.nan_to_num(part), -1, 1), position + first)
        self.clock.position = position + samples.shape[1]

    def finish(self) -> None:
        self._flush()
        self.writing.mux(self.stream.encode(None))
        if self.lost > LOST_FRACTION * (self.lost + self.decoded):
            share = f"{self.lost} of {self.lost + self.decoded} packets of its sound"
            raise MediaError("broken", f"{self.path} is broken: {share} cannot be decoded; copy it again")
        self.clock.check()
