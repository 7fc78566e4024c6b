"""A video and its prediction -> the video with box, label and bars, and with its sound."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.inference.lettering import letters, line_height, write_text
from cfnsr.inference.palette import colours, ink, rgb
from cfnsr.inference.prediction import Prediction
from cfnsr.inference.segments import Segment, everyone, labels, segments
from cfnsr.media.container import USUAL, Streams, probe
from cfnsr.media.errors import MediaError
from cfnsr.media.redraw import Progress, redraw

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

    The square that the model saw is drawn around each face, in the colour of the emotion and with its name.
    Bars beside it show all probabilities, and a line says what was missing. Bars that would hide a face stand
    beneath the picture, which then grows. Memory does not grow with the video, and its pictures keep their
    times (see `cfnsr.media.redraw`).

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
    info = probe(source, streams)
    if not info.has_video:
        raise MediaError(
            "no picture", f"{source} has no pictures to draw upon: give a video, or write subtitles or a plot"
        )
    artist = Artist(prediction, info.width, info.height)
    return redraw(source, out, artist.draw, below=artist.layout.below, progress=progress, streams=streams)


class Square(NamedTuple):
    """Square around a face: centre and side in pixels."""

    x: float
    y: float
    side: float


class Whereabouts:
    """Position of a face at any moment.

    Args:
        faces: (N, 4) second, centre x, centre y and side in pixels, in any order.
    """

    def __init__(self, faces: NDArray[np.floating]) -> None:
        self.faces = faces[np.argsort(faces[:, 0], kind="stable")].astype(np.float64)
        self.times = self.faces[:, 0]
        steps = np.sort(np.diff(self.times))
        self.gap = max(HOLD, STEPS * float(steps[(len(steps) - 1) // 2])) if len(steps) else HOLD

    def gone(self, start: float, end: float) -> bool:
        """True if there may be moments from `start` to `end`, seconds, without a face."""
        if not len(self.times) or self.times[0] - start > HOLD / 2 or end - self.times[-1] > HOLD / 2:
            return True
        return bool((np.diff(self.times) > self.gap).any())

    def at(self, second: float) -> Square | None:
        """Interpolate between the two squares around a second; None far from any.

        A square that leaps by more than its side is another face's, and there is nothing between them.

        >>> whereabouts = Whereabouts(np.array([[0.0, 10, 10, 8], [0.2, 14, 10, 8], [3.0, 14, 10, 8]]))
        >>> whereabouts.at(0.1), whereabouts.at(2.0)
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


class Speaker:
    """Answers about one person over time."""

    def __init__(self, prediction: Prediction) -> None:
        self.person = prediction.person
        self.segments = segments(prediction, join=False)
        self.starts = [each.start for each in self.segments]
        self.whereabouts = Whereabouts(prediction.faces)

    def at(self, second: float) -> Segment | None:
        """Segment at that moment; for a moment longer the last one, then None."""
        place = bisect_right(self.starts, second) - 1
        if place < 0 or second - self.segments[place].end > HOLD:
            return None
        return self.segments[place]

    def face_at(self, second: float) -> Square | None:
        """Square of the face; None where none was found in most of the pictures around."""
        segment = self.at(second)
        return None if segment is None or segment.face is False else self.whereabouts.at(second)

    @property
    def marks(self) -> set[str]:
        """Every mark that may be shown of what is missing."""
        gone = self.segments and self.whereabouts.gone(self.starts[0], self.segments[-1].end)
        ways = (False, True) if gone else (False,)
        return {_mark(each, gone=gone) for each in self.segments for gone in ways}


def _mark(said: Segment, *, gone: bool) -> str:
    return ", ".join(part for part in ("face not seen" if gone else "", said.mark) if part)


