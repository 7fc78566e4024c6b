"""Leaks of a split: what training, the inner validation and the test have in common."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from cfnsr.corpus.take import MEDIA_SUFFIXES
from cfnsr.data.split import PARTS, Ints, Recording, Split, SplitFold
from cfnsr.errors import InputError
from cfnsr.files import visible
from cfnsr.media.fingerprint import Content, copies, read_content
from cfnsr.processes import cores, map_surviving

Shared = Literal["actors", "takes", "recordings"]

EXAMPLES = 3
LINES = 10  # of one kind shown to people; the JSON has all
FEW = 16  # files that are not worth other processes


@dataclass(frozen=True)
class Leak:
    """Something that two parts of one fold have in common.

    Args:
        kind: "shared actors", "shared takes" or "copies of a recording" between training and test;
            "inner validation reused" where one of the parts is the validation.
        shared: what they share: actors, takes, or recordings by their content under other names.
        fold: empty where the split has no folds.
        count: of the shared things.
        examples: up to three of them.
        identical: the validation is the test part.
    """

    kind: str
    shared: Shared
    fold: str
    parts: tuple[str, str]
    count: int
    examples: tuple[str, ...]
    identical: bool = False

    def __str__(self) -> str:
        where = f"fold {self.fold}: " if self.fold else ""
        if self.identical:
            return f"{where}{self.kind}: validation and test are the same {self.count} takes"
        what = f"{self.count} {self.shared if self.count > 1 else self.shared[:-1]}"
        verb = "stand" if self.count > 1 else "stands"
        how = " under other names" if self.shared == "recordings" else ""
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        examples = (", " if self.shared == "actors" else "; ").join(self.examples)
        return f"{where}{self.kind}: {what} {verb} in {' and '.join(self.parts)}{how}: {examples}{more}"


@dataclass(frozen=True)
class Findings:
    """The result of `check_split`.

    Args:
        split: the CSV.
        read_as: how its columns were understood.
        leaks: fold by fold; none in a clean split.
        notes: what is no leak between parts but changes what a figure means, or was not checked.
        checked: how many folds, actors, takes and files (by content) were compared.
    """

    split: str
    read_as: str
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    checked: Mapping[str, int]

    @property
    def clean(self) -> bool:
        return not self.leaks

    def as_json(self) -> dict[str, Any]:
        return {"clean": self.clean, **asdict(self)}

    def lines(self) -> list[str]:
        """The findings for people to read."""
        lines = [f"read as: {self.read_as}"]
        by_kind = defaultdict[tuple[str, Shared], list[Leak]](list)
        for leak in self.leaks:
            by_kind[leak.kind, leak.shared].append(leak)
        for (kind, _), leaks in by_kind.items():
            lines += map(str, leaks[:LINES])
            if len(leaks) > LINES:
                lines.append(f"{kind}: the same in {len(leaks) - LINES} more pairs of parts")
        lines += [f"note: {note}" for note in self.notes]
        checked = ", ".join(_counted(what, count) for what, count in self.checked.items() if count)
        missing = [
            what for what, key in (("actors", "actors"), ("content", "files")) if not self.checked.get(key)
        ]
        unchecked = f"; NOT CHECKED: {' and '.join(missing)}" if missing else ""
        found = _counted("leaks", len(self.leaks)) if self.leaks else "no leak"
        lines.append(f"{found}: {checked} compared{unchecked}")
        return lines


def _counted(what: str, count: int) -> str:
    """A number and its noun.

    >>> _counted("folds", 6), _counted("takes", 1), _counted("files", 2)
    ('6 folds', '1 take', 'content of 2 files')
    """
    text = f"{count} {what if count != 1 else what[:-1]}"
    return f"content of {text}" if what == "files" else text


def check_split(
    split: Split,
    *,
    media: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Compare the parts of every fold: actors, takes, and the content of the files that can be found.

    Args:
        split: as `read_split` gives it.
        media: a folder with the files, where they do not lie as the CSV says.
        workers: processes that read the files; all cores when None.
        progress: called with the files read and their number, before the first and after each.

    Raises:
        InputError: `media` is no folder.
    """
    places = find_files(split, media)
    files = sorted({place for place in places if place is not None})
    contents = dict(zip(files, read_contents(files, workers=workers, progress=progress), strict=True))
    groups = dict(zip(files, copies([contents[file] for file in files]).tolist(), strict=True))
    content = np.array([-1 if place is None else groups[place] for place in places], np.int64)
    leaks = [
        replace(leak, fold=visible(leak.fold), examples=tuple(map(visible, leak.examples)))
        for fold in split.folds
        for leak in _leaks_of(fold, split, content)
    ]
    notes = [
        *split.notes,
        *_counted_twice(split, content),
        *_about_parts(split),
        *_about_content(split, places, contents),
    ]
    used = np.unique(np.concatenate([fold.recordings for fold in split.folds]))
    checked = {
        "folds": len(split.folds) if split.folds[0].name else 0,
        "actors": len(set(split.actors[used].tolist()) - {-1}),
        "takes": len(np.unique(split.takes[used])),
        "files": sum(bool(found.sha256) for found in contents.values()),
    }
    return Findings(
        visible(str(split.source)),
        visible(split.read_as),
        tuple(leaks),
        tuple(map(visible, notes)),
        checked,
    )


