"""A camera through OpenCV, for Linux: FFmpeg as PyAV brings it there has no Video4Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.capture import Pace
from cfnsr.media.errors import MediaError

WANTED = {"FRAME_WIDTH": 640, "FRAME_HEIGHT": 480, "FPS": 30, "BUFFERSIZE": 2}  # as far as the camera can


class Webcam:
    """A Video4Linux camera.

    Args:
        name: its file, such as `/dev/video0`.
    """

    backend = "CAP_V4L2"

    def __init__(self, name: str) -> None:
        self.name = name
        self.title = f"camera {name}"
        self._size: tuple[int, int] | None = None  # width and height of the first picture

    def frames(self, pace: Pace) -> Iterator[NDArray[np.uint8]]:
        """Yield its pictures, (H, W, 3) BGR, as they come, until nothing more is wanted.

        OpenCV waits up to 10 s for a picture, and says of a camera that gives none no more than that.

        Raises:
            MediaError: it cannot be opened, gives nothing, or is gone ("missing").
        """
        camera = self._open()
        seen = False
        try:
            while not pace.stop.is_set():
                there, frame = camera.read()
                if not there:
                    what = "is gone" if seen else "gives no pictures"
                    raise self._error(what, "it to stay; plug it in, switch it on, and start again")
                seen = True
                yield frame
        finally:
            camera.release()

    def picture(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert a frame of `frames` to (H, W, 3) uint8 RGB; all are of the first one's size."""
        import cv2

        size = frame.shape[1], frame.shape[0]
        self._size = self._size or size
        if size != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def _open(self) -> Any:
        import cv2

        path = Path(self.name)
        if not path.exists():
            others = sorted(map(str, Path("/dev").glob("video[0-9]*")))
            raise self._error(
                "is not there", f"{' or '.join(others)}; name it" if others else "one; plug it in"
            )
        if not os.access(path, os.R_OK):
            raise self._error(
                "is forbidden to you", "one that you may use; ask to be put into the group video"
            )
        quiet = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            camera = cv2.VideoCapture(self.name, getattr(cv2, self.backend))
        finally:
            cv2.utils.logging.setLogLevel(quiet)
        if not camera.isOpened():
            raise self._error(
                "cannot be opened", "a camera that no other program has; close that, or name another"
            )
        for name, value in WANTED.items():
            camera.set(getattr(cv2, f"CAP_PROP_{name}"), value)
        return camera

    def _error(self, what: str, expected: str) -> MediaError:
        return MediaError("missing", f"{self.title} {what}: expected {expected}")
