"""What the CSV of a split says, in whichever form: who trains, who validates and who is tested."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus import cremad, ravdess
from cfnsr.corpus.take import MEDIA_SUFFIXES, Performance, plain_number, same_person
from cfnsr.errors import InputError
from cfnsr.files import open_table, visible

PARTS = ("train", "validation", "test")
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
# What columns are called, best first; spaces and hyphens count as underscores.
PATH = (
    "path",
    "file",
    "filepath",
    "filename",
    "clip",
    "video",
    "wav",
    "audio",
    "recording",
    "name",
    "take",
    "utterance",
    "utt",
    "sample",
    "id",
)
PART = ("split", "part", "partition", "subset", "set", "phase", "usage")
FOLD = ("fold", "folds", "kfold", "cv", "k")
ACTOR = ("actor", "speaker", "spk", "subject", "person", "participant", "performer", "individual", "id")
LABEL = ("label", "emotion", "class", "target", "category")
# A path may also name what was made of a recording.
SUFFIXES = MEDIA_SUFFIXES | frozenset(
    [".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".csv", ".txt", ".json", ".jpg", ".jpeg", ".png"]
)

SAMPLED = 1000  # rows by which the columns are told apart
MOST_FOLDS = 1000
ALWAYS = {"", "-1"}  # in a column of folds: of no fold, so in the same part of all
SHOWN = 5

EXPECTED = (
    "expected a header and one line a recording, with a column path (or file, clip, name), a column split "
    "(train, validation, test) or fold (its number, or one column a fold: fold_1, fold_2), and where names "
    "do not tell it a column actor"
)

_RAVDESS = re.compile(r"(?<!\d)\d\d(?:-\d\d){6}(?!\d)")
_CREMAD = re.compile(r"(?<![0-9A-Za-z])1\d{3}(?:_[A-Z]{3}){2}_[A-Z]{1,2}(?![A-Za-z])")

_NUMBERED = re.compile(r"[a-z_]*\d+")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """One file of a split.

    Args:
        path: as the CSV writes it.
        take: what all files of one performance share.
        actor: who performed it; empty where neither a column nor the name tells.
    """

    path: str
    take: str
    actor: str


@dataclass(frozen=True, eq=False)
class SplitFold:
    """Who has which part in one fold.

    Args:
        name: empty where the split has no folds.
        recordings: (rows,) positions among the split's recordings.
        parts: (rows,) positions in `PARTS`.
    """

    name: str
    recordings: Ints
    parts: NDArray[np.int8]

    def part(self, name: str) -> Ints:
        """The recordings of a part, as often as they stand in it."""
        rows: Ints = self.recordings[self.parts == PARTS.index(name)]
        return rows


@dataclass(frozen=True, eq=False)
class Split:
    """A split as it was read.

    Args:
        source: the CSV.
        read_as: which column was taken for what, in one line.
        notes: what a reader of the result should know, one line each.
    """

    source: Path
    read_as: str
    recordings: tuple[Recording, ...]
    folds: tuple[SplitFold, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def takes(self) -> Ints:
        """A number for each recording's take."""
        _, numbers = np.unique([recording.take for recording in self.recordings], return_inverse=True)
        return numbers.astype(np.int64)

    @cached_property
    def actors(self) -> Ints:
        """A number for each recording's actor, however it is spelt; -1 where nobody tells."""
        persons = [same_person(recording.actor) for recording in self.recordings]
        names = sorted(set(persons) - {""}, key=_natural)
        numbers = {"": -1} | {name: number for number, name in enumerate(names)}
        return np.array([numbers[person] for person in persons], np.int64)


def read_split(path: Path | str) -> Split:
    """Read the CSV of a split, whatever its columns are called.

    Understood are: a column with the part of each recording, with or without a column of folds; one such
    column a fold; a column of folds alone (each recording is tested in its own fold and trains in all
    others, a blank or -1 always trains); folds dealt within the training part (each in its turn the inner
    validation); and the `predictions.csv` of a run. Cells are separated by commas, semicolons, tabs, bars
    or spaces.

    Raises:
        InputError: no such table, no column for what is needed, an unknown part, or a broken line.
    """
    path = Path(path)
    try:
        with _table(path) as (header, rows):
            columns = _recognise(path, header, [cells for _, cells in islice(rows, SAMPLED)])
        with _table(path) as (_, rows):
            return _Reader(path, header, columns).read(rows)
    except InputError as error:
        raise InputError(visible(str(error))) from None


