"""One cell of the grid and the description of its run, which is only ever resumed as what it was."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cfnsr import __version__
from cfnsr.data.folds import Fold, Protocol
from cfnsr.errors import InputError, listed
from cfnsr.models.entries import Entry
from cfnsr.models.names import find
from cfnsr.training.config import TUNED, Recipe
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import ABOUT, Run, read_about

SHOWN = 5  # differences of settings that are shown
# What all runs of one row of the report have in common.
SHARED = ("preset", "folds", "labels", "corpus", "settings", "source", "preparation")
OUTCOME = ("versions", "epochs", "finished")  # may differ: epochs follow from settings, or were chosen


@dataclass(frozen=True)
class Job:
    """One cell of the grid: a model on a fold with a seed."""

    entry: Entry
    protocol: Protocol
    fold: Fold
    folds: int  #: of the protocol, all in all
    seed: int
    recipe: Recipe

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.entry.name

    @property
    def encoders(self) -> tuple["Job", ...]:
        """Jobs of the one-stream models whose encoders it is initialised from, video first."""
        if not self.recipe.pretrain and self.entry.solver is None:
            return ()
        return tuple(replace(self, entry=find(name)) for name in self.entry.starts_from)

    @property
    def epochs(self) -> int:
        """Passes over the training clips; of a model that is solved, the strengths that it is solved at."""
        if self.entry.solver is not None:
            return len(self.entry.solver.strengths)
        if self.encoders:
            return self.recipe.fused_epochs
        # Some inputs need more than others.
        own = getattr(self.recipe, f"{'_'.join(self.entry.encoders.values())}_epochs", None)
        return self.recipe.epochs if own is None else own

    @property
    def refits(self) -> bool:
        """Trained anew on the validation actors too, once they have chosen the epoch."""
        return self.recipe.refit and self.protocol.selected_on == "validation"

    @property
    def tunes(self) -> bool:
        """Trained with the epochs and the learning rate that the fold's inner validation actors choose."""
        return self.recipe.tune and bool(self.encoders) and self.entry.solver is None

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
        return runs / self.protocol.name / self.model / f"seed_{self.seed}" / f"fold_{self.fold.number}"


def describe(job: Job, corpus: PreparedCorpus) -> Run:
    """Describe a run before its outcome."""
    protocol, fold, store = job.protocol, job.fold, corpus.store
    return Run(
        model=job.model,
        protocol=protocol.name,
        preset=job.recipe.preset,
        fold=fold.number,
        folds=job.folds,
        seed=job.seed,
        epochs=job.epochs,
        selected_on=protocol.selected_on,
        caveat=protocol.caveat,
        leaky=bool(protocol.leaks),
        labels=store.labels,
        train_actors=tuple(corpus.actors(protocol, fold.train)),
        validation_actors=tuple(corpus.actors(protocol, fold.validation)),
        test_actors=tuple(corpus.actors(protocol, fold.test)),
        corpus=store.corpus,
        clips=len(corpus.headers),
        fingerprint=corpus.fingerprint,
        recipe=job.recipe.as_json(),
        source=job.entry.source,
        preparation=corpus.headers[0].preparation,
        versions={
            "cfnsr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "threads": str(torch.get_num_threads()),  # a CPU's sums differ with it in the last bit
        },
    )


def is_finished(job: Job, folder: Path, corpus: PreparedCorpus, resume: bool) -> bool:
    """Tell if a folder holds this job's finished run; refuse one of another job."""
    if not (folder / ABOUT).exists():
        return False
    if not resume:
        raise InputError(f"{folder} has a run already: add --resume to go on, or give another --out")
    refuse_differences(folder, describe(job, corpus).as_json())
    return bool(read_about(folder)["finished"])


def refuse_differences(folder: Path, described: Mapping[str, object]) -> None:
    """Refuse a folder whose run was made with other settings, naming them."""
    before, now = _flat(read_about(folder)), _flat(described)
    different = [
        f"{key} {before.get(key)} (now {value})"
        for key, value in now.items()
        if key.partition(".")[0] not in OUTCOME and before.get(key) != value
    ]
    if different:
        raise InputError(
            f"{folder} has a run of other settings: {listed(different, SHOWN)}; give another --out, or the "
            "settings it was begun with"
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
