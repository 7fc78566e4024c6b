"""RAVDESS from Zenodo: planned first, fetched checked and resumable, unpacked safely."""

import json
import re
import shutil
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cfnsr.corpus import ravdess
from cfnsr.corpus.zenodo import ZENODO, Progress, RemoteFile, fetch, list_files
from cfnsr.errors import InputError
from cfnsr.files import check_folder, write_json


@dataclass(frozen=True)
class Kind:
    """One kind of data, and how Zenodo and we keep it.

    Args:
        record: number of the Zenodo record, the end of its DOI.
        pattern: regular expression for the archive's name; `{actor}` stands for the actor's two digits.
        suffix: of the files that are unpacked.
        folder: where the actors' folders go, under the download folder.
        growth: bytes unpacked per byte of archive, to plan with.
    """

    record: int
    pattern: str
    suffix: str
    folder: str
    growth: float


KINDS = {
    "video": Kind(1188976, r"Video_Speech_Actor_{actor}\.zip", ".mp4", ".", 1.05),
    "audio": Kind(1188976, r"Audio_Speech_Actors_\d\d-\d\d\.zip", ".wav", "audio", 3.0),
    "landmarks": Kind(3255102, r"FacialTracking_Actors_\d\d-\d\d\.zip", ".csv", "landmarks", 4.0),
}
EXPLODING = 10  # times the growth beyond which an archive is refused
SLACK = 64 << 20  # bytes; so that small archives are not judged by their ratio
WORKPLACE = ".download"  # hidden from `scan`
MARKER = ".download.json"  # in an actor's folder: what it must hold to be complete

Members = dict[int, dict[str, zipfile.ZipInfo]]  # of an archive, by actor and file name


@dataclass(frozen=True)
class Archive:
    """One archive to fetch, and the actors to unpack from it."""

    kind: Kind
    file: RemoteFile
    actors: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Plan of a download; nothing is fetched before `run`.

    Args:
        folder: receives `Actor_NN/*.mp4`, `audio/Actor_NN/*.wav`, `landmarks/Actor_NN/*.csv`.
        jobs: the archives still to fetch and unpack, in order.
        keep_archives: leave the archives in the folder `.download` after unpacking.
    """

    folder: Path
    jobs: tuple[Archive, ...]
    keep_archives: bool = False

    @property
    def size(self) -> int:
        """Bytes of all archives of the plan."""
        return sum(job.file.size for job in self.jobs)

    @property
    def here(self) -> int:
        """Bytes of them that are on the disk already."""
        here = 0
        for job in self.jobs:
            path = self.folder / WORKPLACE / job.file.name
            found = [each.stat().st_size for each in (path, Path(f"{path}.part")) if each.is_file()]
            here += min([job.file.size, *found[:1]]) if found else 0
        return here

    @property
    def room(self) -> int:
        """Bytes of disk the run needs at its fullest, beside what is fetched already."""
        unpacked = 0.0
        for job in self.jobs:
            held = 1 if "{actor}" in job.kind.pattern else len(ravdess.ACTORS)  # actors in the archive
            unpacked += job.kind.growth * job.file.size * len(job.actors) / held
        archives = self.size if self.keep_archives else max((job.file.size for job in self.jobs), default=0)
        return int(unpacked) + max(archives - self.here, 0)

    def summary(self) -> str:
        """Licence, citations and sizes, to be shown before the run starts."""
        records = sorted({job.kind.record for job in self.jobs}) or [1188976]
        lines = [ravdess.TERMS, "Please cite:", *(ravdess.CITATIONS[record] for record in records)]
        if not self.jobs:
            return "\n".join([*lines, f"Everything asked for is in {self.folder} already; nothing to fetch."])
        archives = "1 archive" if len(self.jobs) == 1 else f"{len(self.jobs)} archives"
        already = f" ({_gb(self.here)} of it here already)" if self.here else ""
        lines.append(
            f"To fetch: {archives}, {_gb(self.size)}{already}, into {self.folder}; this takes up to "
            f"{_gb(self.room)} of disk, {_gb(_free(self.folder))} are free."
        )
        return "\n".join(lines)

    def run(self, progress: Progress = lambda what, done, total: None) -> Path:
        """Fetch, check and unpack what is missing; returns the folder. Run again to go on after a cut.

        Raises:
            InputError: too little room, a server that stays away or lies, a damaged archive, a full disk.
        """
        free = _free(self.folder)
        if self.jobs and free < self.room:
            space = f"{self.folder}: {_gb(free)} are free and {_gb(self.room)} are needed"
            raise InputError(f"{space}; make room, choose another folder, or fewer actors")
        workplace = self.folder / WORKPLACE
        try:
            for job in self.jobs:
                archive = fetch(job.file, workplace, progress)
                progress(job.file.name, job.file.size, job.file.size)
                self._unpack(job, archive, progress)
                if not self.keep_archives:
                    archive.unlink()
        except OSError as error:
            advice = "make room or choose another folder, then run again: what was fetched is kept"
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); {advice}") from None
        with suppress(OSError):  # not empty: the beginnings of other archives, or the kept ones
            workplace.rmdir()
        return self.folder

    def _unpack(self, job: Archive, archive: Path, progress: Progress) -> None:
        """Unpack an archive beside the actors' folders, then move its files into those."""
        stage = self.folder / WORKPLACE / "unpacked"
        shutil.rmtree(stage, ignore_errors=True)
        members = unpack(archive, stage, job, progress)
        for actor in job.actors:
            if not members[actor]:
                none = f"{archive}: holds no {job.kind.suffix} file of actor {actor}"
                page = f"https://doi.org/10.5281/zenodo.{job.kind.record}"
                raise InputError(f"{none}; nothing of that actor was unpacked; compare with {page}")
            target = self.folder / job.kind.folder / f"Actor_{actor:02d}"
            target.mkdir(parents=True, exist_ok=True)
            sizes = {name: member.file_size for name, member in members[actor].items()}
            # Before the files, so that half a folder is known as ours.
            write_json(target / MARKER, {"archive": job.file.name, "md5": job.file.md5, "files": sizes})
            for name in sizes:
                (stage / name).replace(target / name)
        shutil.rmtree(stage)


