"""Subtitles, read back by small parsers written from the formats' descriptions."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.inference.prediction import Prediction, Window
from cfnsr.inference.subtitles import to_srt, to_vtt

Cues = list[tuple[int, int, str]]


def read_vtt(text: str) -> Cues:
    """By sections 4.1 and 4.2 of the WebVTT specification; fails on what a cue may not have."""
    assert "\r" not in text and "\0" not in text
    signature, _, body = text.partition("\n")
    assert signature == "WEBVTT"
    assert not body or body.startswith("\n"), "a blank line follows the signature"
    stamp = r"((?:\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3})"
    cues = []
    for block in re.split(r"\n{2,}", body.strip("\n")) if body.strip("\n") else []:
        timing, *payload = block.split("\n")
        match = re.fullmatch(rf"{stamp}[ \t]+-->[ \t]+{stamp}", timing)
        assert match, timing
        said = "\n".join(payload)
        assert said and "-->" not in said
        assert not re.search(r"<|&(?!amp;|lt;|gt;|lrm;|rlm;|nbsp;)", said), "only escapes"
        for escape, plain in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
            said = said.replace(escape, plain)
        cues.append((_milliseconds(match[1], "."), _milliseconds(match[2], "."), said))
    return cues


def read_srt(text: str) -> Cues:
    """Number, `hours:minutes:seconds,milliseconds --> ...`, lines, a blank line."""
    cues = []
    for count, block in enumerate(re.split(r"\n{2,}", text.strip("\n")) if text else [], start=1):
        number, timing, *payload = block.split("\n")
        assert number == str(count)
        match = re.fullmatch(r"(\d{2,}:[0-5]\d:[0-5]\d,\d{3}) --> (\d{2,}:[0-5]\d:[0-5]\d,\d{3})", timing)
        assert match, timing
        assert payload and not any(mark in line for line in payload for mark in ("-->", "<", "{"))
        cues.append((_milliseconds(match[1], ","), _milliseconds(match[2], ","), "\n".join(payload)))
    return cues


def _milliseconds(stamp: str, point: str) -> int:
    whole, thousandths = stamp.split(point)
    total = 0
    for part in whole.split(":"):
        total = 60 * total + int(part)
    return 1000 * total + int(thousandths)


def told(*windows: Window, people: tuple[Prediction, ...] = (), person: int | None = None) -> Prediction:
    return Prediction("a.mp4", None, None, windows, people=people, person=person)


def window(start: float, end: float, emotion: str | None, face: bool = True, speech: bool = True) -> Window:
    uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there)
    return Window(start, end, None if emotion is None else {emotion: 0.72, "-": 0.28}, face, speech, uses)


def test_what_is_shown_when() -> None:
    prediction = told(
        window(0, 3, "happy"),
        window(1, 4, "happy"),
        window(2, 5, "happy", face=False),
        window(3, 6, None, face=False, speech=False),
    )
    expected = [
        (0, 3000, "happy 72 %"),
        (3000, 4000, "happy 72 % (no face: voice alone)"),
        (4000, 6000, "no face, no speech: no answer"),
    ]
    assert read_srt(to_srt(prediction)) == expected
    assert read_vtt(to_vtt(prediction)) == expected


def test_several_people_share_a_subtitle() -> None:
    first = told(window(0, 2, "happy"), person=1)
    second = told(window(1, 3, "sad"), person=2)
    whole = told(
        window(0, 2, "happy"), window(1, 3, "sad"), window(3, 4, None, face=False), people=(first, second)
    )
    expected = [
        (0, 1000, "1: happy 72 %"),
        (1000, 2000, "1: happy 72 %\n2: sad 72 %"),
        (2000, 3000, "2: sad 72 %"),
        (3000, 4000, "no face: no answer"),
    ]
    assert read_srt(to_srt(whole)) == expected
    assert read_vtt(to_vtt(whole)) == expected


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a --> b", "a --› b"),
        ("<b>&lt;</b>", "‹b›&lt;‹/b›"),
        ("this & that", "this & that"),
        ("{\\an8}up", "(\\an8)up"),
        ("two\n\n1\nlines", "two 1 lines"),
        ("froh 😀 ängstlich", "froh 😀 ängstlich"),
    ],
)
def test_names_that_would_be_taken_for_marks(name: str, plain: str) -> None:
    prediction = told(window(0, 1, name))
    assert read_vtt(to_vtt(prediction)) == [(0, 1000, f"{' '.join(name.split())} 72 %")]
    assert read_srt(to_srt(prediction)) == [(0, 1000, f"{plain} 72 %")]


def test_hours_beyond_ninety_nine() -> None:
    prediction = told(window(359_998.5, 360_001.25, "happy"))
    expected = [(359_998_500, 360_001_250, "happy 72 %")]
    assert "99:59:58,500 --> 100:00:01,250" in to_srt(prediction)
    assert read_srt(to_srt(prediction)) == expected
    assert read_vtt(to_vtt(prediction)) == expected


def test_nothing_to_say() -> None:
    assert to_srt(told()) == ""
    assert read_vtt(to_vtt(told())) == []


times = st.floats(-2, 40, allow_nan=False)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(times, times, st.sampled_from(["happy", "sad", None])), max_size=6), max_size=4
    )
)
def test_never_negative_never_overlapping(people: list[list[tuple[float, float, str | None]]]) -> None:
    """Whatever the windows are: in any order, of any length, touching within a millisecond."""
    several = tuple(
        told(*(window(min(a, b), max(a, b), emotion) for a, b, emotion in windows), person=number)
        for number, windows in enumerate(people, start=1)
    )
    whole = told(*(each for person in several for each in person.timeline), people=several)
    for read, write in ((read_srt, to_srt), (read_vtt, to_vtt)):
        cues = read(write(whole))
        last = 0
        for start, end, said in cues:
            assert last <= start < end
            assert len({line.split(":")[0] for line in said.split("\n")}) == said.count("\n") + 1
            last = end
