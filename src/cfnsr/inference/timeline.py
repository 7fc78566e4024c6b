"""The prediction of a file: its windows, the file as a whole, and segments that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = dict[str, float]
ALONE = {"video": "picture alone", "audio": "voice alone"}  # words for an answer by one of two modalities


@dataclass(frozen=True)
class Window:
    """A window of the file and the model's answer.

    Args:
        start, end: seconds.
        probabilities: of each emotion; None where the model abstains.
        face: found in at least half of the pictures searched, or rows of a track; None when not asked for.
        speech: its sound is louder than silence; None when not asked for.
        uses: what the answer rests on, among "video" and "audio"; nothing where the model abstains.
    """

    start: float
    end: float
    probabilities: Probabilities | None
    face: bool | None
    speech: bool | None
    uses: tuple[str, ...] = ("video", "audio")

    @property
    def emotion(self) -> str | None:
        """The most probable one; None where the model abstains."""
        return most_probable(self.probabilities)

    @property
    def probability(self) -> float | None:
        """Probability of that emotion, from 0 to 1; None where the model abstains."""
        return None if self.probabilities is None else max(self.probabilities.values())

    @property
    def answer(self) -> str:
        """The emotion with its probability.

        >>> Window(0, 1, {"happy": 0.72, "sad": 0.28}, True, True).answer
        'happy 72 %'
        """
        return "" if self.probability is None else f"{self.emotion} {100 * self.probability:.0f} %"

    @property
    def mark(self) -> str:
        """Mark of what was missing and what the model did then; empty where nothing was missing.

        >>> Window(0, 1, {"happy": 0.7, "sad": 0.3}, False, True, ("audio",)).mark
        'no face: voice alone'
        >>> Window(0, 1, None, False, False, ()).mark
        'no face, no speech: no answer'
        """
        there = {"face": self.face, "speech": self.speech}
        missing = ", ".join(f"no {name}" for name, found in there.items() if found is False)
        alone = ALONE[self.uses[0]] if missing and len(self.uses) == 1 else ""
        then = "no answer" if self.probabilities is None else alone
        return ": ".join(filter(None, (missing, then)))

    @property
    def text(self) -> str:
        """Answer and mark.

        >>> Window(0, 1, {"happy": 0.72, "sad": 0.28}, False, True, ("audio",)).text
        'happy 72 % (no face: voice alone)'
        """
        return f"{self.answer} ({self.mark})" if self.answer and self.mark else self.answer or self.mark

    def as_json(self) -> dict[str, Any]:
        """Return one entry of the timeline that `cfnsr predict --json` prints."""
        return {field.name: getattr(self, field.name) for field in fields(Window)} | {"uses": list(self.uses)}


@dataclass(frozen=True)
class Segment(Window):
    """A part of the file with one answer, the mean over it; of one of several people with a number from 1."""

    person: int | None = None

    @property
    def text(self) -> str:
        """Text of a subtitle: person, answer and mark."""
        text = super().text
        return text if self.person is None else f"{self.person}: {text}"


@dataclass(frozen=True)
class Prediction:
    """A model's prediction of a file, or of one person in it.

    Args:
        emotion: the most probable one; None where the model abstains all along.
        probabilities: of each emotion, in class order: the mean over the timeline.
        timeline: windows in order of start; they overlap where the hop is shorter than they.
        person: number from 1, where several people are followed.
        people: each person's, where all faces were asked for; the largest and longest seen first.
        faces: (N, 4) second, centre x, centre y and side of the face's square, in pixels as shown.
        notes: remarks on how the file was read, a line each.
    """

    file: str
    emotion: str | None
    probabilities: Probabilities | None
    timeline: tuple[Window, ...]
    person: int | None = None
    people: tuple[Prediction, ...] = ()
    faces: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 4), np.float32), compare=False, repr=False
    )
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The emotion with its probability; empty where the model abstains."""
        if self.emotion is None or self.probabilities is None:
            return ""
        return f"{self.emotion} {100 * self.probabilities[self.emotion]:.0f} %"

    def as_json(self) -> dict[str, Any]:
        """Return the form that `cfnsr predict --json` prints."""
        value = {
            "file": self.file,
            "emotion": self.emotion,
            "probabilities": self.probabilities,
            "timeline": [window.as_json() for window in self.timeline],
        }
        more = {
            "notes": list(self.notes),
            "person": self.person,
            "people": [person.as_json() for person in self.people],
        }
        return value | {name: each for name, each in more.items() if each}


def most_probable(probabilities: Probabilities | None) -> str | None:
    """The emotion with the highest probability.

    >>> most_probable({"happy": 0.3, "sad": 0.7})
    'sad'
    """
    return None if probabilities is None else max(probabilities, key=probabilities.__getitem__)


