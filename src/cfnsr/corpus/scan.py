"""Takes of a folder: every file under it is used, or accounted for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cfnsr.corpus import cremad, ravdess
from cfnsr.corpus.table import read_table
from cfnsr.corpus.take import (
    AUDIO_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    Corpus,
    Performance,
    Scheme,
    Take,
    by_actor,
    refuse_spellings,
)
from cfnsr.errors import InputError
from cfnsr.files import escaped, open_table

SCHEMES = (ravdess.SCHEME, cremad.SCHEME)

SONGS = "songs (speech alone is asked for)"

_Named = tuple[Path, Performance]


def scan(
    path: Path | str,
    *,
    song: bool = False,
    openface: Path | str | None = None,
    labels: Sequence[str] = (),
) -> Corpus:
    """The takes of a RAVDESS or CREMA-D folder, or of a CSV of takes.

    Layout does not matter, names do. One performance is one take: an audio-video file gives its
    pictures and its sound; without one, a video-only and an audio-only file of the same performance
    join. An OpenFace CSV belongs to the take of its name, whatever its modality, wherever it lies in
    the tree. A folder of OpenFace CSVs alone gives takes that have nothing else. Links to folders
    outside are followed, each folder once.

    Args:
        path: a folder, or a CSV of takes (see `read_table`).
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
    tables: tuple[Path, ...] = ()
    if given is not None and not of_means:
        tables = _look(given, "a folder of OpenFace CSVs, or a CSV of clip means").tables
    if path.is_file() and path.suffix.lower() == ".csv":
        corpus = read_table(path, labels)
        refuse_spellings(path, corpus.actors)
        by_stem = {escaped(table.stem): table for table in reversed(tables)}
        takes = (replace(take, openface=take.openface or by_stem.get(take.name)) for take in corpus.takes)
        corpus = replace(corpus, takes=tuple(takes))
    else:
        if labels:
            raise InputError(
                f"labels {', '.join(labels)} for {path}: expected a CSV of takes; a folder has its own"
            )
        corpus = _scan_folder(path, song, tables)
    if given is not None and of_means:
        return _with_means(corpus, given, path)
    if given is not None and not {take.openface for take in corpus.takes} & set(tables):
        raise InputError(
            f"{openface}: no CSV in it is named after a take of {path}: expected names such as "
            f"{corpus.takes[0].name}.csv"
        )
    return corpus


def performance_key(name: str) -> str:
    """Give what the names of all files of one performance share; a name of no scheme as it is.

    >>> performance_key("01-01-06-01-02-01-12") == performance_key("03-01-06-01-02-01-12")
    True
    >>> performance_key("interview 7")
    'interview 7'
    """
    parsed = (scheme.parse(name) for scheme in SCHEMES)
    return next((performance.key for performance in parsed if performance is not None), name)


@dataclass(frozen=True)
class _Listing:
    media: tuple[Path, ...]
    tables: tuple[Path, ...]
    left_out: Counter[str]


def _look(root: Path, expected: str) -> _Listing:
    """Every media file and CSV under a folder; hidden folders are passed over."""
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder; check the path")
    if not root.is_dir():
        raise InputError(f"{root}: expected {expected}")
    home = root.resolve()
    pending, links, entered = [root], list[Path](), set[Path]()
    media, tables, left_out = list[Path](), list[Path](), Counter[str]()
    while pending or links:
        # Links come last, so that a file is found under its real folder where it has one.
        folder = pending.pop() if pending else links.pop()
        real = folder.resolve()
        if real in entered:
            continue
        entered.add(real)
        try:
            entries = sorted(folder.iterdir(), reverse=True)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be listed ({error.strerror}); check its permissions"
            ) from None
        for path in entries:
            suffix = path.suffix.lower()
            hidden = path.name.startswith(".")
            if _is_folder(path):
                if not path.is_symlink() and not hidden:
                    pending.append(path)
                # A link to a folder above would lead into the whole disk.
                elif not hidden and not home.is_relative_to(path.resolve()):
                    links.append(path)
            elif suffix not in MEDIA_SUFFIXES and suffix != ".csv":
                continue
            elif hidden:
                left_out["hidden files"] += 1
            elif not path.is_file():
                left_out["broken links"] += 1
            else:
                (tables if suffix == ".csv" else media).append(path)
    return _Listing(tuple(sorted(media)), tuple(sorted(tables)), left_out)


def _scan_folder(root: Path, song: bool, extra_tables: Sequence[Path]) -> Corpus:
    listing = _look(root, "a folder of recordings or a .csv of takes")
    scheme, only_tables = _recognise(root, listing)
    takes, duplicates, unknown, left_out = _assemble(listing.media, scheme, song)
    tables = _ranked_tables([*extra_tables, *listing.tables], set(extra_tables), scheme)
    wanted = {key for key, found in tables.items() if song or not _is_song(found[0][1])}
    if only_tables:
        takes = {key: _take(tables[key][0][1], tables[key][0][0].stem) for key in wanted}
    if not takes:
        raise InputError(f"{root}: holds songs alone, and speech was asked for; ask for songs with --song")
    for key, found in tables.items():
        used = key in takes
        reason = "repeated OpenFace CSVs" if used else "OpenFace CSVs without a recording"
        left_out[reason if key in wanted else SONGS] += len(found) - used
    takes = {key: replace(take, openface=_first(tables.get(key))) for key, take in takes.items()}
    if scheme is cremad.SCHEME:
        actors = (path for path in listing.tables if path.name.lower() == cremad.DEMOGRAPHICS.lower())
        sexes = next(map(cremad.read_sexes, actors), {})
        takes = {key: replace(take, sex=sexes.get(int(take.actor))) for key, take in takes.items()}
    return Corpus(
        scheme.name,
        scheme.labels,
        tuple(sorted(takes.values(), key=by_actor)),
        tuple(unknown),
        tuple(sorted(duplicates)),
        {reason: count for reason, count in (left_out + listing.left_out).items() if count},
    )


