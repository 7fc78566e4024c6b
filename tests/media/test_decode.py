import gc
import os
import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.stream import Disposition

from cfnsr.media import container
from cfnsr.media import decode as module
from cfnsr.media.decode import decode, nearest, spread, stream_pictures, stream_sound
from cfnsr.media.errors import REASONS, MediaError
from cfnsr.media.scan import Scan, first_picture, scan_packets

Media = Callable[..., Path]
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def shades(frames: np.ndarray | None) -> np.ndarray:
    """Which frame of the test video each picture is."""
    assert frames is not None
    return np.rint(frames.mean(axis=(1, 2, 3)) / 8).astype(int)


def refused(path: Path, **settings: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode(path, **settings)  # type: ignore[arg-type]
    error = caught.value
    assert error.reason in REASONS
    assert str(path) in str(error) and "\n" not in str(error)
    return error


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {}),
        ("a.mov", {}),
        ("a.mkv", {}),
        ("a.flv", {"video": "flv1", "audio": "mp3"}),
        ("a.avi", {"video": "mpeg4", "audio": "pcm_s16le"}),
        ("a.ts", {}),
        ("frag.mp4", {"container": FRAGMENTED, "coding": {"g": "5"}}),
    ],
)
def test_even_pictures_and_sound_of_every_container(
    media: Media, name: str, settings: dict[str, str]
) -> None:
    path = media(name, **settings)
    found = decode(path, frames=4)
    assert found.frame_numbers.tolist() == [0, 10, 19, 29]
    assert shades(found.frames).tolist() == [0, 10, 19, 29]
    # Encoders that put pictures behind others, and no edit list, begin to show them a little later.
    assert 0 <= found.times[0] < 0.14
    assert found.times - found.times[0] == pytest.approx(found.frame_numbers / 15, abs=0.002)
    assert found.frame_count == 30
    assert found.waveform is not None and found.waveform.dtype == np.float32
    assert len(found.waveform) / found.sample_rate == pytest.approx(2.0, abs=0.16)
    steady = found.waveform[10_000:70_000]
    assert steady.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.1)

    scan = scan_packets(path)
    assert (scan.frame_count, scan.sample_rate, first_picture(path)[1]) == (30, 44_100, (48, 64))
    assert scan.fps == pytest.approx(15, rel=0.01)
    assert scan.duration == pytest.approx(2.0, abs=0.16) == found.duration


def test_consecutive_pictures_are_the_middle_run(media: Media) -> None:
    found = decode(media("a.mp4", audio=None), frames=4, sampling="consecutive", audio=False)
    assert shades(found.frames).tolist() == found.frame_numbers.tolist() == [13, 14, 15, 16]
    assert found.waveform is None and found.sample_rate == 0


def test_a_short_video_repeats_pictures(media: Media) -> None:
    found = decode(media("a.mp4", frames=3, audio=None), frames=6, audio=False)
    assert shades(found.frames).tolist() == [0, 0, 1, 1, 2, 2]
    assert spread(3, 5, "consecutive").tolist() == [0, 1, 2, 2, 2]
    assert spread(1, 3).tolist() == [0, 0, 0]


def test_threads_change_nothing(media: Media) -> None:
    path = media("a.mp4", pictures=np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8))
    one, many = (decode(path, frames=7, threads=threads) for threads in (1, 4))
    np.testing.assert_array_equal(one.frames, many.frames)
    np.testing.assert_array_equal(one.waveform, many.waveform)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
def test_a_span_is_the_same_as_that_part_of_the_whole(media: Media, name: str) -> None:
    seconds = np.arange(6 * 44_100) / 44_100
    chirp = 0.5 * np.sin(2 * np.pi * (200 + 300 * seconds) * seconds)[None]
    picture = np.broadcast_to(np.arange(90)[:, None, None, None] * 2, (90, 48, 64, 3)).astype(np.uint8)
    settings = {"video": "flv1", "audio": "mp3"} if name.endswith("flv") else {}
    path = media(name, pictures=picture, sound=chirp, coding={"g": "12"}, **settings)
    whole = decode(path, frames=90)
    part = decode(path, frames=3, start=3.5, end=4.5)
    assert part.frame_numbers.tolist() == [53, 60, 67]
    assert whole.frames is not None and part.frames is not None
    np.testing.assert_array_equal(part.frames, whole.frames[part.frame_numbers])
    np.testing.assert_array_equal(part.times, whole.times[part.frame_numbers])
    assert whole.waveform is not None and part.waveform is not None
    assert len(part.waveform) == 44_100
    span = whole.waveform[round(3.5 * 44_100) :][:44_100]
    shifted = (np.roll(span, shift)[50:-50] for shift in range(-45, 46))
    best = max(np.corrcoef(part.waveform[50:-50], each)[0, 1] for each in shifted)
    assert best > 0.999  # to the millisecond that mkv and flv write


