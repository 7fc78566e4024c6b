"""A camera, by OpenCV, and a microphone, by PortAudio (sounddevice), as a source of pictures and sound."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any, Generic, TypeVar

import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from cfnsr.errors import require
from cfnsr.media.capture import LivePicture, LiveSound, Pace
from cfnsr.media.downmix import Mono
from cfnsr.media.errors import MediaError

T = TypeVar("T")

OFF = 1.0  # seconds that a microphone's samples may be off the clock
SILENT = 10.0  # seconds without anything after which a microphone is given up; OpenCV has its own for cameras
POLL = 0.005  # seconds between two looks at a microphone that has nothing
WANTED = {"FRAME_WIDTH": 640, "FRAME_HEIGHT": 480, "FPS": 30, "BUFFERSIZE": 2}  # a camera takes what it can


class Devices:
    """A camera and a microphone. They are opened when their pictures and their sound are asked for.

    Args:
        camera: its number, or its name where OpenCV knows one, as `/dev/video0` on Linux; None for none.
        microphone: its number or a part of its name, as `python -m sounddevice` lists them; "default" for the
            system's own; None for none.

    Raises:
        MediaError: there is no such camera ("missing").
        InputError: there is no sounddevice for the microphone.
    """

    dropped = 0  # a camera that nobody reads drops its pictures by itself and does not report it
    begun = False

    def __init__(self, camera: str | None = "0", microphone: str | None = "default") -> None:
        self._camera = None if camera is None else Camera(camera)
        self._microphone = None if microphone is None else Microphone(microphone)
        self.has_video, self.has_audio = self._camera is not None, self._microphone is not None
        self.name = " and ".join(each.title for each in (self._camera, self._microphone) if each is not None)

    def pictures(self, step: float, pace: Pace) -> Iterator[LivePicture]:
        """See `Source`; the second of a picture is that of its arrival."""
        wanted: Nearest[NDArray[np.uint8]] = Nearest(step)
        for frame in self._camera.frames(pace) if self._camera else ():
            for arrived, chosen in wanted.add(pace.second(), frame):
                yield LivePicture(arrived, arrived, chosen)

    def sound(self, pace: Pace) -> Iterator[LiveSound]:
        """See `Source`. Samples are counted, for their arrival is uneven; silence stands for those lost."""
        position, rate, mono = 0, 0, Mono()
        for frame in self._microphone.frames(pace) if self._microphone else ():
            arrived = pace.second()
            if frame is None:  # all has been read, so what is missing will not come any more
                lost = round(arrived * rate) - position
                if lost > OFF * rate > 0:
                    yield LiveSound(position, arrived, rate, np.zeros(lost, np.float32))
                    position += lost
                continue
            samples, begin = mono(frame), round(arrived * frame.sample_rate) - frame.samples
            if not rate:
                position, rate = max(0, begin), frame.sample_rate
            if position - begin <= OFF * rate:  # else the samples run ahead of the clock
                yield LiveSound(position, arrived, rate, samples)
                position += len(samples)


class Nearest(Generic[T]):
    """Of things that come one by one, those nearest to the multiples of a step; ties take the first.

    Args:
        step: in seconds; 0 takes all.

    >>> wanted = Nearest(1.0)
    >>> [wanted.add(time, name) for time, name in ((0.0, "a"), (0.9, "b"), (1.3, "c"), (3.5, "d"))]
    [[(0.0, 'a')], [], [(0.9, 'b')], [(1.3, 'c'), (3.5, 'd')]]
    """

    def __init__(self, step: float) -> None:
        self.step = step
        self._due = 0  # the multiple that nothing was chosen for
        self._last = -math.inf  # when the thing before came
        self._waiting: list[tuple[float, T]] = []  # that thing, if it was not chosen yet

    def add(self, time: float, thing: T) -> list[tuple[float, T]]:
        """Choose, now that this has come: nothing, it, what came before it, or both."""
        this = [(time, thing)]
        if not self.step:
            return this
        stop = max(self._due, int(time // self.step) + 1)
        due = np.arange(self._due, stop) * self.step
        before_nearer = due - self._last <= time - due
        chosen = self._waiting if before_nearer.any() else []
        waiting, chosen = (this, chosen) if before_nearer.all() else ([], chosen + this)
        self._due, self._last, self._waiting = stop, time, waiting
        return chosen


class _Device:
    title: str  #: as messages call it

    def missing(self, what: str, expected: str) -> MediaError:
        return MediaError("missing", f"{self.title} {what}: expected {expected}")


class Camera(_Device):
    """A camera of this machine; see `Devices`."""

    def __init__(self, given: str) -> None:
        self.title = f"camera {given}"
        name = str(Path(given).resolve()) if given.startswith("/dev/") else given  # follows by-id links
        number = re.fullmatch(r"(?:/dev/video)?(\d+)", name)
        self._device: int | str = int(number[1]) if number else given
        if number and sys.platform == "linux":
            path = Path(f"/dev/video{number[1]}")
            if not path.exists():
                others = " or ".join(sorted(map(str, path.parent.glob("video[0-9]*"))))
                raise self.missing("is not there", f"{others}; name it" if others else "one; plug it in")
            if not os.access(path, os.R_OK | os.W_OK):
                raise self.missing("may not be read", "permission; ask for the group video")

    def frames(self, pace: Pace) -> Iterator[NDArray[np.uint8]]:
        """Yield pictures (H, W, 3) RGB as they come, until nothing more is wanted.

        OpenCV waits up to 10 s for a picture, and says of a camera that gives none no more than that.

        Raises:
            MediaError: it cannot be opened, gives nothing, or is gone ("missing").
        """
        import cv2

        quiet = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            camera = cv2.VideoCapture(self._device)
        finally:
            cv2.utils.logging.setLogLevel(quiet)
        what = "gives no pictures"
        try:
            if not camera.isOpened():
                usable = "one that is plugged in, free, and allowed to this terminal by the system's settings"
                raise self.missing("cannot be opened", f"{usable}; close other programs, or name another")
            for name, value in WANTED.items():
                camera.set(getattr(cv2, f"CAP_PROP_{name}"), value)
            while not pace.stop.is_set():
                there, frame = camera.read()
                if not there:
                    raise self.missing(what, "it to stay; plug it in, switch it on, and start again")
                what = "is gone"
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
        finally:
            camera.release()


class Microphone(_Device):
    """A microphone of this machine; see `Devices`."""

    def __init__(self, given: str) -> None:
        self.title = f"microphone {given}"
        self._device = None if given == "default" else int(given) if given.isdecimal() else given
        require("live", "sounddevice")
        try:
            import sounddevice
        except OSError as error:
            advice = "PortAudio; install it, on Debian and Ubuntu by apt install libportaudio2"
            raise self.missing(f"cannot be opened ({error})", advice) from None
        self._portaudio: Any = sounddevice

    def frames(self, pace: Pace) -> Iterator[AudioFrame | None]:
        """Yield its sound as it comes, of one or two channels; None whenever all has been read.

        Raises:
            MediaError: it cannot be opened, gives nothing, or is gone ("missing").
        """
        blocks: SimpleQueue[NDArray[np.float32]] = SimpleQueue()
        gone = Event()
        try:
            found = self._portaudio.query_devices(self._device, "input")
            rate, channels = round(found["default_samplerate"]), min(2, found["max_input_channels"])
            form = {"samplerate": rate, "channels": channels, "dtype": "float32", "device": self._device}
            stream = self._portaudio.InputStream(
                callback=lambda block, *_: blocks.put(block.copy()), finished_callback=gone.set, **form
            )
            stream.start()
        except (ValueError, self._portaudio.PortAudioError) as error:
            reason = " ".join(str(error).split())
            advice = "one that `python -m sounddevice` lists; name another"
            raise self.missing(f"cannot be opened ({reason})", advice) from None
        try:
            last = pace.second()
            while not pace.stop.is_set():
                if blocks.empty():
                    if gone.is_set():
                        raise self.missing("is gone", "it to stay; plug it in and start again")
                    if pace.second() - last > SILENT:
                        raise self.missing(f"has given no sound for {SILENT:g} s", "some; is it switched on?")
                    yield None
                    pace.until(pace.second() + POLL)
                    continue
                last = pace.second()
                block = blocks.get().reshape(1, -1)
                frame = AudioFrame.from_ndarray(block, "flt", "mono" if channels == 1 else "stereo")
                frame.sample_rate = rate
                yield frame
        finally:
            stream.close()
