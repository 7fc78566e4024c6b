"""Takes of a folder: every file under it is used, or accounted for."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from cfnsr.corpus.scheme import SCHEMES, Performance, Scheme
from cfnsr.corpus.table import read_table
from cfnsr.corpus.take import MEDIA_SUFFIXES, VIDEO_SUFFIXES, Corpus, Take, by_actor, refuse_spellings
from cfnsr.errors import InputError
from cfnsr.files import escaped, open_table

SONGS = "songs (speech alone is asked for)"

_Named = tuple[Path, Performance]


def scan(
    path: Path | str,
    *,
    song: bool = False,
    openface: Path | str | None = None,
    labels: Sequence[str] = (),
) -> Corpus:
    """Find the takes of a folder of a known corpus, or of a CSV of takes.

    Layout does not matter, names do. One performance is one take: an audio-video file gives its
    pictures and its sound; without one, a video-only and an audio-only file of the same performance
    join. An OpenFace CSV belongs to the take of its name, whatever its modality, wherever it lies in
    the tree. A folder of OpenFace CSVs alone gives takes that have nothing else. Links to folders
    outside are followed, each folder once.

    Args:
        path: a folder of one of the corpora in `SCHEMES`, or a CSV of takes (see `read_table`).
        song: take RAVDESS's songs too; speech alone otherwise.
        openface: a folder with further OpenFace CSVs, or a CSV of clip means, one row a take with a column
            `name`; these go before those in the tree. Takes that a CSV of means does not have are left out.
        labels: the label set of a CSV of takes, in class order; the folders have their own.

    Raises:
        InputError: nothing there, no take in it, takes of two corpora, or a person in two spellings.
    """
    path = Path(path)
    given = None if openface is None else Path(openface)
    of_means = given is not None and given.is_file()
    tables: list[Path] = []
    if given is not None and not of_means:
        _, tables, _ = _look(given, "a folder of OpenFace CSVs, or a CSV of clip means")
    if path.is_file() and path.suffix.lower() == ".csv":
        corpus = read_table(path, labels)
        refuse_spellings(path, corpus.actors)
        by_stem = {escaped(table.stem): table for table in reversed(tables)}
        takes = (replace(take, openface=take.openface or by_stem.get(take.name)) for take in corpus.takes)
        corpus = replace(corpus, takes=tuple(takes))
    elif labels:
        given_labels = f"labels {', '.join(labels)} for {path}"
        raise InputError(f"{given_labels}: expected a CSV of takes; a folder has its own")
    else:
        corpus = _scan_folder(path, song, tables)
    if given is not None and of_means:
        return _with_means(corpus, given, path)
    if given is not None and not {take.openface for take in corpus.takes} & set(tables):
        expected = f"expected names such as {corpus.takes[0].name}.csv"
        raise InputError(f"{openface}: no CSV in it is named after a take of {path}: {expected}")
    return corpus


def performance_key(name: str) -> str:
    """Give what the names of all files of one performance share; a name of no scheme as it is.

    >>> performance_key("01-01-06-01-02-01-12") == performance_key("03-01-06-01-02-01-12")
    True
    >>> performance_key("interview 7")
    'interview 7'
    """
    parsed = (scheme.parse(name) for scheme in SCHEMES.values())
    return next((performance.key for performance in parsed if performance is not None), name)


def _look(root: Path, expected: str) -> tuple[list[Path], list[Path], Counter[str]]:
    """List every media file and every CSV under a folder, and count what is left out; no hidden folders."""
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder; check the path")
    if not root.is_dir():
        raise InputError(f"{root}: expected {expected}")

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    media, tables, left_out = list[Path](), list[Path](), Counter[str]()
    home, entered, starts = root.resolve(), set[Path](), [root]
    for start in starts:  # links come last, so that a file is found under its real folder where it has one
        for name, folders, files in os.walk(start, onerror=refuse):
            folder = Path(name)
            if folder.resolve() in entered:
                folders.clear()
                continue
            entered.add(folder.resolve())
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            links = [folder / each for each in folders if (folder / each).is_symlink()]
            # A link to a folder above would lead into the whole disk.
            starts += [link for link in links if not home.is_relative_to(link.resolve())]
            for path in (folder / each for each in files):
                suffix = path.suffix.lower()
                if suffix not in MEDIA_SUFFIXES and suffix != ".csv":
                    continue
                if path.name.startswith("."):
                    left_out["hidden files"] += 1
                elif not path.is_file():
                    left_out["broken links"] += 1
                else:
                    (tables if suffix == ".csv" else media).append(path)
    return sorted(media), sorted(tables), left_out


def _scan_folder(root: Path, song: bool, extra_tables: Sequence[Path]) -> Corpus:
    media, tables, hidden = _look(root, "a folder of recordings or a .csv of takes")
    scheme, only_tables = _recognise(root, media, tables)
    unknown, duplicates, left_out = list[Path](), list[Path](), Counter[str]()
    # Files by performance, then by what they hold, the best first.
    performances = defaultdict[str, defaultdict[str, list[_Named]]](lambda: defaultdict(list))
    for path in _best_first(media, [*extra_tables, *tables], scheme, set(extra_tables)):
        performance = _parse(path, scheme)
        holds = "" if performance is None else _holds(path.suffix.lower(), performance)
        if performance is None or not holds:
            unknown += [path] if path.suffix.lower() in MEDIA_SUFFIXES else []
        elif performance.attributes.get("channel") == "song" and not song:
            left_out[SONGS] += 1
        else:
            performances[performance.key][holds].append((path, performance))

    takes, sexes = [], scheme.sexes(tables)
    for files in performances.values():
        both, pictures, sound, tracks = (files[holds] for holds in ("both", "pictures", "sound", "track"))
        duplicates += [path for alike in (both, pictures, sound) for path, _ in alike[1:]]
        if both:
            left_out["video-only copies beside their audio-video twins"] += len(pictures[:1])
            left_out["audio-only copies beside their audio-video twins"] += len(sound[:1])
        recorded = both or pictures or sound or (tracks if only_tables else [])
        if not recorded:
            left_out["OpenFace CSVs without a recording"] += len(tracks)
            continue
        left_out["repeated OpenFace CSVs"] += len(tracks[1:])
        first = recorded[0][1]
        about = first.name, first.emotion, first.actor
        where = _first(both or pictures), _first(both or sound), _first(tracks)
        takes.append(Take(*about, *where, first.sex or sexes.get(first.actor), first.attributes))
    if not takes:
        raise InputError(f"{root}: holds songs alone, and speech was asked for; ask for songs with --song")
    _check_read(root, scheme, takes)
    return Corpus(
        scheme.name,
        scheme.labels,
        tuple(sorted(takes, key=by_actor)),
        tuple(sorted(unknown)),
        tuple(sorted(duplicates)),
        dict(left_out + hidden),  # without what counts 0
    )


def _check_read(root: Path, scheme: Scheme, takes: Sequence[Take]) -> None:
    """Refuse takes of one name, whose clips would overwrite each other, of no known emotion or of one person
    in two spellings.
    """
    first: dict[str, Take] = {}
    for take in takes:
        scheme.labels.index(take.emotion)
        other = first.setdefault(take.name.casefold(), take)  # names become names of files
        if other is not take:
            files = " and ".join(str(each.video or each.audio or each.openface) for each in (other, take))
            raise InputError(
                f"{root}: the scheme {scheme.name!r} names two takes {take.name!r}, {files}: expected names "
                "that are unique in the corpus"
            )
    refuse_spellings(root, (take.actor for take in takes))


def _recognise(root: Path, media: Sequence[Path], tables: Sequence[Path]) -> tuple[Scheme, bool]:
    """Find the one scheme that a folder's names follow; and say if only its OpenFace CSVs do."""
    for paths, what in ((media, "recordings"), (tables, "OpenFace CSVs")):
        counts = {
            scheme: sum(map(bool, (_parse(path, scheme) for path in paths))) for scheme in SCHEMES.values()
        }
        fitting = [scheme for scheme, count in counts.items() if count]
        if len(fitting) > 1:
            held = " and ".join(f"{counts[scheme]} of {scheme.name}" for scheme in fitting)
            advice = "choose a subfolder with one of them"
            raise InputError(f"{root}: holds {what} of two corpora, {held}; {advice}")
        if fitting:
            return fitting[0], paths is tables
    known = " or ".join(f"{scheme.title} ({scheme.example})" for scheme in SCHEMES.values())
    if not media:
        raise InputError(f"{root}: no recording in it; expected names as in {known}")
    raise InputError(
        f"{root}: none of its {len(media)} recordings, such as {media[0].name}, has a known name; expected "
        f"names as in {known}; describe another corpus in a CSV with the columns path, label, speaker"
    )


