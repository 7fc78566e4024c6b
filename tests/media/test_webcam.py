"""A camera through OpenCV: a film stands in for one, for OpenCV reads both alike."""

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Event

import av
import cv2
import numpy as np
import pytest

from cfnsr.media import devices
from cfnsr.media.capture import Pace, SystemClock
from cfnsr.media.decode import decode
from cfnsr.media.devices import Devices
from cfnsr.media.errors import MediaError
from cfnsr.media.webcam import Webcam


@pytest.fixture
def film(media: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten pictures of one colour each, opened as a camera of a Linux whose PyAV has no Video4Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "formats_available", av.formats_available - {"v4l2"})
    monkeypatch.setattr(Webcam, "backend", "CAP_ANY")
    colours = np.random.default_rng(0).integers(30, 220, (10, 1, 1, 3)).astype(np.uint8)
    return media("film.mp4", pictures=np.broadcast_to(colours, (10, 48, 64, 3)), audio=None)


def test_it_sees_what_is_there_in_rgb_until_it_ends(film: Path) -> None:
    source, seen = Devices(str(film), None), []
    assert source.name == f"camera {film}" and source.pictured and not source.sounding
    with pytest.raises(MediaError, match=rf"^camera {film} is gone: expected it to stay"):
        for each in source.pictures(0, Pace(SystemClock(), Event())):
            seen.append(each)
    expected = decode(film, frames=10, audio=False).frames
    assert expected is not None and len(seen) == 10
    for each, frame in zip(seen, expected, strict=True):
        assert each.time == each.arrived and each.frame.flags.c_contiguous
        np.testing.assert_allclose(each.frame.mean(axis=(0, 1)), frame.mean(axis=(0, 1)), atol=3)
    assert [each.time for each in seen] == sorted(each.time for each in seen)


def test_it_is_given_back_when_nothing_more_is_wanted(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Camera] = []
    capture = cv2.VideoCapture

    class Camera:
        def __init__(self, *given: object) -> None:
            self.inner, self.released, self.wanted = capture(*given), False, dict[int, float]()
            self.isOpened, self.read = self.inner.isOpened, self.inner.read
            opened.append(self)

        def set(self, name: int, value: float) -> None:
            self.wanted[name] = value

        def release(self) -> None:
            self.released = True
            self.inner.release()

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    stop = Event()
    items = Devices(str(film), None).pictures(0, Pace(SystemClock(), stop))
    next(items)
    stop.set()
    assert list(items) == [] and opened[0].released
    assert opened[0].wanted[cv2.CAP_PROP_FRAME_WIDTH] == 640
    items = Devices(str(film), None).pictures(0, Pace(SystemClock(), Event()))
    assert len(list(islice(items, 3))) == 3
    items.close()  # type: ignore[attr-defined]
    assert opened[1].released


def test_a_camera_that_changes_its_size_keeps_that_of_its_first_picture() -> None:
    camera = Webcam("a camera")
    assert camera.picture(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64, 3)
    found = camera.picture(np.full((96, 128, 3), (10, 20, 30), np.uint8))
    assert found.shape == (48, 64, 3) and (found == (30, 20, 10)).all()


def test_what_cannot_be_opened(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(SystemClock(), Event())
    with pytest.raises(MediaError, match=r"gone\.mp4 is not there: expected ") as error:
        list(Webcam(str(tmp_path / "gone.mp4")).frames(pace))
    assert error.value.reason == "missing"
    (tmp_path / "text").write_text("no camera")
    with pytest.raises(
        MediaError, match="text cannot be opened: expected a camera that no other program has"
    ):
        list(Webcam(str(tmp_path / "text")).frames(pace))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(MediaError, match="is forbidden to you: expected one that you may use"):
        list(Webcam(str(film)).frames(pace))


def test_one_that_gives_nothing(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        def __init__(self, *_: object) -> None:
            pass

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def read(self) -> tuple[bool, None]:
            return False, None

        def set(self, *_: object) -> None:
            pass

        release = set

    monkeypatch.setattr(cv2, "VideoCapture", Dead)
    with pytest.raises(MediaError, match="gives no pictures: expected it to stay"):
        list(Webcam(str(film)).frames(Pace(SystemClock(), Event())))


def test_video4linux_of_pyav_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for formats, kind in (({"v4l2"}, devices._Device), (set(), Webcam)):
        monkeypatch.setattr(av, "formats_available", formats)
        for name in ("/dev/video3", "v4l2:/dev/video3"):
            source = Devices(name, None)
            assert type(source._camera) is kind and source.name == "camera /dev/video3"
