"""RAVDESS from Zenodo: planned first, fetched checked and resumable, unpacked safely."""

import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cfnsr.corpus import ravdess
from cfnsr.corpus.unpack import unpack
from cfnsr.corpus.zenodo import ZENODO, Progress, RemoteFile, fetch, list_files
from cfnsr.errors import InputError
from cfnsr.files import write_json

LICENCE = """\
RAVDESS is licensed CC BY-NC-SA 4.0: not for commercial use, share alike, name the authors
(https://creativecommons.org/licenses/by-nc-sa/4.0/)."""
CITATIONS = {
    1188976: """\
Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS).
  PLoS ONE 13(5): e0196391. https://doi.org/10.1371/journal.pone.0196391
  Data: https://doi.org/10.5281/zenodo.1188976""",
    3255102: """\
Swanson R, Livingstone SR, Russo FA (2019). RAVDESS Facial Landmark Tracking.
  https://doi.org/10.5281/zenodo.3255102""",
}


@dataclass(frozen=True)
class Kind:
    """One kind of data, and how Zenodo and we keep it.

    Args:
        record: number of the Zenodo record, the end of its DOI.
        pattern: regular expression for the archive's name; `{actor}` stands for the actor's two digits.
        suffix: of the files that are unpacked.
        folder: where the actors' folders go, under the download folder.
        growth: bytes unpacked per byte of archive, to plan with.
        most: bytes unpacked per byte of archive beyond which an archive is refused.
    """

    record: int
    pattern: str
    suffix: str
    folder: str
    growth: float
    most: float


KINDS = {
    "video": Kind(1188976, r"Video_Speech_Actor_{actor}\.zip", ".mp4", ".", 1.05, 4.0),
    "audio": Kind(1188976, r"Audio_Speech_Actors_\d\d-\d\d\.zip", ".wav", "audio", 3.0, 20.0),
    "landmarks": Kind(3255102, r"FacialTracking_Actors_\d\d-\d\d\.zip", ".csv", "landmarks", 4.0, 40.0),
}
SLACK = 64 << 20  # bytes; so that small archives are not judged by their ratio
WORKPLACE = ".download"  # hidden from `scan`
MARKER = ".download.json"  # in an actor's folder: what it must hold to be complete


