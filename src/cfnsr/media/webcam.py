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

WANTED = {"FRAME_WIDTH": 640, "FRAME_HEIGHT": 480, "FPS": 30, "BUFFERSIZE": 2}  # a camera takes what it can


class Webcam:
    """A Video4Linux camera.

    Args:
        name: its file, such as `/dev/video0`.
    """

    backend = "CAP_V4L2"

    def __init__(self, name: str) -> None:
        self.name = name
        self.title = f"camera {name}"

    def frames(self, pace: Pace) -> Iterator[NDArray[np.uint8]]:
        """What it sees, (H, W, 3) BGR, as it comes, until nothing more is wanted.

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

    @staticmethod
    def picture(frame: NDArray[np.uint8], like: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """What `frames` gave as RGB; of the size of `like` (1, H, W, 3), where that is given."""
        import cv2

        if like is not None and like.shape[1:] != frame.shape:
            frame = cv2.resize(frame, (like.shape[2], like.shape[1]), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
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
