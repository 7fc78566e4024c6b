"""A camera and a microphone as a source of pictures and sound, through FFmpeg's devices or OpenCV's."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from cfnsr.media.capture import Heard, Pace, Seen
from cfnsr.media.container import find_streams
from cfnsr.media.downmix import Mono
from cfnsr.media.errors import MediaError
from cfnsr.media.shown import Shown
from cfnsr.media.webcam import Webcam

Kind = Literal["camera", "microphone"]
T = TypeVar("T")

OFF = 1.0  # seconds that a microphone's samples may be off the clock
SILENT = 10.0  # seconds without anything after which a device is given up
OPENING = 10.0  # seconds that a device may take to open
POLL = 0.005  # seconds between two looks at a device that has nothing

# FFmpeg's devices of each system, the first that it was built with; a name may begin with another of them.
CAMERAS = {"linux": ("v4l2",), "darwin": ("avfoundation",), "win32": ("dshow",)}
MICROPHONES = {"linux": ("pulse", "alsa"), "darwin": ("avfoundation",), "win32": ("dshow",)}
FORMATS = ("v4l2", "pulse", "alsa", "avfoundation", "dshow", "lavfi")
# What a device is asked for, one after the other: it refuses what it cannot do.
OPTIONS: dict[Kind, tuple[dict[str, str], ...]] = {
    "camera": ({"framerate": "30", "video_size": "640x480"}, {"framerate": "30"}, {}),
    "microphone": ({}, {"ch_layout": "mono"}),
}
DSHOW_SOUND = {"audio_buffer_size": "50"}  # milliseconds; its own choice is half a second
NONBLOCK = {"fflags": "+4"}  # AVFMT_FLAG_NONBLOCK: reading returns at once where nothing has come
STAY = "it to stay; plug it in and start again"
GIVES: dict[Kind, str] = {"camera": "pictures", "microphone": "sound"}
ALLOW = {
    "linux": "ask to be put into the groups video and audio",
    "darwin": "allow it to the terminal under System Settings, Privacy & Security",
    "win32": "allow it to desktop apps under Settings, Privacy & security",
}
ALSA_FILES = Path("/usr/share/alsa")  # the ALSA within PyAV looks for them elsewhere


class Devices:
    """A camera and a microphone. They are opened when their pictures and their sound are asked for.

    Args:
        camera: "default", or its name: `/dev/video0` on Linux, a number or a name elsewhere; None for none.
            A name may begin with the format of FFmpeg's device, as in `v4l2:/dev/video2`.
        microphone: the same; on Linux a name that ALSA knows, as `plughw:1`.

    Raises:
        MediaError: there is none, or PyAV was built without such devices ("missing").
    """

    dropped = 0  # a camera that nobody reads drops its pictures by itself and does not tell

    def __init__(self, camera: str | None = "default", microphone: str | None = "default") -> None:
        self._camera = None if camera is None else _camera(camera)
        self._microphone = None if microphone is None else _Device("microphone", microphone)
        self.pictured, self.sounding = self._camera is not None, self._microphone is not None
        self.begun = False
        self.name = " and ".join(each.title for each in (self._camera, self._microphone) if each is not None)

    def pictures(self, step: float, pace: Pace) -> Iterator[Seen]:
        """See `Source`; the second of a picture is that of its arrival."""
        wanted: Nearest[Any] = Nearest(step)
        camera = cast("_Device | Webcam", self._camera)
        for frame in camera.frames(pace):
            if frame is None:
                continue
            for arrived, chosen in wanted.add(pace.second(), frame):
                yield Seen(arrived, arrived, camera.picture(chosen))

    def sound(self, pace: Pace) -> Iterator[Heard]:
        """See `Source`. Samples are counted, for their arrival is uneven; silence stands for those lost."""
        position, rate, mono = 0, 0, Mono()
        for each in cast("_Device", self._microphone).frames(pace):
            arrived = pace.second()
            if each is None:  # all has been read, so what is missing will not come any more
                lost = round(arrived * rate) - position
                if lost > OFF * rate > 0:
                    yield Heard(position, arrived, rate, np.zeros(lost, np.float32))
                    position += lost
                continue
            frame = cast("AudioFrame", each)
            samples, begin = mono(frame), round(arrived * frame.sample_rate) - frame.samples
            if not rate:
                position, rate = max(0, begin), frame.sample_rate
            if position - begin <= OFF * rate:  # else the samples run ahead of the clock
                yield Heard(position, arrived, rate, samples)
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
        self._waiting: tuple[float, T] | None = None  # that thing, if it was not chosen yet

    def add(self, time: float, thing: T) -> list[tuple[float, T]]:
        """What is chosen now that this has come: nothing, it, what came before it, or both."""
        if not self.step:
            return [(time, thing)]
        stop = max(self._due, int(time // self.step) + 1)
        due = np.arange(self._due, stop) * self.step
        before = due - self._last <= time - due
        chosen = [self._waiting] if self._waiting is not None and before.any() else []
        waits = bool(before.all())
        if not waits:
            chosen.append((time, thing))
        self._due, self._last, self._waiting = stop, time, (time, thing) if waits else None
        return chosen


class _Device:
    """A camera or a microphone, read without ever waiting inside FFmpeg, where nothing could end it."""

    def __init__(self, kind: Kind, given: str) -> None:
        self.kind = kind
        self.format, name = _named(kind, given)
        if self.format not in av.formats_available:
            raise MediaError(
                "missing", f"this PyAV was built without {self.format}: expected it for the {kind} {given}"
            )
        self.name = _default(kind, self.format) if name == "default" else name
        self.title = f"{kind} {self.name}"
        self._shown = Shown(None)

    def frames(self, pace: Pace) -> Iterator[VideoFrame | AudioFrame | None]:
        """What it sees or hears, as it comes, until nothing more is wanted; None whenever all has been read.

        Raises:
            MediaError: it cannot be opened, gives nothing, or is gone ("missing").
        """
        with self._open() as container:
            streams = dict(zip(("camera", "microphone"), find_streams(container), strict=True))
            stream = streams[self.kind]
            if stream is None:
                raise self._error(f"gives no {GIVES[self.kind]}", "some; name another one")
            stream.codec_context.thread_count = 1  # several would each hold a picture back
            last = pace.second()
            while not pace.stop.is_set():
                try:
                    packet = next(container.demux(stream), None)
                except av.BlockingIOError:
                    if pace.second() - last > SILENT:
                        raise self._error(
                            f"has given no {GIVES[self.kind]} for {SILENT:g} s", "some; is it switched on?"
                        ) from None
                    yield None
                    pace.until(pace.second() + POLL)
                    continue
                except av.FFmpegError as error:
                    raise self._error(f"is gone ({error.strerror})", STAY) from None
                if packet is None or not packet.size:
                    raise self._error("is gone (it ended)", STAY)
                last = pace.second()
                with suppress(av.FFmpegError):  # some begin with half a picture
                    yield from cast("list[VideoFrame | AudioFrame]", packet.decode())

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A camera's frame (H, W, 3) uint8 RGB; all are of the first one's size."""
        return np.ascontiguousarray(self._shown(frame))

    def _open(self) -> InputContainer:
        name, always = self.name, dict(NONBLOCK)
        if self.format == "avfoundation":
            name = f"{name}:none" if self.kind == "camera" else f"none:{name}"
        elif self.format == "dshow":
            name = f"{'video' if self.kind == 'camera' else 'audio'}={name}"
            always |= DSHOW_SOUND if self.kind == "microphone" else {}
        elif self.format == "alsa" and ALSA_FILES.is_dir():
            os.environ.setdefault("ALSA_CONFIG_DIR", str(ALSA_FILES))
        refused: Exception | None = None
        for options in OPTIONS[self.kind]:
            try:
                return av.open(name, format=self.format, options=options | always, timeout=(OPENING, None))
            except (av.FFmpegError, OSError) as error:
                refused = error
        raise self._refusal(refused) from None

    def _refusal(self, error: Exception | None) -> MediaError:
        number = getattr(error, "errno", None)
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            found = _devices(self.kind, self.format)
            return self._error(
                "is not there", f"{' or '.join(found)}; name it" if found else "one; plug it in"
            )
        if number == errno.EBUSY:
            return self._error("is in use", "a free one; close the program that has it")
        what = "is forbidden to you"
        if number not in (errno.EACCES, errno.EPERM):
            what = f"cannot be opened ({getattr(error, 'strerror', None) or type(error).__name__})"
        return self._error(what, f"one that you may use; {ALLOW.get(sys.platform, ALLOW['linux'])}")

    def _error(self, what: str, expected: str) -> MediaError:
        return MediaError("missing", f"{self.title} {what}: expected {expected}")


