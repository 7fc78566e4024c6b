"""Leaks of a split: what training, the inner validation and the test have in common."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from cfnsr.corpus.take import MEDIA_SUFFIXES
from cfnsr.data.split import PARTS, TEST, TRAIN, VALIDATION, Split, SplitFold
from cfnsr.errors import InputError, listed
from cfnsr.files import visible
from cfnsr.media.fingerprint import Content, copies, read_content
from cfnsr.processes import WorkerDied, cores, map_surviving

Shared = Literal["actors", "takes", "recordings"]

EXAMPLES = 3
LINES = 10  # of one kind shown to people; the JSON has all
FEW = 16  # files that are not worth another process


@dataclass(frozen=True)
class Leak:
    """Something that two parts of one fold have in common.

    Args:
        kind: "shared actors", "shared takes" or "copies of a recording" between training and test;
            "inner validation reused" where one of the parts is the validation.
        shared: what they share: actors, takes, or recordings by their content under other names.
    """

    kind: str
    shared: Shared
    fold: str  #: empty where the split has no folds
    parts: tuple[str, str]
    count: int  #: of the shared things
    examples: tuple[str, ...]  #: up to three of them
    identical: bool = False  #: the validation is the test part

    def __str__(self) -> str:
        where = f"fold {self.fold}: " if self.fold else ""
        if self.identical:
            return f"{where}{self.kind}: validation and test are the same {self.count} takes"
        verb = "stand" if self.count > 1 else "stands"
        how = " under other names" if self.shared == "recordings" else ""
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        examples = (", " if self.shared == "actors" else "; ").join(self.examples)
        what = f"{_counted(self.shared, self.count)} {verb} in {' and '.join(self.parts)}{how}"
        return f"{where}{self.kind}: {what}: {examples}{more}"


@dataclass(frozen=True)
class Findings:
    """The result of `check_split`."""

    split: str  #: the CSV
    read_as: str  #: how its columns were understood
    leaks: tuple[Leak, ...]  #: fold by fold
    notes: tuple[str, ...]  #: what is no leak but changes what a figure means, or was not checked
    checked: Mapping[str, int]  #: how many folds, actors, takes and files (by content) were compared

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
        counts = {what.replace("files", "content of files"): n for what, n in self.checked.items() if n}
        checked = ", ".join(_counted(what, count) for what, count in counts.items())
        keys = {"actors": "actors", "content": "files"}
        missing = [what for what, key in keys.items() if not self.checked[key]]
        unchecked = f"; NOT CHECKED: {' and '.join(missing)}" if missing else ""
        found = _counted("leaks", len(self.leaks)) if self.leaks else "no leak"
        lines.append(f"{found}: {checked} compared{unchecked}")
        return lines


def _counted(what: str, count: int) -> str:
    """A number and its noun.

    >>> _counted("folds", 6), _counted("takes", 1), _counted("content of files", 2)
    ('6 folds', '1 take', 'content of 2 files')
    """
    before, _, noun = what.rpartition(" ")
    return f"{before} {count} {noun if count != 1 else noun[:-1]}".strip()


def check_split(
    split: Split,
    *,
    media: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Compare the parts of every fold: actors, takes, and the content of the files that can be found.

    Args:
        media: a folder with the files, where they do not lie as the CSV says; `InputError` if it is none.
        workers: processes that read the files; all cores when None.
        progress: called with the files read and their number, before the first and after each.
    """
    places = find_files(split, media)
    files = sorted({place for place in places if place is not None})
    contents = dict(zip(files, read_contents(files, workers=workers, progress=progress), strict=True))
    groups = dict(zip(files, copies([contents[file] for file in files]).tolist(), strict=True))
    # The set of copies that each recording is in; -1 is none.
    copied = [None if place is None or groups[place] < 0 else groups[place] for place in places]
    leaks = [
        replace(leak, fold=visible(leak.fold), examples=tuple(map(visible, leak.examples)))
        for fold in split.folds
        for leak in _leaks_of(fold, split, copied)
    ]
    content = _about_content(split, places, contents)
    notes = [*split.notes, *_counted_twice(split, copied), *_about_parts(split), *content]
    checked = {
        "folds": len(split.folds) if split.folds[0].name else 0,
        "actors": len({recording.person for recording in split.used} - {None}),
        "takes": len({recording.take for recording in split.used}),
        "files": sum(bool(content.sha256) for content in contents.values()),
    }
    source, read_as = visible(str(split.source)), visible(split.read_as)
    return Findings(source, read_as, tuple(leaks), tuple(map(visible, notes)), checked)


def _leaks_of(fold: SplitFold, split: Split, copied: Sequence[int | None]) -> Iterator[Leak]:
    """Find the leaks between each two parts of a fold."""
    recordings = split.recordings
    takes = [recording.take for recording in recordings]
    persons = [recording.person for recording in recordings]
    for names in combinations(PARTS, 2):
        one, other = (sorted(set(fold.parts[name])) for name in names)
        reused = "inner validation reused" if VALIDATION in names else ""
        by_take = _in_both(takes, one, other)
        if TRAIN not in names and one and {takes[place] for place in (*one, *other)} == by_take.keys():
            yield Leak(reused, "takes", fold.name, names, len(by_take), (), identical=True)
            continue
        if by_person := _in_both(persons, one, other):
            examples = [recordings[place].actor for place, _ in list(by_person.values())[:EXAMPLES]]
            kind = reused or "shared actors"
            yield Leak(kind, "actors", fold.name, names, len(by_person), tuple(examples))
        # What the names show already is not repeated.
        one, other = ([place for place in part if takes[place] not in by_take] for part in (one, other))
        by_content = _in_both(copied, one, other)
        kinds: dict[Shared, tuple[str, Mapping[Any, Sequence[int]]]] = {
            "takes": ("shared takes", by_take),
            "recordings": ("copies of a recording", by_content),
        }
        for shared, (kind, pairs) in kinds.items():
            if pairs:
                examples = [split.names(places) for places in list(pairs.values())[:EXAMPLES]]
                yield Leak(reused or kind, shared, fold.name, names, len(pairs), tuple(examples))


