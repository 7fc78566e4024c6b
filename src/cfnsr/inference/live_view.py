"""The view of `live`: the moment in a terminal, a line for each answer elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal, TextIO

from cfnsr.console import say
from cfnsr.inference.palette import colours
from cfnsr.inference.timeline import ALONE

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import RenderableType

    from cfnsr.inference.live import Moment
    from cfnsr.inference.timeline import Window

Form = Literal["screen", "lines", "json"]

BAR = 30  # characters of a probability of 1
RECENT = 12  # answers that the rate is computed from


@dataclass
class Tally:
    """Delays of the answers and ends of their windows, in seconds; the newest moment, and their number."""

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

    def rate(self, recent: int = 0) -> float | None:
        """Answers a second, over all or the newest ones; None before the second answer.

        >>> Tally([0.1, 0.1, 0.1], [3.0, 3.5, 4.5]).rate()
        1.3333333333333333
        """
        ends = self.ends[-recent:]
        return (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else None

    def __str__(self) -> str:
        """Summarise in one line."""
        if self.last is None:
            return "no answers"
        text = f"{self.last.second:.1f} s: {_count(len(self.ends), 'answer')}{_often(self.rate())}"
        if self.delays:
            text += f"; delay {median(self.delays):.2f} s, at most {max(self.delays):.2f} s"
        return f"{text}; {_lost(self.last)}"


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
        form: "screen" redraws one picture, "lines" writes a line for each answer, "json" an object for each
            moment; None takes the screen where `out` (stdout) is a terminal, else lines.
    """
    out = sys.stdout if out is None else out
    form = form or ("screen" if out.isatty() else "lines")
    tally = Tally()
    with _shown(name, emotions, form, out) as show:
        try:
            with closing(moments):
                for moment in moments:
                    tally.add(moment)
                    show(tally, moment)
        except KeyboardInterrupt:
            pass  # the way to end it
    say(f"{name}: {tally}")
    return tally


@contextmanager
def _shown(
    name: str, emotions: Sequence[str], form: Form, out: TextIO
) -> Iterator[Callable[[Tally, Moment], object]]:
    """Yield a function that shows the newest moment."""

    def write(tally: Tally, moment: Moment) -> None:
        if form == "json" or moment.window is not None or tally.moments == 1:
            text = json.dumps(moment.as_json()) if form == "json" else line(moment)
            print(text, file=out, flush=True)

    if form != "screen":
        yield write
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out, highlight=False)
    with Live(_picture(name, emotions, Tally()), console=console, auto_refresh=False) as screen:
        yield lambda tally, moment: screen.update(_picture(name, emotions, tally), refresh=True)


def line(moment: Moment) -> str:
    """An answer in one line, with what was missing and what was dropped."""
    if moment.window is None or moment.delay is None:
        return f"listening... {moment.missing:.1f} s"
    lost = f"  {_lost(moment)}" if moment.dropped or moment.skipped else ""
    return f"{moment.second:6.1f} s  {moment.window.text:<24}  delay {moment.delay:.2f} s{lost}"


def _lost(moment: Moment) -> str:
    return f"{_count(moment.dropped, 'picture')} dropped, {_count(moment.skipped, 'window')} skipped"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _often(rate: float | None, what: str = "") -> str:
    return "" if rate is None else f", {rate:.1f} {what}a second"


def _picture(name: str, emotions: Sequence[str], tally: Tally) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    moment = tally.last
    window = None if moment is None else moment.window
    head, marks, pace, foot, second = "opening...", "", "", "Ctrl-C ends it", ""
    if moment is not None:
        head, second = line(moment), f"  {moment.second:.1f} s"
        foot = f"{_lost(moment)}; {foot}"
        if window is not None:
            head, marks = window.answer or "no answer", _marks(window)
            pace = f"delay {moment.delay:.2f} s{_often(tally.rate(RECENT), 'answers ')}"
    probabilities = (None if window is None else window.probabilities) or {}
    bars = Table.grid(padding=(0, 1))
    for emotion, colour in colours(emotions).items():
        value = probabilities.get(emotion, 0.0)
        most = window is not None and emotion == window.emotion
        bars.add_row(
            Text(emotion, style="bold" if most else ""),
            ProgressBar(1.0, value, width=BAR, complete_style=colour, finished_style=colour),
            Text(f"{100 * value:3.0f} %" if probabilities else ""),
        )
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
    found = {"face": window.face, "speech": window.speech}
    there = [f"{name}: {'yes' if seen else 'no'}" for name, seen in found.items() if seen is not None]
    if not window.uses:
        there.append("so no answer")
    elif len(window.uses) == 1 and len(there) > 1:
        there.append(ALONE[window.uses[0]])
    return "   ".join(there)