def _parse(path: Path, scheme: Scheme) -> Performance | None:
    return scheme.parse(path.with_suffix("").as_posix())


def _best_first(
    media: Iterable[Path], tables: Iterable[Path], scheme: Scheme, asked: Collection[Path]
) -> list[Path]:
    """Sort recordings by form (as published, or a copy), then OpenFace CSVs: asked for, of audio-video files.

    Of equals the shallowest comes first.
    """

    def form(path: Path) -> int:
        suffix = path.suffix.lower()
        return scheme.originals.index(suffix) if suffix in scheme.originals else len(scheme.originals)

    return [
        *sorted(media, key=lambda path: (form(path), len(path.parts), path)),
        *sorted(set(tables), key=lambda path: (path not in asked, path.stem, len(path.parts), path)),
    ]


def _holds(suffix: str, performance: Performance) -> str:
    """Say what a file holds: "both", "pictures", "sound", a "track" of OpenFace, or nothing it should."""
    if suffix == ".csv":
        return "track"
    if suffix in VIDEO_SUFFIXES and performance.pictures:
        return "both" if performance.sound else "pictures"
    return "sound" if performance.sound else ""


def _first(files: Sequence[_Named]) -> Path | None:
    return files[0][0] if files else None


def _with_means(corpus: Corpus, means: Path, root: Path) -> Corpus:
    """Keep the takes that a CSV of clip means has, by name or by performance; leave the others out."""
    expected = "expected a folder of OpenFace CSVs, or a CSV of clip means with a column name, one row a take"
    with open_table(means, expected) as table:
        if "name" not in table.header or "frame" in table.header:
            kind = "has a column frame" if "frame" in table.header else "has no column name"
            raise InputError(f"{means}: {kind}; {expected}")
        place = table.header.index("name")  # the other columns are for `cfnsr.media`
        names = [escaped(cells[place]) for _, cells in table.rows()]
    measured = {*names, *map(performance_key, names)}
    takes = [take for take in corpus.takes if {take.name, performance_key(take.name)} & measured]
    if not takes:
        none = f"{means}: none of its {len(names)} rows is named after a take of {root}"
        raise InputError(f"{none}: expected names such as {corpus.takes[0].name}")
    left_out = dict(corpus.left_out)
    if lacking := len(corpus.takes) - len(takes):
        left_out[f"takes that {means.name} does not have"] = lacking
    if replaced := sum(take.openface is not None for take in corpus.takes):
        left_out[f"OpenFace CSVs that {means.name} goes before"] = replaced
    return replace(corpus, takes=tuple(replace(take, openface=means) for take in takes), left_out=left_out)
