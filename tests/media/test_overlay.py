"""Films drawn upon: their times, their sound, their size and what a failure leaves behind."""

import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from cfnsr.errors import InputError
from cfnsr.media.decode import decode
from cfnsr.media.errors import MediaError
from cfnsr.media.overlay import write_overlay

Media = Callable[..., Path]
RATE = 44_100


def leave(picture: NDArray[np.uint8], second: float) -> None:
    """Draw nothing."""


def shown(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Seconds and pictures as a player shows them (without any rotation it would do), by PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return np.array([float(frame.pts * frame.time_base) for frame in frames]), pictures


def heard(path: Path, rate: int = RATE) -> NDArray[np.float64]:
    """The sound (N,) on the file's clock from its second 0, its holes too; Matroska tells milliseconds."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        sound, position = np.zeros(0), None
        for frame in container.decode(audio=0):
            assert frame.sample_rate == rate
            begin = round(float(frame.pts * frame.time_base) * rate)
            samples = np.concatenate([each.to_ndarray()[0] for each in resampler.resample(frame)])
            if position is not None and abs(begin - position) < 0.02 * rate:
                begin = position
            sound = np.pad(sound, (0, max(0, begin + len(samples) - len(sound))))
            sound[max(0, begin) : begin + len(samples)] = samples[max(0, -begin) :]
            position = begin + len(samples)
    return sound


def sound_codecs(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.canonical_name for stream in container.streams.audio]


def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, float]:
    """By how many samples the other sound is late, and how well it then correlates."""
    length = next_fast_len(max(len(one), len(other)))
    first, second = (np.pad(sound, (0, length - len(sound))) for sound in (one, other))
    spectra = np.fft.rfft(first, 2 * length).conj() * np.fft.rfft(second, 2 * length)
    correlation = np.fft.irfft(spectra)
    late = int(correlation.argmax())
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return (late if late < length else late - 2 * length), float(correlation[late] / norm)


def noise(seconds: float, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """Smooth noise, which correlates with itself at one lag alone."""
    raw = np.random.default_rng(seed).normal(size=(channels, round(seconds * RATE) + 63))
    smooth = np.stack([np.convolve(row, np.hanning(64), "valid") for row in raw])
    return 0.5 * smooth / np.abs(smooth).max()


@pytest.mark.parametrize(
    ("source", "settings", "out", "codec"),
    [
        ("in.mp4", {}, "out.mp4", "aac"),
        ("in.mp4", {}, "out.mkv", "aac"),
        ("in.mkv", {"audio": "mp3", "sound_delay": 0.3}, "out.mp4", "mp3"),
        ("in.mkv", {"audio": "mp3"}, "out.m4v", "aac"),
        ("in.flv", {"video": "flv", "audio": "mp3"}, "out.mov", "mp3"),
        ("in.mkv", {"audio": "flac", "video_delay": 0.4}, "out.mp4", "flac"),
        ("in.mkv", {"audio": "flac", "sound_delay": 0.4}, "out.mov", "aac"),
        ("in.ts", {"audio": "aac", "video_delay": 0.2}, "out.mp4", "aac"),
        ("in.avi", {"audio": "pcm_s16le", "video": "mpeg4"}, "out.mp4", "aac"),
        ("in.avi", {"audio": "pcm_s16le", "video": "mpeg4"}, "out.mov", "pcm_s16le"),
        ("in.mkv", {"audio": "pcm_s16le", "sound_delay": 0.4}, "out.mp4", "aac"),
        ("in.mkv", {"audio": "pcm_s16le", "sound_delay": 0.4}, "out.mkv", "pcm_s16le"),
    ],
)
def test_sound_and_times_stay(
    media: Media, tmp_path: Path, source: str, settings: dict[str, Any], out: str, codec: str
) -> None:
    path = media(source, sound=noise(2, 2), **settings)
    new = write_overlay(path, tmp_path / out, leave)
    before, after = shown(path), shown(new)
    # Containers differ in where their clocks begin, and in how finely they tell time.
    assert np.diff(after[0]) == pytest.approx(np.diff(before[0]), abs=1.1e-3)
    assert np.abs(after[1].astype(int) - before[1]).mean() < 3
    late, correlation = alike(heard(path), heard(new))
    apart = (after[0][0] - before[0][0]) * RATE  # how much later the pictures are
    assert late == pytest.approx(apart, abs=0.0021 * RATE), "lips move with the sound"
    assert correlation > 0.98
    assert sound_codecs(new) == [codec]


def test_sound_that_the_container_refuses_becomes_aac(media: Media, tmp_path: Path) -> None:
    path = media("in.mkv", audio="mp3", rate=11_025)
    assert sound_codecs(write_overlay(path, tmp_path / "out.mp4", leave)) == ["aac"]
    assert sound_codecs(write_overlay(path, tmp_path / "out.mkv", leave)) == ["mp3"]


def film(
    path: Path,
    pictures: Iterable[av.VideoFrame],
    seconds: Sequence[float],
    codec: str = "libx264",
    **context: Any,
) -> Path:
    """Pictures in the form of the codec at some seconds, in milliseconds."""
    with av.open(str(path), "w") as file:
        stream: Any = None
        for picture, second in zip(pictures, seconds, strict=True):
            if stream is None:
                stream = file.add_stream(codec, rate=30, options={"crf": "5"} if codec == "libx264" else {})
                stream.width, stream.height = picture.width, picture.height
                stream.pix_fmt = picture.format.name
                for name, value in {"time_base": Fraction(1, 1000), **context}.items():
                    setattr(stream.codec_context, name, value)
            picture.pts, picture.time_base = round(1000 * second), Fraction(1, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return path


def grey(shade: int, width: int = 64, height: int = 48, form: str = "yuv420p") -> av.VideoFrame:
    pixels = np.full((height, width, 3), shade, np.uint8)
    return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=form)


@pytest.mark.parametrize("moments", [[0.0], [0.0, 2500.0]])
def test_one_picture_or_two_in_an_hour(tmp_path: Path, moments: list[float]) -> None:
    """Of a silent film."""
    path = film(tmp_path / "in.mkv", [grey(0) for _ in moments], moments)
    new = write_overlay(path, tmp_path / "out.mp4", leave)
    assert shown(new)[0].tolist() == moments and not sound_codecs(new)


def test_copied_sound_is_the_same_to_the_bit(media: Media, tmp_path: Path) -> None:
    path = media("in.mp4", sound=noise(2))
    new = write_overlay(path, tmp_path / "out.mp4", leave)

    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(new) == packets(path)
    np.testing.assert_array_equal(heard(new), heard(path))


def test_pictures_of_an_unsteady_rate_keep_their_times(tmp_path: Path) -> None:
    seconds = np.cumsum([0, 0.04, 0.04, 0.007, 0.31, 0.033, 0.033, 1.2, 0.016, 0.017])
    path = film(tmp_path / "in.mp4", map(grey, range(0, 250, 25)), seconds.tolist(), max_b_frames=2)
    drawn: list[float] = []
    times, pictures = shown(write_overlay(path, tmp_path / "out.mp4", lambda _, second: drawn.append(second)))
    np.testing.assert_allclose(times, seconds, atol=1e-4)
    np.testing.assert_allclose(drawn, seconds, atol=1e-4)
    assert pictures.mean(axis=(1, 2, 3)) == pytest.approx(np.arange(0, 250, 25), abs=4)


@pytest.mark.parametrize("rotation", [(90, False), (0, True)])
def test_pictures_are_written_upright(media: Media, tmp_path: Path, rotation: tuple[int, bool]) -> None:
    """As decode gives them; the new file asks for no rotation."""
    quarters = np.zeros((5, 48, 64, 3), np.uint8)
    quarters[:, :24, :32], quarters[:, :24, 32:], quarters[:, 24:, :32] = (220, 30, 30), (30, 220, 30), 255
    path = media("in.mp4", pictures=quarters, rotation=rotation, audio=None)
    expected = decode(path, frames=5, audio=False).frames
    _, pictures = shown(write_overlay(path, tmp_path / "out.mp4", leave))
    assert expected is not None
    assert pictures.shape == expected.shape
    assert np.abs(pictures.astype(int) - expected).mean() < 6


def test_odd_sides_lose_a_pixel_and_rows_can_be_added(tmp_path: Path) -> None:
    greys = [grey(90, 63, 47, "bgr0") for _ in range(3)]
    path = film(tmp_path / "in.mkv", greys, [0, 0.1, 0.2], codec="ffv1")
    sizes = []
    new = write_overlay(path, tmp_path / "out.mp4", lambda picture, _: sizes.append(picture.shape), below=20)
    _, pictures = shown(new)
    assert sizes == [(66, 62, 3)] * 3
    assert pictures.shape == (3, 66, 62, 3)
    assert np.abs(pictures[:, :44].astype(int) - 90).mean() < 3
    assert pictures[:, 48:].min() > 245


def test_what_is_drawn_is_seen_in_its_colour_and_the_rest_stays(media: Media, tmp_path: Path) -> None:
    path = media("in.mp4", frames=10, size=(96, 64), coding={"crf": "5"})

    def draw(picture: NDArray[np.uint8], second: float) -> None:
        assert picture.flags.writeable and picture.flags.c_contiguous
        picture[16:48, 16:48] = (230, 40, 30)

    _, before = shown(path)
    _, after = shown(write_overlay(path, tmp_path / "out.mp4", draw))
    assert np.abs(after[:, 20:44, 20:44].astype(int) - (230, 40, 30)).mean() < 6
    assert np.abs(after[:, :, 60:].astype(int) - before[:, :, 60:]).mean() < 2


@pytest.mark.parametrize(("matrix", "written"), [(1, {5, 6}), (5, {5, 6}), (6, {5, 6}), (2, {2})])
def test_colours_of_a_tagged_source_look_the_same(tmp_path: Path, matrix: int, written: set[int]) -> None:
    """A player that obeys the tags (as FFmpeg's scaler does) shows the same red in both; 2 is no tag."""
    planes = np.full((72, 64), 90, np.uint8)
    planes[60:] = 200  # strong red
    reds = [av.VideoFrame.from_ndarray(planes, "yuv420p") for _ in range(3)]
    path = film(tmp_path / "in.mp4", reds, [0, 0.1, 0.2], colorspace=matrix, color_range=1)
    new = write_overlay(path, tmp_path / "out.mp4", leave)
    (_, before), (_, after) = shown(path), shown(new)
    with av.open(str(new)) as file:
        assert file.streams.video[0].codec_context.colorspace in written
    assert np.ptp(before[0, 0, 0]) > 60
    assert np.abs(after.astype(int) - before).mean() < 3


def test_progress_and_times_from_where_the_sound_begins(media: Media, tmp_path: Path) -> None:
    seen, done = [], []
    write_overlay(
        media("in.mp4", frames=15, fps=15, video_delay=0.4),
        tmp_path / "new" / "out.mp4",
        lambda picture, second: seen.append(second),
        progress=lambda now, all_: done.append((now, all_)),
    )
    assert seen == pytest.approx(0.4 + np.arange(15) / 15, abs=1e-3)
    assert done == [(at, 15) for at in range(1, 16)]


def test_only_few_pictures_live_at_a_time(media: Media, tmp_path: Path) -> None:
    """Memory does not grow with the film: neither drawn pictures nor packets are kept."""
    most = []

    def draw(picture: NDArray[np.uint8], second: float) -> None:
        references.append(weakref.ref(picture))
        most.append(sum(reference() is not None for reference in references))

    references: list[weakref.ref[Any]] = []
    write_overlay(media("in.mp4", frames=60), tmp_path / "out.mp4", draw)
    gc.collect()
    assert max(most) <= 2
    assert sum(reference() is not None for reference in references) == 0


def test_other_containers_are_refused_and_the_source_is_never_overwritten(
    media: Media, tmp_path: Path
) -> None:
    path = media("in.mp4")
    before = path.read_bytes()
    for name in ("out.webm", "out.avi", "out", "out.wav"):
        with pytest.raises(InputError, match=r"\.mp4"):
            write_overlay(path, tmp_path / name, leave)
    (tmp_path / "link.mp4").symlink_to(path)
    (tmp_path / "twin.mp4").hardlink_to(path)
    for out in (path, tmp_path / "link.mp4", tmp_path / "twin.mp4", tmp_path / "." / "in.mp4"):
        with pytest.raises(InputError, match="source itself"):
            write_overlay(path, out, leave)
    assert path.read_bytes() == before


def test_a_sound_file_has_nothing_to_draw_upon(media: Media, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no pictures") as error:
        write_overlay(media("in.wav", video=None, audio="pcm_s16le"), tmp_path / "out.mp4", leave)
    assert error.value.reason == "no picture"


def test_a_failure_leaves_the_old_file_and_nothing_else(media: Media, tmp_path: Path) -> None:
    path, out = media("in.mp4"), tmp_path / "new" / "out.mp4"
    out.parent.mkdir()
    out.write_bytes(b"old")

    def fail(picture: NDArray[np.uint8], second: float) -> None:
        if second > 0.5:
            raise RuntimeError("the brush broke")

    with pytest.raises(RuntimeError, match="brush"):
        write_overlay(path, out, fail)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError):
        write_overlay(broken, out, leave)
    assert out.read_bytes() == b"old"
    assert list(out.parent.iterdir()) == [out]


def test_damaged_pictures_are_bridged_and_many_are_too_many(
    media: Media, spoilt: Media, tmp_path: Path
) -> None:
    path = media("in.mp4", frames=30, fps=15, audio=None, coding={"bf": "0", "g": "1"})
    spoilt(path, "video", slice(4, 8, 2), whole=4)
    times, _ = shown(write_overlay(path, tmp_path / "out.mp4", leave))
    kept = np.delete(np.arange(30), [4, 6])  # the one before stays in its place
    np.testing.assert_allclose(times, kept / 15, atol=1e-4)
    with pytest.raises(MediaError, match="5 of 30"):
        write_overlay(spoilt(path, "video", slice(8, 14, 2), whole=4), tmp_path / "out.mp4", leave)


def test_real_clips(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "clips").rglob("*.*"))[1::2]:  # each kind once
        new = write_overlay(path, tmp_path / "out.mp4", leave)
        with av.open(str(path)) as one, av.open(str(new)) as other:
            lengths = [float(file.duration or 0) / av.time_base for file in (one, other)]
            assert lengths[1] == pytest.approx(lengths[0], abs=1 / 25)
            rate = one.streams.audio[0].rate
        late, correlation = alike(heard(path, rate), heard(new, rate))
        assert late == 0 and correlation > 0.999
