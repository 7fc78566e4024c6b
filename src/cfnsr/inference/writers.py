"""A prediction -> tables for programs (CSV) and the terminal, subtitles; the file that a suffix names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from cfnsr.errors import InputError
from cfnsr.files import to_csv as as_csv
from cfnsr.files import visible, write_text
from cfnsr.inference.timeline import Prediction, Segment, Window, clock, everyone, labels, segments

BEFORE = ("file", "person", "start", "end", "emotion")  # columns before those of the emotions
AFTER = ("face", "speech", "uses")
WIDTH = 80  # characters of a terminal
BAR = 10  # characters of a probability of 1, beside a segment
NAME = 12  # characters of an emotion's name; longer ones are cut
# SubRip cannot escape these: players take them for tags, arrows or commands.
PLAIN = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def to_csv(*predictions: Prediction, emotions: Sequence[str] | None = None) -> str:
    """Write a table of windows as CSV, a row each.

    Cells are empty where there is nothing to report: of one person alone, of what was not searched for, of a
    window in which the model abstains. An emotion called as another column has `p_` before its name. Of
    several people the rows come person by person.

    Args:
        emotions: in the order of their columns; if not given those in the predictions.

    >>> window = Window(0.0, 2.5, {"happy": 0.75, "sad": 0.25}, True, None)
    >>> print(to_csv(Prediction("a.mp4", "happy", None, (window,))))
    file,person,start,end,emotion,happy,sad,face,speech,uses
    a.mp4,,0.0,2.5,happy,0.75,0.25,true,,video+audio
    """
    names = labels(predictions) if emotions is None else list(emotions)
    own = [f"p_{name}" if name in (*BEFORE, *AFTER) else name for name in names]
    rows: list[list[object]] = [[*BEFORE, *own, *AFTER]]
    for one in [one for prediction in predictions for one in everyone(prediction)]:
        for window in one.timeline:
            times = round(window.start, 3), round(window.end, 3)
            given = window.probabilities
            probabilities = [f"{given[name]:.6g}" if given else "" for name in names]
            found = ["" if each is None else str(each).lower() for each in (window.face, window.speech)]
            uses = "+".join(window.uses)
            rows.append([one.file, one.person, *times, window.emotion, *probabilities, *found, uses])
    return as_csv(rows)


def to_table(prediction: Prediction, width: int = WIDTH) -> str:
    """Write the table for the terminal: a summary, the probabilities, the segments.

    >>> window = Window(0.0, 2.5, {"happy": 0.75, "sad": 0.25}, True, True)
    >>> print(to_table(Prediction("a.mp4", "happy", window.probabilities, (window,))))
    a.mp4: happy 75 %
      happy        75.0 %  ##############################
      sad          25.0 %  ##########
    """
    answer = _answer(prediction)
    room = max(16, width - len(answer) - 2)
    name = visible(prediction.file)
    file = name if len(name) <= room else "..." + name[3 - room :]
    lines = [f"{file}: {answer}"]
    if len(prediction.timeline) > 1:
        lines.append(f"  {_extent(prediction.timeline)}")
    for person in prediction.people:
        lines.append(f"person {person.person}: {_answer(person)}, {_extent(person.timeline)}")
        ranked = sorted((person.probabilities or {}).items(), key=lambda item: -item[1])
        listed = ", ".join(f"{emotion} {100 * probability:.0f}" for emotion, probability in ranked)
        lines += wrap(listed, width, initial_indent="  ", subsequent_indent="  ")
    for emotion, probability in ({} if prediction.people else prediction.probabilities or {}).items():
        bar = "#" * round(40 * probability)
        lines.append(f"  {emotion:<{NAME}} {100 * probability:5.1f} %  {bar}".rstrip())
    cut = [each for one in everyone(prediction) for each in segments(one)]
    if len(prediction.timeline) > 1 or any(each.mark for each in cut):
        cut.sort(key=lambda each: (each.start, each.person or 0))
        lines += ["", *_segment_lines(cut, width)]
    return "\n".join(lines)


def _answer(prediction: Prediction) -> str:
    """Answer for the whole of a prediction."""
    marks = {each.mark for each in segments(prediction)}
    return prediction.answer or (marks.pop() if len(marks) == 1 else "no answer")


def _extent(windows: Sequence[Window]) -> str:
    silent = sum(window.probabilities is None for window in windows)
    some = f", {silent} without an answer" if silent else ""
    start, end = windows[0].start, max(window.end for window in windows)
    many = "1 window" if len(windows) == 1 else f"{len(windows)} windows"
    return f"{many} from {clock(start, tenths=True)} to {clock(end, tenths=True)}{some}"


def _segment_lines(cut: Sequence[Segment], width: int) -> Iterator[str]:
    """Write a line for each; what does not fit into the width is cut off."""
    several = any(each.person is not None for each in cut)
    long = max(len(clock(each.end, tenths=True)) for each in cut)
    name = min(NAME, max((len(each.emotion or "") for each in cut), default=0))
    for each in cut:
        who = f"{each.person or '-'!s:>2}  " if several else ""
        start, end = (clock(second, tenths=True) for second in (each.start, each.end))
        line = f"  {start:>{long}} - {end:>{long}}  {who}"
        if each.emotion is None or each.probability is None:
            line += each.mark
        else:
            bar = "#" * round(BAR * each.probability)
            line += f"{each.emotion[:name]:<{name}} {100 * each.probability:3.0f} %  {bar:<{BAR}} {each.mark}"
        yield line.rstrip()[:width]


class Cue(NamedTuple):
    """A subtitle: milliseconds at which it begins and ends, and its lines, one a person."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(prediction: Prediction) -> list[Cue]:
    """Make subtitles that do not overlap, in order; several people at one time have one together.

    >>> cues(Prediction("", None, None, (Window(0, 2.5, {"happy": 0.9}, True, True),)))
    [Cue(start=0, end=2500, lines=('happy 90 %',))]
    """
    single = [
        (_milliseconds(each.start), _milliseconds(each.end), " ".join(each.text.split()))
        for one in everyone(prediction)
        for each in segments(one)
    ]
    moments = sorted({moment for start, end, _ in single for moment in (start, end)})
    place = {moment: number for number, moment in enumerate(moments)}
    slots: list[list[str]] = [[] for _ in moments]  # from each moment to the next, in the order of people
    for start, end, line in single:
        for slot in slots[place[start] : place[end]]:
            slot.append(line)
    merged: list[Cue] = []
    for (start, end), slot in zip(pairwise(moments), slots, strict=False):
        lines = tuple(slot)
        if merged and merged[-1].end == start and merged[-1].lines == lines:
            merged[-1] = Cue(merged[-1].start, end, lines)
        elif lines:
            merged.append(Cue(start, end, lines))
    return merged


def to_srt(prediction: Prediction) -> str:
    """Write a SubRip file: numbered subtitles with times to the millisecond.

    SubRip has no standard and no escapes, so that `<`, `>`, `{` and `}` in the name of an emotion become
    characters that look alike.
    """
    return "\n".join(
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n" + "\n".join(lines).translate(PLAIN) + "\n"
        for number, (start, end, lines) in enumerate(cues(prediction), start=1)
    )


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


def to_json(prediction: Prediction) -> str:
    """Write the object that `cfnsr predict --json` prints of a file."""
    return json.dumps(prediction.as_json(), indent=2) + "\n"


WRITERS: dict[str, Callable[[Prediction], str]] = {
    ".csv": to_csv,
    ".json": to_json,
    ".srt": to_srt,
    ".txt": lambda prediction: to_table(prediction) + "\n",
    ".vtt": to_vtt,
}


def write(prediction: Prediction, path: Path | str) -> Path:
    """Write a prediction in the form that the suffix names, one of `WRITERS`; whole or not at all.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"cannot write a timeline as {path.name!r}: expected one of {', '.join(WRITERS)}; "
            "change the suffix"
        )
    write_text(path, writer(prediction))
    return path