def _camera(given: str) -> _Device | Webcam:
    """A camera by the device that can open it."""
    format, name = _named("camera", given)
    if format != "v4l2" or format in av.formats_available:
        return _Device("camera", given)
    return Webcam(_default("camera", format) if name == "default" else name)


def _named(kind: Kind, given: str) -> tuple[str, str]:
    """FFmpeg's device and the name in it that a user's name tells."""
    head, colon, rest = given.partition(":")
    return (head, rest) if colon and head in FORMATS else (_format(kind), given)


def _format(kind: Kind) -> str:
    """FFmpeg's devices of this system."""
    table = CAMERAS if kind == "camera" else MICROPHONES
    named = table.get(sys.platform, table["linux"])
    return next((each for each in named if each in av.formats_available), named[-1])


def _devices(kind: Kind, format: str) -> list[str]:
    """Names of the devices that are there, as far as they can be listed."""
    if format == "v4l2":
        found = Path("/dev").glob("video[0-9]*")
        return [str(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))]
    listing = getattr(av, "enumerate_input_devices", None)  # of newer PyAV
    with suppress(av.FFmpegError, ValueError):
        wanted = "video" if kind == "camera" else "audio"
        return [each.name for each in listing(format) if wanted in each.media_types] if listing else []
    return []


def _default(kind: Kind, format: str) -> str:
    """The device to take where none is named."""
    if format == "alsa":
        if not Path("/dev/snd").is_dir() and "ALSA_CONFIG_PATH" not in os.environ:
            raise MediaError(
                "missing",
                "there is no microphone: expected a sound card (/dev/snd); plug one in, or name one",
            )
        return "default"
    if format in ("avfoundation", "pulse"):
        return "default"
    found = _devices(kind, format)
    if not found:
        expected = "/dev/video0" if format == "v4l2" else f"one that {format} knows"
        raise MediaError("missing", f"there is no {kind}: expected {expected}; plug one in, or name another")
    return found[0]