def performance_of(path: str) -> Performance | None:
    """The RAVDESS or CREMA-D performance named anywhere in a path: in a copy's name, or a folder of frames.

    >>> performance_of("faces/01-01-06-01-02-01-12_flipped.npy").actor
    12
    >>> performance_of("frames/1001_DFA_ANG_XX/0001.jpg").emotion
    'angry'
    >>> performance_of("interview.mp4") is None
    True
    """
    for pattern, parse in ((_RAVDESS, ravdess.parse), (_CREMAD, cremad.parse)):
        for found in reversed(list(pattern.finditer(path))):
            performance = parse(found[0])
            if performance is not None:
                return performance
    return None


@contextmanager
def _table(path: Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """The header of a table, and line number and cells of every row that is not blank."""
    with open_table(path, EXPECTED) as table:
        named = [cell for cell in table.header if cell]
        twice = sorted({cell for cell in named if named.count(cell) > 1})
        if twice:
            raise InputError(f"{path} line 1: the column '{twice[0]}' is given twice; {EXPECTED}")
        yield table.header, table.rows()


@dataclass(frozen=True)
class _Columns:
    """Which column is what, by position."""

    path: int
    parts: tuple[int, ...]
    wide: bool = False
    fold: int | None = None
    actor: int | None = None
    label: int | None = None


def _recognise(path: Path, header: Sequence[str], sample: Sequence[Sequence[str]]) -> _Columns:
    """Tell the columns apart by their names and by what stands in them."""
    if not sample:
        raise InputError(f"{path}: holds no recording; {EXPECTED}")
    names = [re.sub(r"[\s\-.]+", "_", name).casefold() for name in header]
    values = [[cells[column] for cells in sample if cells[column]] for column in range(len(header))]
    words = [sum(cell.casefold() in WORDS for cell in cells) for cells in values]
    spoken = [column for column, count in enumerate(words) if 2 * count > len(values[column])]
    if any(map(_is_recording, header)) or any(header[column].casefold() in WORDS for column in spoken):
        raise InputError(f"{path}: has no header, its first line looks like data; {EXPECTED}")
    wide = [column for column, count in enumerate(words) if count and _NUMBERED.fullmatch(names[column])]
    parts: list[int] = wide
    fold: int | None = None
    if not wide:
        of_parts, of_folds = _called(names, PART), _called(names, FOLD)
        parts = [column for column in of_parts + of_folds if column in spoken] or spoken
        numbers = [column for column in of_parts if _are_numbers(values[column])]
        # "split" may hold the numbers of folds, and "set" the name of a corpus
        texts = [column for column in of_parts if column not in numbers and (words[column] or not of_folds)]
        parts = (parts or texts)[:1]
        folds = [column for column in of_folds if column not in parts] or numbers[: not parts]
        fold = folds[0] if folds else None
    taken = {*parts, fold}
    recording = _find_path(names, values, taken)
    if recording is None or (not parts and fold is None):
        what = "the recording" if recording is None else "the part or the fold"
        given = ", ".join(filter(None, header))
        raise InputError(f"{path}: no column of {what} among {given}; {EXPECTED}")
    taken.add(recording)
    actors = [column for column in _called(names, ACTOR) if column not in taken]
    # A column "id" that never repeats numbers the rows.
    actors = [c for c in actors if names[c] != "id" or len(set(values[c])) < len(values[c])]
    labels = [column for column in _called(names, LABEL) if column not in taken]
    return _Columns(
        recording,
        tuple(parts),
        bool(wide),
        fold,
        actors[0] if actors else None,
        labels[0] if labels else None,
    )


def _called(names: Sequence[str], words: Sequence[str]) -> list[int]:
    """The columns so called, best first: by the very word, then by a word in the name (`actor_id`)."""
    exact = [names.index(word) for word in words if word in names]
    within = [
        column
        for word in words
        if len(word) > 2
        for column, name in enumerate(names)
        if word in name.split("_") or word + "s" in name.split("_")
    ]
    return list(dict.fromkeys(exact + within))


def _are_numbers(cells: Sequence[str]) -> bool:
    return bool(cells) and all(re.fullmatch(r"-?\d+(\.0+)?", cell) for cell in cells)


def _is_recording(cell: str) -> bool:
    return PurePosixPath(cell).suffix.lower() in SUFFIXES or performance_of(cell) is not None


def _find_path(names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None]) -> int | None:
    """The column of the recordings: what looks like them, else what is called so."""
    called = [column for column in _called(names, PATH) if column not in taken]
    looking = [
        column
        for column, cells in enumerate(values)
        if column not in taken and cells and sum(map(_is_recording, cells)) > len(cells) / 2
    ]
    ranked = [column for column in called if column in looking] or looking
    ranked += [column for column in called if values[column] and names[column] != "id"]
    ranked += [column for column in called if values[column]]
    return ranked[0] if ranked else None