def test_beyond_the_end_is_too_short(media: Media) -> None:
    assert refused(media("a.mp4"), start=5).reason == "too short"
    with pytest.raises(ValueError, match="frames"):
        decode(media("b.mp4"), frames=0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mkv", "flac")])
def test_sound_is_the_exact_mean_of_its_channels(media: Media, name: str, codec: str, channels: int) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, (channels, 30_000))
    found = decode(media(name, video=None, audio=codec, sound=sound, rate=48_000), video=False)
    written = (np.rint(sound * 32_767) / 32_768).mean(axis=0)
    assert found.sample_rate == 48_000 and found.frames is None
    np.testing.assert_allclose(found.waveform, written, atol=1e-7)


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
@pytest.mark.parametrize(("video_delay", "sound_delay"), [(0, 0), (0, 0.4), (0.4, 0)])
def test_sound_and_pictures_share_a_clock(
    media: Media, name: str, video_delay: float, sound_delay: float
) -> None:
    """A flash and a click, at a second by the file's clock, stay there whichever track begins late."""
    pictures = np.zeros((30, 48, 64, 3), np.uint8)
    pictures[round((1 - video_delay) * 15)] = 255
    sound = np.zeros((1, 88_200))
    sound[0, round((1 - sound_delay) * 44_100)] = 0.9
    delays = {"video_delay": video_delay, "sound_delay": sound_delay}
    path = media(name, pictures=pictures, sound=sound, audio="pcm_s16le", coding={"crf": "5"}, **delays)
    found = decode(path, frames=30)
    assert found.frames is not None and found.waveform is not None
    flash = found.times[found.frames.mean(axis=(1, 2, 3)).argmax()]
    click = found.waveform.argmax() / found.sample_rate
    assert click == pytest.approx(flash, abs=0.002) == pytest.approx(1.0, abs=0.002)
    assert found.sound_start == pytest.approx(sound_delay, abs=0.002)
    assert found.times[0] == pytest.approx(video_delay, abs=0.002)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_pictures_are_turned_as_the_camera_says(media: Media, angle: int, mirrored: bool) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32, 0] = 255  # red above left
    picture[24:, 32:, 2] = 255  # blue below right
    path = media(
        "a.mp4", pictures=np.stack([picture] * 5), audio=None, rotation=(angle, mirrored), coding={"crf": "5"}
    )
    found = decode(path, frames=2, audio=False).frames
    shown = np.rot90(picture, angle // 90)  # both anticlockwise
    shown = shown[:, ::-1] if mirrored else shown
    assert found is not None and found.shape[1:] == shown.shape
    assert np.abs(found[0].astype(int) - shown).mean() < 12
    assert first_picture(path)[1] == shown.shape[:2]


def test_cover_art_is_no_video(media: Media, remux: Media) -> None:
    def cover(file: OutputContainer) -> list[av.Packet]:
        stream: Any = file.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.disposition = Disposition.attached_pic
        return [*stream.encode(av.VideoFrame(64, 48, "yuvj420p")), *stream.encode(None)]

    path = remux("song.flac", media("a.flac", video=None, audio="flac"), first=cover)
    with av.open(str(path)) as written:
        assert len(written.streams.video) == 1
    assert not scan_packets(path).frame_count
    assert decode(path, video=False).waveform is not None
    assert refused(path).reason == "no picture"


def test_what_is_no_media_is_refused(tmp_path: Path, media: Media) -> None:
    assert refused(tmp_path / "nowhere.mp4").reason == "missing"
    assert refused(tmp_path).reason == "not media"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert refused(empty).reason == "broken"
    for name in ("text.mp4", "text.txt", "text"):
        text = tmp_path / name
        text.write_text("This is not a video.\n" * 50)
        assert refused(text).reason == "not media"
    other = media("a.ts")
    for there in (other.name, str(other), "http://127.0.0.1:9/a.ts"):
        playlist = tmp_path / "playlist.mp4"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{there}\n#EXT-X-ENDLIST\n")
        assert refused(playlist).reason == "not media"
        playlist.write_text(f"ffconcat version 1.0\nfile '{there}'\n")
        assert refused(playlist).reason == "not media"


def test_an_unreadable_file_is_refused(tmp_path: Path, media: Media) -> None:
    path = media("a.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    assert refused(path).reason == "broken"


@pytest.mark.parametrize(
    ("name", "reason", "settings"),
    [
        ("a.mp4", "broken", {}),  # its index stood at the end
        ("fast.mp4", "truncated", {"container": {"movflags": "faststart"}}),
        ("frag.mp4", "truncated", {"container": FRAGMENTED, "coding": {"g": "3"}}),
        ("a.mkv", "truncated", {}),
        ("a.flv", "truncated", {"video": "flv1", "audio": "mp3"}),
        ("a.avi", "truncated", {"video": "mpeg4", "audio": "pcm_s16le"}),
        ("a.wav", "truncated", {"video": None, "audio": "pcm_s16le"}),
        ("a.flac", "truncated", {"video": None, "audio": "flac"}),
    ],
)
def test_a_truncated_file_is_refused(media: Media, name: str, reason: str, settings: dict[str, str]) -> None:
    noise = np.random.default_rng(0)
    pictures = noise.integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = media(name, pictures=pictures, sound=noise.uniform(-1, 1, (1, 88_200)), **settings)
    decode(path, video=settings.get("video", "") is not None)
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * 0.6) | 1])
    assert refused(path, video=settings.get("video", "") is not None).reason == reason


