"""What comes live: a file at its pace; cameras and microphones that give, are silent, gone or forbidden."""

import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from cfnsr.media import devices
from cfnsr.media.capture import LATE, Heard, Pace, Player, Seen, SystemClock
from cfnsr.media.decode import decode
from cfnsr.media.devices import OFF, SILENT, Devices, Nearest
from cfnsr.media.errors import MediaError

LAVFI = pytest.mark.skipif("lavfi" not in av.formats_available, reason="this PyAV has no lavfi")


class Stepped:
    """A clock that whoever waits moves; each look at it takes `work` seconds."""

    def __init__(self, work: float = 0.0) -> None:
        self.time, self.work = 50.0, work
        self.waits: list[float] = []

    def now(self) -> float:
        self.time += self.work
        return self.time

    def wait(self, seconds: float, event: threading.Event) -> None:
        self.waits.append(seconds)
        self.time += max(1e-9, seconds)


def pace(work: float = 0.0) -> Pace:
    return Pace(Stepped(work), threading.Event())


def brute_nearest(times: list[float], step: float) -> list[int]:
    """Positions of the times nearest to the multiples of a step, looked for one by one."""
    chosen = set()
    for tick in np.arange(0, times[-1] + step, step):
        gaps = [abs(time - tick) for time in times]
        chosen.add(gaps.index(min(gaps)))
    return sorted(chosen)


def test_the_system_clock_waits_for_the_event_alone() -> None:
    clock, event = SystemClock(), threading.Event()
    before = clock.now()
    clock.wait(0.001, event)
    assert clock.now() >= before + 0.001
    event.set()
    clock.wait(1e6, event)  # at once


def test_pace_counts_from_its_beginning_and_ends_on_demand() -> None:
    given = pace()
    assert given.second() == 0.0
    assert given.until(2.5) and given.second() == pytest.approx(2.5)
    assert given.until(1.0) and given.second() == pytest.approx(2.5)  # is past
    given.stop.set()
    assert not given.until(9.0) and given.second() == pytest.approx(2.5)


def test_a_file_comes_at_its_own_pace(media: Callable[..., Path]) -> None:
    file = media("film.mp4", frames=40, fps=20)
    player, given = Player(file), pace()
    seen = []
    for each in player.pictures(0, given):
        assert given.second() == pytest.approx(each.time) and each.arrived == each.time
        seen.append(each)
    whole = decode(file, frames=40)
    np.testing.assert_array_equal(np.stack([each.frame for each in seen]), whole.frames)
    np.testing.assert_allclose([each.time for each in seen], whole.times)

    given, position, pieces = pace(), 0, []
    for piece in player.sound(given):
        assert given.second() == pytest.approx(piece.end) and piece.arrived == pytest.approx(piece.end)
        assert piece.first == position and piece.rate == 44_100
        position += len(piece.samples)
        pieces.append(piece.samples)
    np.testing.assert_array_equal(np.concatenate(pieces), whole.waveform)
    assert (player.pictured, player.sounding, player.dropped) == (True, True, 0)


@pytest.mark.parametrize("step", [0.03, 0.0983, 0.1, 0.7])
def test_of_a_file_the_pictures_nearest_to_the_steps_come(media: Callable[..., Path], step: float) -> None:
    player = Player(media("film.mp4", frames=40, fps=20))
    times = [each.time for each in player.pictures(step, pace())]
    every = player.scan.times.tolist()
    assert times == [every[number] for number in brute_nearest(every, step)]


def test_pictures_that_are_late_are_passed_over(media: Callable[..., Path]) -> None:
    player = Player(media("film.mp4", frames=40, fps=20))
    given = pace()
    times = []
    for each in player.pictures(0, given):
        times.append(each.time)
        if len(times) == 5:
            given.clock.time += 1.69  # type: ignore[attr-defined]
    # The fifth came at 0.2 s; then it is 1.89 s, and those until 0.9 s are too late.
    np.testing.assert_allclose(times, np.array([*range(5), *range(18, 40)]) / 20)
    assert player.dropped == 13 and LATE == 1.0


