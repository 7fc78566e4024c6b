"""The folder of prepared clips: one self-describing safetensors file a clip, and nothing to get out of step.

- `corpus.json`: name and label set of the corpus, and how all its clips are made.
- `clips/<name>.safetensors`: tensors of a clip, with a header: what it is and its sources. In a store begun
  with many takes they lie in 256 folders, such as `clips/3f`.
- `failures.csv`: takes that could not be prepared, one line each with the reason.
- `index.sqlite`: a cache of the headers.
- `copies.json`: which clips are one recording by their sound, once a training has looked for that.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cfnsr import __version__
from cfnsr.corpus.take import Actor
from cfnsr.data import ranged
from cfnsr.data.index import READERS, Described, Index, Listed, Stamp, collector_paused
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.files import is_remote, read_json, write_atomically, write_json

FORMAT = 1
SHARDED = 2  # of corpus.json alone: the clips lie in 256 folders, by a hash of their names
MANY = 10_000  # takes, from which on a folder for all is slow
LONGEST_NAME, CUT_NAME = 200, 180  # characters of a clip's file; 255 are what file systems take


@dataclass(frozen=True)
class Header:
    """Description of a prepared clip, beside its tensors.

    Args:
        sources: for each file it was made of, by role ("video", "audio", "openface"): name, size in bytes,
            modification time in nanoseconds and SHA-256.
        preparation: the settings it was made with, and the number of the recipe.
        face: source of the crop ("openface" or "detector").
    """

    name: str  #: of the take; unique in the store
    emotion: str
    actor: Actor
    sex: str | None
    attributes: Mapping[str, str]
    sources: Mapping[str, Mapping[str, Any]]
    preparation: Mapping[str, Any]
    face: Mapping[str, Any] = field(default_factory=dict)
    speech_parameters: int = 0  #: of the speech encoder whose states it has; 0 for none
    cfnsr: str = __version__  #: version that made it
    format: int = FORMAT


class Store:
    """Prepared clips in a folder.

    Args:
        folder: made by `cfnsr prepare`.

    Raises:
        InputError: when the folder is no such store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        described = read_json(folder / "corpus.json", "a folder made by `cfnsr prepare`")
        self.sharded = described.get("format") == SHARDED
        if described.get("format") not in (FORMAT, SHARDED):
            raise InputError(
                f"{folder} has the store format {described.get('format')}: expected {FORMAT} or {SHARDED}; "
                "prepare the corpus again with this version"
            )
        try:
            self.corpus: str = described["corpus"]
            self.labels = LabelSet.from_json(described["labels"])
            self.preparation: dict[str, Any] = dict(described["preparation"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / 'corpus.json'} is damaged ({error}): prepare the corpus into a new folder"
            ) from None

    @classmethod
    def create(
        cls, folder: Path, corpus: str, labels: LabelSet, preparation: Mapping[str, Any], takes: int = 0
    ) -> "Store":
        """Open a store for writing: a new one, or one begun earlier with the same labels and settings.

        Args:
            takes: expected; many are kept in 256 folders.
        """
        if not any((folder / "clips").glob("**/*.safetensors")) or not (folder / "corpus.json").exists():
            described = {"corpus": corpus, "labels": labels.as_json(), "preparation": dict(preparation)}
            write_json(folder / "corpus.json", {"format": SHARDED if takes > MANY else FORMAT, **described})
            return cls(folder)
        store = cls(folder)

        def settings(corpus: str, labels: LabelSet, preparation: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "corpus": corpus,
                "labels": f"{labels.name} ({', '.join(labels.emotions)})",
                **preparation,
            }

        before = settings(store.corpus, store.labels, store.preparation)
        now = settings(corpus, labels, preparation)
        changed = [f"{key} {before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key]]
        if changed:
            raise InputError(
                f"{folder} holds clips made with {', '.join(changed)}: give another folder, or delete "
                "this one to make its clips anew"
            )
        return store

    def file(self, name: str) -> str:
        """Path below `clips` of the clip of this name; a name from outside can lead nowhere else."""
        safe = quote(name.encode("utf-8", "surrogateescape"), safe=" ")
        if len(safe) > LONGEST_NAME:  # no file system takes it: its beginning, and a hash that keeps it apart
            safe = f"{safe[:CUT_NAME]}-{hashlib.sha256(safe.encode()).hexdigest()[:16]}"
        shard = f"{hashlib.sha256(safe.encode()).hexdigest()[:2]}/" if self.sharded else ""
        return f"{shard}{safe}.safetensors"

    def path(self, name: str) -> Path:
        """Path of the clip of this name."""
        return self.folder / "clips" / self.file(name)

    def write(self, header: Header, tensors: Mapping[str, np.ndarray]) -> Stamp:
        """Write a clip whole or not at all."""
        metadata = {"cfnsr": json.dumps(asdict(header))}
        data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
        path = self.path(header.name)
        write_atomically(path, lambda temporary: temporary.write_bytes(data), alone=True)
        if is_remote(path):
            return next(iter(ranged.stamps(path).values()))
        return _stamp(path.stat())

    def folders(self) -> dict[str, int]:
        """Folders that hold clips, with the time of the last change of what is in them; local ones alone."""
        clips = self.folder / "clips"
        if is_remote(clips) or not clips.exists():
            return {}
        below = [f"{entry.name}/" for entry in os.scandir(clips) if entry.is_dir()] if self.sharded else []
        return {folder: (clips / folder).stat().st_mtime_ns for folder in ("", *below)}

    def stamps(self) -> dict[str, Stamp]:
        """Size and time of change of every clip file, by its path below `clips`."""
        clips = self.folder / "clips"
        if is_remote(clips):
            found = ranged.stamps(clips)
            return {file: stamp for file, stamp in found.items() if file.endswith(".safetensors")}
        return {
            f"{folder}{entry.name}": _stamp(entry.stat())
            for folder in self.folders()
            for entry in os.scandir(clips / folder)
            if entry.name.endswith(".safetensors")
        }

    def index(self, *, whole: bool = False) -> Index:
        """Open its index; to add to it or to read all of it, check the `whole` of it."""
        return Index(self.folder / "index.sqlite", whole=whole)

    def update(self, index: Index) -> dict[str, Stamp]:
        """Bring the index up to date with the clip files; gives what `stamps` does."""
        folders = self.folders()  # before the files: what changes after is noticed
        stamps = self.stamps()

        def read(file: str) -> Described | None:
            with suppress(InputError):
                return vars(read_header(self.folder / "clips" / file))
            return None

        index.update(stamps, read, folders)
        return stamps

    def known(self, index: Index, stamps: Mapping[str, Stamp], name: str) -> Header | None:
        """Header of the clip of this name from the index, else from its file; None as `header` gives it."""
        file = self.file(name)
        if file not in stamps:
            return None
        described = index.headers(stamps, file).get(file)
        return (_made(described) if described else None) or self.header(name)

    def header(self, name: str) -> Header | None:
        """Header of the clip of this name; None when missing, damaged or of another format."""
        try:
            return read_header(self.path(name))
        except InputError:
            return None

    def entries(self) -> list[Listed]:
        """Name, emotion and actor of every clip, sorted by name.

        Quick for millions: where no clip was added, removed or replaced since the index was written, as the
        times of their folders say, the index is taken at its word. A clip that was overwritten in place is
        noticed by `headers` alone.
        """
        with self.index() as index:
            listed = index.entries(self.folders())
        return listed or [Listed(header.name, header.emotion, header.actor) for header in self.headers()]

    @collector_paused()
    def headers(self) -> list[Header]:
        """Headers of all clips, sorted by name; what the index has not as it is, from the clip itself."""
        stamps = self.stamps()
        if not stamps:
            raise InputError(
                f"{self.folder} holds no prepared clip: run `cfnsr prepare CORPUS {self.folder}`"
            )
        with self.index(whole=True) as index:
            made = {file: _made(described) for file, described in index.headers(stamps).items()}
        known = [header for header in made.values() if header]
        paths = [self.folder / "clips" / file for file in stamps if not made.get(file)]
        with ThreadPoolExecutor(READERS) as pool:
            found = [*known, *pool.map(read_header, paths)]
        return sorted(found, key=lambda header: header.name)

    def find(self, name: str, tensor: str) -> np.ndarray | None:
        """Read a tensor of a clip from disk, if it has that."""
        with _opened(self.path(name)) as file:
            return np.asarray(file.get_tensor(tensor)) if tensor in file.keys() else None  # noqa: SIM118

    def load(self, name: str, tensors: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Read some tensors of a clip from disk; all of them if none are named."""
        path = self.path(name)
        with _opened(path) as file:
            tensors = list(file.keys()) if tensors is None else tensors
            missing = sorted(set(tensors) - set(file.keys()))
            if missing:
                raise InputError(
                    f"{path} has no {', '.join(missing)}: prepare the corpus with what this model needs"
                )
            return {tensor: file.get_tensor(tensor) for tensor in tensors}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if is_remote(path):
            yield ranged.RangedClip(path)
            return
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): prepare the corpus again") from None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _made(described: Described) -> Header | None:
    """Make a header of what the index says; None where that is of another version."""
    with suppress(TypeError):
        return Header(**described)
    return None


def read_header(path: Path) -> Header:
    """Read the header of a clip file."""
    try:
        if is_remote(path):
            described = json.loads(ranged.RangedClip(path).metadata()["cfnsr"])
        else:
            with safe_open(path, framework="np") as file:
                described = json.loads(file.metadata()["cfnsr"])
        if described["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {described['format']}: expected {FORMAT}; prepare the corpus again"
            )
        return Header(**described)
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no prepared clip ({error}): delete it and prepare again") from None