def test_a_silent_film_has_no_sound_and_a_sound_no_picture(media: Media) -> None:
    film = media("film.mp4", audio=None)
    assert refused(film).reason == "no sound"
    assert decode(film, audio=False).frames is not None
    sound = media("sound.wav", video=None, audio="pcm_s16le")
    assert refused(sound).reason == "no picture"
    assert scan_packets(sound).duration == pytest.approx(2.0)


@pytest.fixture
def damaged(media: Media, spoilt: Media) -> Callable[[int], Path]:
    """30 pictures, of which so many are no picture any more: every second from the fifth on."""
    path = media("a.mp4", frames=30, audio=None, coding={"bf": "0", "g": "1"})
    return lambda count: spoilt(path, "video", slice(4, 4 + 2 * count, 2), whole=4)


def test_a_few_undecodable_pictures_are_replaced(damaged: Callable[[int], Path]) -> None:
    path = damaged(2)
    found = decode(path, frames=30, audio=False)
    assert shades(found.frames).tolist() == [0, 1, 2, 3, 5, 5, 7, 7, *range(8, 30)]
    assert found.frame_numbers.tolist() == list(range(30))
    streamed = stream_pictures(path, scan_packets(path), np.arange(0, 30, 3))
    assert shades(np.stack(list(streamed))).tolist() == [0, 3, 7, *range(9, 30, 3)]


def test_many_undecodable_pictures_are_too_many(damaged: Callable[[int], Path]) -> None:
    """The last one is not handed on before it is sure that enough of them were whole."""
    path = damaged(12)
    error = refused(path, audio=False)
    assert error.reason == "broken" and "12 of 30" in str(error)
    numbers = np.arange(0, 30, 3)
    with pytest.raises(MediaError, match="4 of 10 pictures cannot be decoded") as caught:
        list(islice(stream_pictures(path, scan_packets(path), numbers), len(numbers)))
    assert caught.value.reason == "broken"


def test_a_damaged_first_picture_spoils_no_other(media: Media, spoilt: Media) -> None:
    """Neither the size of the pictures, nor the reading of a later part."""
    path = media("a.mp4", frames=30, audio=None, coding={"bf": "0", "g": "1"})
    expected = decode(path, frames=3, start=1.0, audio=False).frames
    spoilt(path, "video", slice(0, 1), whole=4)
    assert first_picture(path)[1] == (48, 64)
    np.testing.assert_array_equal(decode(path, frames=3, start=1.0, audio=False).frames, expected)


def test_spoilt_sound_is_refused(media: Media, spoilt: Media) -> None:
    path = spoilt(media("a.mp4"), "audio", slice(None))
    assert refused(path, video=False).reason in ("broken", "no sound")


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(MediaError("no face", "no face in a.mp4")))  # noqa: S301 - our own bytes
    assert (error.reason, str(error)) == ("no face", "no face in a.mp4")