@dataclass
class _Reader:
    """Goes through the rows once and keeps a few numbers of each."""

    path: Path
    header: Sequence[str]
    columns: _Columns
    places: dict[str, int] = field(default_factory=dict)
    actors: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    words: list[bytes] = field(default_factory=list)  # a part for each column of parts; 255 where blank
    folds: list[str] = field(default_factory=list)
    unknown: dict[str, None] = field(default_factory=dict)

    def read(self, rows: Iterator[tuple[int, list[str]]]) -> Split:
        columns = self.columns
        for line, cells in rows:
            name = cells[columns.path]
            if not name:
                raise InputError(f"{self.path} line {line}: no {self.header[columns.path]}; fill it in")
            self._add(line, name, plain_number(cells[columns.actor]) if columns.actor is not None else "")
            self.words.append(bytes(self._part(cells[column]) for column in columns.parts))
            if columns.fold is not None:
                self.folds.append(plain_number(cells[columns.fold]))
        if self.unknown:
            names = ", ".join(f"'{name}'" for name in list(self.unknown)[:SHOWN])
            more = f" and {len(self.unknown) - SHOWN} more" if len(self.unknown) > SHOWN else ""
            raise InputError(
                f"{self.path}: unknown part {names}{more} in column {self._name(columns.parts)}: expected "
                "train, validation (or val, dev) or test (or eval); leave the cell empty for neither"
            )
        takes, notes = _takes(self.path.parent, list(self.places))
        recordings = tuple(
            Recording(path, take, actor)
            for path, take, actor in zip(self.places, takes, self.actors, strict=True)
        )
        folds, how = self._folds()
        read_as = ", ".join(filter(None, [f"path = {self._name([columns.path])}", *how, self._who()]))
        if columns.label is not None:
            read_as += f", label = {self._name([columns.label])}"
        notes += [*self._spellings(), *self._left_out()]
        return Split(self.path, read_as, recordings, tuple(folds), tuple(notes))

    def _name(self, columns: Sequence[int]) -> str:
        names = [self.header[column] or f"column {column + 1}" for column in columns]
        return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} … {names[-1]}"

    def _add(self, line: int, name: str, actor: str) -> None:
        place = self.places.setdefault(name, len(self.places))
        self.rows.append(place)
        if place == len(self.actors):
            performance = None if actor else performance_of(name)
            self.actors.append(str(performance.actor) if performance else actor)
        elif actor and same_person(actor) != same_person(self.actors[place]):
            raise InputError(
                f"{self.path} line {line}: {name} is of actor {actor}, and of {self.actors[place]} before: "
                "give each recording one actor"
            )

    def _part(self, cell: str) -> int:
        word = WORDS.get(cell.casefold())
        if word is None:
            if cell:
                self.unknown[cell] = None
            return 255
        return PARTS.index(word)

    def _who(self) -> str:
        if self.columns.actor is not None:
            return f"actor = {self._name([self.columns.actor])}"
        numbers = {int(actor) for actor in self.actors if actor}
        schemes = [("RAVDESS", ravdess.ACTORS), ("CREMA-D", cremad.ACTORS)]
        known = " and ".join(name for name, actors in schemes if numbers & set(actors))
        return f"actor from {known} names" if known else "no actor"

    def _spellings(self) -> list[str]:
        """Who is spelt in several ways."""
        spellings = defaultdict[str, list[str]](list)
        for actor in dict.fromkeys(self.actors):
            spellings[same_person(actor)].append(actor)
        several = [" = ".join(names) for names in spellings.values() if len(names) > 1]
        more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
        return [f"taken for one actor: {'; '.join(several[:SHOWN])}{more}"] if several else []

    def _left_out(self) -> list[str]:
        idle = sum(set(word) == {255} for word in self.words) if self.columns.parts else 0
        return [f"left out: {idle} rows without a part"] if idle else []

    def _folds(self) -> tuple[list[SplitFold], list[str]]:
        """The folds, and how their columns were understood."""
        rows = np.array(self.rows, np.int64)
        # 255 reads as -1
        parts = np.frombuffer(b"".join(self.words), np.int8).reshape(len(rows), len(self.columns.parts))
        part_name = f"part = {self._name(self.columns.parts)}"
        if self.columns.wide:
            named = [(self.header[column], parts[:, i]) for i, column in enumerate(self.columns.parts)]
            return self._keep(rows, named), [f"{part_name} (one column a fold)"]
        if self.columns.fold is None:
            return self._keep(rows, [("", parts[:, 0])]), [part_name]
        fold_name = f"fold = {self._name([self.columns.fold])}"
        codes = {name: code for code, name in enumerate(sorted(set(self.folds) - ALWAYS, key=_natural))}
        if len(codes) > MOST_FOLDS:
            raise InputError(
                f"{self.path}: the column {self._name([self.columns.fold])} has {len(codes)} different "
                f"values: expected at most {MOST_FOLDS} folds; {EXPECTED}"
            )
        numbers = np.array([codes.get(name, -1) for name in self.folds])
        train, validation, test = range(3)
        if not self.columns.parts or (parts == test).all():
            named = [(name, np.where(numbers == code, test, train)) for name, code in codes.items()]
            return self._keep(rows, named), [f"{fold_name} (its rows are tested, all others train)"]
        part = parts[:, 0]
        once = len(self.places) == len(rows)
        if once and len(codes) > 1 and (part[numbers >= 0] == train).all():
            named = [(name, np.where(numbers == code, validation, part)) for name, code in codes.items()]
            return self._keep(rows, named), [part_name, f"{fold_name} (of train, each the validation once)"]
        named = [(name, np.where(np.isin(numbers, [code, -1]), part, -1)) for name, code in codes.items()]
        return self._keep(rows, named or [("", part)]), [part_name, fold_name]

    def _keep(self, rows: Ints, named: Sequence[tuple[str, NDArray[np.integer]]]) -> list[SplitFold]:
        """The folds with the rows that have a part in them."""
        folds = [SplitFold(name, rows[part >= 0], part[part >= 0].astype(np.int8)) for name, part in named]
        if not any(len(set(fold.parts.tolist())) > 1 for fold in folds):
            raise InputError(
                f"{self.path}: only one part in it, nothing to compare it with: expected the recordings of "
                "all parts; join the files of the parts into one"
            )
        return folds


