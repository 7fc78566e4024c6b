"""Arrays -> media files: the only writer of pictures and sound."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.files import shortened

VIDEO_CODECS = ("libx264", "mpeg4")  # the first that this FFmpeg has
AUDIO_CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".m4a": "aac"}
X264_OPTIONS = {"preset": "ultrafast", "crf": "20"}
AAC_OPTIONS = {"aac_coder": "fast"}  # three times as fast as the default, and inaudibly worse


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float | Fraction,
    waveform: NDArray[np.float32] | None = None,
    sample_rate: int = 48000,
) -> Path:
    """Write frames and sound as one video file: H.264 and AAC in the container its suffix names.

    One thread encodes, so that the same arrays give the same bytes. The file appears whole or not at all.

    Args:
        path: its folder is made.
        frames: pictures (H, W, 3) uint8 RGB, all of one size with even sides; an iterator is read once.
        fps: frames a second.
        waveform: (samples,) or (channels, samples) in [-1, 1], one or two channels; None for a silent film.
        sample_rate: of the waveform, in Hz.

    Raises:
        InputError: no frames, odd or changing sizes, or more than two channels.
        OSError: the file cannot be written (a full disk, a read-only folder).
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"no frames for {path}: expected at least one picture; give the frames to write")
    height, width = first.shape[:2]
    if first.ndim != 3 or first.shape[2] != 3 or height % 2 or width % 2:
        given = f"frames of shape {first.shape} for {path}"
        raise InputError(f"{given}: expected (H, W, 3) with even H and W; crop or resize them")
    rate = Fraction(fps).limit_denominator(1001)
    sound = None if waveform is None else _channels_first(waveform, path)
    with create(path) as container:
        video = add_video(container, rate, width, height, threads=1)
        audio = None if sound is None else add_audio(container, "aac", sample_rate, len(sound))
        written = 0
        for index, picture in enumerate(chain([first], pictures)):
            if picture.shape != first.shape:
                raise InputError(
                    f"frame {index} for {path} has shape {picture.shape}: expected {first.shape} as the first"
                )
            container.mux(video.encode(yuv_frame(picture)))
            if audio is not None and sound is not None:
                # sound goes along with the pictures, so that a long film is not held in the muxer's queue
                until = math.ceil((index + 1) * sample_rate / rate)
                write_samples(container, audio, sound[:, written:until], written)
                written = until
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            write_samples(container, audio, sound[:, written:], written)
            container.mux(audio.encode(None))
    return path


def write_audio(path: Path, waveform: NDArray[np.float32], sample_rate: int) -> Path:
    """Write sound as .wav or .flac (16 bits) or .m4a (AAC); the file appears whole or not at all.

    Args:
        path: its folder is made and its suffix names the format.
        waveform: (samples,) or (channels, samples) in [-1, 1], one or two channels.
        sample_rate: in Hz.

    Raises:
        InputError: another suffix, or more than two channels.
        OSError: the file cannot be written.
    """
    codec = AUDIO_CODECS.get(path.suffix.lower())
    if codec is None:
        known = ", ".join(AUDIO_CODECS)
        raise InputError(f"cannot write sound as {path.name!r}: expected one of {known}; change the suffix")
    sound = _channels_first(waveform, path)
    with create(path) as container:
        audio = add_audio(container, codec, sample_rate, len(sound))
        write_samples(container, audio, sound, 0)
        container.mux(audio.encode(None))
    return path


@contextmanager
def create(path: Path, options: dict[str, str] | None = None) -> Iterator[OutputContainer]:
    """Open a container under a temporary name in the same folder, renamed to `path` when all went well.

    Args:
        path: its folder is made and its suffix names the container.
        options: of FFmpeg for this container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: FFmpeg chooses the container by it
    temporary = path.with_name(f".{shortened(path.stem)}.{os.getpid()}.part{path.suffix}")
    try:
        with av.open(str(temporary), "w", container_options=options) as container:
            yield container
        temporary.replace(path)
    except av.FFmpegError as error:
        # FFmpeg's errors do not survive the way out of a worker process; a plain one does
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def add_video(
    container: OutputContainer, rate: Fraction, width: int, height: int, threads: int
) -> VideoStream:
    """Add a stream of pictures; the encoder has so many threads."""
    codec = next(name for name in VIDEO_CODECS if name in av.codecs_available)
    options = X264_OPTIONS if codec == "libx264" else {}
    stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = threads
    return stream


def yuv_frame(picture: NDArray[np.uint8]) -> VideoFrame:
    """Convert a picture (H, W, 3) RGB for the encoder."""
    import cv2  # turns RGB into the codec's planes three times as fast as FFmpeg's scaler

    planes = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2YUV_I420)
    return av.VideoFrame.from_ndarray(np.asarray(planes, dtype=np.uint8), format="yuv420p")


def add_audio(container: OutputContainer, codec: str, rate: int, channels: int) -> AudioStream:
    """Add a stream of sound of one or two channels."""
    layout = "mono" if channels == 1 else "stereo"
    options = AAC_OPTIONS if codec == "aac" else {}
    return cast("AudioStream", container.add_stream(codec, rate=rate, layout=layout, options=options))


def write_samples(
    container: OutputContainer, stream: AudioStream, samples: NDArray[np.float32], position: int
) -> None:
    """Encode samples (channels, N), of which the first is number `position` of the file."""
    if samples.shape[1]:
        container.mux(stream.encode(sound_frame(samples, stream.rate, position)))


def sound_frame(samples: NDArray[np.float32], rate: int, position: int = 0) -> AudioFrame:
    """Wrap samples (channels, N) of one or two channels for an encoder or a filter."""
    layout = "mono" if len(samples) == 1 else "stereo"
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
    return frame


def _channels_first(waveform: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    sound = np.atleast_2d(np.asarray(waveform, dtype=np.float32))
    if sound.ndim != 2 or sound.shape[0] not in (1, 2):
        raise InputError(
            f"sound of shape {waveform.shape} for {path}: expected (samples,) or (channels, samples) "
            "with one or two channels; mix it down first"
        )
    return np.clip(sound, -1.0, 1.0)