def _recognise(root: Path, listing: _Listing) -> tuple[Scheme, bool]:
    """The one scheme a folder's names follow, and whether only its OpenFace CSVs do."""
    for paths, what in ((listing.media, "recordings"), (listing.tables, "OpenFace CSVs")):
        counts = {scheme: len(_parse(paths, scheme)) for scheme in SCHEMES}
        fitting = [scheme for scheme, count in counts.items() if count]
        if len(fitting) > 1:
            held = " and ".join(f"{counts[scheme]} of {scheme.name}" for scheme in fitting)
            raise InputError(
                f"{root}: holds {what} of two corpora, {held}; choose a subfolder with one of them"
            )
        if fitting:
            return fitting[0], what != "recordings"
    expected = "expected names as in RAVDESS (01-01-06-01-02-01-12.mp4) or CREMA-D (1001_DFA_ANG_XX.flv)"
    if not listing.media:
        raise InputError(f"{root}: no recording in it; {expected}")
    raise InputError(
        f"{root}: none of its {len(listing.media)} recordings, such as {listing.media[0].name}, has a known "
        f"name; {expected}; describe another corpus in a CSV with the columns path, label, speaker"
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a loop of links
        return False


def _is_song(name: Performance) -> bool:
    return name.attributes.get("channel") == "song"


def _parse(paths: Iterable[Path], scheme: Scheme) -> list[_Named]:
    return [(path, name) for path in paths if (name := scheme.parse(path.stem)) is not None]


def _nearest(scheme: Scheme, path: Path) -> tuple[int, int, Path]:
    """Sort key: the published form before copies in other forms, then the shallowest, then by name."""
    suffix = path.suffix.lower()
    form = scheme.originals.index(suffix) if suffix in scheme.originals else len(scheme.originals)
    return form, len(path.parts), path


def _assemble(
    media: Sequence[Path], scheme: Scheme, song: bool
) -> tuple[dict[str, Take], list[Path], list[Path], Counter[str]]:
    """Takes by performance, repeated files, files of unknown name, and what was left out by reason."""
    unknown, duplicates, left_out = [], list[Path](), Counter[str]()
    # One performance's files, by what they hold: (pictures, sound).
    performances = defaultdict[str, defaultdict[tuple[bool, bool], list[_Named]]](lambda: defaultdict(list))
    for path in sorted(media, key=lambda path: _nearest(scheme, path)):
        name = scheme.parse(path.stem)
        suffix = path.suffix.lower()
        pictures = name is not None and name.pictures and suffix in VIDEO_SUFFIXES
        sound = name is not None and name.sound
        if name is None or (suffix in AUDIO_SUFFIXES and not sound):
            unknown.append(path)
        elif _is_song(name) and not song:
            left_out[SONGS] += 1
        else:
            performances[name.key][pictures, sound].append((path, name))

    takes = {}
    for key, files in performances.items():
        both, silent, heard = files[True, True], files[True, False], files[False, True]
        duplicates += [path for alike in (both, silent, heard) for path, _ in alike[1:]]
        if both:
            left_out["video-only copies beside their audio-video twins"] += len(silent[:1])
            left_out["audio-only copies beside their audio-video twins"] += len(heard[:1])
        primary, name = (both or silent or heard)[0]
        takes[key] = _take(
            name, primary.stem, video=_first(both) or _first(silent), audio=_first(both) or _first(heard)
        )
    return takes, duplicates, sorted(unknown), left_out


def _first(files: Sequence[_Named] | None) -> Path | None:
    return files[0][0] if files else None


def _take(name: Performance, stem: str, video: Path | None = None, audio: Path | None = None) -> Take:
    return Take(stem, name.emotion, name.actor, video, audio, None, name.sex, name.attributes)


def _ranked_tables(paths: Iterable[Path], first: set[Path], scheme: Scheme) -> defaultdict[str, list[_Named]]:
    """OpenFace CSVs by performance, best first: asked for by name, of the audio-video file, shallowest."""
    tables = defaultdict[str, list[_Named]](list)
    for path, name in _parse(dict.fromkeys(paths), scheme):
        tables[name.key].append((path, name))
    for found in tables.values():
        found.sort(key=lambda file: (file[0] not in first, file[0].stem, len(file[0].parts), file[0]))
    return tables


def _with_means(corpus: Corpus, means: Path, root: Path) -> Corpus:
    """The takes that a CSV of clip means has, by name or by performance; the others are left out."""
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
        raise InputError(
            f"{means}: none of its {len(names)} rows is named after a take of {root}: expected names such as "
            f"{corpus.takes[0].name}"
        )
    account = {
        f"takes that {means.name} does not have": len(corpus.takes) - len(takes),
        f"OpenFace CSVs that {means.name} goes before": sum(
            take.openface is not None for take in corpus.takes
        ),
    }
    return replace(
        corpus,
        takes=tuple(replace(take, openface=means) for take in takes),
        left_out={**corpus.left_out, **{reason: count for reason, count in account.items() if count}},
    )
