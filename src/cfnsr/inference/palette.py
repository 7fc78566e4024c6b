"""A colour for each emotion, the same in every picture and distinct for the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence

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