def _in_both(keys: Sequence[Any], one: Sequence[int], other: Sequence[int]) -> dict[Any, tuple[int, int]]:
    """The keys that stand on both sides, in their order, each with its first recording on either."""
    left, right = ({keys[place]: place for place in reversed(part)} for part in (one, other))
    return {key: (left[key], right[key]) for key in sorted((left.keys() & right.keys()) - {None})}


def _counted_twice(split: Split, copied: Sequence[int | None]) -> Iterator[str]:
    """Note takes that stand more than once in one part: by name, and by content under other names."""
    takes = [recording.take for recording in split.recordings]
    again, alike = dict[str, None](), dict[int, list[int]]()
    for rows in (rows for fold in split.folds for rows in fold.parts.values()):
        counts = Counter(takes[place] for place in rows)
        again |= dict.fromkeys(sorted(take for take, count in counts.items() if count > 1))
        groups = defaultdict[int, list[int]](list)
        for place in sorted(set(rows)):
            if (group := copied[place]) is not None:
                groups[group].append(place)
        for group, members in sorted(groups.items()):
            if len({takes[place] for place in members}) > 1:
                alike.setdefault(group, members)
    if again:
        names = "; ".join(split.recordings[takes.index(take)].path for take in list(again)[:EXAMPLES])
        yield f"counted twice: {_counted('takes', len(again))} more than once in one part: {names}"
    if alike:
        names = "; ".join(split.names(members[:EXAMPLES]) for members in list(alike.values())[:EXAMPLES])
        count = _counted("recordings", len(alike))
        yield f"counted twice: {count} under several names in one part: {names}"


def _about_parts(split: Split) -> Iterator[str]:
    """Note what the folds lack: a part, an inner validation, a test for everyone."""
    for name, what, consequence in (
        (TRAIN, "train part", "only validation and test were compared"),
        (VALIDATION, "inner validation", "whatever is chosen (epoch, threshold) is chosen on the test part"),
        (TEST, "test part", "the figure is that of the validation part, on which things are chosen"),
    ):
        without = [fold.name for fold in split.folds if not fold.parts[name]]
        if without:
            which = f" in fold {', '.join(without[:EXAMPLES])}" if len(without) < len(split.folds) else ""
            yield f"no {what}{which}: {consequence}"
    every = split.recordings
    if silent := sum(recording.person is None for recording in every):
        yield f"actors not checked: {silent} of {len(every)} recordings tell no actor; add a column actor"
    tested = {split.recordings[place].person for fold in split.folds for place in fold.parts[TEST]}
    if len(split.folds) > 1 and tested:
        actors = {recording.person: recording.actor for recording in reversed(split.recordings)}
        persons = {recording.person for recording in split.used} - tested - {None}
        if never := [actors[person] for person in sorted(filter(None, persons))]:
            yield f"never tested: actor {listed(never, LINES)}"


def _about_content(
    split: Split, places: Sequence[Path | None], contents: Mapping[Path, Content]
) -> Iterator[str]:
    """Note which files could not be compared, and which by their bytes alone."""

    def files(names: Sequence[object]) -> tuple[str, str]:
        return _counted("files", len(names)), listed(names, EXAMPLES, "; ")

    paths = (recording.path for recording in split.recordings)
    if missing := [path for path, place in zip(paths, places, strict=True) if not place]:
        yield "content not checked: {} not found: {}".format(*files(missing))
    if broken := [content.problem for content in contents.values() if content.broken]:
        yield "broken: {} could not be listened to: {}".format(*files(broken))
    if silent := [path for path, each in contents.items() if each.sound is None and not each.broken]:
        alone = "compared by their bytes alone: {} without sound, so that a re-coded copy would not show: {}"
        yield alone.format(*files(silent))


def find_files(split: Split, media: Path | None = None) -> list[Path | None]:
    """Find each recording, or None: as the CSV says, from its folder or this one, or under `media`.

    Under `media` a file is found by its path, else by as much of the end of its path as tells it from
    others of its name; a name without suffix by the recording of that name.

    Raises:
        InputError: `media` is no folder.
    """
    if media is not None and not media.is_dir():
        raise InputError(f"{media} is no folder: expected the folder with the recordings of {split.source}")
    roots = [media or Path(), split.source.parent]
    if media is None:
        roots.reverse()
    paths = [recording.path for recording in split.recordings]
    found = [_place_of(path, roots) for path in paths]
    if media is None or None not in found:
        return found
    named = defaultdict[str, list[Path]](list)
    for folder, _, files in os.walk(media):
        for file in files:
            path = Path(folder, file)
            named[file].append(path)
            if path.suffix.lower() in MEDIA_SUFFIXES:
                named[path.stem].append(path)
    return [place or _nearest(path, named) for place, path in zip(found, paths, strict=True)]


def _place_of(text: str, roots: Sequence[Path]) -> Path | None:
    for root in roots:
        with suppress(OSError, ValueError):  # too long, a loop of links, a null byte
            path = root / text.replace("\\", "/")
            if path.is_file():
                return path.resolve()
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
    processes = min(workers or cores(), 1 + len(files) // FEW) if workers != 0 else 0

    def died(file: Path, death: WorkerDied) -> Content:
        return Content("", None, f"{file}: {death}", broken=True)

    for file, content in map_surviving(read_content, files, processes, died):
        contents[file] = content
        progress(len(contents), len(files))
    return [contents[file] for file in files]
