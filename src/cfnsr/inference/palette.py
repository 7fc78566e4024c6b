"""Colours of the emotions, distinct for the colour-blind, and the style of figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

# Found by a search for the largest least distance (in OKLab) between any two, as seen with full colour vision
# and without red, green or blue cones (Machado, Oliveira & Fernandes 2009, at full severity).
EMOTIONS = {
    "neutral": "#acacac",
    "calm": "#ace3ff",
    "happy": "#ffd939",
    "sad": "#4432b4",
    "angry": "#eb0a15",
    "fearful": "#4d0e5f",
    "disgust": "#008379",
    "surprised": "#c85ddc",
}
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green and blue (ITU-R BT.709)

INK, FAINT = "#222222", "#dddddd"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cfnsr",
    "text.parse_math": False,  # a file may be called $1
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "figure.facecolor": "white",
}

_one_at_a_time = RLock()  # matplotlib's settings are the process's, and a server draws in several threads


def colours(emotions: Sequence[str]) -> dict[str, str]:
    """Choose a colour `#rrggbb` for each emotion: its own, or for one of another label set a free one.

    Beyond eight, colours repeat; every drawing puts names beside its colours.

    >>> colours(["happy", "bored"])
    {'happy': '#ffd939', 'bored': '#acacac'}
    """
    free = [colour for emotion, colour in EMOTIONS.items() if emotion not in emotions] or [*EMOTIONS.values()]
    strange = [emotion for emotion in emotions if emotion not in EMOTIONS]
    given = {emotion: free[place % len(free)] for place, emotion in enumerate(strange)}
    return {emotion: EMOTIONS.get(emotion) or given[emotion] for emotion in emotions}


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert `#rrggbb` to red, green and blue, from 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def ink(colour: str) -> str:
    """Choose black or white, whichever has the larger contrast with a colour (WCAG 2, relative luminance).

    >>> ink("#ffd939"), ink("#4432b4")
    ('#000000', '#ffffff')
    """
    parts = (part / 255 for part in rgb(colour))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    light = sum(weight * part for weight, part in zip(LUMINANCE, linear, strict=True))
    return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


@contextmanager
def style(more: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw in cfnsr's style inside; other threads that want to draw wait.

    Args:
        more: further matplotlib settings (rcParams) of this picture.
    """
    from matplotlib import rc_context

    with _one_at_a_time, rc_context({**STYLE, **(more or {})}):
        yield
