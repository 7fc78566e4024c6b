"""The CSV of a split: who trains, who validates and who is tested."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cfnsr.corpus.scheme import SCHEMES, Performance, Scheme, find_performance
from cfnsr.corpus.take import MEDIA_SUFFIXES, plain_number, same_person
from cfnsr.errors import InputError, listed
from cfnsr.files import open_table, visible

PARTS = TRAIN, VALIDATION, TEST = "train", "validation", "test"
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


@dataclass(frozen=True)
class Recording:
    """One file of a split."""

    path: str  #: as the CSV writes it
    take: str  #: what all files of one performance share
    actor: str  #: empty where unknown

    @cached_property
    def person(self) -> tuple[bool, int, str] | None:
        """The actor however spelt, in an order in which 10 follows 2; None where unknown."""
        person = same_person(self.actor)
        return _natural(person) if person else None


class SplitFold(NamedTuple):
    """Recordings of each part in one fold."""

    name: str  #: empty where the split has no folds
    parts: Mapping[str, Sequence[int]]  #: positions in the split, as often as a recording stands in the part


class Split(NamedTuple):
    """A split as it was read."""

    source: Path  #: the CSV
    read_as: str  #: which column was taken for what, in one line
    recordings: Sequence[Recording]
    folds: Sequence[SplitFold]
    notes: Sequence[str] = ()  #: what a reader of the result should know, one line each

    @property
    def used(self) -> list[Recording]:
        """The recordings that have a part in some fold."""
        places = {place for fold in self.folds for rows in fold.parts.values() for place in rows}
        return [self.recordings[place] for place in places]

    def names(self, places: Sequence[int]) -> str:
        """Paths of one thing under several names; each once."""
        return " = ".join(dict.fromkeys(self.recordings[place].path for place in places))


class _Row(NamedTuple):
    place: int  # of the recording
    part: str | None
    fold: str


def read_split(path: Path | str, columns: Mapping[str, str] | None = None) -> Split:
    """Read the CSV of a split.

    Columns: `path`; `split` (train, validation or test), `fold`, or both; and optionally `actor`. With both,
    a row is of its fold alone, a blank or -1 of all; where only rows that train have a fold, each fold in its
    turn is the inner validation. With `fold` alone, each recording is tested in its own fold and trains in
    all others, a blank or -1 always trains. The `predictions.csv` of a run is such a table too.

    Args:
        columns: what the table calls its columns, where not so: `{"path": "file"}`.

    Raises:
        InputError: no such table, no column for what is needed, an unknown part, or a broken line.
    """
    path = Path(path)
    try:
        with open_table(path, EXPECTED) as table:
            places = _find_columns(path, table.header, columns or {})
            cells = [
                (line, {column: row[place] for column, place in places.items()}) for line, row in table.rows()
            ]
        if not cells:
            raise InputError(f"{path}: holds no recording; {EXPECTED}")
        return _split(path, {column: table.header[place] for column, place in places.items()}, cells)
    except InputError as error:
        raise InputError(visible(str(error))) from None


def _natural(name: str) -> tuple[bool, int, str]:
    """Sort key: names with numbers in them by number, then the others."""
    number = re.sub(r"\D", "", name)
    return not number, int(number or 0), name


def _find_columns(path: Path, header: Sequence[str], renamed: Mapping[str, str]) -> dict[str, int]:
    """Find the places of the columns in a header; capitals make no difference."""
    for column, theirs in renamed.items():
        if column not in COLUMNS:
            raise InputError(f"--column {column}={theirs}: expected {', '.join(COLUMNS)} before the =")
    given = ", ".join(filter(None, header))
    names = [name.casefold() for name in header]
    found = {}
    for column, usual in COLUMNS.items():
        wanted = [name.casefold() for name in ((renamed[column],) if column in renamed else usual)]
        name = next((name for name in wanted if name in names), None)
        if name is not None:
            found[column] = names.index(name)
            if names.count(name) > 1:
                raise InputError(f"{path} line 1: the column '{name}' is given twice; {EXPECTED}")
        elif column in renamed:
            raise InputError(f"{path}: no column {renamed[column]} among {given}; correct --column")
    if "path" not in found or not found.keys() & {"split", "fold"}:
        what = "split or fold" if "path" in found else "path"
        raise InputError(f"{path}: no column {what} among {given}; {EXPECTED}")
    return found


def _split(path: Path, names: Mapping[str, str], cells: Sequence[tuple[int, Mapping[str, str]]]) -> Split:
    """Make a split of line numbers and cells by column; `names` are the table's own for the columns."""
    named: dict[str, tuple[Scheme, Performance] | None] = {}  # by path, like all of these
    actors: dict[str, str] = {}
    places: dict[str, int] = {}
    rows: list[_Row] = []
    unknown: dict[str, None] = {}
    for line, row in cells:
        file, actor, word = row["path"], plain_number(row.get("actor", "")), row.get("split", "")
        if not file:
            raise InputError(f"{path} line {line}: no {names['path']}; fill it in")
        if file not in named:
            named[file] = found = find_performance(file)
            actors[file] = str(found[1].actor) if found and not actor else actor
        before = actors[file]
        if actor and same_person(actor) != same_person(before):
            raise InputError(
                f"{path} line {line}: {file} is of actor {actor}, and of {before} before: give each "
                "recording one actor"
            )
        part = WORDS.get(word.casefold())
        if word and part is None:
            unknown[f"'{word}'"] = None
        place = places.setdefault(file, len(places))
        rows.append(_Row(place, part, plain_number(row.get("fold", ""))))
    if unknown:
        raise InputError(
            f"{path}: unknown part {listed(list(unknown), SHOWN)} in column {names['split']}: expected "
            "train, validation (or val, dev) or test (or eval); leave the cell empty for neither, and if "
            f"these are folds give --column fold={names['split']}"
        )
    folds, how = _folds(rows, parted="split" in names)
    if not any(sum(map(bool, fold.parts.values())) > 1 for fold in folds):
        raise InputError(
            f"{path}: only one part in it, nothing to compare it with: expected the recordings of all parts; "
            "join the files of the parts into one"
        )
    takes, notes = _takes(path.parent, named)
    said = {"path": "path = {}", "split": "part = {}", "fold": f"fold = {{}}{how}", "actor": "actor = {}"}
    read_as = [form.format(names[column]) for column, form in said.items() if column in names]
    if "actor" not in names:
        schemes = {found[0] for found in named.values() if found}
        titles = [scheme.title for scheme in SCHEMES.values() if scheme in schemes]
        read_as.append(f"actor from {' and '.join(titles)} names" if titles else "no actor")
    notes += _spellings(actors.values())
    missing = sum(row.part is None for row in rows)
    if "split" in names and missing:
        notes.append(f"left out: {missing} rows without a part")
    recordings = [Recording(*each) for each in zip(actors, takes, actors.values(), strict=True)]
    return Split(path, ", ".join(read_as), recordings, folds, notes)