def _natural(name: str) -> tuple[bool, int, str]:
    number = re.sub(r"\D", "", name)
    return not number, int(number or 0), name


def _takes(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """What identifies each path's take, and a note where it is in doubt.

    The performance that its name tells; else its name without suffix, if that is enough to tell the
    files apart, and with its folders where it is not.
    """
    keys: list[str | None] = []
    wholes: list[str] = []
    for text in paths:
        performance = performance_of(text)
        keys.append(f"{performance.actor} {performance.key}" if performance else None)
        # A path from another system, relative or not, with or without detours.
        wholes.append("" if performance else os.path.abspath(folder / text.replace("\\", "/")))  # noqa: PTH100
    folders = defaultdict[str, set[str]](set)
    for whole in filter(None, wholes):
        pure = PurePosixPath(whole)
        folders[pure.name.casefold()].add(str(pure.parent))
    repeated = sum(len(places) > 1 for places in folders.values())
    takes = []
    for key, whole in zip(keys, wholes, strict=True):
        if key is not None:
            takes.append(key)
            continue
        pure = PurePosixPath(whole)
        pure = pure.with_suffix("") if pure.suffix.lower() in SUFFIXES else pure
        takes.append(str(pure) if repeated else pure.name)
    if not repeated:
        return takes, []
    example = min(name for name, places in folders.items() if len(places) > 1)
    return takes, [
        f"names in doubt: {repeated} file names, such as {example}, stand in several folders and are "
        "taken for different takes; only their content tells"
    ]