def test_the_edit_list_of_a_real_original_is_honoured(shared: Path) -> None:
    """The file holds 99 pictures and hides the last: OpenFace saw 98."""
    name = "01-01-01-01-01-01-01"
    table = (shared / "ravdess/openface/frames/Actor_01" / f"{name}.csv").read_text().splitlines()
    assert scan_packets(shared / "clips/ravdess/Actor_01" / f"{name}.mp4").frame_count == len(table) - 1 == 98


def streamed(path: Path, scan: Scan | None = None) -> np.ndarray:
    """The sound of a file part by part, put together again."""
    parts = list(stream_sound(path, scan or scan_packets(path)))
    assert len({rate for rate, _ in parts}) == 1
    assert all(0 < len(part) <= rate and part.dtype == np.float32 for rate, part in parts)
    return np.concatenate([part for _, part in parts])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"video_delay": 0.4}),
        ("a.mkv", {"sound_delay": 0.4, "audio": "pcm_s16le"}),
        ("a.flv", {"video": "flv1", "audio": "mp3"}),
        ("a.avi", {"video": "mpeg4", "audio": "pcm_s16le"}),
        ("a.ts", {}),
        ("a.mp4", {"rotation": (90, False), "audio": None}),
        ("a.wav", {"video": None, "audio": "pcm_s16le", "rate": 22_050}),
    ],
)
def test_a_stream_is_what_is_decoded_at_once(media: Media, name: str, settings: dict[str, object]) -> None:
    """Picture by picture and sample by sample; from any picture on, some of them, some repeatedly."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = media(name, pictures=noise, coding={"g": "7"}, **settings)
    scan = scan_packets(path)
    if settings.get("video", "") is not None:
        whole = decode(path, frames=30, audio=False).frames
        assert whole is not None and len(whole) == scan.frame_count
        for numbers in (np.arange(30), np.array([0, 0, 3, 3, 29]), np.array([23, 28]), np.array([17])):
            for threads in (1, 4):
                found = list(stream_pictures(path, scan, numbers, threads=threads))
                assert len(found) == len(numbers)
                np.testing.assert_array_equal(found, whole[numbers])
        assert list(stream_pictures(path, scan, np.empty(0, np.int64))) == []
    if settings.get("audio", "") is not None:
        waveform = decode(path, video=False).waveform
        assert waveform is not None
        np.testing.assert_array_equal(streamed(path), waveform)


def test_real_clips_stream_as_they_decode(shared: Path) -> None:
    clips = sorted((shared / "clips").rglob("*.*"))
    assert len(clips) == 6
    for path in clips:
        scan, found = scan_packets(path), decode(path, frames=9)
        assert found.frames is not None and found.frames.shape == (9, *first_picture(path)[1], 3)
        assert found.frame_numbers[-1] == scan.frame_count - 1
        pictures = stream_pictures(path, scan, found.frame_numbers)
        for picture, expected in zip(pictures, found.frames, strict=True):
            np.testing.assert_array_equal(picture, expected)
        assert found.waveform is not None and np.abs(found.waveform).max() > 0.01
        assert len(found.waveform) / found.sample_rate == pytest.approx(scan.duration, abs=0.06)
        np.testing.assert_array_equal(streamed(path), found.waveform)


@pytest.mark.parametrize("threads", [1, 0])
def test_what_no_other_picture_needs_is_not_decoded(
    media: Media, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Of pictures in between: those that are wanted stay as they are, bit for bit."""
    path = media("a.mp4", frames=90, audio=None, coding={"bf": "3", "b-pyramid": "none", "g": "30"})
    everything = decode(path, frames=90, audio=False, threads=threads).frames
    decoded: list[int] = []
    keep = module._Pictures.add

    def add(self: module._Pictures, frame: av.VideoFrame) -> None:
        decoded.append(frame.pts)
        keep(self, frame)

    monkeypatch.setattr(module._Pictures, "add", add)
    found = decode(path, frames=30, audio=False, threads=threads)
    assert everything is not None and found.frames is not None
    np.testing.assert_array_equal(found.frames, everything[found.frame_numbers])
    assert len(decoded) < 65, "of 90"