@pytest.mark.parametrize("stream", ["pictures", "sound"])
def test_a_file_ends_when_nothing_more_is_wanted(media: Callable[..., Path], stream: str) -> None:
    player, given = Player(media("film.mp4")), pace()
    items: Iterator[Seen | Heard]
    items = player.pictures(0, given) if stream == "pictures" else player.sound(given)
    next(items)
    given.stop.set()
    assert list(items) == []


def test_a_file_without_sound_or_pictures(media: Callable[..., Path]) -> None:
    assert not Player(media("mute.mp4", audio=None)).sounding
    assert not Player(media("sound.m4a", video=None)).pictured
    with pytest.raises(MediaError) as error:
        Player("nowhere.mp4")
    assert error.value.reason == "missing"


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_are_chosen_as_they_come(seed: int) -> None:
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.exponential(0.2, 60)) + generator.uniform(0, 3)
    step = float(generator.uniform(0.05, 0.8))
    wanted: Nearest[int] = Nearest(step)
    chosen = []
    for number, time in enumerate(times.tolist()):
        given = wanted.add(time, number)
        assert all(times[place] == when for when, place in given)
        assert number - 1 <= min((place for _, place in given), default=number)  # none is held for longer
        chosen += [place for _, place in given]
    told = [tick * step for tick in range(int(times[-1] / step) + 1)]  # those after the last are open
    gaps = np.abs(np.subtract.outer(told, times))
    assert chosen == sorted(set(gaps.argmin(axis=1).tolist()))


def test_without_a_step_all_are_chosen() -> None:
    wanted: Nearest[str] = Nearest(0)
    assert [wanted.add(1.0, "a"), wanted.add(1.0, "b")] == [[(1.0, "a")], [(1.0, "b")]]


@LAVFI
def test_a_camera_gives_pictures_until_it_is_gone() -> None:
    source = Devices("lavfi:testsrc2=size=64x48:rate=10:duration=2", None)
    assert (source.pictured, source.sounding) == (True, False)
    given, seen = pace(0.01), []
    with pytest.raises(MediaError, match=r"^camera testsrc2=.* is gone \(it ended\)") as error:
        for each in source.pictures(0, given):
            seen.append(each)
    assert error.value.reason == "missing" and "\n" not in str(error.value)
    assert len(seen) == 20
    assert all(each.frame.shape == (48, 64, 3) and each.time == each.arrived for each in seen)
    assert np.all(np.diff([each.time for each in seen]) > 0)
    with av.open("testsrc2=size=64x48:rate=10:duration=2", format="lavfi") as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(seen[0].frame, first)


@LAVFI
def test_of_a_camera_the_pictures_nearest_to_the_steps_come() -> None:
    source = Devices("lavfi:testsrc2=size=64x48:rate=10:duration=3", None)
    given, seen = pace(0.05), []
    with pytest.raises(MediaError):
        for each in source.pictures(0.5, given):
            seen.append(each)
    assert 30 * 0.1 / 0.5 - 1 <= len(seen) < 30  # each look at the clock takes 0.05 s, and a picture two
    np.testing.assert_allclose([each.time for each in seen], 0.5 * np.arange(len(seen)), atol=0.15)


@LAVFI
def test_a_device_is_left_when_nothing_more_is_wanted() -> None:
    given = pace(0.01)
    items = Devices("lavfi:testsrc2=size=64x48:rate=10", None).pictures(0, given)
    next(items)
    given.stop.set()
    assert list(items) == []


@LAVFI
def test_a_microphone_gives_sound_that_follows_on() -> None:
    source = Devices(None, "lavfi:sine=frequency=440:sample_rate=8000:duration=1")
    given, pieces = pace(), []
    given.clock.time += 1.0  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match=r"^microphone sine=.* is gone"):
        for each in source.sound(given):
            pieces.append(each)
    assert pieces[0].first == 8000 - len(pieces[0].samples)  # it is over now, so it began before
    assert [each.first for each in pieces[1:]] == [each.first + len(each.samples) for each in pieces[:-1]]
    sound = np.concatenate([each.samples for each in pieces])
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000) / 8  # FFmpeg's sine has an eighth
    np.testing.assert_allclose(sound, expected, atol=2e-3)


