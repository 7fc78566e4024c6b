"""One cell of the grid and its run.json: a run is only ever resumed as what it was."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cfnsr import __version__
from cfnsr.data.folds import Fold, find_protocol
from cfnsr.errors import InputError
from cfnsr.files import read_json
from cfnsr.models import zoo
from cfnsr.training.config import TUNED, Recipe
from cfnsr.training.prepared import PreparedCorpus

SHOWN = 5  # differences of settings that are shown


@dataclass(frozen=True)
class Job:
    """One cell of the grid."""

    model: str
    protocol: str
    fold: Fold
    folds: int
    seed: int
    recipe: Recipe

    @property
    def starts_from(self) -> tuple[str, ...]:
        """One-stream models whose encoders it is initialised from, video first."""
        found = zoo.find(self.model)
        return found.starts_from if self.recipe.pretrain or found.solver else ()

    @property
    def epochs(self) -> int:
        """Passes over the training clips; of a model that is solved, the strengths that it is solved at."""
        if (solver := zoo.find(self.model).solver) is not None:
            return len(solver.strengths)
        if self.starts_from:
            return self.recipe.fused_epochs
        if self.recipe.openface_epochs is not None and zoo.find(self.model).encoders == {"video": "openface"}:
            return self.recipe.openface_epochs
        return self.recipe.epochs

    @property
    def refits(self) -> bool:
        """True if it is trained anew on the validation actors too, once they have chosen the epoch."""
        return self.recipe.refit and find_protocol(self.protocol).selected_on == "validation"

    @property
    def tunes(self) -> bool:
        """True if its epochs and learning rate are chosen on the fold's inner validation actors."""
        return self.recipe.tune and bool(self.starts_from) and zoo.find(self.model).solver is None

    def candidates(self) -> list["Job"]:
        """Copy the job with every choice of epochs and learning rate that is tried."""
        return [replace(self, recipe=self.recipe.scaled(*multiples)) for multiples in TUNED]

    @property
    def passes(self) -> int:
        """Epochs at most, those of the refit and of the choices included."""
        tried = [each.epochs for each in self.candidates()] if self.tunes else []
        return sum(tried) + max([self.epochs, *tried]) * (2 if self.refits else 1)

    def folder(self, runs: Path) -> Path:
        """Folder of this cell's run."""
        return runs / self.protocol / self.model / f"seed_{self.seed}" / f"fold_{self.fold.number}"


def describe(job: Job, corpus: PreparedCorpus) -> dict[str, object]:
    """Describe a run before its outcome, for `run.json`."""
    protocol = find_protocol(job.protocol)
    return {
        "model": job.model,
        "protocol": job.protocol,
        "preset": job.recipe.preset,
        "fold": job.fold.number,
        "folds": job.folds,
        "seed": job.seed,
        "epochs": job.epochs,
        "selected_on": protocol.selected_on,
        "caveat": protocol.caveat,
        "leaky": bool(protocol.leaks),
        "labels": asdict(corpus.store.labels),
        "train_actors": corpus.actors(job.protocol, job.fold.train),
        "validation_actors": corpus.actors(job.protocol, job.fold.validation),
        "test_actors": corpus.actors(job.protocol, job.fold.test),
        "corpus": {
            "name": corpus.store.corpus,
            "clips": len(corpus.headers),
            "sha256": corpus.fingerprint,
        },
        "settings": job.recipe.as_json(),
        "source": zoo.find(job.model).source,
        "preparation": dict(corpus.headers[0].preparation),
        "versions": {
            "cfnsr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "threads": str(
                torch.get_num_threads()
            ),  # with another number a CPU's sums differ in the last bit
        },
    }


def is_finished(job: Job, folder: Path, corpus: PreparedCorpus, resume: bool) -> bool:
    """True if a folder holds this job's finished run; refuses one of another job."""
    path = folder / "run.json"
    if not path.exists():
        return False
    if not resume:
        raise InputError(f"{folder} has a run already: add --resume to go on, or give another --out")
    refuse_differences(folder, describe(job, corpus))
    return bool(read_json(path, "the description of a run")["finished"])


def described_row(job: Job, corpus: PreparedCorpus) -> dict[str, object]:
    """Description that all runs of one row of the report have in common."""
    shared = ("preset", "folds", "labels", "corpus", "settings", "source", "preparation")
    return {key: value for key, value in describe(job, corpus).items() if key in shared}


def refuse_differences(folder: Path, description: Mapping[str, object]) -> None:
    """Refuse a folder whose run was made with other settings, naming them."""
    before = _flat(read_json(folder / "run.json", "the description of a run"))
    now = _flat(description)
    different = [
        f"{key} {before.get(key)} (now {value})"
        for key, value in now.items()
        # The epochs follow from the settings, or were chosen.
        if not key.startswith("versions") and key != "epochs" and before.get(key) != value
    ]
    if different:
        raise InputError(
            f"{folder} has a run of other settings: {', '.join(different[:SHOWN])}"
            + (f" and {len(different) - SHOWN} more" if len(different) > SHOWN else "")
            + "; give another --out, or the settings it was begun with"
        )


def _flat(value: Mapping[str, object], above: str = "") -> dict[str, object]:
    """Flatten a nested description: keys joined by dots, values as JSON would give them back."""
    flat: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{above}{key}.")
        else:
            flat[above + key] = list(inner) if isinstance(inner, tuple) else inner
    return flat