def test_a_stream_of_what_was_cut_short_since(media: Media) -> None:
    """The scan knew more: half of the pictures, and of the sound, are gone."""
    path = media("a.ts", frames=60)
    scan = scan_packets(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 188 * 188])
    with pytest.raises(MediaError) as caught:
        list(stream_pictures(path, scan, np.arange(60)))
    assert caught.value.reason == "broken" and "of 60 pictures cannot be decoded" in str(caught.value)
    path.unlink()
    for stream in (stream_pictures(path, scan, np.arange(60)), stream_sound(path, scan)):
        with pytest.raises(MediaError) as caught:
            next(stream)
        assert caught.value.reason == "missing"


def test_a_stream_of_spoilt_sound(media: Media, spoilt: Media) -> None:
    """A third of it: what came before is handed on, and at the end it is refused."""
    path = media("a.mov", video=None)
    scan = scan_packets(path)
    spoilt(path, "audio", slice(45, -15))
    reason = refused(path, video=False).reason
    stream = stream_sound(path, scan)
    assert sum(len(part) for _, part in islice(stream, 20)) > 10_000
    with pytest.raises(MediaError) as caught:
        list(stream)
    assert caught.value.reason == reason == "broken"


def test_a_stream_that_nobody_follows_leaves_its_file(media: Media) -> None:
    path = media("a.mp4")
    scan = scan_packets(path)
    streams = [stream_pictures(path, scan, np.arange(30)), stream_sound(path, scan)]

    def opened() -> int:
        links = (entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
        return sum(entry.exists() and entry.resolve() == path.resolve() for entry in links)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no list of open files here")
    for stream in streams:
        next(stream)
    assert opened() == 2
    for stream in streams:
        stream.close()  # type: ignore[attr-defined] # a generator
    assert opened() == 0


def test_the_nearest_picture() -> None:
    times = np.array([0.0, 0.1, 0.5, 2.0])
    wanted = np.array([-1, 0.04, 0.05, 0.06, 0.3, 0.31, 1.2, 1.3, 9])
    expected = [min(range(4), key=lambda place: (abs(times[place] - each), place)) for each in wanted]
    assert nearest(times, wanted).tolist() == expected == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert nearest(np.array([5.0]), wanted).tolist() == [0] * 9


def test_pictures_leave_no_threads_behind(media: Media) -> None:
    """PyAV keeps a picture whose side data was looked at, with its converter's threads, for the collector."""

    def threads() -> int:
        """Of this process, also those that are not Python's."""
        return len(list(Path("/proc/self/task").iterdir()))

    if not Path("/proc/self/task").exists():
        pytest.skip("the system does not tell of threads")
    path = media("a.mp4")
    decode(path, frames=30, audio=False, threads=1)
    gc.collect()
    gc.disable()
    try:
        before = threads()
        decode(path, frames=30, audio=False, threads=1)
        assert threads() <= before + 8, "those of one picture, which says how all are turned"
    finally:
        gc.enable()


def test_a_stream_that_the_header_does_not_name_is_one_line(media: Media) -> None:
    """Text in the middle of a FLV: PyAV knows no such stream, and fails."""
    path = media("a.flv", video="flv1", audio="mp3", frames=300)
    data, at, tags = path.read_bytes(), 13, []
    while at < len(data):
        tags.append(at)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    text = b"\2\0\nonTextData\x08\0\0\0\1\0\4text\2\0\2hi\0\0\t"
    tag = b"\x12" + len(text).to_bytes(3, "big") + bytes(7) + text + (len(text) + 11).to_bytes(4, "big")
    path.write_bytes(data[: tags[-9]] + tag + data[tags[-9] :])
    assert "begins later; convert it" in str(refused(path))


@pytest.mark.parametrize("declared", [True, False])
def test_pictures_that_need_too_much_memory(
    media: Media, monkeypatch: pytest.MonkeyPatch, declared: bool
) -> None:
    """Some say so; others grow on the way, and their decoder refuses them."""
    path = media("a.ts", video="mpeg2video", size=(128, 96))
    monkeypatch.setattr(container, "MOST_PIXELS", 128 * 96 - (1 if declared else 0))
    if declared:
        assert "has pictures of 128 x 96: expected at most" in str(refused(path, audio=False))
        assert decode(path, video=False).waveform is not None, "its sound is none the worse"
    else:
        larger = media("b.ts", video="mpeg2video", size=(320, 240), video_delay=2.0).read_bytes()
        assert decode(path, audio=False).frames is not None
        path.write_bytes(path.read_bytes() + larger)
        assert refused(path, audio=False).reason == "broken"