def summary(windows: Sequence[Window]) -> Probabilities | None:
    """Mean of the windows' probabilities, without those that abstain.

    >>> window = Window(0, 1, {"happy": 0.2, "sad": 0.8}, True, True)
    >>> summary([window, Window(1, 2, None, False, False, ())])
    {'happy': 0.2, 'sad': 0.8}
    """
    answered = [window.probabilities for window in windows if window.probabilities is not None]
    if not answered:
        return None
    return {emotion: sum(each[emotion] for each in answered) / len(answered) for emotion in answered[0]}


def segments(prediction: Prediction, *, join: bool = True) -> list[Segment]:
    """Cut a timeline into segments that do not overlap, in order of start.

    Each moment belongs to the window whose middle is nearest, among those that reach to it. Only the
    prediction's own timeline is cut, not those of its people.

    Args:
        join: make one segment of neighbours that have the same emotion and the same marks.

    >>> surer = [{"happy": 0.6, "sad": 0.4}, {"happy": 0.7, "sad": 0.3}]
    >>> windows = tuple(Window(at, at + 3.0, surer[at], True, True) for at in (0, 1))
    >>> [(each.start, each.end, each.answer) for each in segments(Prediction("", None, None, windows))]
    [(0.0, 4.0, 'happy 65 %')]
    """
    windows = sorted(prediction.timeline, key=lambda window: (window.start, window.end))
    cut: list[Segment] = []
    begin = 0.0
    for window, following in zip_longest(windows, windows[1:]):
        begin, end = max(begin, window.start), window.end
        if following is not None:  # whose middle becomes the nearer one within their overlap, if any
            middle = (window.start + window.end + following.start + following.end) / 4
            end = min(end, max(following.start, min(middle, window.end)))
        if end > begin:
            found = window.probabilities, window.face, window.speech, window.uses
            cut.append(Segment(begin, end, *found, person=prediction.person))
            begin = end
    return _joined(cut) if join else cut


def _joined(cut: Sequence[Segment]) -> list[Segment]:
    def kind(each: Segment) -> tuple[object, ...]:
        return each.emotion, each.face, each.speech, each.uses

    joined: list[Segment] = []
    for each in cut:
        if not joined or joined[-1].end != each.start or kind(joined[-1]) != kind(each):
            joined.append(each)
            continue
        before = joined[-1]  # of the same emotion, which the mean then has too; or neither has one
        weight, latter = (before.end - before.start) / (each.end - before.start), each.probabilities or {}
        mean = before.probabilities and {
            emotion: weight * probability + (1 - weight) * latter[emotion]
            for emotion, probability in before.probabilities.items()
        }
        joined[-1] = replace(before, end=each.end, probabilities=mean)
    return joined


def everyone(prediction: Prediction) -> list[Prediction]:
    """Predictions to show: of each person followed and of the windows without anybody, else itself.

    >>> windows = [Window(at, at + 1, {"happy": 1.0}, at < 2, True) for at in range(4)]
    >>> one = Prediction("a.mp4", "happy", None, tuple(windows[:2]), person=1)
    >>> shown = everyone(Prediction("a.mp4", "happy", None, tuple(windows), people=(one,)))
    >>> [(each.person, len(each.timeline)) for each in shown]
    [(1, 2), (None, 2)]
    """
    if not prediction.people:
        return [prediction]
    seen = {window.start for person in prediction.people for window in person.timeline}
    nobody = tuple(window for window in prediction.timeline if window.start not in seen)
    if not nobody:
        return list(prediction.people)
    mean = summary(nobody)
    return [*prediction.people, Prediction(prediction.file, most_probable(mean), mean, nobody)]


def labels(predictions: Sequence[Prediction]) -> list[str]:
    """Emotions in predictions, in class order; none where all abstain."""
    found: dict[str, None] = {}
    for prediction in predictions:
        for each in (prediction, *prediction.people):
            for probabilities in (each.probabilities, *(window.probabilities for window in each.timeline)):
                found |= dict.fromkeys(probabilities or ())
    return list(found)


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Minutes and seconds of a file, with hours where there are any.

    >>> clock(9.6), clock(3725), clock(3.25, tenths=True)
    ('0:10', '1:02:05', '0:03.2')
    """
    unit = 10 if tenths else 1
    minutes, rest = divmod(round(unit * seconds), 60 * unit)
    hours, minutes = divmod(minutes, 60)
    ending = f"{rest // unit:02}" + (f".{rest % unit}" if tenths else "")
    return f"{hours}:{minutes:02}:{ending}" if hours else f"{minutes}:{ending}"
