"""The view of `live`: the moment in a terminal, a line for each answer elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal, TextIO

from cfnsr.console import say
from cfnsr.inference.palette import colours
from cfnsr.inference.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import RenderableType

    from cfnsr.inference.live import Moment
    from cfnsr.inference.prediction import Window

Form = Literal["screen", "lines", "json"]

BAR = 30  # characters of a probability of 1
RECENT = 12  # answers that the rate is computed from


Show = Callable[["Tally"], object]


@dataclass
class Tally:
    """The answers so far.

    Args:
        delays: of each, in seconds.
        ends: of their windows, in seconds of the source.
        last: the newest moment; None before the first.
        moments: number of those, with and without an answer.
    """

    delays: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    last: Moment | None = None
    moments: int = 0

    def add(self, moment: Moment) -> None:
        """Count a moment."""
        self.last = moment
        self.moments += 1
        if moment.window is not None and moment.delay is not None:
            self.delays.append(moment.delay)
            self.ends.append(moment.window.end)

    def rate(self, recent: int | None = None) -> float | None:
        """Answers a second, over all or the newest ones; None before the second answer.

        >>> Tally([0.1, 0.1, 0.1], [3.0, 3.5, 4.5]).rate()
        1.3333333333333333
        """
        ends = self.ends if recent is None else self.ends[-recent:]
        return (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else None

    def __str__(self) -> str:
        """Summarise in one line."""
        if self.last is None:
            return "no answers"
        said = f"{self.last.second:.1f} s: {_count(len(self.ends), 'answer')}"
        rate = self.rate()
        if rate is not None:
            said += f", {rate:.1f} a second"
        if self.delays:
            said += f"; delay {median(self.delays):.2f} s, at most {max(self.delays):.2f} s"
        return f"{said}; {_lost(self.last)}"


def watch(
    moments: Generator[Moment, None, None],
    *,
    name: str,
    emotions: Sequence[str],
    form: Form | None = None,
    out: TextIO | None = None,
) -> Tally:
    """Show moments as they come, until they end or Ctrl-C; then sum up in one line, on stderr.

    Args:
        moments: from `live`; closed at the end, and its threads with it.
        emotions: of the model, in class order.
        form: "screen" redraws one picture, "lines" writes a line for each answer, "json" an object for each
            moment; None takes the screen where `out` is a terminal, else lines.
        out: stdout if not given.
    """
    out = sys.stdout if out is None else out
    form = form or ("screen" if out.isatty() else "lines")
    tally = Tally()
    with _screen(name, emotions, out) if form == "screen" else nullcontext(_printer(form, out)) as show:
        try:
            with closing(moments):
                for moment in moments:
                    tally.add(moment)
                    show(tally)
        except KeyboardInterrupt:
            pass  # the way to end it
    say(f"{name}: {tally}")
    return tally


def _printer(form: Form, out: TextIO) -> Show:
    """Return a function that writes JSON, or a line for each answer."""

    def show(tally: Tally) -> None:
        moment = tally.last
        if moment is not None and form == "json":
            print(json.dumps(moment.as_json()), file=out, flush=True)
        elif moment is not None and (moment.window is not None or tally.moments == 1):
            print(line(moment), file=out, flush=True)

    return show


def line(moment: Moment) -> str:
    """An answer in one line, with what was missing and what was dropped."""
    if moment.window is None or moment.delay is None:
        return _listening(moment)
    told = _segment(moment)
    lost = f"  {_lost(moment)}" if moment.dropped or moment.skipped else ""
    return f"{moment.second:6.1f} s  {told.text:<24}  delay {moment.delay:.2f} s{lost}"


def _listening(moment: Moment) -> str:
    return f"listening... {moment.missing:.1f} s"


def _segment(moment: Moment) -> Segment:
    window = moment.window
    assert window is not None  # noqa: S101 - asked by the caller
    return Segment(window.start, window.end, window.probabilities, window.face, window.speech, window.uses)


def _lost(moment: Moment) -> str:
    return f"{_count(moment.dropped, 'picture')} dropped, {_count(moment.skipped, 'window')} skipped"


def _count(number: int, what: str) -> str:
    """Number and noun.

    >>> _count(1, "window"), _count(2, "window")
    ('1 window', '2 windows')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


@contextmanager
def _screen(name: str, emotions: Sequence[str], out: TextIO) -> Iterator[Show]:
    """Redraw one picture in a terminal."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out, highlight=False)
    with Live(_picture(name, emotions, Tally()), console=console, auto_refresh=False) as live:
        yield lambda tally: live.update(_picture(name, emotions, tally), refresh=True)


def _picture(name: str, emotions: Sequence[str], tally: Tally) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    moment = tally.last
    window = None if moment is None else moment.window
    probabilities = (None if window is None else window.probabilities) or {}
    head, marks, pace, foot = "opening...", "", "", "Ctrl-C ends it"
    if moment is not None:
        head = _listening(moment)
        foot = f"{_lost(moment)}; {foot}"
    if moment is not None and window is not None:
        told = _segment(moment)
        head, marks = told.answer or "no answer", _marks(window)
        rate = tally.rate(RECENT)
        often = "" if rate is None else f", {rate:.1f} answers a second"
        pace = f"delay {moment.delay:.2f} s{often}"
    bars = Table.grid(padding=(0, 1))
    for emotion, colour in colours(emotions).items():
        value = probabilities.get(emotion, 0.0)
        most = window is not None and emotion == window.emotion
        bars.add_row(
            Text(emotion, style="bold" if most else ""),
            ProgressBar(1.0, value, width=BAR, complete_style=colour, finished_style=colour),
            Text(f"{100 * value:3.0f} %" if probabilities else ""),
        )
    second = "" if moment is None else f"  {moment.second:.1f} s"
    return Group(
        Text(f"{name}{second}", no_wrap=True, overflow="ellipsis"),
        Text(head, style="bold"),
        bars,
        Text(marks),
        Text(pace, style="dim"),
        Text(foot, style="dim"),
    )


def _marks(window: Window) -> str:
    """Marks of what was there, what was missing and what the model did then."""
    there = [
        f"{name}: {'yes' if seen else 'no'}"
        for name, seen in (("face", window.face), ("speech", window.speech))
        if seen is not None
    ]
    used = {("video",): "picture alone", ("audio",): "voice alone", (): "so no answer"}
    said = used.get(window.uses, "") if len(there) > 1 or not window.uses else ""
    return "   ".join([*there, said]).rstrip()
