"""Small films, written with PyAV alone, and a face detector that knows coloured patches."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

HEIGHT, WIDTH = 48, 96
COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}  # of the faces
RATE = 8_000

# What a picture shows: colour, left, top and side of each face.
Faces = Sequence[tuple[str, int, int, int]]


class Spots:
    """In place of the face detector: a face is a red or a blue patch."""

    def __init__(self) -> None:
        self.looked = 0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        self.looked += 1
        red, green, blue = frame.astype(int).transpose(2, 0, 1)
        faces = []
        for patch in ((red > 150) & (green < 110) & (blue < 110), (blue > 150) & (green < 110) & (red < 110)):
            rows, columns = np.nonzero(patch)
            if len(rows) > 20:
                left, top = columns.min(), rows.min()
                faces.append((left, top, np.ptp(columns) + 1, np.ptp(rows) + 1, 0.9))
        return np.array(faces, np.float32).reshape(-1, 5)


def paint(number: int, faces: Faces) -> np.ndarray:
    """A picture whose grey tells its number, modulo 40, with some faces."""
    picture = np.full((HEIGHT, WIDTH, 3), 3 * (number % 40) + 50, np.uint8)
    for colour, left, top, side in faces:
        picture[top : top + side, left : left + side] = COLOURS[colour]
    return picture


def write(
    path: Path,
    times: Iterable[float],
    faces: Callable[[float], Faces] = lambda time: [("red", 30, 8, 24)],
    sound: Iterable[tuple[float, np.ndarray]] = (),
    rate: int = RATE,
    apart: bool = False,
) -> Path:
    """Pictures at `times`, seconds, with faces as a function of time; parts of sound and when each begins.

    Args:
        apart: all pictures stand before all sound, in place of side by side.
    """
    # FFmpeg waits for the other stream no longer than that many microseconds
    options = {"max_interleave_delta": "1"} if apart else {}
    with av.open(str(path), "w", container_options=options) as file:
        packets = []
        times, parts = list(times), list(sound)
        video: Any = file.add_stream("libx264", rate=15, options={"preset": "ultrafast", "crf": "10"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base, video.codec_context.thread_count = Fraction(1, 90_000), 1
        audio: Any = file.add_stream("pcm_s16le", rate=rate, layout="mono") if parts else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(paint(number, faces(time)), format="rgb24")
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            packets += video.encode(frame)
        packets += video.encode(None)
        for begin, samples in parts:
            for first in range(0, len(samples), 400):
                piece = np.rint(samples[None, first : first + 400] * 32_767).astype(np.int16)
                chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "s16", "mono")
                chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
                chunk.pts = round(begin * rate) + first
                packets += audio.encode(chunk)
        if not apart:
            packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        file.start_encoding()
        for packet in packets:
            file.mux(packet)
    return path


def even(seconds: float, fps: float = 15) -> list[float]:
    """When the pictures of a film are."""
    return [number / fps for number in range(round(seconds * fps))]


def noise(seconds: float, rate: int = RATE, seed: int = 0, loudness: float = 0.3) -> np.ndarray:
    """Sound that is nowhere alike: (N,) in [-1, 1]."""
    return loudness * np.random.default_rng(seed).uniform(-1, 1, round(seconds * rate))


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """`film(seconds, ...)` writes a film of that length: see `write`; sound all along if none is given."""

    def film(seconds: float, name: str = "film.mkv", fps: float = 15, **settings: Any) -> Path:
        settings.setdefault("times", even(seconds, fps))
        settings.setdefault("sound", [(0.0, noise(seconds, settings.get("rate", RATE)))])
        return write(tmp_path / name, **settings)

    return film


@pytest.fixture
def spots(monkeypatch: pytest.MonkeyPatch) -> Spots:
    """The detector of these films, in place of the real one."""
    detector = Spots()
    monkeypatch.setattr("cfnsr.data.preparer.detector", lambda: detector)
    return detector
