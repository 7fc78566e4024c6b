"""The timeline: summary, JSON, and segments that do not overlap: whose each moment is, what is joined."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.inference.timeline import Prediction, Segment, Window, everyone, most_probable, segments, summary

HAPPY, SAD = {"happy": 0.7, "sad": 0.3}, {"happy": 0.2, "sad": 0.8}
ANSWERED = Window(0.0, 2.0, HAPPY, True, True)
ABSTAINING = Window(1.0, 3.0, None, False, False, ())


def of(*windows: Window, person: int | None = None) -> Prediction:
    return Prediction("a.mp4", None, None, windows, person=person)


def test_the_most_probable_emotion() -> None:
    assert most_probable(HAPPY) == "happy" and most_probable(SAD) == "sad"
    assert most_probable({"happy": 0.5, "sad": 0.5}) == "happy", "in class order where two are alike"
    assert most_probable(None) is None
    assert ANSWERED.emotion == "happy" and ABSTAINING.emotion is None


def test_a_summary_is_the_mean_of_those_that_answer() -> None:
    windows = [ANSWERED, ABSTAINING, Window(2.0, 4.0, SAD, False, True, ("audio",)), ANSWERED]
    assert summary(windows) == {"happy": pytest.approx(1.6 / 3), "sad": pytest.approx(1.4 / 3)}
    assert list(summary(windows) or {}) == ["happy", "sad"]
    assert summary([ABSTAINING, ABSTAINING]) is None is summary([])


def test_the_form_that_scripts_read() -> None:
    one = Prediction("a.mp4", "happy", HAPPY, (ANSWERED,), person=1)
    value = Prediction("a.mp4", "happy", HAPPY, (ANSWERED, ABSTAINING), people=(one,)).as_json()
    first = {"start": 0.0, "end": 2.0, "probabilities": {"happy": 0.7, "sad": 0.3}, "face": True}
    first |= {"speech": True, "uses": ["video", "audio"]}
    second = {"start": 1.0, "end": 3.0, "probabilities": None, "face": False, "speech": False, "uses": []}
    whole = {"file": "a.mp4", "emotion": "happy", "probabilities": {"happy": 0.7, "sad": 0.3}}
    person = {**whole, "timeline": [first], "person": 1}
    assert json.loads(json.dumps(value)) == {**whole, "timeline": [first, second], "people": [person]}
    assert set(of().as_json()) == {"file", "emotion", "probabilities", "timeline"}


def test_predictions_are_alike_whatever_their_squares() -> None:
    """Arrays have no single truth of being equal, so they are left out."""
    one = Prediction("a.mp4", "happy", HAPPY, (ANSWERED,), faces=np.ones((2, 4), np.float32))
    assert one == Prediction("a.mp4", "happy", HAPPY, (ANSWERED,)) and "faces" not in repr(one)
    assert one != Prediction("a.mp4", "happy", HAPPY, (ABSTAINING,))
    assert of().faces.shape == (0, 4)


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
    cut = segments(of(*windows), join=False)
    for before, after in pairwise(cut):
        assert before.end <= after.start
    end = max((window.end for window in windows), default=0)
    for step in range(200):
        moment = end * (step + 0.37) / 200
        reach = [window for window in windows if window.start <= moment <= window.end]
        mine = [each for each in cut if each.start <= moment <= each.end]
        assert bool(reach) == bool(mine)
        distances = [abs((window.start + window.end) / 2 - moment) for window in reach]
        nearest = [
            window.probabilities
            for window, distance in zip(reach, distances, strict=True)
            if distance < min(distances) + 1e-9
        ]
        assert not reach or any(each.probabilities in nearest for each in mine)


@settings(deadline=None)
@given(timelines())
def test_joining_changes_neither_the_time_nor_the_mean(windows: list[Window]) -> None:
    apart, joined = segments(of(*windows), join=False), segments(of(*windows))
    lasts = [sum(each.end - each.start for each in cut) for cut in (apart, joined)]
    assert lasts[0] == pytest.approx(lasts[1])
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
    cut = segments(of(*windows))
    assert [(each.start, each.end, each.answer, each.speech) for each in cut] == [
        (0, 2, "happy 70 %", True),
        (2, 3, "sad 80 %", True),
        (3, 5, "sad 80 %", False),
    ]
    assert cut[0].probability == 0.7


def test_a_gap_stays_a_gap_and_a_negative_start_becomes_zero() -> None:
    cut = segments(of(Window(-0.5, 1, HAPPY, True, True), Window(3, 4, HAPPY, True, True)))
    assert [(each.start, each.end) for each in cut] == [(0, 1), (3, 4)]
    assert segments(of()) == []


@pytest.mark.parametrize(
    ("probabilities", "face", "speech", "uses", "text"),
    [
        (HAPPY, True, True, ("video", "audio"), "happy 70 %"),
        (HAPPY, False, True, ("audio",), "happy 70 % (no face: voice alone)"),
        (HAPPY, True, False, ("video",), "happy 70 % (no speech: picture alone)"),
        (HAPPY, None, True, ("audio",), "happy 70 %"),
        (HAPPY, False, True, ("video", "audio"), "happy 70 % (no face)"),
        (None, False, False, (), "no face, no speech: no answer"),
        (None, False, None, (), "no face: no answer"),
        (None, None, None, (), "no answer"),
    ],
)
def test_text_of_a_segment(
    probabilities: dict[str, float] | None,
    face: bool | None,
    speech: bool | None,
    uses: tuple[str, ...],
    text: str,
) -> None:
    given = (0, 1, probabilities, face, speech, uses)
    assert Window(*given).text == Segment(*given).text == text
    assert Segment(*given, person=3).text == f"3: {text}"


def test_of_several_people_and_of_nobody() -> None:
    windows = [Window(at, at + 1, HAPPY if at < 3 else None, at < 3, False) for at in range(5)]
    people = (of(*windows[:3], person=1), of(windows[1], person=2))
    whole = Prediction("a.mp4", "happy", HAPPY, tuple(windows), people=people)
    first, second, nobody = everyone(whole)
    assert (first, second) == people
    assert (nobody.person, nobody.timeline) == (None, tuple(windows[3:]))
    assert nobody.probabilities is None, "what was answered elsewhere is not said of these"
    assert everyone(people[0]) == [people[0]]
