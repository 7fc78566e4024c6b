"""A corpus known by its names: what each file records, in which label set, and under which licence."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cfnsr.corpus.take import Actor
from cfnsr.emotions import LabelSet


@dataclass(frozen=True)
class Performance:
    """Content of a file's name: the performance it records.

    Args:
        name: of the take, if this is the file that it is named after; unique in its corpus.
        key: what the names of all files of one performance share.
        pictures, sound: what a file of that name may hold; the suffix decides what it does hold.
    """

    name: str
    key: str
    emotion: str
    actor: Actor
    sex: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    pictures: bool = True
    sound: bool = True


class Licence(NamedTuple):
    """Licence of a corpus: its name on the Hugging Face hub, what it says, and whom to cite."""

    name: str
    text: str
    works: tuple[str, ...]


@dataclass(frozen=True)
class Scheme:
    """A corpus's way of naming its files.

    Args:
        name: of the corpus, as prepared clips have it.
        title: the same for people.
        example: name of a file.
        labels: its emotions in class order.
        pattern: of a file's name without suffix, or of its folder, `/` and name. It looks around itself, so
            that it is not found inside a longer number.
        read: a match of the pattern -> what the file records.
        originals: suffixes the corpus is published with; a copy in another form yields to them.
        sexes: CSVs in the folder -> "male" or "female" by actor, where names do not say it.
        licence: for model cards; unknown if not given.
    """

    name: str
    title: str
    example: str
    labels: LabelSet
    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], Performance]
    originals: tuple[str, ...]
    sexes: Callable[[Sequence[Path]], Mapping[Actor, str]] = lambda tables: {}
    licence: Licence | None = None

    def find(self, path: str) -> Performance | None:
        """Find the last performance that is named anywhere in a path."""
        matches = list(self.pattern.finditer(path))
        return self.read(matches[-1]) if matches else None

    def parse(self, path: str) -> Performance | None:
        """Parse a file's name, or its path, without suffix; None where it does not fit."""
        matches = list(self.pattern.finditer(path))
        if not matches or matches[-1].end() < len(path):
            return None
        before = path[: matches[-1].start()]
        return self.read(matches[-1]) if not before or before.endswith("/") else None


SCHEMES: dict[str, Scheme] = {}  # by name; `cfnsr.corpus` lists them


def find_performance(path: str) -> tuple[Scheme, Performance] | None:
    """Find a corpus's performance anywhere in a path: in a copy's name, or a folder of frames.

    >>> find_performance("faces/01-01-06-01-02-01-12_flipped.npy")[1].actor
    12
    >>> find_performance("frames/1001_DFA_ANG_XX/0001.jpg")[1].emotion
    'angry'
    >>> find_performance("interview.mp4") is None
    True
    """
    for scheme in SCHEMES.values():
        if performance := scheme.find(path.replace("\\", "/")):
            return scheme, performance
    return None