def hear(monkeypatch: pytest.MonkeyPatch, *events: float | None) -> list[Heard]:
    """What becomes of frames of 0.1 s that are read at some seconds; -second where all had been read."""
    source, given = Devices(None, "lavfi:sine"), pace()

    def frames(asked: Pace) -> Iterator[av.AudioFrame | None]:
        for event in events:
            asked.until(abs(event or 0))
            frame = av.AudioFrame.from_ndarray(np.full((1, 100), 0.5, np.float32), "flt", "mono")
            frame.sample_rate, frame.time_base = 1000, Fraction(1, 1000)
            yield None if event is None or event < 0 else frame

    monkeypatch.setattr(source._microphone, "frames", frames)
    return list(source.sound(given))


def test_silence_stands_for_sound_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OFF == 1.0
    pieces = hear(monkeypatch, 2.1, -2.2, 2.3, -3.1, -3.3, 3.4)
    np.testing.assert_allclose([each.first for each in pieces], [2000, 2100, 2200, 3300], atol=1)
    assert [each.samples.any() for each in pieces] == [True, True, False, True]
    assert [len(each.samples) for each in pieces] == [100, 100, pytest.approx(1100, abs=1), 100]
    assert hear(monkeypatch, None, -3.0, -9.0) == []  # before the first there is nothing to lose


def test_sound_that_waited_to_be_read_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [3.0 + 0.001 * number for number in range(29)]
    pieces = hear(monkeypatch, 0.1, *late, -3.1, 3.2)
    np.testing.assert_allclose([each.first for each in pieces], 100 * np.arange(31), atol=1)
    assert all(each.samples.all() for each in pieces)


def test_sound_that_runs_ahead_of_the_clock_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = hear(monkeypatch, 0.1, *[0.2] * 30, 4.0)
    assert pieces[-2].end <= 0.2 + OFF + 0.1 + 1e-9 and pieces[-1].first == round(1000 * pieces[-2].end)


class Container:
    """An opened device; `reads` says what each reading does."""

    def __init__(self, *reads: Exception) -> None:
        self.reads = iter(reads)
        self.closed = False
        self.codec_context = SimpleNamespace(thread_count=0)
        stream = SimpleNamespace(codec_context=self.codec_context, disposition=0)
        self.streams = SimpleNamespace(video=[stream], audio=[stream])

    def demux(self, stream: object) -> Iterator[object]:
        raise next(self.reads, av.BlockingIOError(11, "Resource temporarily unavailable"))
        yield

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True


@pytest.mark.parametrize(("kind", "what"), [("camera", "pictures"), ("microphone", "sound")])
def test_a_device_that_gives_nothing(monkeypatch: pytest.MonkeyPatch, kind: str, what: str) -> None:
    container, given = Container(), pace()
    monkeypatch.setattr(av, "open", lambda *arguments, **settings: container)
    source = Devices("lavfi:one", "lavfi:two")
    items = source.pictures(0, given) if kind == "camera" else source.sound(given)
    with pytest.raises(MediaError, match=f"^{kind} (one|two) has given no {what} for 10 s") as error:
        list(items)
    assert given.second() == pytest.approx(SILENT, abs=0.1) and "\n" not in str(error.value)
    assert container.closed


