"""A take: what an actor performed once, and the files that recorded it; a corpus: many takes."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError, listed
from cfnsr.files import escaped, visible

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".flv", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp", ".ts", ".mts",
    ".m2ts", ".ogv", ".asf",
])
AUDIO_SUFFIXES = frozenset([
    ".wav", ".flac", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".aac", ".wma", ".aif", ".aiff", ".mka", ".amr",
])
# fmt: on
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES

Actor = int | str


@dataclass(frozen=True)
class Take:
    """One performance by one actor.

    Args:
        name: unique in its corpus, mostly the stem of a file.
        emotion: a label of the corpus's label set.
        actor: who performed it; folds never split an actor.
        video: the file with the pictures, if any.
        audio: the file with the sound, if any; the same file as `video` for an audio-video take.
        openface: the take's OpenFace CSV, or a CSV of clip means with a row for it, if any.
        sex: "male", "female" or None where unknown.
        attributes: what else the file name holds (intensity, statement, repetition, ...).
    """

    name: str
    emotion: str
    actor: Actor
    video: Path | None = None
    audio: Path | None = None
    openface: Path | None = None
    sex: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """The takes of one folder or table, and an account of every file that is not among them.

    Args:
        name: of its scheme, such as "ravdess", or of the table.
        labels: the label set that fixes the class order.
        takes: sorted by actor, then name; names are unique.
        unknown: media files whose name fits no scheme.
        duplicates: media files that repeat one already in a take.
        left_out: how many files were understood but not wanted, by reason.
    """

    name: str
    labels: LabelSet
    takes: tuple[Take, ...]
    unknown: tuple[Path, ...] = ()
    duplicates: tuple[Path, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def actors(self) -> tuple[Actor, ...]:
        """The actors, each once, in the order of the takes."""
        return tuple(dict.fromkeys(take.actor for take in self.takes))

    def notes(self) -> tuple[str, ...]:
        """Lines for people on files that were found but are not among the takes, whatever their names."""
        lines = [f"{count} left out: {reason}" for reason, count in self.left_out.items()]
        for paths, what in ((self.unknown, "with a name that fits no scheme"), (self.duplicates, "repeated")):
            if paths:
                lines.append(f"{len(paths)} {what}: {listed(paths)}")
        return tuple(map(visible, lines))


def actor_order(actor: Actor) -> tuple[bool, int, str]:
    """Sort key: numbered actors by number, then named actors by name.

    >>> sorted(["b", 10, 9, "a"], key=actor_order)
    [9, 10, 'a', 'b']
    """
    return isinstance(actor, str), actor if isinstance(actor, int) else 0, str(actor)


def by_actor(take: Take) -> tuple[bool, int, str, str]:
    """Sort key: by actor, then by name."""
    return *actor_order(take.actor), take.name


def plain_number(text: str) -> str:
    """A number as a number is written: 01, 1.0 and 1 are one actor, or one fold; other text as it is.

    >>> plain_number("01"), plain_number("1.0"), plain_number("Ann"), plain_number("-1")
    ('1', '1', 'Ann', '-1')
    """
    return re.sub(r"^(-?)0*(\d+)(?:\.0+)?$", r"\1\2", text)


def same_person(actor: Actor) -> str:
    """A key that all spellings of one person share.

    Capitals and Unicode forms make no difference, nor do zeros before a number, or its script. Blanks, `_`,
    `-` and `.` are all one; they count between two words or two numbers alone.

    >>> {same_person(name) for name in ("Actor 2", "actor_02", "ACTOR2", "Actor-2.", "\uff21ctor \u0662")}
    {'actor2'}
    >>> {same_person(name) for name in (1, "01", "1.0", "1.")}
    {'1'}
    >>> same_person("Li An"), same_person("Li-An"), same_person("Lian"), same_person("1_2")
    ('li an', 'li an', 'lian', '1 2')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", escaped(str(actor))).casefold())
    text = re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip())
    text = re.sub(r"(?!^-\d)[\s_.\u2010-\u2015-]+", " ", text)
    text = "".join(char for char in text if char.isprintable()).strip()  # nothing of no width
    text = re.sub(r"\d+", lambda number: str(int(number[0])), text)
    return re.sub(r"(?<=\d) (?=\D)|(?<=\D) (?=\d)", "", text)


def refuse_spellings(where: object, actors: Iterable[Actor]) -> None:
    """Refuse one person under two spellings, whose takes would be dealt as those of two.

    Raises:
        InputError: `where` has such a person; names both spellings.
    """
    spellings: dict[str, Actor] = {}
    for actor in sorted(set(actors), key=actor_order):
        other = spellings.setdefault(same_person(actor), actor)
        if other != actor:
            alike = unicodedata.normalize("NFC", str(other)) == unicodedata.normalize("NFC", str(actor))
            forms = " (the same letters in two Unicode forms)" if alike else ""
            raise InputError(
                f"{where}: speakers {other!r} and {actor!r} are one person in two spellings{forms}, and "
                "folds keep a person's takes together: give them one name and prepare again"
            )
