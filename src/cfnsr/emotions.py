"""Label sets: the only place that decides the order of the classes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cfnsr.errors import InputError


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of emotions; a class index is a position in `emotions`.

    Args:
        merged: emotions that count as one of these: pairs such as ("calm", "neutral").

    >>> RAVDESS.index("calm"), len(RAVDESS)
    (1, 8)
    >>> parse_labels("neutral,happy,calm=neutral").index("calm")
    0
    """

    name: str
    emotions: tuple[str, ...]
    merged: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.emotions)) != len(self.emotions) or len(self.emotions) < 2:
            raise InputError(
                f"label set {self.name!r} is {list(self.emotions)}: expected at least two different emotions"
            )
        if not all(emotion.isprintable() for emotion in self.emotions):
            raise InputError(f"label set {self.name!r} is {list(self.emotions)}: expected letters")
        for emotion, label in self.merged:
            if emotion in self.emotions or label not in self.emotions:
                raise InputError(
                    f"label set {self.name!r} counts {emotion!r} as {label!r}: expected an emotion outside "
                    f"{', '.join(self.emotions)}, and one of them"
                )

    def __len__(self) -> int:
        return len(self.emotions)

    def __contains__(self, emotion: str) -> bool:
        return dict(self.merged).get(emotion, emotion) in self.emotions

    def index(self, emotion: str) -> int:
        """Class index of an emotion; raises `InputError` for one outside the set."""
        try:
            return self.emotions.index(dict(self.merged).get(emotion, emotion))
        except ValueError:
            raise InputError(
                f"label {emotion!r} is outside the set {self.name!r}: expected one of "
                + ", ".join(self.emotions)
            ) from None

    def as_json(self) -> dict[str, Any]:
        """Name, emotions and, where there are any, those that count as another."""
        merged = {"merged": [list(pair) for pair in self.merged]} if self.merged else {}
        return {"name": self.name, "emotions": list(self.emotions), **merged}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LabelSet":
        """Read what `as_json` gave; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        if not isinstance(value, Mapping):
            raise TypeError(f"labels {str(value)[:40]}")
        merged = tuple((str(emotion), str(label)) for emotion, label in value.get("merged", ()))
        return cls(str(value["name"]), tuple(map(str, value["emotions"])), merged)


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


def parse_labels(text: str) -> LabelSet:
    """Read a label set as a user writes it: emotions in class order, and some that count as another.

    >>> parse_labels("neutral, happy, calm=neutral").merged
    (('calm', 'neutral'),)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [tuple(each.strip() for each in part.split("=", 1)) for part in parts]
    merged = tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2)
    return LabelSet(text.replace(" ", ""), tuple(pair[0] for pair in pairs if len(pair) == 1), merged)