class Artist:
    """Draws a prediction on the pictures of a video.

    Args:
        width: of the pictures, in pixels.
        height: of the pictures, in pixels; those to draw on have the rows of `layout.below` more.
    """

    def __init__(self, prediction: Prediction, width: int, height: int) -> None:
        told = everyone(prediction)
        self.speakers = [Speaker(each) for each in told]
        self.names = labels(told)
        self.paint = {name: rgb(colour) for name, colour in colours(self.names).items()}
        self.layout = Layout(self.speakers, self.names, width // 2 * 2, height // 2 * 2)

    def draw(self, picture: NDArray[np.uint8], second: float) -> None:
        """Draw on a picture (H, W, 3) RGB, in place."""
        shown = [(speaker, said) for speaker in self.speakers if (said := speaker.at(second)) is not None]
        squares = [speaker.face_at(second) for speaker, _ in shown]
        there = [
            (said, square) for (_, said), square in zip(shown, squares, strict=True) if square is not None
        ]
        for said, square in there:
            self._box(picture, said, square)
        for (speaker, said), where in zip(shown, squares, strict=True):
            corner = self.layout.corners.get(self.speakers.index(speaker))
            if corner is not None:
                gone = where is None and said.face is True and len(speaker.whereabouts.faces) > 0
                self._panel(picture, said, corner, gone=gone)
        for said, square in there:
            self._label(picture, said, square)

    def _colour(self, said: Segment) -> tuple[int, int, int]:
        return rgb(GREY) if said.emotion is None else self.paint[said.emotion]

    def _box(self, picture: NDArray[np.uint8], said: Segment, square: Square) -> None:
        import cv2

        line, half = self.layout.line, square.side / 2
        upper = round(square.x - half), round(square.y - half)
        lower = round(square.x + half), round(square.y + half)
        inside = picture[: self.layout.picture_height]
        for shade, width in ((BLACK, line + 2), (self._colour(said), line)):
            cv2.rectangle(inside, upper, lower, shade, width)

    def _label(self, picture: NDArray[np.uint8], said: Segment, square: Square) -> None:
        """Draw the label on the square's upper side, within the picture."""
        import cv2

        size, colour = self.layout.size, self._colour(said)
        text = said.answer or "no answer"
        if said.person is not None:
            text = f"{said.person}: {text}"
        pad = size // 3
        width = letters(text, size, bold=True).width + 2 * pad
        height = line_height(size) + 2
        x = min(max(0, round(square.x - square.side / 2)), max(0, picture.shape[1] - width))
        y = min(max(0, round(square.y - square.side / 2) - height), self.layout.picture_height - height)
        cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), colour, -1)
        shade = rgb(ink("#{:02x}{:02x}{:02x}".format(*colour)))
        write_text(picture, text, x + pad, y + 1, size, shade, bold=True)

    def _panel(
        self, picture: NDArray[np.uint8], said: Segment, corner: tuple[int, int], *, gone: bool
    ) -> None:
        import cv2

        layout = self.layout
        (x, y), size, pad = corner, layout.size, layout.pad
        area = picture[max(0, y) : y + layout.height, max(0, x) : x + layout.width]
        area[:] = cv2.addWeighted(area, 1 - OPACITY, np.full_like(area, 255), OPACITY, 0)
        x, y = x + pad, y + pad
        heading = said.answer or "no answer"
        heading = heading if said.person is None else f"{said.person}: {heading}"
        write_text(picture, heading, x, y, size, BLACK, bold=True)
        y += layout.row
        if layout.bars:
            begin = x + layout.name + pad
            for name in self.names:
                write_text(picture, name, x, y, size, BLACK)
                top, bottom = y + size // 5, y + size
                length = 0.0 if said.probabilities is None else said.probabilities[name]
                end = begin + round(length * layout.bar)
                cv2.rectangle(picture, (begin, top), (begin + layout.bar, bottom), WHITE, -1)
                if end > begin:
                    cv2.rectangle(picture, (begin, top), (end, bottom), self.paint[name], -1)
                cv2.rectangle(picture, (begin, top), (begin + layout.bar, bottom), (120, 120, 120), 1)
                y += layout.row
        for text in layout.wrapped(_mark(said, gone=gone)):
            write_text(picture, text, x, y, size, MARK)
            y += layout.row


