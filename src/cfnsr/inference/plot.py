"""A prediction -> a picture of its timeline: each emotion over time, and where face or speech was missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.files import visible, write_atomically
from cfnsr.inference.palette import FAINT, colours, ink, style
from cfnsr.inference.timeline import Prediction, Segment, clock, everyone, labels, segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

FORMATS = (".png", ".svg", ".pdf")
CELLS = 300  # along the time; more segments than that are averaged, so that each is visible
PEOPLE = 8  # with a panel of their own
WIDTH, ROW, STRIP, HEAD, FOOT = 9.0, 0.3, 0.2, 0.55, 0.35  # inches
DPI = 140
OUTLINE, MISSING = "#888888", "#555555"
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200)  # s
MOST_TICKS = 9
LABEL_SHARE = 0.011  # of the width, that a letter takes within the strip of answers


def plot(prediction: Prediction, path: Path | str) -> Path:
    """Draw the timeline: a row for each emotion, strong where it is the most probable one.

    Strips beneath mark where face, speech or answer are missing. Each of several people has a panel, up to
    eight. A timeline of more than 300 segments is drawn by means over equal times.

    Args:
        path: ends in .png, .svg or .pdf; its folder is made, the file appears whole or not at all.

    Raises:
        InputError: another suffix, or a prediction without a timeline.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"cannot draw a timeline as {path.name!r}: expected one of {', '.join(FORMATS)}; "
            "change the suffix"
        )
    people = [each for each in everyone(prediction) if each.timeline]
    if not people:
        raise InputError(f"{prediction.file} has no timeline to draw: expected at least one window")
    names = labels(people)
    shown, more = people[:PEOPLE], len(people) - PEOPLE
    strips = _strips(shown)
    panel = HEAD + STRIP + ROW * len(names) + STRIP * len(strips) + FOOT
    begin = min(window.start for each in people for window in each.timeline)
    end = max(window.end for each in people for window in each.timeline)
    title = visible(prediction.file)
    title = title if len(title) <= 70 else "..." + title[-67:]
    title += f" (and {more} more people)" if more > 0 else ""
    with style():
        figure = Figure(figsize=(WIDTH, 0.45 + panel * len(shown)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.1)  # type: ignore[union-attr, call-arg]
        figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axis, each in zip(axes, shown, strict=True):
            _draw(axis, each, names, strips, (begin, end), several=bool(prediction.people))
        kind = path.suffix.lower()[1:]
        dated = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
        metadata: Any = {dated: None} if dated else {}  # the same timeline gives the same bytes
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
        )
    return path


class Cells(NamedTuple):
    """A timeline cut into cells that follow on; NaN where it has no answer, or nothing.

    Args:
        edges: (N + 1,) seconds.
        values: (N, emotions) probabilities.
        missing: (N, 3) parts of the cell without a face, without speech and without an answer.
    """

    edges: Floats
    values: Floats
    missing: Floats


def cells(cut: Sequence[Segment], names: Sequence[str], most: int = CELLS) -> Cells:
    """Take the segments of a timeline, or where there are more than `most`, as many means over equal times.

    >>> cut = [Segment(at, at + 1, {"happy": at / 4}, True, True) for at in range(4)]
    >>> cells(cut, ["happy"], most=2).values.ravel()
    array([0.125, 0.625])
    """
    knots = np.array([(each.start, each.end) for each in cut]).ravel()
    edges = np.unique(knots)
    if len(cut) > most:
        edges = np.linspace(knots[0], knots[-1], most + 1)
    values = np.array([[(each.probabilities or {}).get(name, 0.0) for name in names] for each in cut], float)
    answered = np.array([[each.probabilities is not None] for each in cut])
    missing = np.array([(each.face is False, each.speech is False, each.emotion is None) for each in cut])

    def summed(parts: NDArray[Any]) -> Floats:  # (segments, C) -> (cells, C)
        grown = np.zeros((len(knots), parts.shape[1]))
        grown[1::2] = parts * np.diff(knots)[::2, None]
        total = grown.cumsum(axis=0)
        at_edges = np.array([np.interp(edges, knots, column) for column in total.T])
        return np.diff(at_edges.reshape(parts.shape[1], len(edges)).T, axis=0)

    def present(parts: NDArray[Any]) -> Floats:  # NaN for none, and for a remainder of rounding
        seconds = summed(parts)
        return np.where(seconds > 1e-9, seconds, np.nan)

    everything = np.ones((len(cut), 1))
    return Cells(edges, summed(values) / present(answered), summed(missing) / present(everything))


def _strips(shown: Sequence[Prediction]) -> list[tuple[str, int]]:
    """Names of the strips and their columns in `Cells.missing`; none for what was not searched for."""
    windows = [window for each in shown for window in each.timeline]
    faces = any(window.face is not None for window in windows)
    speech = any(window.speech is not None for window in windows)
    sought = {"no face": faces, "no speech": speech, "no answer": True}
    return [(name, column) for column, name in enumerate(sought) if sought[name]]


