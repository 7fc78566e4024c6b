"""A video and its prediction -> the video with box, label and bars, and with its sound."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.inference.lettering import letters, line_height, write_text
from cfnsr.inference.palette import colours, ink, rgb
from cfnsr.inference.timeline import Prediction, Segment, everyone, labels, segments
from cfnsr.media.container import USUAL, Streams
from cfnsr.media.errors import MediaError
from cfnsr.media.overlay import Progress, write_overlay
from cfnsr.media.scan import first_picture, scan_packets

LETTERS = 0.027  # height of the letters, as a part of the picture's
SIZES = (11, 48)  # pixels; the least that is legible
BAR = 5.0  # length of a bar of 100 %, in letters
OPACITY = 0.72  # of the white behind the bars
HOLD = 0.5  # seconds for which the last answer and the last square stay
STEPS = 2.5  # times the usual distance between two squares, from which there was no face between them
HIDDEN = 0.08  # of the faces, the mean; from there on the bars stand beneath the picture
WHITE, BLACK, GREY, MARK = (255, 255, 255), (0, 0, 0), "#acacac", (150, 20, 0)


def annotate(
    source: Path | str,
    prediction: Prediction,
    out: Path | str,
    *,
    progress: Progress | None = None,
    streams: Streams = USUAL,
) -> Path:
    """Write a video again with its prediction drawn on it, and with its sound.

    The square that the model saw is drawn around each face, with its emotion, bars of all probabilities and
    what was missing. Bars that would hide a face stand beneath the picture, which then grows. Memory does not
    grow with the video, and its pictures keep their times.

    Args:
        prediction: of this video, by `predict`.
        out: a file ending in .mp4, .m4v, .mov or .mkv; it appears whole or not at all.
        progress: given the number of pictures written and of those in all, after each.
        streams: those that were predicted from.

    Raises:
        MediaError: the source is missing, broken or truncated, or has no pictures, as a sound file.
        InputError: `out` has another suffix, or is the source itself.
        OSError: the file cannot be written.
    """
    if not scan_packets(Path(source), streams).frame_count:
        raise MediaError(
            "no picture", f"{source} has no pictures to draw upon: give a video, or write subtitles or a plot"
        )
    _, (height, width) = first_picture(Path(source), streams)
    overlay = Overlay(prediction, width, height)
    below = overlay.layout.below
    return write_overlay(source, out, overlay.draw, below=below, progress=progress, streams=streams)


class Square(NamedTuple):
    """Square around a face: centre and side in pixels."""

    x: float
    y: float
    side: float


class FacePositions:
    """Position of a face at any moment; `faces` (N, 4) as of a `Prediction`, in any order."""

    def __init__(self, faces: NDArray[np.floating]) -> None:
        self.faces = faces[np.argsort(faces[:, 0], kind="stable")].astype(np.float64)
        self.times = self.faces[:, 0]
        steps = np.sort(np.diff(self.times))
        self.gap = max(HOLD, STEPS * float(steps[(len(steps) - 1) // 2])) if len(steps) else HOLD

    def missing(self, start: float, end: float) -> bool:
        """True if there may be moments from `start` to `end`, seconds, without a face."""
        if not len(self.times) or self.times[0] - start > HOLD / 2 or end - self.times[-1] > HOLD / 2:
            return True
        return bool((np.diff(self.times) > self.gap).any())

    def at(self, second: float) -> Square | None:
        """Interpolate between the two squares around a second; None far from any.

        A square that leaps by more than its side is another face's, and there is nothing between them.

        >>> positions = FacePositions(np.array([[0.0, 10, 10, 8], [0.2, 14, 10, 8], [3.0, 14, 10, 8]]))
        >>> positions.at(0.1), positions.at(2.0)
        (Square(x=12.0, y=10.0, side=8.0), None)
        """
        after = int(np.searchsorted(self.times, second, side="right"))
        before = after - 1
        if before >= 0 and after < len(self.times) and self.times[after] - self.times[before] <= self.gap:
            (start, *one), (end, *other) = self.faces[before], self.faces[after]
            part = (second - start) / (end - start)
            if max(abs(one[0] - other[0]), abs(one[1] - other[1])) > max(one[2], other[2]):
                part = round(part)
            return Square(*((1 - part) * np.array(one) + part * np.array(other)).tolist())
        near = [at for at in (before, after) if 0 <= at < len(self.times)]
        nearest = min(near, key=lambda at: abs(self.times[at] - second), default=None)
        hold = HOLD if len(near) == 1 else HOLD / 2  # faces are not searched for in each picture
        if nearest is None or abs(self.times[nearest] - second) > hold:
            return None
        return Square(*self.faces[nearest, 1:].tolist())


class PersonTrack:
    """Answers about one person, or about nobody, over time."""

    def __init__(self, prediction: Prediction) -> None:
        self.person = prediction.person
        self.segments = segments(prediction, join=False)
        self.starts = [each.start for each in self.segments]
        self.positions = FacePositions(prediction.faces)

    def at(self, second: float) -> Segment | None:
        """Segment at that moment; for a moment longer the last one, then None."""
        place = bisect_right(self.starts, second) - 1
        if place < 0 or second - self.segments[place].end > HOLD:
            return None
        return self.segments[place]

    @property
    def marks(self) -> set[str]:
        """Every mark that may be shown of what is missing."""
        gone = self.segments and self.positions.missing(self.starts[0], self.segments[-1].end)
        return {_mark(each, gone=way) for each in self.segments for way in {False, bool(gone)}}


def _mark(segment: Segment, *, gone: bool) -> str:
    return ", ".join(filter(None, ("face not seen" if gone else "", segment.mark)))


def _heading(segment: Segment) -> str:
    return ("" if segment.person is None else f"{segment.person}: ") + (segment.answer or "no answer")


class Overlay:
    """Draws a prediction on pictures of a size in pixels, and of `layout.below` rows more."""

    def __init__(self, prediction: Prediction, width: int, height: int) -> None:
        people = everyone(prediction)
        self.people = [PersonTrack(each) for each in people]
        self.names = labels(people)
        self.paint = {name: rgb(colour) for name, colour in colours(self.names).items()}
        self.layout = Layout(self.people, self.names, width // 2 * 2, height // 2 * 2)

    def draw(self, picture: NDArray[np.uint8], second: float) -> None:
        """Draw on a picture (H, W, 3) RGB, in place."""
        shown: list[tuple[int, Segment, Square | None]] = []
        for place, person in enumerate(self.people):
            if (segment := person.at(second)) is not None:
                square = None if segment.face is False else person.positions.at(second)
                shown.append((place, segment, square))
        squares = [(segment, square) for _, segment, square in shown if square is not None]
        for segment, square in squares:
            self._box(picture, segment, square)
        for place, segment, square in shown:
            if place in self.layout.corners:
                faces = self.people[place].positions.faces
                gone = square is None and segment.face is True and len(faces) > 0
                self._panel(picture, segment, self.layout.corners[place], _mark(segment, gone=gone))
        for segment, square in squares:
            self._label(picture, segment, square)

    def _colour(self, segment: Segment) -> tuple[int, int, int]:
        return rgb(GREY) if segment.emotion is None else self.paint[segment.emotion]

    def _box(self, picture: NDArray[np.uint8], segment: Segment, square: Square) -> None:
        import cv2

        line, half = self.layout.line, square.side / 2
        upper = round(square.x - half), round(square.y - half)
        lower = round(square.x + half), round(square.y + half)
        inside = picture[: self.layout.picture_height]
        for shade, width in ((BLACK, line + 2), (self._colour(segment), line)):
            cv2.rectangle(inside, upper, lower, shade, width)

    def _label(self, picture: NDArray[np.uint8], segment: Segment, square: Square) -> None:
        """Draw the label on the square's upper side, within the picture."""
        import cv2

        size, colour, text = self.layout.size, self._colour(segment), _heading(segment)
        pad = size // 3
        width = letters(text, size, bold=True).width + 2 * pad
        height = line_height(size) + 2
        x = min(max(0, round(square.x - square.side / 2)), max(0, picture.shape[1] - width))
        y = min(max(0, round(square.y - square.side / 2) - height), self.layout.picture_height - height)
        cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), colour, -1)
        shade = rgb(ink("#{:02x}{:02x}{:02x}".format(*colour)))
        write_text(picture, text, x + pad, y + 1, size, shade, bold=True)

    def _panel(
        self, picture: NDArray[np.uint8], segment: Segment, corner: tuple[int, int], mark: str
    ) -> None:
        import cv2

        layout = self.layout
        (x, y), size, pad = corner, layout.size, layout.pad
        area = picture[max(0, y) : y + layout.height, max(0, x) : x + layout.width]
        area[:] = cv2.addWeighted(area, 1 - OPACITY, np.full_like(area, 255), OPACITY, 0)
        x, y = x + pad, y + pad
        write_text(picture, _heading(segment), x, y, size, BLACK, bold=True)
        y += layout.row
        for name in self.names if layout.bars else ():
            write_text(picture, name, x, y, size, BLACK)
            probability = 0.0 if segment.probabilities is None else segment.probabilities[name]
            begin, length = x + layout.name + pad, round(probability * layout.bar)
            top, bottom = y + size // 5, y + size
            cv2.rectangle(picture, (begin, top), (begin + layout.bar, bottom), WHITE, -1)
            if length:
                cv2.rectangle(picture, (begin, top), (begin + length, bottom), self.paint[name], -1)
            cv2.rectangle(picture, (begin, top), (begin + layout.bar, bottom), (120, 120, 120), 1)
            y += layout.row
        for text in layout.wrapped(mark):
            write_text(picture, text, x, y, size, MARK)
            y += layout.row


