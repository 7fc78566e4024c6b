"""Writing media: what comes back, and what a failure leaves behind."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.media.encode import write_audio, write_video

RATE = 48_000


def film(frames: int = 30, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """A red bar that moves over grey."""
    pictures = np.full((frames, height, width, 3), 128, dtype=np.uint8)
    for index in range(frames):
        pictures[index, :, index * 2 : index * 2 + 16] = (220, 40, 40)
    return pictures


def tone(seconds: float, hertz: float = 440.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def heard(path: Path) -> tuple[NDArray[np.float64], int]:
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples = np.concatenate(blocks, axis=1)
    return samples / 32768 if samples.dtype == np.int16 else samples.astype(float), rate


def test_video_comes_back(tmp_path: Path) -> None:
    pictures = film()
    path = write_video(tmp_path / "new" / "take.mp4", iter(pictures), 30, tone(1.0), RATE)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 30
        back = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert back.shape == pictures.shape
    difference = np.abs(back.astype(int) - pictures)
    assert difference[:, :, 80:].mean() < 4, "the grey came back"
    assert np.abs(back[10, 32, 28].astype(int) - (220, 40, 40)).max() < 45, "red is red, not blue"
    samples, rate = heard(path)
    assert rate == RATE
    assert samples.shape[1] == pytest.approx(RATE, abs=2048)
    spectrum = np.abs(np.fft.rfft(samples[0, 4800:43200]))
    assert np.fft.rfftfreq(38400, 1 / RATE)[spectrum.argmax()] == pytest.approx(440, abs=3)


def test_a_film_may_be_silent_or_in_stereo_or_at_television_rate(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "silent.mp4", film(5), Fraction(30000, 1001))
    with av.open(str(silent)) as container:
        assert not container.streams.audio
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
    stereo = write_video(tmp_path / "stereo.mp4", film(15), 30, np.stack([tone(0.5), 0 * tone(0.5)]), RATE)
    samples, _ = heard(stereo)
    assert samples.shape[0] == 2
    assert np.abs(samples[0]).max() > 0.4 > 0.05 > np.abs(samples[1]).max()


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / n, film(), 30, tone(1.0), RATE) for n in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("pictures", "sound", "what"),
    [
        (film(0), None, "no frames"),
        (film(2, height=63), None, "even H and W"),
        (film(2)[..., :1], None, "expected"),
        (film(2), np.zeros((3, 100), np.float32), "one or two channels"),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, pictures: NDArray[np.uint8], sound: NDArray[np.float32] | None, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        write_video(tmp_path / "take.mp4", pictures, 30, sound, RATE)
    assert not list(tmp_path.iterdir())


def test_a_failure_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_video(tmp_path / "take.mp4", film(), 30)
    before = path.read_bytes()

    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from film(3)
        raise RuntimeError("the camera fell")

    with pytest.raises(RuntimeError, match="camera"):
        write_video(path, broken(), 30)
    changing = [film(1)[0], film(1, height=32)[0]]
    with pytest.raises(InputError, match="frame 1"):
        write_video(path, changing, 30)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_folder_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        write_video(blocked / "take.mp4", film(2), 30)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_sound_comes_back(tmp_path: Path, suffix: str) -> None:
    wave = tone(0.5)
    path = write_audio(tmp_path / f"sound{suffix}", wave, RATE)
    samples, rate = heard(path)
    assert rate == RATE
    if suffix == ".m4a":
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)
    else:
        np.testing.assert_allclose(samples[0], wave, atol=2 / 32768)


def test_unknown_sound_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.wav"):
        write_audio(tmp_path / "sound.xyz", tone(0.1), RATE)
