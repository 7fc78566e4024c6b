"""The folder of prepared clips: one self-describing safetensors file a clip, and nothing to get out of step.

OUT/corpus.json               name and label set of the corpus, and how all its clips are made
OUT/clips/<name>.safetensors  tensors of a clip, with a header: what it is and its sources
OUT/failures.csv              takes that could not be prepared, one line each with the reason
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cfnsr import __version__
from cfnsr.corpus.take import Actor
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.files import read_json, write_atomically, write_json

FORMAT = 1
LONGEST_NAME, CUT_NAME = 200, 180  # characters of a clip's file; 255 are what file systems take


@dataclass(frozen=True)
class Header:
    """Description of a prepared clip, beside its tensors.

    Args:
        sources: for each file it was made of, by role ("video", "audio", "openface"): name, size in bytes,
            modification time in nanoseconds and SHA-256.
        preparation: the settings it was made with, and the number of the recipe.
        face: source of the crop ("openface" or "detector"), and number of sampled frames with a face.
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
        if described.get("format") != FORMAT:
            raise InputError(
                f"{folder} has the store format {described.get('format')}: expected {FORMAT}; "
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
    def create(cls, folder: Path, corpus: str, labels: LabelSet, preparation: Mapping[str, Any]) -> "Store":
        """Open a store for writing: a new one, or one begun earlier with the same labels and settings."""
        if not any((folder / "clips").glob("*.safetensors")) or not (folder / "corpus.json").exists():
            described = {"corpus": corpus, "labels": labels.as_json(), "preparation": dict(preparation)}
            write_json(folder / "corpus.json", {"format": FORMAT, **described})
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

    def path(self, name: str) -> Path:
        """Path of the clip of this name; a name from outside can lead nowhere else."""
        safe = quote(name.encode("utf-8", "surrogateescape"), safe=" ")
        if len(safe) > LONGEST_NAME:  # no file system takes it: its beginning, and a hash that keeps it apart
            safe = f"{safe[:CUT_NAME]}-{hashlib.sha256(safe.encode()).hexdigest()[:16]}"
        return self.folder / "clips" / f"{safe}.safetensors"

    def write(self, header: Header, tensors: Mapping[str, np.ndarray]) -> None:
        """Write a clip whole or not at all."""
        metadata = {"cfnsr": json.dumps(asdict(header))}
        data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
        write_atomically(self.path(header.name), lambda temporary: temporary.write_bytes(data))

    def header(self, name: str) -> Header | None:
        """Header of the clip of this name; None when missing, damaged or of another format."""
        try:
            return read_header(self.path(name))
        except InputError:
            return None

    def headers(self) -> list[Header]:
        """Headers of all clips, sorted by name."""
        found = [read_header(path) for path in (self.folder / "clips").glob("*.safetensors")]
        if not found:
            raise InputError(
                f"{self.folder} holds no prepared clip: run `cfnsr prepare CORPUS {self.folder}`"
            )
        return sorted(found, key=lambda header: header.name)

    def tensors(self, name: str) -> frozenset[str]:
        """Names of the tensors that a clip has."""
        with _opened(self.path(name)) as file:
            return frozenset(file.keys())

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
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): prepare the corpus again") from None


def read_header(path: Path) -> Header:
    """Read the header of a clip file."""
    try:
        with safe_open(path, framework="np") as file:
            described = json.loads(file.metadata()["cfnsr"])
        if described["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {described['format']}: expected {FORMAT}; prepare the corpus again"
            )
        return Header(**described)
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no prepared clip ({error}): delete it and prepare again") from None