def _draw(
    axis: Axes,
    prediction: Prediction,
    names: Sequence[str],
    strips: Sequence[tuple[str, int]],
    span: tuple[float, float],
    *,
    several: bool,
) -> None:
    """Draw a panel; its y axis counts rows of emotions downwards, the strip of answers above them."""
    paint = colours(names)
    edges, values, missing = cells(_with_absence(segments(prediction, join=False), span), names)
    padded = np.hstack([np.zeros((len(values), 1)), np.nan_to_num(values)])
    best = padded.argmax(axis=1) - 1  # the row; -1 where there is no answer
    rows = len(names)
    strip = STRIP / ROW  # its height in rows
    for row, name in enumerate(names):
        base = rows - 1 - row
        axis.axhline(base, color=FAINT, linewidth=0.6, zorder=0)
        height = base + 0.92 * values[:, row]
        strong = np.where(best == row, height, np.nan)
        axis.stairs(height, edges, baseline=base, fill=True, color=paint[name], alpha=0.3, linewidth=0)
        axis.stairs(strong, edges, baseline=base, fill=True, color=paint[name], linewidth=0)
        axis.stairs(height, edges, baseline=None, color=OUTLINE, linewidth=0.6)
    _answers(axis, edges, [names[row] if row >= 0 else None for row in best], rows, strip, paint)
    for place, (_, column) in enumerate(strips):
        foot = -(place + 1.25) * strip
        axis.axhline(foot, color=FAINT, linewidth=0.6, zorder=0)
        height = foot + 0.8 * strip * missing[:, column]
        axis.stairs(height, edges, baseline=foot, fill=True, color=MISSING, linewidth=0)
    middles = [rows - 0.6 - row for row in range(rows)]
    bottoms = [-(place + 0.85) * strip for place in range(len(strips))]
    axis.set_yticks([*middles, *bottoms], [*names, *(name for name, _ in strips)])
    axis.set_ylim(-(len(strips) + 0.4) * strip, rows + 1.5 * strip)
    axis.set_xlim(*span)
    _mark_times(axis, span)
    axis.spines[["top", "left", "right"]].set_visible(False)
    who = "nobody in the picture: " if several else ""
    if prediction.person is not None:
        who = f"person {prediction.person}: "
    answer = f"{prediction.answer} on the whole" if prediction.answer else "no answer"
    axis.set_title(who + answer, loc="left", fontsize=9, pad=3)
    axis.set_title("each row from 0 to 100 %", loc="right", fontsize=8, pad=3, color=OUTLINE)
    if prediction.probabilities is not None:
        beside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center"}
        axis.text(1.008, rows + 0.83 * strip, "mean", color=OUTLINE, fontsize=8, **beside)
        for middle, name in zip(middles, names, strict=True):
            axis.text(1.008, middle, f"{100 * prediction.probabilities[name]:.0f} %", **beside)


def _with_absence(cut: list[Segment], span: tuple[float, float]) -> list[Segment]:
    """Fill the gaps of one of several people: where their timeline has nothing, they were absent."""
    if cut[0].person is None:
        return cut
    whole, begin = [], span[0]
    for each in [*cut, Segment(span[1], span[1], None, None, None)]:
        if each.start > begin:
            whole.append(Segment(begin, each.start, None, False, None, (), cut[0].person))
        if each.end > each.start:
            whole.append(each)
        begin = each.end
    return whole


def _answers(
    axis: Axes, edges: Floats, best: Sequence[str | None], rows: int, strip: float, paint: dict[str, str]
) -> None:
    """Draw the strip above: the most probable emotion in its colour, with its name where there is room."""
    letter = LABEL_SHARE * (edges[-1] - edges[0])
    low, high = rows + 0.3 * strip, rows + 1.4 * strip
    for emotion, places in groupby(range(len(best)), key=best.__getitem__):
        if emotion is not None:
            run = list(places)
            start, end = edges[run[0]], edges[run[-1] + 1]
            colour = paint[emotion]
            axis.fill_between([start, end], low, high, color=colour, linewidth=0)
            if end - start > letter * (len(emotion) + 1):
                middle = (start + end) / 2, (low + high) / 2
                axis.text(*middle, emotion, color=ink(colour), ha="center", va="center", fontsize=8)


def _mark_times(axis: Axes, span: tuple[float, float]) -> None:
    length = span[1] - span[0]
    step = next((step for step in TICKS if length / step <= MOST_TICKS), 86_400)
    first = np.ceil(span[0] / step - 1e-9)
    at = np.arange(first, np.floor(span[1] / step + 1e-9) + 1) * step
    axis.set_xticks(at, [clock(float(second), tenths=step < 1) for second in at])
