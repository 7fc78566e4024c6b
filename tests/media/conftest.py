"""Small media files, written with PyAV alone so that these tests lean on no other part of the package."""

import random
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.packet import Packet

SAMPLE_FORMATS = {"aac": "fltp", "pcm_s16le": "s16", "pcm_s16be": "s16", "flac": "s16", "mp3": "fltp"}


def write(
    path: Path,
    *,
    frames: int = 30,
    fps: int = 15,
    size: tuple[int, int] = (64, 48),
    pictures: np.ndarray | None = None,
    video: str | None = "h264",
    audio: str | None = "aac",
    sound: np.ndarray | None = None,
    rate: int = 44_100,
    video_delay: float = 0.0,
    sound_delay: float = 0.0,
    rotation: tuple[int, bool] | None = None,
    container: dict[str, str] | None = None,
    coding: dict[str, str] | None = None,
) -> Path:
    """Frame i is a grey of 8 i (or `pictures`), the sound a tone (or `sound`, (channels, N) in [-1, 1])."""
    width, height = size
    if pictures is None:
        shades = (8 * np.arange(frames) % 256).astype(np.uint8)
        pictures = np.broadcast_to(shades[:, None, None, None], (frames, height, width, 3))
    if sound is None:
        length = round(len(pictures) / fps * rate)
        sound = 0.5 * np.sin(2 * np.pi * 440 * np.arange(length) / rate)[None]
    with av.open(str(path), "w", options=container or {}) as file:
        streams: list[Any] = []
        if video:
            stream = file.add_stream(video, rate=fps, options=coding or {})
            stream.height, stream.width = pictures.shape[1:3]
            stream.pix_fmt = "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation[0], hflip=rotation[1])
            streams.append(stream)
        if audio:
            track = file.add_stream(audio, rate=rate)
            track.layout = "stereo" if len(sound) == 2 else "mono"
            streams.append(track)
        packets = []
        if video:
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = i + round(video_delay * fps), Fraction(1, fps)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if audio:
            kind = SAMPLE_FORMATS[audio]
            samples = np.rint(sound * 32_767).astype(np.int16) if kind == "s16" else sound.astype(np.float32)
            for first in range(0, samples.shape[1], 1024):
                piece = samples[:, first : first + 1024]
                piece = piece if kind.endswith("p") else piece.T.reshape(1, -1)
                chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), kind, track.layout.name)
                chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
                chunk.pts = first + round(sound_delay * rate)
                packets += track.encode(chunk)
            packets += track.encode(None)
        file.start_encoding()
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    return path


def copy(
    path: Path,
    *sources: Path,
    sound: Callable[[float], float | None] = lambda second: second,
    first: Callable[[OutputContainer], Iterable[Packet]] = lambda file: (),
) -> Path:
    """The packets of files in one; those of sound come at other seconds, None leaves one out.

    `first` adds a stream before the others, and gives its packets.
    """
    with ExitStack() as files:
        target = files.enter_context(av.open(str(path), "w"))
        packets = list(first(target))
        for source in sources:
            reading = files.enter_context(av.open(str(source)))
            tracks = {stream.index: target.add_stream_from_template(stream) for stream in reading.streams}
            for packet in reading.demux():
                if packet.size and packet.stream.type == "audio":
                    second = sound(float(packet.pts * packet.time_base))
                    if second is None:
                        continue
                    packet.pts = packet.dts = round(second / packet.time_base)
                if packet.size:
                    packet.stream = tracks[packet.stream_index]
                    packets.append(packet)
        # Matroska does not tell the time of the first ones
        packets.sort(key=lambda each: -1.0 if each.dts is None else float(each.dts * each.time_base))
        for packet in packets:
            target.mux(packet)
    return path


def spoil(path: Path, kind: str, chosen: slice, whole: int = 0) -> Path:
    """Noise in the place of some packets of pictures or sound, of which the first bytes stay `whole`."""
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(**{kind: 0}) if packet.size]
    content, dice = bytearray(path.read_bytes()), random.Random(0)
    for begin, size in places[chosen]:
        assert begin is not None
        content[begin + whole : begin + size] = dice.randbytes(size - whole)
    path.write_bytes(content)
    return path


@pytest.fixture
def media(tmp_path: Path) -> Callable[..., Path]:
    """`media(name, ...)` writes a small file of that name: see `write`."""
    return lambda name, **settings: write(tmp_path / name, **settings)


@pytest.fixture
def remux(tmp_path: Path) -> Callable[..., Path]:
    """`remux(name, *sources, ...)` writes a file of that name: see `copy`."""
    return lambda name, *sources, **settings: copy(tmp_path / name, *sources, **settings)


@pytest.fixture
def spoilt() -> Callable[..., Path]:
    """See `spoil`."""
    return spoil


@pytest.fixture
def cases(shared: Path) -> Path:
    """Small inputs rebuilt after bug reports."""
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("no shared cases")
    return folder
