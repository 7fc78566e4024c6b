"""The CSV of a split: who trains, who validates and who is tested."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus import cremad, ravdess
from cfnsr.corpus.take import MEDIA_SUFFIXES, Performance, plain_number, same_person
from cfnsr.errors import InputError
from cfnsr.files import open_table, visible

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
# The columns, and what other tables of this package call them: `predictions.csv`, and the CSV of takes.
COLUMNS = {"path": ("path", "clip"), "split": ("split",), "fold": ("fold",), "actor": ("actor", "speaker")}
# A path may also name what was made of a recording.
SUFFIXES = MEDIA_SUFFIXES | frozenset(
    [".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".csv", ".txt", ".json", ".jpg", ".jpeg", ".png"]
)
ALWAYS = {"", "-1"}  # in a column of folds: of no fold, so in the same part of all
SHOWN = 5

EXPECTED = (
    "expected a header and one line a recording, with the columns path, split (train, validation, test) or "
    "fold (its number), and actor where names do not show it; if they are called otherwise, give for each "
    "--column path=THEIR_NAME"
)

_RAVDESS = re.compile(r"(?<!\d)\d\d(?:-\d\d){6}(?!\d)")
_CREMAD = re.compile(r"(?<![0-9A-Za-z])1\d{3}(?:_[A-Z]{3}){2}_[A-Z]{1,2}(?![A-Za-z])")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """One file of a split.

    Args:
        path: as the CSV writes it.
        take: what all files of one performance share.
        actor: who performed it; empty where unknown.
    """

    path: str
    take: str
    actor: str


@dataclass(frozen=True, eq=False)
class SplitFold:
    """Parts of the recordings in one fold.

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
        """A number for each recording's actor, however it is spelt; -1 where unknown."""
        persons = [same_person(recording.actor) for recording in self.recordings]
        names = sorted(set(persons) - {""}, key=_natural)
        numbers = {"": -1} | {name: number for number, name in enumerate(names)}
        return np.array([numbers[person] for person in persons], np.int64)


def read_split(path: Path | str, columns: Mapping[str, str] | None = None) -> Split:
    """Read the CSV of a split.

    Columns: `path`; `split` (train, validation or test), `fold`, or both; and optionally `actor`. With both,
    a row is of its fold alone, a blank or -1 of all; where only rows that train have a fold, each fold in its
    turn is the inner validation. With `fold` alone, each recording is tested in its own fold and trains in
    all others, a blank or -1 always trains. The `predictions.csv` of a run is such a table too. Cells are
    separated by commas, semicolons, tabs, bars or spaces.

    Args:
        path: of the table.
        columns: what the table calls its columns, where not so: `{"path": "file"}`.

    Raises:
        InputError: no such table, no column for what is needed, an unknown part, or a broken line.
    """
    path = Path(path)
    try:
        with open_table(path, EXPECTED) as table:
            places = _find_columns(path, table.header, columns or {})
            rows = [
                (line, {column: cells[place] for column, place in places.items()})
                for line, cells in table.rows()
            ]
        if not rows:
            raise InputError(f"{path}: holds no recording; {EXPECTED}")
        return _split(path, {column: table.header[place] for column, place in places.items()}, rows)
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


def _find_columns(path: Path, header: Sequence[str], renamed: Mapping[str, str]) -> dict[str, int]:
    """Places of the columns in a header; capitals make no difference."""
    for column, theirs in renamed.items():
        if column not in COLUMNS:
            raise InputError(f"--column {column}={theirs}: expected {', '.join(COLUMNS)} before the =")
    given = ", ".join(filter(None, header))
    names = [name.casefold() for name in header]
    found = {}
    for column, usual in COLUMNS.items():
        wanted = [name.casefold() for name in ((renamed[column],) if column in renamed else usual)]
        name = next((name for name in wanted if name in names), None)
        if name is None:
            if column in renamed:
                raise InputError(f"{path}: no column {renamed[column]} among {given}; correct --column")
            continue
        if names.count(name) > 1:
            raise InputError(f"{path} line 1: the column '{name}' is given twice; {EXPECTED}")
        found[column] = names.index(name)
    if "path" not in found or not found.keys() & {"split", "fold"}:
        what = "split or fold" if "path" in found else "path"
        raise InputError(f"{path}: no column {what} among {given}; {EXPECTED}")
    return found


