"""A timeline of overlapping windows -> segments that do not overlap, with a text for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cfnsr.inference.prediction import Prediction, Window, most_probable, summary


@dataclass(frozen=True)
class Segment:
    """A part of the file with one answer.

    Args:
        start, end: seconds, the end after the start.
        probabilities: of each emotion, the mean over the segment; None where the model abstains.
        face: whether a face was seen; None when none was asked for.
        speech: whether there is more than silence; None when none was asked for.
        uses: what the answer rests on, among "video" and "audio"; nothing where the model abstains.
        person: number from 1, where several people are followed.
    """

    start: float
    end: float
    probabilities: dict[str, float] | None
    face: bool | None
    speech: bool | None
    uses: tuple[str, ...] = ("video", "audio")
    person: int | None = None

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

        >>> Segment(0, 1, {"happy": 0.72, "sad": 0.28}, True, True, person=2).answer
        'happy 72 %'
        """
        return "" if self.probability is None else f"{self.emotion} {100 * self.probability:.0f} %"

    @property
    def mark(self) -> str:
        """Mark of what was missing and what the model did then; empty where nothing was missing.

        >>> Segment(0, 1, {"happy": 0.7, "sad": 0.3}, False, True, ("audio",)).mark
        'no face: voice alone'
        >>> Segment(0, 1, None, False, False, ()).mark
        'no face, no speech: no answer'
        """
        missing = [
            f"no {name}" for name, there in (("face", self.face), ("speech", self.speech)) if there is False
        ]
        if self.probabilities is None:
            then = "no answer"
        elif missing and len(self.uses) == 1:
            then = {"video": "picture alone", "audio": "voice alone"}[self.uses[0]]
        else:
            then = ""
        return ": ".join(part for part in (", ".join(missing), then) if part)

    @property
    def text(self) -> str:
        """Text of a subtitle: person, answer and mark.

        >>> Segment(0, 1, {"happy": 0.72, "sad": 0.28}, False, True, ("audio",), person=1).text
        '1: happy 72 % (no face: voice alone)'
        """
        said = f"{self.answer} ({self.mark})" if self.answer and self.mark else self.answer or self.mark
        return said if self.person is None else f"{self.person}: {said}"


def segments(prediction: Prediction, *, join: bool = True) -> list[Segment]:
    """Cut a timeline into segments that do not overlap, in order of start.

    Each moment belongs to the window whose middle is nearest, among those that reach to it; one that no
    window reaches belongs to none. Only the prediction's own timeline is cut, not those of its people.

    Args:
        prediction: of a file or of one person.
        join: make one segment of neighbours that have the same emotion and the same marks.

    >>> surer = [{"happy": 0.6, "sad": 0.4}, {"happy": 0.7, "sad": 0.3}]
    >>> windows = tuple(Window(at, at + 3.0, surer[at], True, True) for at in (0, 1))
    >>> [(each.start, each.end, each.answer) for each in segments(Prediction("", None, None, windows))]
    [(0.0, 4.0, 'happy 65 %')]
    """
    windows = sorted(prediction.timeline, key=lambda window: (window.start, window.end))
    cut = []
    begin = 0.0
    for place, window in enumerate(windows):
        begin = max(begin, window.start)
        end = window.end
        if place + 1 < len(windows):
            end = min(end, _border(window, windows[place + 1]))
        if end > begin:
            cut.append(
                Segment(
                    begin,
                    end,
                    window.probabilities,
                    window.face,
                    window.speech,
                    window.uses,
                    prediction.person,
                )
            )
            begin = end
    return _joined(cut) if join else cut


def _border(window: Window, following: Window) -> float:
    """Second at which the next window's middle becomes the nearer one, within their overlap if any."""
    middle = (window.start + window.end + following.start + following.end) / 4
    return max(following.start, min(middle, window.end))


def _joined(cut: Sequence[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for each in cut:
        before = joined[-1] if joined else None
        if before is not None and before.end == each.start and _alike(before, each):
            joined[-1] = replace(before, end=each.end, probabilities=_mean(before, each))
        else:
            joined.append(each)
    return joined


def _alike(one: Segment, other: Segment) -> bool:
    return (one.emotion, one.face, one.speech, one.uses) == (
        other.emotion,
        other.face,
        other.speech,
        other.uses,
    )


def _mean(one: Segment, other: Segment) -> dict[str, float] | None:
    """Mean over both segments; where both have the same most probable emotion, so has it."""
    if one.probabilities is None or other.probabilities is None:
        return None
    weight = (one.end - one.start) / (other.end - one.start)
    return {
        emotion: weight * probability + (1 - weight) * other.probabilities[emotion]
        for emotion, probability in one.probabilities.items()
    }


def everyone(prediction: Prediction) -> list[Prediction]:
    """Predictions to show: of each person followed and of the windows without anybody, else itself.

    >>> windows = [Window(at, at + 1, {"happy": 1.0}, at < 2, True) for at in range(4)]
    >>> one = Prediction("a.mp4", "happy", None, tuple(windows[:2]), person=1)
    >>> told = everyone(Prediction("a.mp4", "happy", None, tuple(windows), people=(one,)))
    >>> [(each.person, len(each.timeline)) for each in told]
    [(1, 2), (None, 2)]
    """
    if not prediction.people:
        return [prediction]
    seen = {window.start for person in prediction.people for window in person.timeline}
    nobody = tuple(window for window in prediction.timeline if window.start not in seen)
    told = list(prediction.people)
    if nobody:
        mean = summary(nobody)
        told.append(Prediction(prediction.file, most_probable(mean), mean, nobody))
    return told


def labels(predictions: Sequence[Prediction]) -> list[str]:
    """Emotions in predictions, in class order; none where all abstain."""
    told = [
        probabilities
        for prediction in predictions
        for each in (prediction, *prediction.people)
        for probabilities in (each.probabilities, *(window.probabilities for window in each.timeline))
        if probabilities is not None
    ]
    return list(dict.fromkeys(emotion for probabilities in told for emotion in probabilities))


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