def _leaks_of(fold: SplitFold, split: Split, content: Ints) -> Iterator[Leak]:
    """The leaks between each two parts of a fold; `content` numbers the sets of copies, -1 outside."""
    parts = {name: np.unique(fold.part(name)) for name in PARTS}
    for names in combinations(PARTS, 2):
        one, other = (parts[name] for name in names)
        reused = "inner validation reused" if "validation" in names else ""
        takes = _in_both(split.takes, one, other)
        alike = set(split.takes[one].tolist()) == set(split.takes[other].tolist())
        if "train" not in names and len(one) and alike:
            yield Leak(reused, "takes", fold.name, names, len(takes), (), identical=True)
            continue
        actors = _in_both(split.actors, one, other)
        if len(actors):
            examples = [
                split.recordings[_first(split.actors, one, actor)].actor for actor in actors[:EXAMPLES]
            ]
            kind = reused or "shared actors"
            yield Leak(kind, "actors", fold.name, names, len(actors), tuple(examples))
        if len(takes):
            examples = _pairs(split, split.takes, takes, one, other)
            yield Leak(reused or "shared takes", "takes", fold.name, names, len(takes), tuple(examples))
        # What the names show already is not repeated.
        new_one, new_other = (side[~np.isin(split.takes[side], takes)] for side in (one, other))
        recordings = _in_both(content, new_one, new_other)
        if len(recordings):
            kind, examples = (
                reused or "copies of a recording",
                _pairs(split, content, recordings, new_one, new_other),
            )
            yield Leak(kind, "recordings", fold.name, names, len(recordings), tuple(examples))


def _in_both(numbers: Ints, one: Ints, other: Ints) -> Ints:
    """The numbers that stand on both sides; -1 is no number."""
    both = np.intersect1d(numbers[one], numbers[other])
    return both[both >= 0]


def _first(numbers: Ints, members: Ints, number: int) -> int:
    return int(members[np.argmax(numbers[members] == number)])


def _pairs(split: Split, numbers: Ints, shared: Ints, one: Ints, other: Ints) -> list[str]:
    """The first few shared things by the names they have on either side."""
    pairs = [
        [split.recordings[_first(numbers, side, number)].path for side in (one, other)]
        for number in shared[:EXAMPLES].tolist()
    ]
    return [left if left == right else f"{left} = {right}" for left, right in pairs]


def _counted_twice(split: Split, content: Ints) -> Iterator[str]:
    """Takes that stand more than once in one part: by their names, and by their content under other names."""
    by_name, by_content = dict[int, None](), dict[int, list[int]]()
    for fold in split.folds:
        for name in PARTS:
            rows = fold.part(name)
            takes, counts = np.unique(split.takes[rows], return_counts=True)
            by_name.update(dict.fromkeys(takes[counts > 1].tolist()))
            copied = np.unique(rows[content[rows] >= 0])
            members = np.unique(np.stack([content[copied], split.takes[copied]]), axis=1)
            groups, sizes = np.unique(members[0], return_counts=True)
            for group in groups[sizes > 1].tolist():
                by_content.setdefault(group, copied[content[copied] == group].tolist())
    if by_name:
        firsts = [_first(split.takes, np.arange(len(split.takes)), take) for take in list(by_name)[:EXAMPLES]]
        names = "; ".join(split.recordings[place].path for place in firsts)
        yield f"counted twice: {_counted('takes', len(by_name))} more than once in one part: {names}"
    if by_content:
        alike_names = [
            " = ".join(split.recordings[place].path for place in alike[:EXAMPLES])
            for alike in list(by_content.values())[:EXAMPLES]
        ]
        count = _counted("recordings", len(by_content))
        yield f"counted twice: {count} under several names in one part: {'; '.join(alike_names)}"


