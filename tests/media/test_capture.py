"""What comes live: a file at its pace; cameras and microphones that give, are silent or gone.

A film stands in for a camera, for OpenCV reads both alike; a module for sounddevice.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.media import devices
from cfnsr.media.capture import LATE, Clock, LivePicture, LiveSound, Pace, Player
from cfnsr.media.decode import decode
from cfnsr.media.devices import OFF, SILENT, Devices, Nearest
from cfnsr.media.errors import MediaError


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


def nearest(times: list[float], ticks: list[float]) -> list[int]:
    """Positions of the times nearest to some seconds; ties take the first."""
    return sorted(set(np.abs(np.subtract.outer(ticks, times)).argmin(axis=1).tolist()))


def test_pace_counts_from_its_beginning_and_ends_on_demand() -> None:
    given = Pace(Clock(), threading.Event())
    assert given.until(0.001) and given.second() >= 0.001
    given.stop.set()
    given.clock.wait(1e6, given.stop)  # at once
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
    assert (player.has_video, player.has_audio, player.dropped) == (True, True, 0)


@pytest.mark.parametrize("step", [0.03, 0.0983, 0.1, 0.7])
def test_of_a_file_the_pictures_nearest_to_the_steps_come(media: Callable[..., Path], step: float) -> None:
    player = Player(media("film.mp4", frames=40, fps=20))
    times = [each.time for each in player.pictures(step, pace())]
    every = player.scan.times.tolist()
    ticks = np.arange(0, every[-1] + step, step).tolist()
    assert times == [every[number] for number in nearest(every, ticks)]


def test_pictures_that_are_late_are_dropped(media: Callable[..., Path]) -> None:
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
    items: Iterator[LivePicture | LiveSound]
    items = player.pictures(0, given) if stream == "pictures" else player.sound(given)
    next(items)
    given.stop.set()
    assert list(items) == []


def test_a_file_without_sound_or_pictures(media: Callable[..., Path]) -> None:
    assert not Player(media("mute.mp4", audio=None)).has_audio
    assert not Player(media("sound.m4a", video=None)).has_video


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
    ticks = [tick * step for tick in range(int(times[-1] / step) + 1)]  # those after the last are open
    assert chosen == nearest(times.tolist(), ticks)


# --- a camera ---


@pytest.fixture
def film(media: Callable[..., Path]) -> Path:
    """Ten pictures of one colour each."""
    colours = np.random.default_rng(0).integers(30, 220, (10, 1, 1, 3)).astype(np.uint8)
    return media("film.mp4", pictures=np.broadcast_to(colours, (10, 48, 64, 3)), audio=None)


def test_a_camera_gives_pictures_in_rgb_until_it_is_gone(film: Path) -> None:
    source, seen = Devices(str(film), None), []
    assert source.name == f"camera {film}" and source.has_video and not source.has_audio
    with pytest.raises(MediaError, match=rf"^camera {film} is gone: expected it to stay") as error:
        for each in source.pictures(0, pace(0.01)):
            seen.append(each)
    assert error.value.reason == "missing"
    expected = decode(film, frames=10, audio=False).frames
    assert expected is not None and len(seen) == 10
    for each, frame in zip(seen, expected, strict=True):
        assert each.time == each.arrived
        np.testing.assert_allclose(each.frame.mean(axis=(0, 1)), frame.mean(axis=(0, 1)), atol=3)
    assert np.all(np.diff([each.time for each in seen]) > 0)


def test_of_a_camera_the_pictures_nearest_to_the_steps_come(film: Path) -> None:
    seen = []
    with pytest.raises(MediaError):
        for each in Devices(str(film), None).pictures(0.5, pace(0.1)):  # each look at the clock takes 0.1 s
            seen.append(each.time)
    assert 3 <= len(seen) < 10
    np.testing.assert_allclose(seen, 0.5 * np.arange(len(seen)), atol=0.15)


def test_a_camera_is_given_back(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Opened] = []
    capture = cv2.VideoCapture

    class Opened:
        def __init__(self, device: object) -> None:
            self.inner, self.released, self.wanted = capture(device), False, dict[int, float]()
            self.isOpened, self.read = self.inner.isOpened, self.inner.read
            opened.append(self)

        def set(self, name: int, value: float) -> None:
            self.wanted[name] = value

        def release(self) -> None:
            self.released = True
            self.inner.release()

    monkeypatch.setattr(cv2, "VideoCapture", Opened)
    given = pace()
    items = Devices(str(film), None).pictures(0, given)
    next(items)
    given.stop.set()
    assert list(items) == [] and opened[0].released
    assert opened[0].wanted[cv2.CAP_PROP_FRAME_WIDTH] == 640
    items = Devices(str(film), None).pictures(0, pace())
    assert len(list(islice(items, 3))) == 3
    items.close()  # type: ignore[attr-defined]
    assert opened[1].released


def test_cameras_that_give_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match=r"^camera .*none\.mp4 cannot be opened: expected one that is plug"):
        list(Devices(str(tmp_path / "none.mp4"), None).pictures(0, pace()))
    dead = SimpleNamespace(
        isOpened=lambda: True, read=lambda: (False, None), set=lambda *_: None, release=lambda: None
    )
    monkeypatch.setattr(cv2, "VideoCapture", lambda device: dead)
    with pytest.raises(MediaError, match="gives no pictures: expected it to stay"):
        list(Devices("a camera", None).pictures(0, pace()))


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_camera_has_a_number(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def none(device: object) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(isOpened=lambda: False, release=lambda: None)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(devices, "Path", lambda name: tmp_path / name.lstrip("/"))
    monkeypatch.setattr(cv2, "VideoCapture", none)
    if platform == "linux":
        with pytest.raises(MediaError, match=r"^camera 2 is not there: expected one; plug it in$"):
            Devices("2", None)
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/video2").touch()
        with pytest.raises(MediaError, match=r"^camera 0 is not there: expected .*/dev/video2; name it$"):
            Devices("0", None)
        with monkeypatch.context() as other:
            other.setattr(os, "access", lambda *_: False)
            with pytest.raises(MediaError, match=r"^camera 2 may not be read: expected permission"):
                Devices("2", None)
    with pytest.raises(MediaError, match=r"^camera 2 cannot be opened"):
        list(Devices("2", None).pictures(0, pace()))
    assert asked == [2]


# --- a microphone ---


class PortAudioError(Exception):
    pass


class SoundDevice(SimpleNamespace):
    """A microphone that gives some blocks as soon as it is started."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__(blocks=[], error=None, channels=1, active=False, closed=False, asked=None)

    def query_devices(self, device: int | str | None, kind: str) -> dict[str, Any]:
        assert kind == "input"
        if isinstance(self.error, ValueError):
            raise self.error
        return {"default_samplerate": 8000.0, "max_input_channels": self.channels}

    def InputStream(  # noqa: N802
        self, *, callback: Callable[..., None], finished_callback: Callable[[], None], **asked: Any
    ) -> "SoundDevice":
        self.asked, self.callback, self.finished = asked, callback, finished_callback
        return self

    def start(self) -> None:
        if self.error is not None:
            raise self.error
        buffer = np.empty_like(self.blocks[0]) if self.blocks else None
        for block in self.blocks:
            buffer[:] = block  # PortAudio's own, which it uses again
            self.callback(buffer, len(block), None, None)
        if not self.active:
            self.finished()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> SoundDevice:
    fake = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: object())
    return fake


