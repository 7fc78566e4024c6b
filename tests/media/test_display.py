"""Pictures have the shape that a player shows, whatever their coded size is and becomes."""

import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from cfnsr.data.preparer import shown_points
from cfnsr.media.decode import decode, stream_pictures
from cfnsr.media.display import Display, display_scale
from cfnsr.media.face import FaceDetector
from cfnsr.media.openface import OpenFaceTrack
from cfnsr.media.overlay import write_overlay
from cfnsr.media.scan import first_picture, scan_packets

Media = Callable[..., Path]
SQUARE = 0.4  # of the height, the side of the white square that stands in the middle of each picture


def picture(width: int, height: int, pixel: float = 1.0) -> np.ndarray:
    """A white square as a player shows it, on grey, in pixels `pixel` times as wide as high."""
    wide, high = display_scale(pixel)
    y, x = np.ogrid[:height, :width]
    half = SQUARE * min(height * high, width * wide) / 2
    inside = (np.abs((x + 0.5 - width / 2) * wide) < half) & (np.abs((y + 0.5 - height / 2) * high) < half)
    return np.where(inside[..., None], 255, 60).astype(np.uint8).repeat(3, axis=2)


def ratio(shown: np.ndarray) -> float:
    """How many times as wide as high the white square is."""
    white = shown[..., 1] > 160
    return float(white.any(axis=0).sum() / white.any(axis=1).sum())


def film(
    path: Path, sizes: Sequence[tuple[int, int]], *, pixel: Fraction = Fraction(1), each: int = 10
) -> Path:
    """VP8 pictures of one size after the other in one stream, 10 a second, as a turned phone sends them."""
    packets: list[Any] = []
    with av.open(str(path), "w") as file:
        for width, height in sizes:
            with av.open(io.BytesIO(), "w", "webm") as aside:
                coder: Any = aside.add_stream("libvpx", rate=10, options={"crf": "4", "b": "2M"})
                coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
                made = []
                for _ in range(each):
                    frame = av.VideoFrame.from_ndarray(picture(width, height), "rgb24")
                    frame.pts, frame.time_base = len(made), Fraction(1, 10)
                    made += coder.encode(frame)
                made += coder.encode(None)
                if not packets:
                    stream: Any = file.add_stream_from_template(coder)
                    stream.width, stream.height = width, height
                    file.start_encoding()
                for packet in made:
                    packet.pts = packet.dts = len(packets)
                    packet.time_base, packet.stream = Fraction(1, 10), stream
                    packets.append(packet)
                    file.mux(packet)
    return path