@dataclass(frozen=True)
class Job:
    """One archive to fetch, and the actors to unpack from it."""

    kind: str
    file: RemoteFile
    actors: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a download will do; nothing is fetched before `run`.

    Args:
        folder: receives `Actor_NN/*.mp4`, `audio/Actor_NN/*.wav`, `landmarks/Actor_NN/*.csv`.
        jobs: the archives still to fetch and unpack, in order.
        finished: actors' folders that are complete already.
        keep_archives: leave the archives in the folder `.download` after unpacking.
    """

    folder: Path
    jobs: tuple[Job, ...]
    finished: tuple[Path, ...] = ()
    keep_archives: bool = False
    pause: Callable[[float], None] = time.sleep

    @property
    def size(self) -> int:
        """Bytes of all archives of the plan."""
        return sum(job.file.size for job in self.jobs)

    @property
    def to_fetch(self) -> int:
        """Bytes still to come over the line."""
        return self.size - self._here()

    @property
    def room(self) -> int:
        """Bytes of disk the run needs at its fullest, beside what is fetched already."""
        unpacked = sum(
            KINDS[job.kind].growth
            * job.file.size
            * (len(job.actors) / len(ravdess.ACTORS) if _shared(job.kind) else 1)
            for job in self.jobs
        )
        sizes = [job.file.size for job in self.jobs]
        archives = sum(sizes) if self.keep_archives else max(sizes, default=0)
        return int(unpacked) + max(archives - self._here(), 0)

    def _here(self) -> int:
        here = 0
        for job in self.jobs:
            for name in (job.file.name, f"{job.file.name}.part"):
                path = self.folder / WORKPLACE / name
                if path.is_file():
                    here += min(path.stat().st_size, job.file.size)
                    break
        return here

    def summary(self) -> str:
        """Licence, citations and sizes, to be shown before the run starts."""
        records = sorted({KINDS[job.kind].record for job in self.jobs}) or [1188976]
        lines = [LICENCE, "Please cite:", *(CITATIONS[record] for record in records)]
        if not self.jobs:
            return "\n".join([*lines, f"Everything asked for is in {self.folder} already; nothing to fetch."])
        archives = "1 archive" if len(self.jobs) == 1 else f"{len(self.jobs)} archives"
        already = f" ({_gb(self._here())} of it here already)" if self._here() else ""
        return "\n".join(
            [
                *lines,
                f"To fetch: {archives}, {_gb(self.size)}{already}, into {self.folder}; this takes up to "
                f"{_gb(self.room)} of disk, {_gb(_free(self.folder))} are free.",
            ]
        )

    def check_room(self) -> None:
        """Raises `InputError` where the disk is too full for the run."""
        free = _free(self.folder)
        if self.jobs and free < self.room:
            raise InputError(
                f"{self.folder}: {_gb(free)} are free and {_gb(self.room)} are needed; make room, choose "
                "another folder, or fewer actors"
            )

    def run(self, progress: Progress = lambda what, done, total: None) -> Path:
        """Fetch, check and unpack what is missing; returns the folder. Run again to go on after a cut.

        Raises:
            InputError: too little room, a server that stays away or lies, an archive that is unsafe.
        """
        self.check_room()
        workplace = self.folder / WORKPLACE
        for orphan in workplace.glob("tmp*"):  # pooch's, of a run that was killed
            orphan.unlink()
        for job in self.jobs:
            archive = fetch(job.file, workplace, progress=progress, pause=self.pause)
            progress(job.file.name, job.file.size, job.file.size)
            self._unpack(job, archive, progress)
            if not self.keep_archives:
                archive.unlink()
        with suppress(OSError):  # not empty: the beginnings of other archives, or the kept ones
            workplace.rmdir()
        return self.folder

    def _unpack(self, job: Job, archive: Path, progress: Progress) -> None:
        """Unpack an archive beside the actors' folders, then move those into place whole."""
        kind = KINDS[job.kind]
        stage = self.folder / WORKPLACE / "unpacked"
        shutil.rmtree(stage, ignore_errors=True)
        sizes = unpack(
            archive,
            stage,
            place=partial(_place, suffix=kind.suffix, actors=job.actors),
            limit=int(kind.most * job.file.size) + SLACK,
            progress=progress,
        )
        for actor in job.actors:
            folder = _actor_folder(actor)
            files = {
                Path(place).name: size for place, size in sizes.items() if Path(place).parts[0] == folder
            }
            if not files:
                raise InputError(
                    f"{archive}: holds no {kind.suffix} file of actor {actor}; nothing of that actor was "
                    f"unpacked; compare with https://doi.org/10.5281/zenodo.{kind.record}"
                )
            marker = {"archive": job.file.name, "md5": job.file.md5, "files": files}
            write_json(stage / folder / MARKER, marker)
            _settle(stage / folder, self.folder / kind.folder / folder)
        shutil.rmtree(stage, ignore_errors=True)


