"""Label sets: the only place that decides the order of the classes."""

from collections.abc import Iterable
from dataclasses import dataclass

from cfnsr.errors import InputError


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of emotions; a class index is a position in `emotions`.

    >>> RAVDESS.index("calm"), len(RAVDESS)
    (1, 8)
    """

    name: str
    emotions: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.emotions)) != len(self.emotions) or len(self.emotions) < 2:
            raise InputError(
                f"label set {self.name!r} is {list(self.emotions)}: expected at least two different emotions"
            )
        if not all(emotion.isprintable() for emotion in self.emotions):
            raise InputError(f"label set {self.name!r} is {list(self.emotions)}: expected letters")

    def __len__(self) -> int:
        return len(self.emotions)

    def index(self, emotion: str) -> int:
        """Class index of an emotion; raises `InputError` for one outside the set."""
        try:
            return self.emotions.index(emotion)
        except ValueError:
            raise InputError(
                f"label {emotion!r} is outside the set {self.name!r}: expected one of "
                + ", ".join(self.emotions)
            ) from None


RAVDESS = LabelSet("ravdess", ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"))
CREMAD = LabelSet("cremad", ("neutral", "happy", "sad", "angry", "fearful", "disgust"))


def label_set_of(emotions: Iterable[str]) -> LabelSet:
    """Choose the label set of a table of takes: CREMA-D's or RAVDESS's where it fits, else the labels sorted.

    Raises:
        InputError: when only some of the labels are of RAVDESS's set.

    >>> label_set_of(["sad", "happy", "calm"]).name, label_set_of(["bored", "awake"]).emotions
    ('ravdess', ('awake', 'bored'))
    """
    found = set(emotions)
    for known in (CREMAD, RAVDESS):
        if found <= set(known.emotions):
            return known
    strange = sorted(found - set(RAVDESS.emotions))
    if len(strange) < len(found):  # a slip of the pen must not make a label set of its own
        raise InputError(
            f"label {', '.join(map(repr, strange))} is outside the set of {', '.join(RAVDESS.emotions)}: "
            f"mend the table, or declare its own set, such as --labels {','.join(sorted(found))}"
        )
    return LabelSet("table", tuple(sorted(found)))