@dataclass(frozen=True)
class Layout:
    """Size of letters and bars for a picture, and the place of each speaker's panel.

    Args:
        speakers: each with a panel, as far as there is room.
        names: of the emotions, a bar each.
    """

    speakers: Sequence[Speaker]
    names: Sequence[str]
    picture_width: int
    picture_height: int

    @cached_property
    def size(self) -> int:
        """Height of the letters, in pixels."""
        short = min(self.picture_height, round(self.picture_width * 0.75))
        return int(np.clip(round(LETTERS * short), *SIZES))

    @cached_property
    def line(self) -> int:
        """Width of a box's line, in pixels."""
        return max(2, round(self.size / 7))

    @cached_property
    def pad(self) -> int:
        """Room around the text of a panel."""
        return max(3, self.size // 2)

    @cached_property
    def row(self) -> int:
        """Distance from one line of a panel to the next."""
        return line_height(self.size) + 1

    @cached_property
    def name(self) -> int:
        """Width of the longest name of an emotion."""
        return max((letters(name, self.size).width for name in self.names), default=0)

    @cached_property
    def bar(self) -> int:
        """Length of a bar of 100 %."""
        return round(BAR * self.size)

    @cached_property
    def width(self) -> int:
        """Width of a panel."""
        number = "8: " if any(each.person is not None for each in self.speakers) else ""
        headings = [f"{number}{name} 100 %" for name in self.names] or ["no answer"]
        widest = max(letters(heading, self.size, bold=True).width for heading in headings)
        return 2 * self.pad + max(widest, self.name + self.pad + self.bar)

    @cached_property
    def bars(self) -> bool:
        """True if there is room for the bars."""
        return self.row * (len(self.names) + 1) + 2 * self.pad <= 0.8 * self.picture_height

    @cached_property
    def height(self) -> int:
        """Height of a panel, with room for the longest mark, so that it never grows."""
        marks = {mark for each in self.speakers for mark in each.marks}
        lines = max((len(self.wrapped(mark)) for mark in marks), default=0)
        return 2 * self.pad + self.row * (1 + len(self.names) * self.bars + lines)

    def wrapped(self, mark: str) -> list[str]:
        """Break a mark into lines as wide as a panel."""
        letter = letters("n" * 20, self.size).width / 20
        return wrap(mark, max(8, int((self.width - 2 * self.pad) / letter)))

    @cached_property
    def corners(self) -> dict[int, tuple[int, int]]:
        """Upper left corner of each speaker's panel, by place; none for those for whom there is no room.

        At the top or at the bottom, and a single one at the left or at the right, wherever it hides the least
        of the faces; beneath the picture if it would hide much of them. Those of several people stand in the
        order of their faces.
        """
        return self._arrangement[0]

    @cached_property
    def below(self) -> int:
        """Rows that the panels need beneath the picture; an even number."""
        return self._arrangement[1]

    @cached_property
    def _arrangement(self) -> tuple[dict[int, tuple[int, int]], int]:
        numbered = [at for at, each in enumerate(self.speakers) if each.person is not None]
        nobody = [at for at, each in enumerate(self.speakers) if each.person is None]
        room = max(1, (self.picture_width - self.pad) // (self.width + self.pad))
        placed = sorted(numbered[:room], key=self._across) or nobody
        right = max(self.pad, self.picture_width - self.pad - self.width)
        across = np.linspace(self.pad, right, len(placed)).round().astype(int).tolist()
        sides = [across] if len(placed) > 1 else [[self.pad], [right]]
        heights = (self.pad, max(self.pad, self.picture_height - self.pad - self.height))
        ways = [[(x, y) for x in side] for y in heights for side in sides]
        hidden = [self._hidden(way) for way in ways]
        best, below = ways[int(np.argmin(hidden))], 0
        if min(hidden) > HIDDEN:
            middles = self.picture_width * (2 * np.arange(len(placed)) + 1) / (2 * len(placed))
            best = [(max(0, int(middle) - self.width // 2), self.picture_height) for middle in middles]
            below = (self.height + 1) // 2 * 2
        return dict(zip(placed, best, strict=True)) | dict.fromkeys(nobody, best[0]), below

    def _across(self, at: int) -> float:
        faces = self.speakers[at].whereabouts.faces
        return float(np.median(faces[:, 1])) if len(faces) else 0.0

    def _hidden(self, corners: Sequence[tuple[int, int]]) -> float:
        """Part of a face that panels there would hide, the mean over all faces."""
        faces = np.concatenate([each.whereabouts.faces for each in self.speakers])
        if not len(faces):
            return 0.0
        _, x, y, side = faces.T
        hidden = np.zeros(len(faces))
        for left, top in corners:
            wide = np.minimum(x + side / 2, left + self.width) - np.maximum(x - side / 2, left)
            high = np.minimum(y + side / 2, top + self.height) - np.maximum(y - side / 2, top)
            hidden += np.maximum(wide, 0) * np.maximum(high, 0) / side**2
        return float(hidden.mean())
