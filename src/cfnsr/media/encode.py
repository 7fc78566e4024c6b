"""Arrays -> media files: the only writer of pictures and sound."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.files import shortened

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

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
    import av
    import cv2

    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"no frames for {path}: expected at least one picture; give the frames to write")
    height, width = first.shape[:2]
    if first.ndim != 3 or first.shape[2] != 3 or height % 2 or width % 2:
        raise InputError(
            f"frames of shape {first.shape} for {path}: expected (H, W, 3) with even H and W; "
            "crop or resize them"
        )
    rate = Fraction(fps).limit_denominator(1001)
    sound = None if waveform is None else _channels_first(waveform, path)
    with create(path) as container:
        codec = video_codec()
        options = X264_OPTIONS if codec == "libx264" else {}
        video = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.thread_count = 1
        audio = None if sound is None else _add_audio(container, "aac", sound, sample_rate)
        written = 0
        for index, picture in enumerate(chain([first], pictures)):
            if picture.shape != first.shape:
                raise InputError(
                    f"frame {index} for {path} has shape {picture.shape}: expected {first.shape} as the first"
                )
            # OpenCV turns RGB into the codec's planes three times as fast as FFmpeg's scaler
            planes = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2YUV_I420)
            frame = av.VideoFrame.from_ndarray(np.asarray(planes, dtype=np.uint8), format="yuv420p")
            container.mux(video.encode(frame))
            if audio is not None and sound is not None:
                # sound goes along with the pictures, so that a long film is not held in the muxer's queue
                until = min(math.ceil((index + 1) * sample_rate / rate), sound.shape[1])
                _write_samples(container, audio, sound, written, until, sample_rate)
                written = until
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _write_samples(container, audio, sound, written, sound.shape[1], sample_rate)
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
        raise InputError(
            f"cannot write sound as {path.name!r}: expected one of {', '.join(AUDIO_CODECS)}; "
            "change the suffix"
        )
    sound = _channels_first(waveform, path)
    with create(path) as container:
        audio = _add_audio(container, codec, sound, sample_rate)
        _write_samples(container, audio, sound, 0, sound.shape[1], sample_rate)
        container.mux(audio.encode(None))
    return path


@contextmanager
def create(path: Path, options: dict[str, str] | None = None) -> Iterator[OutputContainer]:
    """Open a container under a temporary name in the same folder, renamed to `path` when all went well.

    Args:
        path: its folder is made and its suffix names the container.
        options: of FFmpeg for this container.
    """
    import av

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


def video_codec() -> str:
    """Return the first of `VIDEO_CODECS` that this FFmpeg has."""
    import av

    return next(name for name in VIDEO_CODECS if name in av.codecs_available)


def _channels_first(waveform: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    sound = np.atleast_2d(np.asarray(waveform, dtype=np.float32))
    if sound.ndim != 2 or sound.shape[0] not in (1, 2):
        raise InputError(
            f"sound of shape {waveform.shape} for {path}: expected (samples,) or (channels, samples) "
            "with one or two channels; mix it down first"
        )
    return np.clip(sound, -1.0, 1.0)


def _add_audio(
    container: OutputContainer, codec: str, sound: NDArray[np.float32], sample_rate: int
) -> AudioStream:
    layout = "mono" if sound.shape[0] == 1 else "stereo"
    options = AAC_OPTIONS if codec == "aac" else {}
    stream = container.add_stream(codec, rate=sample_rate, layout=layout, options=options)
    return cast("AudioStream", stream)


def _write_samples(
    container: OutputContainer,
    stream: AudioStream,
    sound: NDArray[np.float32],
    start: int,
    stop: int,
    sample_rate: int,
) -> None:
    import av

    if stop <= start:
        return
    block = np.ascontiguousarray(sound[:, start:stop])
    frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.layout.name)
    frame.sample_rate = sample_rate
    frame.pts = start
    frame.time_base = Fraction(1, sample_rate)
    container.mux(stream.encode(frame))