def _about_parts(split: Split) -> Iterator[str]:
    """Note what the folds lack: a part, an inner validation, a test for everyone."""
    for name, consequence in (
        ("train", "only validation and test were compared"),
        ("validation", "whatever is chosen (epoch, threshold) is chosen on the test part"),
        ("test", "the figure is that of the validation part, on which things are chosen"),
    ):
        without = [fold.name for fold in split.folds if not len(fold.part(name))]
        if without:
            which = f" in fold {', '.join(without[:EXAMPLES])}" if len(without) < len(split.folds) else ""
            what = "no inner validation" if name == "validation" else f"no {name} part"
            yield f"{what}{which}: {consequence}"
    silent = int((split.actors < 0).sum())
    if silent:
        yield (
            f"actors not checked: {silent} of {len(split.recordings)} recordings tell no actor; "
            "add a column actor"
        )
    if len(split.folds) > 1:
        used = np.unique(np.concatenate([fold.recordings for fold in split.folds]))
        tested = np.concatenate([fold.part("test") for fold in split.folds])
        never = sorted(set(split.actors[used].tolist()) - set(split.actors[tested].tolist()) - {-1})
        if len(tested) and never:
            everyone = np.arange(len(split.actors))
            names = [split.recordings[_first(split.actors, everyone, actor)].actor for actor in never]
            more = f" and {len(names) - LINES} more" if len(names) > LINES else ""
            yield f"never tested: actor {', '.join(names[:LINES])}{more}"


def _about_content(
    split: Split, places: Sequence[Path | None], contents: Mapping[Path, Content]
) -> Iterator[str]:
    """Note which files could not be compared, and which by their bytes alone."""
    missing = [recording.path for recording, place in zip(split.recordings, places, strict=True) if not place]
    if missing:
        yield f"content not checked: {_counted_files(len(missing))} not found: {_some(missing)}"
    broken = [content.problem for content in contents.values() if content.broken]
    if broken:
        yield f"broken: {_counted_files(len(broken))} could not be listened to: {_some(broken)}"
    unheard = [
        str(path) for path, content in contents.items() if content.sound is None and not content.broken
    ]
    if unheard:
        yield (
            f"compared by their bytes alone: {_counted_files(len(unheard))} without sound, so that "
            f"a re-coded copy would not show: {_some(unheard)}"
        )


def _counted_files(count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return "; ".join(names[:EXAMPLES]) + more


def find_files(split: Split, media: Path | None = None) -> list[Path | None]:
    """Find each recording, or None: as the CSV says, from its folder or this one, or under `media`.

    Under `media` a file is found by its path, else by as much of the end of its path as tells it from
    others of its name; a name without suffix by the recording of that name.

    Raises:
        InputError: `media` is no folder.
    """
    if media is not None and not media.is_dir():
        raise InputError(f"{media} is no folder: expected the folder with the recordings of {split.source}")
    roots = [split.source.parent, Path()] if media is None else [media, split.source.parent]
    found = [_lies(recording, roots) for recording in split.recordings]
    if media is None or None not in found:
        return found
    named = defaultdict[str, list[Path]](list)
    for folder, _, files in os.walk(media):
        for file in files:
            path = Path(folder, file)
            named[file].append(path)
            if path.suffix.lower() in MEDIA_SUFFIXES:
                named[path.stem].append(path)
    return [
        place or _nearest(recording.path, named)
        for place, recording in zip(found, split.recordings, strict=True)
    ]


def _lies(recording: Recording, roots: Sequence[Path]) -> Path | None:
    for root in roots:
        for spelling in dict.fromkeys((recording.path, recording.path.replace("\\", "/"))):
            try:
                path = root / spelling
                if path.is_file():
                    return path.resolve()
            except (OSError, ValueError):  # too long, a loop of links, a null byte
                continue
    return None


def _nearest(text: str, named: Mapping[str, Sequence[Path]]) -> Path | None:
    """The file of that name which shares most of the folders before it; None where several do."""
    wanted = PurePosixPath(text.replace("\\", "/")).parts[::-1]

    def agreement(path: Path) -> int:
        folders = zip(wanted[1:], path.parts[-2::-1], strict=False)
        return next((depth for depth, (ours, theirs) in enumerate(folders) if ours != theirs), len(wanted))

    candidates = named.get(wanted[0], ()) if wanted else ()
    best = max(map(agreement, candidates), default=0)
    nearest = sorted(path for path in candidates if agreement(path) == best)
    # The same stem beside itself, as film and as sound, is one take.
    return nearest[0].resolve() if len({(path.parent, path.stem) for path in nearest}) == 1 else None


def read_contents(
    files: Sequence[Path],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Content]:
    """Hash files and read their audio on all cores; one that takes its process down is reported as broken."""
    contents: dict[Path, Content] = {}
    progress(0, len(files))
    processes = 1 if len(files) < FEW else workers or cores()
    for file, content in map_surviving(read_content, files, processes, _crashed):
        contents[file] = content
        progress(len(contents), len(files))
    return [contents[file] for file in files]


def _crashed(file: Path) -> Content:
    return Content("", None, f"{file}: the process that read it died", broken=True)
