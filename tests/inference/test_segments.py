"""Stretches that do not overlap: whose each moment is, what is joined, what is said."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.inference.prediction import Prediction, Window
from cfnsr.inference.segments import Segment, everyone, segments

HAPPY, SAD = {"happy": 0.7, "sad": 0.3}, {"happy": 0.2, "sad": 0.8}


def told(*windows: Window, person: int | None = None) -> Prediction:
    return Prediction("a.mp4", None, None, windows, person=person)


@st.composite
def timelines(draw: st.DrawFn) -> list[Window]:
    """Windows of one length at any hop, the last one shorter or not, some left out."""
    length, hop = draw(st.floats(0.5, 5)), draw(st.floats(0.1, 6))
    count = draw(st.integers(1, 12))
    end = (count - 1) * hop + length * draw(st.sampled_from([1.0, 0.7]))
    there = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    answers = draw(st.lists(st.sampled_from([HAPPY, SAD, None]), min_size=count, max_size=count))
    return [
        Window(at * hop, min(at * hop + length, end), answers[at], True, True)
        for at in range(count)
        if there[at] and at * hop < end
    ]


@settings(deadline=None)
@given(timelines())
def test_each_moment_belongs_to_the_nearest_window_that_reaches_it(windows: list[Window]) -> None:
    cut = segments(told(*windows), join=False)
    for before, after in pairwise(cut):
        assert before.end <= after.start
    end = max((window.end for window in windows), default=0)
    for step in range(200):
        moment = end * (step + 0.37) / 200
        reach = [window for window in windows if window.start <= moment <= window.end]
        mine = [each for each in cut if each.start <= moment <= each.end]
        assert bool(reach) == bool(mine)
        if reach:
            distances = [abs((window.start + window.end) / 2 - moment) for window in reach]
            nearest = [
                window.probabilities
                for window, distance in zip(reach, distances, strict=True)
                if distance < min(distances) + 1e-9
            ]
            assert any(each.probabilities in nearest for each in mine)


@settings(deadline=None)
@given(timelines())
def test_joining_changes_neither_the_time_nor_the_mean(windows: list[Window]) -> None:
    apart, joined = segments(told(*windows), join=False), segments(told(*windows))
    assert sum(each.end - each.start for each in joined) == pytest.approx(
        sum(each.end - each.start for each in apart)
    )
    for before, after in pairwise(joined):
        assert before.end < after.start or before.emotion != after.emotion
    for each in joined:
        parts = [part for part in apart if each.start <= part.start and part.end <= each.end]
        assert {part.emotion for part in parts} == {each.emotion}
        if each.probabilities is not None:
            seconds = sum(part.end - part.start for part in parts)
            mean = sum((part.end - part.start) * part.probabilities["sad"] for part in parts) / seconds
            assert each.probabilities["sad"] == pytest.approx(mean)


def test_overlapping_windows_by_hand() -> None:
    """Middles at 1.5, 2.5 and 3.5 s: borders at 2 and 3 s."""
    windows = [Window(0, 3, HAPPY, True, True), Window(1, 4, SAD, True, True), Window(2, 5, SAD, True, False)]
    cut = segments(told(*windows))
    assert [(each.start, each.end, each.answer, each.speech) for each in cut] == [
        (0, 2, "happy 70 %", True),
        (2, 3, "sad 80 %", True),
        (3, 5, "sad 80 %", False),
    ]
    assert cut[0].probability == 0.7


def test_a_gap_stays_a_gap_and_a_negative_start_becomes_zero() -> None:
    cut = segments(told(Window(-0.5, 1, HAPPY, True, True), Window(3, 4, HAPPY, True, True)))
    assert [(each.start, each.end) for each in cut] == [(0, 1), (3, 4)]
    assert segments(told()) == []


@pytest.mark.parametrize(
    ("probabilities", "face", "speech", "uses", "text"),
    [
        (HAPPY, True, True, ("video", "audio"), "happy 70 %"),
        (HAPPY, False, True, ("audio",), "happy 70 % (no face: voice alone)"),
        (HAPPY, True, False, ("video",), "happy 70 % (no speech: picture alone)"),
        (HAPPY, None, True, ("audio",), "happy 70 %"),
        (HAPPY, True, None, ("video",), "happy 70 %"),
        (HAPPY, False, True, ("video", "audio"), "happy 70 % (no face)"),
        (None, False, False, (), "no face, no speech: no answer"),
        (None, False, None, (), "no face: no answer"),
        (None, True, False, (), "no speech: no answer"),
        (None, None, None, (), "no answer"),
    ],
)
def test_what_is_said(
    probabilities: dict[str, float] | None,
    face: bool | None,
    speech: bool | None,
    uses: tuple[str, ...],
    text: str,
) -> None:
    segment = Segment(0, 1, probabilities, face, speech, uses)
    assert segment.text == text
    assert Segment(0, 1, probabilities, face, speech, uses, person=3).text == f"3: {text}"


def test_of_several_people_and_of_nobody() -> None:
    windows = [Window(at, at + 1, HAPPY if at < 3 else None, at < 3, False) for at in range(5)]
    people = (told(*windows[:3], person=1), told(windows[1], person=2))
    whole = Prediction("a.mp4", "happy", HAPPY, tuple(windows), people=people)
    first, second, nobody = everyone(whole)
    assert (first, second) == people
    assert nobody.person is None
    assert nobody.timeline == tuple(windows[3:])
    assert nobody.probabilities is None, "what was answered elsewhere is not said of these"
    assert everyone(people[0]) == [people[0]]