def plan_download(
    folder: Path | str,
    *,
    actors: Iterable[int] | None = None,
    what: Collection[str] = ("video", "landmarks"),
    base_url: str = ZENODO,
    keep_archives: bool = False,
) -> Plan:
    """Find out what is missing in a folder and where Zenodo keeps it.

    Args:
        actors: 1 to 24; all where None.
        what: among "video", "audio" and "landmarks".
        base_url: of the server that speaks Zenodo's API; not asked where nothing is missing.

    Raises:
        InputError: another actor or kind, a folder that cannot be used, or no proper answer from Zenodo.
    """
    folder = Path(folder)
    chosen = sorted(ravdess.ACTORS if actors is None else set(actors))
    if not chosen or not set(chosen) <= set(ravdess.ACTORS):
        raise InputError(f"actors {chosen}: expected numbers from 1 to 24; leave them out for all")
    if not what or not set(what) <= KINDS.keys():
        raise InputError(f"download of {sorted(what)}: expected some of {', '.join(KINDS)}")
    check_folder(folder)
    jobs: list[Archive] = []
    records: dict[int, dict[str, RemoteFile]] = {}
    for kind in (kind for name, kind in KINDS.items() if name in what):
        wanted = defaultdict[RemoteFile, list[int]](list)
        for actor in chosen:
            if _is_complete(folder / kind.folder / f"Actor_{actor:02d}"):
                continue
            if kind.record not in records:
                records[kind.record] = list_files(kind.record, base_url)
            pattern = kind.pattern.replace("{actor}", f"{actor:02d}")
            fitting = [name for name in records[kind.record] if re.fullmatch(pattern, name, re.IGNORECASE)]
            if not fitting:
                lacks = f"Zenodo's record {kind.record} has no file named like {pattern}: it has changed"
                page = f"https://doi.org/10.5281/zenodo.{kind.record}"
                raise InputError(f"{lacks}; get the archives by hand from {page}")
            wanted[records[kind.record][min(fitting)]].append(actor)
        jobs += [Archive(kind, file, tuple(those)) for file, those in wanted.items()]
    return Plan(folder, tuple(jobs), keep_archives)


def unpack(archive: Path, folder: Path, job: Archive, progress: Progress) -> Members:
    """Unpack the files of a job's actors into a folder.

    A file is written under its own name, never where its path says, and as a plain file. An archive that
    declares many times what is expected is refused before anything is written; what a member holds beyond its
    declared size ends the unpacking.

    Raises:
        InputError: such an archive, or a damaged one.
    """
    members: Members = {actor: {} for actor in job.actors}
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                path = PurePosixPath(member.filename)
                named = ravdess.SCHEME.parse(path.stem) if path.suffix == job.kind.suffix else None
                if named is not None and named.actor in members:
                    members[int(named.actor)][path.name] = member
            wanted = {name: member for files in members.values() for name, member in files.items()}
            total, done = sum(member.file_size for member in wanted.values()), 0
            limit = int(EXPLODING * job.kind.growth * job.file.size) + SLACK
            if total > limit:
                says = f"{archive}: says it unpacks to {total} bytes, expected at most {limit}"
                raise InputError(f"{says}; nothing was unpacked")
            folder.mkdir(parents=True)
            for name, member in wanted.items():
                with opened.open(member) as source, (folder / name).open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                done += member.file_size
                progress(f"unpacking {archive.name}", done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        advice = "remove it and run again to fetch it anew"
        raise InputError(f"{archive}: is no sound zip archive ({error}); {advice}") from None
    return members


def _is_complete(target: Path) -> bool:
    """Look whether an actor's folder holds all that its marker names; one from elsewhere is an error."""
    if not target.is_dir() or not any(target.iterdir()):
        return False
    if not (target / MARKER).exists():
        there = f"{target}: is there already and not from this download"
        raise InputError(f"{there}; move it away or choose another folder")
    try:
        files = json.loads((target / MARKER).read_text(encoding="utf-8"))["files"]
        return all((target / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _free(folder: Path) -> int:
    """Bytes free on the disk of a folder that need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