class Layout:
    """Sizes in pixels of letters and bars for a picture, and the place of each person's panel.

    Attributes:
        size: height of the letters.
        line: width of a box's line.
        pad: room around the text of a panel.
        row: from one line of a panel to the next.
        name, bar: width of the longest name of an emotion, and of a bar of 100 %.
        bars: there is room for the bars.
        width, height: of a panel, with room for the longest mark, so that it never grows.
        corners: upper left corner of each person's panel, by place; none for those for whom there is no room.
        below: rows that the panels need beneath the picture; an even number.
    """

    def __init__(
        self, people: Sequence[PersonTrack], names: Sequence[str], picture_width: int, picture_height: int
    ) -> None:
        self.people, self.picture_width, self.picture_height = people, picture_width, picture_height
        self.size = int(np.clip(round(LETTERS * min(picture_height, round(picture_width * 0.75))), *SIZES))
        self.line, self.pad = max(2, round(self.size / 7)), max(3, self.size // 2)
        self.row = line_height(self.size) + 1
        self.name = max((letters(name, self.size).width for name in names), default=0)
        self.bar = round(BAR * self.size)
        self.bars = self.row * (len(names) + 1) + 2 * self.pad <= 0.8 * picture_height
        number = "8: " if any(each.person is not None for each in people) else ""
        headings = [f"{number}{name} 100 %" for name in names] or ["no answer"]
        widest = max(letters(heading, self.size, bold=True).width for heading in headings)
        self.width = 2 * self.pad + max(widest, self.name + self.pad + self.bar)
        marks = {mark for each in people for mark in each.marks}
        lines = max((len(self.wrapped(mark)) for mark in marks), default=0)
        self.height = 2 * self.pad + self.row * (1 + len(names) * self.bars + lines)
        self.corners, self.below = self._arrange()

    def wrapped(self, mark: str) -> list[str]:
        """Break a mark into lines as wide as a panel."""
        letter = letters("n" * 20, self.size).width / 20
        return wrap(mark, max(8, int((self.width - 2 * self.pad) / letter)))

    def _arrange(self) -> tuple[dict[int, tuple[int, int]], int]:
        """Place the panels, and count the rows beneath the picture.

        They stand in the order of the faces at the top or at the bottom, and a single one at the left or at
        the right, wherever they hide the least; beneath the picture if that is much.
        """
        numbered = [at for at, each in enumerate(self.people) if each.person is not None]
        nobody = [at for at, each in enumerate(self.people) if each.person is None]
        room = max(1, (self.picture_width - self.pad) // (self.width + self.pad))
        centres = [each.positions.faces[:, 1] for each in self.people]
        across = [float(np.median(each)) if len(each) else 0.0 for each in centres]
        placed = sorted(numbered[:room], key=across.__getitem__) or nobody
        right = max(self.pad, self.picture_width - self.pad - self.width)
        spaced = np.linspace(self.pad, right, len(placed)).round().astype(int).tolist()
        sides = [spaced] if len(placed) > 1 else [[self.pad], [right]]
        heights = (self.pad, max(self.pad, self.picture_height - self.pad - self.height))
        ways = [[(x, y) for x in side] for y in heights for side in sides]
        hidden = [self._hidden(way) for way in ways]
        best, below = ways[int(np.argmin(hidden))], 0
        if min(hidden) > HIDDEN:
            middles = self.picture_width * (2 * np.arange(len(placed)) + 1) / (2 * len(placed))
            best = [(max(0, int(middle) - self.width // 2), self.picture_height) for middle in middles]
            below = (self.height + 1) // 2 * 2
        return dict(zip(placed, best, strict=True)) | dict.fromkeys(nobody, best[0]), below

    def _hidden(self, corners: Sequence[tuple[int, int]]) -> float:
        """Part of a face that panels there would hide, the mean over all faces."""
        faces = np.concatenate([each.positions.faces for each in self.people])
        if not len(faces):
            return 0.0
        _, x, y, side = faces.T
        hidden = np.zeros(len(faces))
        for left, top in corners:
            wide = np.minimum(x + side / 2, left + self.width) - np.maximum(x - side / 2, left)
            high = np.minimum(y + side / 2, top + self.height) - np.maximum(y - side / 2, top)
            hidden += np.maximum(wide, 0) * np.maximum(high, 0) / side**2
        return float(hidden.mean())
