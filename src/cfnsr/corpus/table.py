"""Any other corpus: a CSV of takes with the columns path, label and speaker."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cfnsr.corpus.take import AUDIO_SUFFIXES, Corpus, Take, by_actor, same_person
from cfnsr.emotions import LabelSet, label_set_of
from cfnsr.errors import InputError
from cfnsr.files import escaped, open_table, visible

REQUIRED = ("path", "label", "speaker")
PATHS = ("path", "audio", "openface")  # may be any bytes, as names of files may
OPTIONAL = ("audio", "openface", "name", "sex")

_SEXES = {"": None, "male": "male", "m": "male", "female": "female", "f": "female"}


def read_table(path: Path | str, labels: Sequence[str] = ()) -> Corpus:
    """The takes of a CSV with a header; paths in it are relative to the CSV.

    Columns: `path` (the recording), `label`, `speaker`; optional `audio` (the sound, where it is not in
    the recording), `openface` (an OpenFace CSV), `name` (else the stem of `path`), `sex` (male or
    female). Further columns become attributes of the takes. Speakers that are all digits become numbers.

    Args:
        labels: the label set in class order; without it RAVDESS's or CREMA-D's, or the labels sorted where
            the table knows none of theirs.

    Raises:
        InputError: not such a table; names the first bad line and how many more there are.
    """
    path = Path(path)
    takes: list[Take] = []
    problems: list[str] = []
    lines_by_name: dict[str, int] = {}
    spellings: dict[str, str] = {}
    for line, row in _rows(path):
        try:
            take = _take(row, path.parent)
        except InputError as error:
            problems.append(f"line {line}: {error}")
            continue
        # Names become file names, and some file systems do not tell upper from lower case.
        first = lines_by_name.setdefault(take.name.casefold(), line)
        spelling = spellings.setdefault(same_person(take.emotion), take.emotion)
        if first != line:
            problems.append(f"line {line}: name {take.name!r} is that of line {first}: give a column `name`")
        elif spelling != take.emotion:
            problems.append(f"line {line}: label {take.emotion!r} is also spelt {spelling!r}: choose one")
        takes.append(take)
    if problems:
        more = f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""
        raise InputError(f"{path} {problems[0]}{more}")
    if not takes:
        raise InputError(f"{path}: holds no take, only a header; give one line a take")
    if all(str(take.actor).isascii() and str(take.actor).isdecimal() for take in takes):
        takes = [replace(take, actor=int(take.actor)) for take in takes]
    label_set = LabelSet(path.stem, tuple(labels)) if labels else label_set_of(take.emotion for take in takes)
    for take in takes:
        label_set.index(take.emotion)  # refuses one that is not declared
    return Corpus(escaped(path.stem), label_set, tuple(sorted(takes, key=by_actor)))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number (1 is the header) and cells of every row that is not blank."""
    expected = f"expected a CSV with the columns {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
    with open_table(path, expected) as table:
        missing = [column for column in REQUIRED if column not in table.header]
        if missing:
            raise InputError(f"{path} line 1: no column {', '.join(missing)}; {expected}")
        named = list(filter(None, table.header))
        if len(set(named)) < len(named):
            raise InputError(f"{path} line 1: a column is given twice; {expected}")
        for line, cells in table.rows():
            yield line, dict(zip(table.header, cells, strict=True))


def _take(row: Mapping[str, str], folder: Path) -> Take:
    """One row's take; an `InputError` says what is wrong with the row."""
    for column, cell in row.items():
        if column not in PATHS and escaped(column + cell) != column + cell:
            raise InputError(f"{column} '{visible(cell)}' is no text in UTF-8: save the table in it")
    for column in REQUIRED:
        if not row[column]:
            raise InputError(f"the cell of column {column} is empty: fill it in")
    recording = _file(row, "path", folder)
    audio = _file(row, "audio", folder)
    if recording is None or recording.suffix.lower() == ".csv":
        raise InputError(f"path {row['path']!r} is no recording: give a video or sound file")
    only_sound = recording.suffix.lower() in AUDIO_SUFFIXES
    if only_sound and audio:
        raise InputError(f"path {row['path']!r} is already sound: leave the column audio empty")
    name = row.get("name") or recording.stem
    if name.startswith(".") or any(character in '/\\:*?"<>|' or character < " " for character in name):
        raise InputError(f"name {name!r} cannot be a file's name: use letters, digits, - and _")
    sex = row.get("sex", "").lower()
    if sex not in _SEXES:
        raise InputError(f"sex {row['sex']!r}: expected male, female or nothing")
    return Take(
        name=escaped(name),
        emotion=row["label"],
        actor=row["speaker"],
        video=None if only_sound else recording,
        audio=audio or recording,
        openface=_file(row, "openface", folder),
        sex=_SEXES[sex],
        attributes={key: cell for key, cell in row.items() if key not in REQUIRED + OPTIONAL and key},
    )


def _file(row: Mapping[str, str], column: str, folder: Path) -> Path | None:
    if not row.get(column):
        return None
    try:
        path = folder / row[column]
        found = path.is_file()
    except (OSError, ValueError):  # too long, or a null byte
        found = False
    if not found:
        other = "" if row[column] == escaped(row[column]) else "; is the table in UTF-8?"
        raise InputError(
            f"{column} '{visible(row[column])}': there is no such file beside the table in {folder}{other}"
        )
    return path
