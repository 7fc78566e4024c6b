"""The prediction of a file: its windows, and the file as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """A window of the file and the model's answer.

    Args:
        start, end: seconds.
        probabilities: of each emotion; None where the model abstains.
        face: whether a face was found in at least half of its pictures, or of the rows of an OpenFace track;
            None when neither was asked for.
        speech: whether its sound is louder than silence; None when none was asked for.
        uses: what the answer rests on, among "video" and "audio"; nothing where the model abstains.
    """

    start: float
    end: float
    probabilities: dict[str, float] | None
    face: bool | None
    speech: bool | None
    uses: tuple[str, ...] = ("video", "audio")

    @property
    def emotion(self) -> str | None:
        """The most probable one."""
        return most_probable(self.probabilities)

    def as_json(self) -> dict[str, Any]:
        """Return one entry of the timeline that `cfnsr predict --json` prints."""
        return {
            "start": self.start,
            "end": self.end,
            "probabilities": self.probabilities,
            "face": self.face,
            "speech": self.speech,
            "uses": list(self.uses),
        }


def _nowhere() -> NDArray[np.float32]:
    return np.empty((0, 4), np.float32)


@dataclass(frozen=True)
class Prediction:
    """A model's prediction of a file, or of one person in it.

    Args:
        emotion: the most probable one; None where the model abstains all along.
        probabilities: of each emotion, in class order; they sum to 1; the mean over the timeline.
        timeline: windows in order of start; they overlap where the hop is shorter than they.
        person: number from 1, where several people are followed.
        people: each person's prediction, where all faces were asked for; the largest and longest seen first.
        faces: (N, 4) second, centre x, centre y and side of the face's square, in pixels as shown.
        notes: remarks on how the file was read, a line each.
    """

    file: str
    emotion: str | None
    probabilities: dict[str, float] | None
    timeline: tuple[Window, ...]
    person: int | None = None
    people: tuple[Prediction, ...] = ()
    faces: NDArray[np.float32] = field(default_factory=_nowhere, compare=False, repr=False)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the form that `cfnsr predict --json` prints."""
        value: dict[str, Any] = {
            "file": self.file,
            "emotion": self.emotion,
            "probabilities": self.probabilities,
            "timeline": [window.as_json() for window in self.timeline],
        }
        if self.notes:
            value["notes"] = list(self.notes)
        if self.person is not None:
            value["person"] = self.person
        if self.people:
            value["people"] = [person.as_json() for person in self.people]
        return value


def most_probable(probabilities: dict[str, float] | None) -> str | None:
    """The emotion with the highest probability.

    >>> most_probable({"happy": 0.3, "sad": 0.7})
    'sad'
    """
    return None if probabilities is None else max(probabilities, key=probabilities.__getitem__)


def summary(windows: Sequence[Window]) -> dict[str, float] | None:
    """Mean of the windows' probabilities, without those that abstain.

    >>> window = Window(0, 1, {"happy": 0.2, "sad": 0.8}, True, True)
    >>> summary([window, Window(1, 2, None, False, False, ())])
    {'happy': 0.2, 'sad': 0.8}
    """
    told = [window.probabilities for window in windows if window.probabilities is not None]
    if not told:
        return None
    return {emotion: sum(each[emotion] for each in told) / len(told) for emotion in told[0]}