def plan_download(
    folder: Path | str,
    *,
    actors: Iterable[int] | None = None,
    what: Collection[str] = ("video", "landmarks"),
    base_url: str = ZENODO,
    keep_archives: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Plan:
    """Find out what is missing in a folder and where Zenodo keeps it.

    Args:
        actors: 1 to 24; all where None.
        what: among "video", "audio" and "landmarks".
        base_url: of the server that speaks Zenodo's API; not asked where nothing is missing.
        pause: waits the given seconds before another attempt.

    Raises:
        InputError: another actor or kind, a folder that cannot be used, or no proper answer from Zenodo.
    """
    folder = Path(folder)
    chosen = sorted(ravdess.ACTORS if actors is None else set(actors))
    if not chosen or not set(chosen) <= set(ravdess.ACTORS):
        raise InputError(f"actors {chosen}: expected numbers from 1 to 24; leave them out for all")
    if not what or not set(what) <= KINDS.keys():
        raise InputError(f"download of {sorted(what)}: expected some of {', '.join(KINDS)}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a folder, or a name for a new one")

    jobs: list[Job] = []
    finished: list[Path] = []
    records: dict[int, dict[str, RemoteFile]] = {}
    for name, kind in KINDS.items():
        if name not in what:
            continue
        targets = {actor: folder / kind.folder / _actor_folder(actor) for actor in chosen}
        missing = [actor for actor, target in targets.items() if not _is_complete(target)]
        finished += [target for actor, target in targets.items() if actor not in missing]
        if missing and kind.record not in records:
            records[kind.record] = list_files(kind.record, base_url=base_url, pause=pause)
        wanted: dict[RemoteFile, list[int]] = {}
        for actor in missing:
            wanted.setdefault(_archive(kind, actor, records[kind.record]), []).append(actor)
        jobs += [Job(name, file, tuple(those)) for file, those in wanted.items()]
    return Plan(folder, tuple(jobs), tuple(finished), keep_archives, pause)


def download(
    folder: Path | str,
    *,
    actors: Iterable[int] | None = None,
    what: Collection[str] = ("video", "landmarks"),
    base_url: str = ZENODO,
    keep_archives: bool = False,
    announce: Callable[[str], None] = print,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Fetch RAVDESS into a folder that `scan` reads; states licence, citation and size before it starts.

    Args and errors are those of `plan_download` and `Plan.run`; `announce` gets the plan's summary.
    """
    plan = plan_download(folder, actors=actors, what=what, base_url=base_url, keep_archives=keep_archives)
    announce(plan.summary())
    return plan.run(progress)


def _actor_folder(actor: int) -> str:
    return f"Actor_{actor:02d}"


def _shared(kind: str) -> bool:
    """Whether one archive of this kind holds all actors."""
    return "{actor}" not in KINDS[kind].pattern


def _archive(kind: Kind, actor: int, files: dict[str, RemoteFile]) -> RemoteFile:
    pattern = kind.pattern.replace("{actor}", f"{actor:02d}")
    fitting = [file for name, file in sorted(files.items()) if re.fullmatch(pattern, name, re.IGNORECASE)]
    if not fitting:
        raise InputError(
            f"Zenodo's record {kind.record} has no file named like {pattern}: it has changed; get the "
            f"archives by hand from https://doi.org/10.5281/zenodo.{kind.record}"
        )
    return fitting[0]


def _place(name: str, *, suffix: str, actors: Collection[int]) -> str | None:
    """Where a member goes by its file name alone, or None for what is not asked for.

    >>> _place("01-01-06-01-02-01-12.mp4", suffix=".mp4", actors=[12])
    'Actor_12/01-01-06-01-02-01-12.mp4'
    >>> _place("._01-01-06-01-02-01-12.mp4", suffix=".mp4", actors=[12]) is None
    True
    """
    performance = ravdess.parse(name.removesuffix(suffix)) if name.endswith(suffix) else None
    if performance is None or performance.actor not in actors:
        return None
    return f"{_actor_folder(performance.actor)}/{name}"


def _is_complete(target: Path) -> bool:
    """Whether an actor's folder holds all that its marker names; a folder of someone else's is an error."""
    if not target.is_dir() or not any(target.iterdir()):
        return False
    try:
        files = json.loads((target / MARKER).read_text(encoding="utf-8"))["files"]
        return all(
            (target / name).is_file() and (target / name).stat().st_size == files[name] for name in files
        )
    except FileNotFoundError:
        raise InputError(
            f"{target}: is there already and not from this download; move it away or choose another folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _settle(stage: Path, target: Path) -> None:
    """Move an unpacked actor into place: the folder as a whole, or what an incomplete one of ours lacks."""
    if target.is_dir() and any(target.iterdir()):
        for path in sorted(stage.iterdir()):
            path.replace(target / path.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    stage.replace(target)


def _free(folder: Path) -> int:
    """Bytes free on the disk of a folder that need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