def test_a_microphone_gives_sound_that_follows_on(sounddevice: SoundDevice) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    sounddevice.blocks = list(wave.reshape(-1, 400, 1))
    source, given, pieces = Devices(None), pace(), []
    assert source.name == "microphone default" and (source.has_video, source.has_audio) == (False, True)
    given.clock.time += 1.0  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match=r"^microphone default is gone: expected it to stay") as error:
        for each in source.sound(given):
            pieces.append(each)
    assert error.value.reason == "missing" and sounddevice.closed
    assert pieces[0].first == 8000 - len(pieces[0].samples)  # it is over now, so it began before
    assert [each.first for each in pieces[1:]] == [each.first + len(each.samples) for each in pieces[:-1]]
    np.testing.assert_array_equal(np.concatenate([each.samples for each in pieces]), wave)
    assert sounddevice.asked == {"samplerate": 8000, "device": None, "channels": 1, "dtype": "float32"}


def test_channels_that_cancel_are_noticed_live(sounddevice: SoundDevice) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    sounddevice.channels, sounddevice.blocks = 4, list(np.stack([wave, -wave], axis=1).reshape(-1, 400, 2))
    pieces = []
    with pytest.raises(MediaError, match="is gone"):
        for each in Devices(None, "3").sound(pace()):
            pieces.append(each.samples)
    np.testing.assert_array_equal(np.concatenate(pieces), wave)
    assert sounddevice.asked["channels"] == 2 and sounddevice.asked["device"] == 3


