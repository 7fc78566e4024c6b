"""Pictures as a player displays them: their shape, turned upright, and all of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

WIDEST = 4.0  # times as wide as high, or as high as wide, that a pixel may be; more is a slip of the file
SLIVER = 0.01  # of a side, below which no bar is left


def display_scale(pixel: float) -> tuple[float, float]:
    """Factors by which pictures become wider and higher, so that their pixels are square.

    >>> display_scale(64 / 45), display_scale(0.5)
    ((1.4222222222222223, 1.0), (1.0, 2.0))
    """
    return max(1.0, pixel), max(1.0, 1 / pixel)


class PixelAspect:
    """Aspect ratio of a stream's pixels, width over height: by the container, else by the stream itself.

    Args:
        stream: just opened, nothing of it decoded.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        declared, coded = stream.sample_aspect_ratio, self._codec.sample_aspect_ratio
        # PyAV has the container's, or where that has none the stream's, which may change on the way.
        self._container = declared if declared and declared != coded else None

    def ratio(self) -> float:
        """Return the ratio of the picture that was decoded last."""
        ratio = float(self._container or self._codec.sample_aspect_ratio or 1)
        return ratio if 1 / WIDEST <= ratio <= WIDEST else 1.0


def declared_size(stream: VideoStream) -> tuple[int, int]:
    """Return width and height that a stream just opened declares, displayed, before they are turned."""
    wider, higher = display_scale(PixelAspect(stream).ratio())
    return round(stream.codec_context.width * wider), round(stream.codec_context.height * higher)


class Display:
    """Converts the pictures of one stream: turned or mirrored, of square pixels, and of one size.

    That size is the first picture's. One of another shape keeps its shape and stands in the middle; beside it
    its outermost pixels are repeated, as beside a face that is cut out at the border.

    Args:
        stream: just opened, nothing of it decoded.
        size: height and width of the first picture of all, displayed, if it will not be the first one here.
        shrunk: factor by which they are made smaller.
        bars: leave black beside a picture of another shape, as a player does.
    """

    def __init__(
        self,
        stream: VideoStream,
        *,
        size: tuple[int, int] | None = None,
        shrunk: float = 1.0,
        bars: bool = False,
    ) -> None:
        self._pixels = PixelAspect(stream)
        self._shrunk, self._bars = shrunk, bars
        self._size: NDArray[np.int64] | None = None if size is None else self._shrink(*size[::-1])
        self._form: tuple[int, int, float] | None = None  # of the picture before
        self._angle: int | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert a picture to (H, W, 3) uint8 RGB; call it as soon as the picture is decoded."""
        form, angle = (frame.width, frame.height, self._pixels.ratio()), getattr(frame, "rotation", 0)
        if self._form != form or self._angle != angle:
            # Read anew only where the angle changes: PyAV 18 keeps a picture whose side data was read, with
            # the threads that converted it, until Python's next search for circles.
            if self._angle != angle:
                self._turned, self._rows_reversed, self._columns_reversed = _orientation(frame)
            self._form, self._angle = form, angle
            self._fit(*form)
        picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
        if self._inner != (frame.width, frame.height):
            import cv2  # FFmpeg's scaler makes what it scales two levels of 255 too dark

            smaller = self._inner[0] <= frame.width and self._inner[1] <= frame.height
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            picture = cv2.resize(picture, self._inner, interpolation=how)  # type: ignore[assignment]
        if self._turned:
            picture = picture.swapaxes(0, 1)
        picture = picture[:: -1 if self._rows_reversed else 1, :: -1 if self._columns_reversed else 1]
        x, y = self._margins
        if not x and not y:
            return picture
        around = (y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)
        return np.pad(picture, around, mode="constant" if self._bars else "edge")

    def _fit(self, width: int, height: int, pixel: float) -> None:
        """Find the size that a picture of a coded size is converted to."""
        wider, higher = display_scale(pixel)
        order = slice(None, None, -1 if self._turned else None)
        own = np.array([width * wider, height * higher])[order]
        if self._size is None:
            self._size = self._shrink(*np.rint(own).tolist())
        size = self._size
        inner = own * (size / own).min()
        inner = np.where(size - inner < np.maximum(1, SLIVER * size), size, np.maximum(1, np.rint(inner)))
        self._margins: list[int] = (size - inner).astype(int).tolist()
        self._inner: tuple[int, int] = tuple(inner.astype(int)[order].tolist())

    def _shrink(self, width: float, height: float) -> NDArray[np.int64]:
        """Return width and height of all pictures."""
        return np.maximum(1, np.rint(np.array([width, height]) / self._shrunk)).astype(np.int64)


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Read how a picture is to be turned, by the display matrix that cameras write.

    The matrix sends (x, y) to (a x + c y, b x + d y); cameras use quarter turns and mirrors only.

    Returns:
        Whether its rows become its columns, and whether then the order of its rows, and that of its columns,
        is reversed.
    """
    sides: Any = frame.side_data  # its type stub is wrong
    matrix = next((bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return False, False, False
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)