def _folds(rows: Sequence[_Row], *, parted: bool) -> tuple[list[SplitFold], str]:
    """Deal the rows of a table, with or without a column of parts, into folds; also say how it was read."""
    names = sorted({row.fold for row in rows} - ALWAYS, key=_natural)
    dealt = [row for row in rows if row.fold not in ALWAYS]
    tested = not parted or (names and all(row.part == TEST for row in rows))
    repeated = len({row.place for row in rows}) < len(rows)
    inner = not repeated and len(names) > 1 and all(row.part == TRAIN for row in dealt)

    def part_of(row: _Row, name: str) -> str | None:
        if tested:
            return TEST if row.fold == name else TRAIN
        if inner:
            return VALIDATION if row.fold == name else row.part
        return row.part if row.fold == name or row.fold in ALWAYS else None

    if not tested:
        names = names or [""]
    folds = []
    for name in names:
        parts: dict[str, list[int]] = {part: [] for part in PARTS}
        for row in rows:
            if part := part_of(row, name):
                parts[part].append(row.place)
        folds.append(SplitFold(name, parts))
    if tested:
        return folds, " (its rows are tested, all others train)"
    return folds, " (of train, each the validation once)" if inner else ""


def _spellings(actors: Iterable[str]) -> list[str]:
    """Note the actors who are spelt in several ways."""
    spellings = defaultdict[str, list[str]](list)
    for actor in dict.fromkeys(actors):
        spellings[same_person(actor)].append(actor)
    several = [" = ".join(names) for names in spellings.values() if len(names) > 1]
    return [f"taken for one actor: {listed(several, SHOWN, '; ')}"] if several else []


def _takes(
    folder: Path, named: Mapping[str, tuple[Scheme, Performance] | None]
) -> tuple[list[str], list[str]]:
    """Find what identifies each path's take, and a note where it is in doubt.

    The performance that its name says; else its name without suffix, if that is enough to tell the
    files apart, and with its folders where it is not.
    """
    # A path from another system, relative or not, with or without detours.
    wholes = [PurePosixPath(os.path.abspath(folder / path.replace("\\", "/"))) for path in named]  # noqa: PTH100
    unnamed = zip(wholes, named.values(), strict=True)
    folders = {(whole.parent, whole.name.casefold()) for whole, found in unnamed if found is None}
    counts = Counter(name for _, name in folders)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    takes, notes = [], []
    for whole, found in zip(wholes, named.values(), strict=True):
        if found is not None:
            takes.append(f"{found[1].actor} {found[1].key}")
        else:
            stem = whole.with_suffix("") if whole.suffix.lower() in SUFFIXES else whole
            takes.append(str(stem) if repeated else stem.name)
    if repeated:
        notes.append(
            f"names in doubt: {len(repeated)} file names, such as {repeated[0]}, stand in several folders "
            "and are taken for different takes; only their content tells"
        )
    return takes, notes