def squeezed(path: Path, codec: str, pixel: Fraction, size: tuple[int, int] = (96, 64)) -> Path:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.sample_aspect_ratio = pixel
        for at in range(10):
            frame = av.VideoFrame.from_ndarray(picture(*size, float(pixel)), "rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = at, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel"),
    [
        *(("a.mkv", "h264", pixel) for pixel in (Fraction(16, 11), Fraction(8, 9), Fraction(2))),
        ("a.mp4", "h264", Fraction(16, 11)),
        ("a.ts", "h264", Fraction(8, 9)),
        ("a.mov", "mjpeg", Fraction(2)),
        ("a.avi", "mpeg4", Fraction(16, 11)),
    ],
)
def test_pixels_that_are_not_square(name: str, codec: str, pixel: Fraction, tmp_path: Path) -> None:
    path = squeezed(tmp_path / name, codec, pixel)
    wide, high = display_scale(float(pixel))
    size = round(64 * high), round(96 * wide)
    found = decode(path, frames=4, audio=False)
    assert found.frames is not None
    assert found.frames.shape[1:3] == first_picture(path)[1] == size
    assert [ratio(each) for each in found.frames] == pytest.approx([1.0] * 4, abs=0.1)
    assert scan_packets(path).side == max(size) and found.pixel == pytest.approx(float(pixel))
    drawn = []
    out = write_overlay(path, tmp_path / "out.mp4", lambda each, _: drawn.append(each.copy()))
    assert [ratio(each) for each in drawn] == pytest.approx([1.0] * 10, abs=0.1)
    with av.open(str(out)) as file:
        stream = file.streams.video[0]
        assert stream.sample_aspect_ratio in (None, 1), "its pixels are square"
        assert (stream.height, stream.width) == (size[0] // 2 * 2, size[1] // 2 * 2)


def test_resized_pictures_keep_their_brightness(tmp_path: Path) -> None:
    """FFmpeg's scaler makes them two levels darker."""
    corners = []
    for name, pixel in (("plain.mkv", Fraction(1)), ("wide.mkv", Fraction(16, 11))):
        found = decode(squeezed(tmp_path / name, "h264", pixel), frames=4, audio=False)
        assert found.frames is not None
        corners.append(found.frames[:, :8, :8].mean())
    assert corners[0] == pytest.approx(corners[1], abs=0.5)


def test_the_container_has_the_last_word(tmp_path: Path) -> None:
    """Its pixel aspect is another than the stream's, as after a correction without encoding anew."""
    path = squeezed(tmp_path / "a.mp4", "h264", Fraction(16, 11))
    data = path.read_bytes()
    at = data.index(b"pasp") + 4
    assert struct.unpack(">II", data[at : at + 8]) == (16, 11)
    path.write_bytes(data[:at] + struct.pack(">II", 2, 1) + data[at + 8 :])
    assert first_picture(path)[1] == (64, 192)
    assert decode(path, frames=1, audio=False).frames.shape[1:3] == (64, 192)  # type: ignore[union-attr]


def test_an_absurd_aspect_is_none(tmp_path: Path) -> None:
    path = squeezed(tmp_path / "a.mkv", "h264", Fraction(200))
    assert first_picture(path)[1] == (64, 96)


@pytest.mark.parametrize("rotation", [90, 180])
def test_squeezed_pictures_may_be_turned(rotation: int, tmp_path: Path) -> None:
    source = squeezed(tmp_path / "a.mp4", "h264", Fraction(3, 2))
    path = tmp_path / "b.mp4"
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        stream: Any = writing.add_stream_from_template(reading.streams.video[0])
        stream.set_display_rotation(rotation)
        for packet in reading.demux():
            if packet.size:
                packet.stream = stream
                writing.mux(packet)
    found = decode(path, frames=3, audio=False).frames
    assert found is not None and found.shape[1:3] == ((144, 64) if rotation % 180 else (64, 144))
    assert ratio(found[0]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("sizes", "inner"),
    [
        ([(128, 72), (72, 128)], (40, 72)),  # the phone is turned
        ([(72, 128), (128, 72)], (72, 40)),
        ([(128, 72), (96, 96)], (72, 72)),
        ([(128, 72), (64, 36)], (128, 72)),  # the line got worse
        ([(64, 36), (128, 72)], (64, 36)),
    ],
)
def test_a_size_that_changes_on_the_way(
    sizes: list[tuple[int, int]], inner: tuple[int, int], tmp_path: Path
) -> None:
    path = film(tmp_path / "a.webm", sizes)
    width, height = sizes[0]
    found = decode(path, frames=20, audio=False).frames
    assert found is not None and found.shape[1:3] == (height, width)
    assert [ratio(each) for each in found] == pytest.approx([1.0] * 20, abs=0.15)
    later = decode(path, frames=1, audio=False, start=1.8).frames
    np.testing.assert_array_equal(later, found[18:19], "wherever reading begins")
    streamed = list(stream_pictures(path, scan_packets(path), np.arange(20)))
    np.testing.assert_array_equal(streamed, found)
    # What stands beside is what the picture has at its border: in the film it is black.
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    last = found[19].astype(int)
    assert np.ptp(last[:top].mean(axis=2)) < 12 if top else True
    if left:
        np.testing.assert_array_equal(last[:, :left], last[:, left : left + 1].repeat(left, axis=1))
    drawn = []
    write_overlay(path, tmp_path / "out.mp4", lambda each, _: drawn.append(each.copy()))
    assert [ratio(each) for each in drawn] == pytest.approx([1.0] * 20, abs=0.15)
    beside = drawn[19].sum(axis=2) == 0
    assert beside.sum() == width * height - inner[0] * inner[1]


class Turned:
    """A picture that says how it is turned, as PyAV does."""

    def __init__(self, angle: int) -> None:
        self.rotation, self.frame = angle, av.VideoFrame.from_ndarray(picture(96, 64), "rgb24")
        matrix = np.array([0, 65_536, 0, -65_536, 0, 0, 0, 0, 1 << 30], np.int32).tobytes()
        self.side_data = [type("Side", (bytes,), {"type": SimpleNamespace(name="DISPLAYMATRIX")})(matrix)]
        self.side_data = self.side_data if angle else []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.frame, name)


def test_a_rotation_that_changes_on_the_way() -> None:
    """Some phones write it into the stream, picture by picture."""
    with av.open(io.BytesIO(), "w", "webm") as file:
        display = Display(file.add_stream("libvpx", rate=10))  # type: ignore[arg-type]
        found = [display(Turned(angle)) for angle in (0, 90, 0)]  # type: ignore[arg-type]
    assert [each.shape for each in found] == [(64, 96, 3)] * 3
    assert [ratio(each) for each in found] == pytest.approx([1.0] * 3, abs=0.1)
    assert (found[1] > 160).any(axis=2).sum() == pytest.approx((64 / 96 * SQUARE * 64) ** 2, rel=0.1)


def test_openface_points_move_with_the_pixels() -> None:
    rows = {name: np.zeros((1, 1)) for name in ("frame_numbers", "timestamps", "confidence", "success")}
    points = np.full((1, 68, 2), (10.0, 20.0), np.float32)
    track = OpenFaceTrack(**rows, action_units=np.zeros((1, 35)), pose=None, gaze=None, landmarks=points)  # type: ignore[arg-type]
    np.testing.assert_allclose(shown_points(track, 1.5).landmarks[0, 0], [15, 20])  # type: ignore[index]
    np.testing.assert_allclose(shown_points(track, 0.5).landmarks[0, 0], [10, 40])  # type: ignore[index]
    assert shown_points(track, 1.0) is track


def test_the_given_film_with_wide_pixels(cases: Path) -> None:
    wide, square = (
        decode(cases / "geometry" / name, frames=5, audio=False).frames
        for name in ("dv_pal_wide.mpg", "reference_square_pixels.mpg")
    )
    assert wide is not None and square is not None and wide.shape == square.shape == (5, 576, 1024, 3)
    assert np.abs(wide.astype(int) - square).mean() < 3


def test_the_given_film_that_is_turned(cases: Path, yunet: Path) -> None:
    """The face is as wide as before to its height, by the detector."""
    found = decode(cases / "geometry/turned_on_the_way.webm", frames=12, audio=False)
    assert found.frames is not None and found.frames.shape[1:3] == (360, 640)
    faces = np.stack([FaceDetector(yunet).detect(frame)[0] for frame in found.frames])
    shapes = faces[:, 2] / faces[:, 3]
    before, after = shapes[found.times < 3.2], shapes[found.times >= 3.2]
    assert len(before) and len(after) and after.mean() == pytest.approx(before.mean(), rel=0.06)