def _split(path: Path, names: Mapping[str, str], rows: Sequence[tuple[int, Mapping[str, str]]]) -> Split:
    """The split of a table's rows: line numbers, and cells by column."""
    actors: dict[str, str] = {}  # of each path
    parts: list[int] = []  # -1 for none
    unknown: dict[str, None] = {}
    for line, row in rows:
        file, actor, part = row["path"], plain_number(row.get("actor", "")), row.get("split", "")
        if not file:
            raise InputError(f"{path} line {line}: no {names['path']}; fill it in")
        performance = None if actor or file in actors else performance_of(file)
        before = actors.setdefault(file, str(performance.actor) if performance else actor)
        if actor and same_person(actor) != same_person(before):
            raise InputError(
                f"{path} line {line}: {file} is of actor {actor}, and of {before} before: give each "
                "recording one actor"
            )
        parts.append(WORDS.get(part.casefold(), -1))
        if part and parts[-1] < 0:
            unknown[part] = None
    if unknown:
        listed = ", ".join(f"'{name}'" for name in list(unknown)[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise InputError(
            f"{path}: unknown part {listed}{more} in column {names['split']}: expected train, validation (or "
            "val, dev) or test (or eval); leave the cell empty for neither, and if these are folds give "
            f"--column fold={names['split']}"
        )
    takes, notes = _takes(path.parent, list(actors))
    places = {file: place for place, file in enumerate(actors)}
    folds, how = _folds(
        np.array([places[row["path"]] for _, row in rows]),
        np.array(parts) if "split" in names else None,
        [plain_number(row["fold"]) for _, row in rows] if "fold" in names else None,
    )
    if not any(len(set(fold.parts.tolist())) > 1 for fold in folds):
        raise InputError(
            f"{path}: only one part in it, nothing to compare it with: expected the recordings of all parts; "
            "join the files of the parts into one"
        )
    recordings = [Recording(*each) for each in zip(actors, takes, actors.values(), strict=True)]
    read_as = [f"path = {names['path']}"]
    if "split" in names:
        read_as.append(f"part = {names['split']}")
    if "fold" in names:
        read_as.append(f"fold = {names['fold']}{how}")
    read_as.append(f"actor = {names['actor']}" if "actor" in names else _named_actors(actors.values()))
    notes += _spellings(actors.values())
    if "split" in names and -1 in parts:
        notes.append(f"left out: {parts.count(-1)} rows without a part")
    return Split(path, ", ".join(read_as), tuple(recordings), tuple(folds), tuple(notes))


def _folds(
    rows: Ints, parts: NDArray[np.integer] | None, folds: Sequence[str] | None
) -> tuple[list[SplitFold], str]:
    """The folds of a table's rows, with those that have a part in them, and how they were understood."""
    codes = {name: code for code, name in enumerate(sorted(set(folds or ()) - ALWAYS, key=_natural))}
    numbers = np.array([codes.get(name, -1) for name in folds or ()])
    how = ""
    if parts is None or (codes and (parts == TEST).all()):
        named = {name: np.where(numbers == code, TEST, TRAIN) for name, code in codes.items()}
        how = " (its rows are tested, all others train)"
    elif len(np.unique(rows)) == len(rows) and len(codes) > 1 and (parts[numbers >= 0] == TRAIN).all():
        named = {name: np.where(numbers == code, VALIDATION, parts) for name, code in codes.items()}
        how = " (of train, each the validation once)"
    else:
        named = {name: np.where(np.isin(numbers, [code, -1]), parts, -1) for name, code in codes.items()}
        named = named or {"": parts}
    return [
        SplitFold(name, rows[part >= 0], part[part >= 0].astype(np.int8)) for name, part in named.items()
    ], how


def _named_actors(actors: Iterable[str]) -> str:
    """Say whose file names the actors were read from."""
    numbers = {int(actor) for actor in actors if actor}
    schemes = [("RAVDESS", ravdess.ACTORS), ("CREMA-D", cremad.ACTORS)]
    known = " and ".join(name for name, those in schemes if numbers & set(those))
    return f"actor from {known} names" if known else "no actor"


def _spellings(actors: Iterable[str]) -> list[str]:
    """Note the actors who are spelt in several ways."""
    spellings = defaultdict[str, list[str]](list)
    for actor in dict.fromkeys(actors):
        spellings[same_person(actor)].append(actor)
    several = [" = ".join(names) for names in spellings.values() if len(names) > 1]
    more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return [f"taken for one actor: {'; '.join(several[:SHOWN])}{more}"] if several else []


def _natural(name: str) -> tuple[bool, int, str]:
    number = re.sub(r"\D", "", name)
    return not number, int(number or 0), name


def _takes(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find what identifies each path's take, and a note where it is in doubt.

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
