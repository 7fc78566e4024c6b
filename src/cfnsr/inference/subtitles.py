"""A prediction -> subtitles, as SubRip (SRT) and as WebVTT."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import NamedTuple

from cfnsr.inference.prediction import Prediction
from cfnsr.inference.segments import everyone, segments

# SubRip cannot escape these: players take them for tags, arrows or commands.
PLAIN = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


class Cue(NamedTuple):
    """A subtitle: milliseconds at which it begins and ends, and its lines, one a person."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(prediction: Prediction) -> list[Cue]:
    """Make subtitles that do not overlap, in order; several people at one time have one together.

    >>> from cfnsr.inference.prediction import Window
    >>> cues(Prediction("", None, None, (Window(0, 2.5, {"happy": 0.9}, True, True),)))
    [Cue(start=0, end=2500, lines=('happy 90 %',))]
    """
    said = [
        Cue(_milliseconds(each.start), _milliseconds(each.end), (" ".join(each.text.split()),))
        for told in everyone(prediction)
        for each in segments(told)
    ]
    merged: list[Cue] = []
    for start, end, lines in _shared(said):
        if merged and merged[-1].end == start and merged[-1].lines == lines:
            merged[-1] = Cue(merged[-1].start, end, lines)
        else:
            merged.append(Cue(start, end, lines))
    return merged


def _shared(said: list[Cue]) -> Iterator[Cue]:
    """Lines that are visible between any two moments at which one begins or ends."""
    moments = sorted({moment for cue in said for moment in (cue.start, cue.end)})
    begins = sorted(range(len(said)), key=lambda place: said[place].start)
    shown: list[int] = []  # in the order of people
    following = 0
    for start, end in pairwise(moments):
        while following < len(begins) and said[begins[following]].start <= start:
            shown.append(begins[following])
            following += 1
        shown = sorted(place for place in shown if said[place].end > start)
        if shown:
            yield Cue(start, end, tuple(line for place in shown for line in said[place].lines))


def to_srt(prediction: Prediction) -> str:
    """Write a SubRip file: numbered subtitles with times to the millisecond.

    SubRip has no standard and no escapes, so that `<`, `>`, `{` and `}` in the name of an emotion become
    characters that look alike.
    """
    blocks = [
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n" + "\n".join(lines).translate(PLAIN) + "\n"
        for number, (start, end, lines) in enumerate(cues(prediction), start=1)
    ]
    return "\n".join(blocks)


def to_vtt(prediction: Prediction) -> str:
    """Write a WebVTT file (W3C, WebVTT: The Web Video Text Tracks Format)."""
    blocks = [
        f"{_time(start, '.')} --> {_time(end, '.')}\n" + escape("\n".join(lines), quote=False) + "\n"
        for start, end, lines in cues(prediction)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _milliseconds(seconds: float) -> int:
    return max(0, round(1000 * seconds))


def _time(milliseconds: int, point: str) -> str:
    """Format as hours, minutes, seconds and milliseconds; hours beyond 99 have three digits.

    >>> _time(3_723_004, ","), _time(360_000_000, ".")
    ('01:02:03,004', '100:00:00.000')
    """
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{thousandths:03}"