def test_a_microphone_that_gives_nothing(sounddevice: SoundDevice) -> None:
    sounddevice.active, given = True, pace()
    with pytest.raises(MediaError, match=r"^microphone default has given no sound for 10 s: expected some"):
        list(Devices(None).sound(given))
    assert given.second() == pytest.approx(SILENT, abs=0.1) and sounddevice.closed


@pytest.mark.parametrize("error", [ValueError("No input device\nmatching 'x'"), PortAudioError("device -1")])
def test_a_microphone_that_cannot_be_opened(sounddevice: SoundDevice, error: Exception) -> None:
    sounddevice.error = error
    said = r"^microphone x cannot be opened \((No input device matching 'x'|device -1)\): expected one"
    with pytest.raises(MediaError, match=said):
        list(Devices(None, "x").sound(pace()))


def test_without_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"^sounddevice is not installed: run pip install 'cfnsr\[live\]'"):
        Devices(None)
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: object())
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MediaError, match=r"\(PortAudio library not found\): expected PortAudio; install it"):
        Devices(None)


def listen(monkeypatch: pytest.MonkeyPatch, *events: float | None) -> list[LiveSound]:
    """What becomes of frames of 0.1 s that are read at some seconds; -second where all had been read."""
    source, given = Devices(None), pace()

    def frames(asked: Pace) -> Iterator[av.AudioFrame | None]:
        for event in events:
            asked.until(abs(event or 0))
            frame = av.AudioFrame.from_ndarray(np.full((1, 100), 0.5, np.float32), "flt", "mono")
            frame.sample_rate, frame.time_base = 1000, Fraction(1, 1000)
            yield None if event is None or event < 0 else frame

    monkeypatch.setattr(source._microphone, "frames", frames)
    return list(source.sound(given))


@pytest.mark.usefixtures("sounddevice")
def test_silence_stands_for_sound_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OFF == 1.0
    pieces = listen(monkeypatch, 2.1, -2.2, 2.3, -3.1, -3.3, 3.4)
    np.testing.assert_allclose([each.first for each in pieces], [2000, 2100, 2200, 3300], atol=1)
    assert [each.samples.any() for each in pieces] == [True, True, False, True]
    assert [len(each.samples) for each in pieces] == [100, 100, pytest.approx(1100, abs=1), 100]
    assert listen(monkeypatch, None, -3.0, -9.0) == []  # before the first there is nothing to lose


@pytest.mark.usefixtures("sounddevice")
def test_sound_that_waited_to_be_read_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [3.0 + 0.001 * number for number in range(29)]
    pieces = listen(monkeypatch, 0.1, *late, -3.1, 3.2)
    np.testing.assert_allclose([each.first for each in pieces], 100 * np.arange(31), atol=1)
    assert all(each.samples.all() for each in pieces)


@pytest.mark.usefixtures("sounddevice")
def test_sound_that_runs_ahead_of_the_clock_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = listen(monkeypatch, 0.1, *[0.2] * 30, 4.0)
    assert pieces[-2].end <= 0.2 + OFF + 0.1 + 1e-9 and pieces[-1].first == round(1000 * pieces[-2].end)