def test_a_device_that_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container(av.BlockingIOError(11, "again"), av.error.OSError(19, "No such device"))
    monkeypatch.setattr(av, "open", lambda *arguments, **settings: container)
    with pytest.raises(MediaError, match=r"^camera one is gone \(No such device\): expected it to stay"):
        list(Devices("lavfi:one", None).pictures(0, pace()))
    assert container.closed and container.codec_context.thread_count == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file"), "is not there: expected one; plug it in"),
        (PermissionError(13, "Permission denied"), "is forbidden to you: expected one that you may use; a"),
        (OSError(16, "Device or resource busy"), "is in use: expected a free one; close the program"),
        (OSError(5, "Input/output error"), r"cannot be opened \(Input/output error\)"),
    ],
)
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_device_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, platform: str
) -> None:
    asked = []

    def refuse(name: str, **settings: Any) -> None:
        asked.append(settings["options"])
        raise error

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(MediaError, match=f"^camera one {said}") as raised:
        list(Devices("lavfi:one", None).pictures(0, pace()))
    assert raised.value.reason == "missing" and "\n" not in str(raised.value)
    assert [options.get("video_size") for options in asked] == ["640x480", None, None]
    assert all(options["fflags"] == "+4" for options in asked)  # never waits inside FFmpeg


@pytest.mark.parametrize(
    ("platform", "camera", "microphone"),
    [
        ("linux", "v4l2 /dev/video3", "alsa plughw:1"),
        ("darwin", "avfoundation /dev/video3:none", "avfoundation none:plughw:1"),
        ("win32", "dshow video=/dev/video3", "dshow audio=plughw:1"),
    ],
)
def test_each_system_has_its_own_devices(
    monkeypatch: pytest.MonkeyPatch, platform: str, camera: str, microphone: str
) -> None:
    asked = []

    def opened(name: str, *, format: str, **settings: object) -> Container:
        asked.append(f"{format} {name}")
        return Container(av.error.OSError(19, "gone"))

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(av, "formats_available", {"v4l2", "alsa", "avfoundation", "dshow"})
    monkeypatch.setattr(av, "open", opened)
    source = Devices("/dev/video3", "plughw:1")
    assert source.name == "camera /dev/video3 and microphone plughw:1"
    for items in (source.pictures(0, pace()), source.sound(pace())):
        with pytest.raises(MediaError, match="is gone"):
            list(items)
    assert asked == [camera, microphone]


def test_without_any_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "Path", lambda name: tmp_path / name.lstrip("/"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("ALSA_CONFIG_PATH", raising=False)
    monkeypatch.setattr(av, "formats_available", {"v4l2", "alsa"})
    with pytest.raises(MediaError, match=r"^there is no camera: expected /dev/video0; plug one in, or name"):
        Devices("default", None)
    with pytest.raises(MediaError, match=r"^there is no microphone: expected a sound card"):
        Devices(None, "default")
    monkeypatch.setattr(av, "formats_available", {"matroska"})
    with pytest.raises(MediaError, match=r"^this PyAV was built without alsa"):
        Devices(None, "plughw:1")


def test_the_first_camera_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "Path", lambda name: tmp_path / name.lstrip("/"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "formats_available", {"v4l2"})
    (tmp_path / "dev").mkdir()
    for number in (10, 2):
        (tmp_path / f"dev/video{number}").touch()
    assert Devices("default", None).name == f"camera {tmp_path}/dev/video2"


@pytest.mark.skipif("alsa" not in av.formats_available, reason="this PyAV has no ALSA")
def test_alsa(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A microphone that plays a file, by a configuration of ALSA's own."""
    wave = np.rint(8000 * np.sin(np.arange(48_000) / 20)).astype("<i2")
    np.repeat(wave, 2).tofile(tmp_path / "wave.raw")
    (tmp_path / "asound.conf").write_text(
        "pcm.played { type file; slave.pcm { type null }; file /dev/null; "
        f'infile "{tmp_path}/wave.raw"; format raw }}\n'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    given, heard = pace(), np.empty(0, np.float32)
    for piece in Devices(None, "alsa:played").sound(given):
        heard = np.append(heard, piece.samples)
        if len(heard) >= 200:
            given.stop.set()
    assert piece.rate == 48_000
    np.testing.assert_allclose(heard[:200], wave[:200] / 32_768, atol=1e-6)
