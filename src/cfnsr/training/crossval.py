"""Cross-validation: the grid of model x fold x seed, each cell a folder that can be resumed.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    history.jsonl, tensorboard/      what happened in each epoch
    predictions.csv                  log-probabilities of every validation and test clip
    conditions.csv                   the same of the test clips under bad input
    run.json                         who trained, who was tested, settings and versions; written last
"""

import csv
import hashlib
import io
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from cfnsr import __version__
from cfnsr.corpus.take import Actor
from cfnsr.data.clip import MODALITIES, SOUND_FEATURES, Preparation
from cfnsr.data.conditions import BadSound, Condition, conditions_of, silence
from cfnsr.data.dataset import Batch, Clips, Column
from cfnsr.data.folds import Dealt, Fold, Unit, choose_folds, find_protocol
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.files import read_json, write_json, write_text
from cfnsr.models import zoo
from cfnsr.models.plugin import source_of
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import Config, load_model
from cfnsr.training.config import Recipe, mix
from cfnsr.training.loop import Step, Trainer

SHOWN = 5  # differences of settings that are named
INITIAL = 3  # what a mixed seed is for, beside those of the loop


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
        """The one-stream models whose encoders it starts from."""
        modalities = zoo.find(self.model).modalities
        return modalities if self.recipe.pretrain and len(modalities) > 1 else ()

    @property
    def epochs(self) -> int:
        """Passes over the training clips."""
        return self.recipe.fused_epochs if self.starts_from else self.recipe.epochs

    def folder(self, runs: Path) -> Path:
        """Where this cell's run lies."""
        return runs / self.protocol / self.model / f"seed_{self.seed}" / f"fold_{self.fold.number}"


class PreparedCorpus:
    """A store with its headers read and its clips at hand for every kind of model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.headers = store.headers()
        self.bad_sound = BadSound(store)
        self._columns: dict[tuple[str, int, int], Column] = {}
        self._dealt: dict[str, dict[Unit, list[tuple[int, Dealt]]]] = {}

    def clips(self, reads: Mapping[str, str], recipe: Recipe) -> Clips:
        """All clips as a model reads them; each tensor is read once for all models and folds.

        Args:
            reads: the tensor read for "video", "audio" or both.
        """
        columns = {}
        for modality, name in reads.items():
            key = name, recipe.frames, recipe.size
            if key not in self._columns:
                self._columns[key] = Column(self.store, self.headers, *key)
            columns[modality] = self._columns[key]
        labels = [self.store.labels.index(header.emotion) for header in self.headers]
        return Clips(columns, labels, self.silence(reads.get("audio")))

    def silence(self, reads: str | None) -> Tensor | None:
        """What a model reads of no sound, if it reads any."""
        return silence(reads, self.preparation.samples) if reads in SOUND_FEATURES else None

    @cached_property
    def preparation(self) -> Preparation:
        """How the clips were made; they must all have been made alike."""
        first = self.headers[0]
        for header in self.headers:
            if header.preparation != first.preparation:
                raise InputError(
                    f"{self.store.folder}: {first.name} and {header.name} were prepared with different "
                    "settings: prepare the whole corpus again with one"
                )
        return Preparation.from_json(dict(first.preparation))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and source files of all clips: which recordings a figure is told of."""
        digest = hashlib.sha256()
        for header in self.headers:
            content = sorted(source["sha256"] for source in header.sources.values())
            digest.update(json.dumps([header.name, header.emotion, *content]).encode())
        return digest.hexdigest()

    def _units(self, protocol: str) -> dict[Unit, list[tuple[int, Dealt]]]:
        """What a protocol deals, with the clips of each."""
        if protocol not in self._dealt:
            units: dict[Unit, list[tuple[int, Dealt]]] = {}
            for place, header in enumerate(self.headers):
                for dealt in find_protocol(protocol).units(header):
                    units.setdefault(dealt.unit, []).append((place, dealt))
            self._dealt[protocol] = units
        return self._dealt[protocol]

    def folds(self, protocol: str) -> list[Fold]:
        """The folds of a protocol over what has clips."""
        strata = {unit: clips[0][1].stratum for unit, clips in self._units(protocol).items()}
        return find_protocol(protocol).deal(strata)

    def part(self, protocol: str, units: Iterable[Unit]) -> list[tuple[int, str]]:
        """Place and name of the clips of some of the units that a protocol deals."""
        dealt = self._units(protocol)
        return sorted((place, clip.name) for unit in units for place, clip in dealt.get(unit, ()))

    def places(self, protocol: str, units: Iterable[Unit]) -> list[int]:
        """Places of the clips of some units."""
        return [place for place, _ in self.part(protocol, units)]

    def actors(self, protocol: str, units: Iterable[Unit]) -> list[Actor]:
        """Whose clips these units hold."""
        return sorted({self.headers[place].actor for place in self.places(protocol, units)}, key=_actor_key)

    def check(self, job: Job) -> None:
        """Refuse a fold with an empty part, or with one recording in two parts under different names."""
        fold = job.fold
        owner: dict[str, str] = {}
        for part, units in (("train", fold.train), ("validation", fold.validation), ("test", fold.test)):
            places = self.places(job.protocol, units)
            if units and len(places) < (2 if part == "train" else 1):
                few, who = "too few" if places else "no", ", ".join(map(str, units))
                raise InputError(
                    f"fold {fold.number} has {few} {part} clips (actors {who}): prepare those actors too"
                )
            if find_protocol(job.protocol).leaks:
                continue
            for place in places:
                header = self.headers[place]
                for role, source in header.sources.items():
                    if role != "openface" and owner.setdefault(source["sha256"], part) != part:
                        raise InputError(
                            f"fold {fold.number} leaks: the recording of {header.name} stands in "
                            f"{owner[source['sha256']]} and in {part}: remove the copy"
                        )


def _actor_key(actor: Actor) -> tuple[bool, int, str]:
    return isinstance(actor, str), actor if isinstance(actor, int) else 0, str(actor)


Progress = Callable[[Job, Step], None]


def train_fold(
    job: Job,
    corpus: PreparedCorpus,
    folder: Path,
    *,
    accelerator: Accelerator,
    start_from: Mapping[str, Path] | None = None,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> Path:
    """Train one model on one fold and write its run; a finished run is left as it is.

    Args:
        job: what to train.
        corpus: the prepared clips.
        folder: of the run.
        accelerator: device, mixed precision and processes.
        start_from: finished runs of "video" and "audio" on the same fold, whose encoders a two-stream
            model starts from.
        resume: go on with a run that was cut off.
        progress: called after every step.

    Raises:
        InputError: when the folder has a run and `resume` is not set, or one of other settings.
    """
    finished = _is_finished(job, folder, corpus, resume)
    accelerator.wait_for_everyone()  # before one process writes what another still looks for
    if finished:
        shutil.rmtree(folder / "training", ignore_errors=True)  # left by a kill between the last two steps
        progress(job, Step(job.epochs, job.epochs, 1, 1))
        return folder
    corpus.check(job)
    model, config = _create(job, corpus)
    if start_from is not None and isinstance(model, TwoStream):
        video, audio = load_model(start_from["video"]), load_model(start_from["audio"])
        if not isinstance(video, OneStream) or not isinstance(audio, OneStream):
            raise InputError("a two-stream model starts from one-stream models: give runs of video and audio")
        model.start_from(video, audio)
    selected_on = find_protocol(job.protocol).selected_on
    trainer = Trainer(
        model,
        corpus.clips(model.reads, job.recipe),
        corpus.places(job.protocol, job.fold.train),
        corpus.places(job.protocol, getattr(job.fold, selected_on)),
        job.recipe,
        epochs=job.epochs,
        seed=job.seed,
        folder=folder,
        selected_on=selected_on,
        accelerator=accelerator,
        progress=lambda step: progress(job, step),
    )
    if accelerator.is_main_process:
        config.write(folder)
        write_json(folder / "run.json", {**_describe(job, corpus), "finished": False})
    state = trainer.fit(resume=resume)
    predicted = _predict(trainer, job, corpus)
    spoiled = _predict_spoiled(trainer, job, corpus, model.reads)
    if accelerator.is_main_process:
        temperature = _temperature(predicted)
        if temperature is not None:
            replace(config, temperature=temperature).write(folder)
        _write_predictions(folder / "predictions.csv", "split", corpus, predicted)
        _write_predictions(folder / "conditions.csv", "condition", corpus, spoiled)
        outcome = {
            "params": zoo.count_parameters(model),
            "predicted": len(predicted),
            "epoch": state.best_epoch,
            "temperature": temperature,
            "seconds": round(state.seconds, 1),
            "finished": True,
        }
        write_json(folder / "run.json", {**_describe(job, corpus), **outcome})
    trainer.close()
    accelerator.wait_for_everyone()
    return folder


class Predicted(NamedTuple):
    """One clip's prediction."""

    under: str  # the part it stands in, or the condition it was met under
    place: int
    name: str
    label: int
    log_probabilities: np.ndarray


def _predict(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> list[Predicted]:
    """The validation clips, then the test clips."""
    clips = [
        (part, place, name)
        for part in ("validation", "test")
        for place, name in corpus.part(job.protocol, getattr(job.fold, part))
    ]
    rows = trainer.predict([place for _, place, _ in clips]).numpy()
    labels = trainer.clips.labels
    return [Predicted(*clip, labels[clip[1]], row) for clip, row in zip(clips, rows, strict=True)]


def _predict_spoiled(
    trainer: Trainer, job: Job, corpus: PreparedCorpus, reads: Mapping[str, str]
) -> list[Predicted]:
    """The test clips under every condition that concerns the model."""
    predicted = []
    clips = corpus.part(job.protocol, job.fold.test)
    places = [place for place, _ in clips]
    for name, condition in conditions_of(tuple(reads)).items():

        def spoil(batch: Batch, name: str = name, condition: Condition = condition) -> Batch:
            if condition.pictures is not None:
                return batch._replace(video=condition.pictures(batch.video))
            heard = [corpus.headers[place].name for place in batch.place.tolist()]
            features = [corpus.bad_sound(clip, name, reads["audio"]) for clip in heard]
            return batch._replace(audio=torch.stack(features).to(batch.audio))

        rows = trainer.predict(places, spoil).numpy()
        labels = trainer.clips.labels
        predicted += [
            Predicted(name, place, clip, labels[place], row)
            for (place, clip), row in zip(clips, rows, strict=True)
        ]
    return predicted


def _temperature(predicted: Sequence[Predicted]) -> float | None:
    """Fitted on the inner validation clips; None where the protocol has none."""
    inner = [row for row in predicted if row.under == "validation"]
    if not inner:
        return None
    log_probabilities = np.stack([row.log_probabilities for row in inner]).astype(float)
    return fit_temperature(log_probabilities, np.array([row.label for row in inner]))


def crossval(
    jobs: Sequence[Job],
    corpus: PreparedCorpus,
    runs: Path,
    *,
    accelerator: Accelerator,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test every cell of a grid, as `plan` orders them; returns their folders.

    The encoders of a two-stream model are trained alone once a fold and seed, as the rows "video" and
    "audio" of the same runs, and shared by all models that start from them.

    Raises:
        InputError: before the first training, when a cell cannot be trained or belongs to other runs.
    """
    check_jobs(jobs, corpus, runs, resume=resume)
    accelerator.wait_for_everyone()
    folders = []
    for job in jobs:
        start_from = {name: replace(job, model=name).folder(runs) for name in job.starts_from}
        folders.append(
            train_fold(
                job,
                corpus,
                job.folder(runs),
                accelerator=accelerator,
                start_from=start_from or None,
                resume=resume,
                progress=progress,
            )
        )
    return folders


def check_jobs(jobs: Sequence[Job], corpus: PreparedCorpus, runs: Path, *, resume: bool) -> None:
    """Refuse, before hours of training, what would be refused in its middle."""
    if not resume:
        begun = [job.folder(runs) for job in jobs if (job.folder(runs) / "run.json").exists()]
        if begun:
            raise InputError(f"{begun[0]} has a run already: add --resume to go on, or give another --out")
    for name in dict.fromkeys(job.model for job in jobs):
        _create(replace(jobs[0], model=name), corpus, device="meta")  # can it read this corpus?
    for job in jobs:
        corpus.check(job)
    for first in {(job.protocol, job.model): job for job in jobs}.values():
        described = _described_row(first, corpus)
        for other in first.folder(runs).parent.parent.glob("seed_*/fold_*/run.json"):
            _refuse_differences(other.parent, described)


def plan(
    models: Sequence[str],
    corpus: PreparedCorpus,
    *,
    protocol: str,
    recipe: Recipe,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
) -> list[Job]:
    """The cells of the grid in the order they are trained: fold by fold, encoders before what needs them."""
    if any(seed < 0 for seed in seeds):
        raise InputError(f"seed {min(seeds)}: expected 0 or more")
    every = corpus.folds(protocol)
    jobs: dict[Job, None] = {}
    for seed in seeds:
        for fold in choose_folds(every, folds):
            for model in dict.fromkeys(models):
                zoo.find(model)
                job = Job(model, protocol, fold, len(every), seed, recipe)
                for needed in job.starts_from:
                    jobs[replace(job, model=needed)] = None
                jobs[job] = None
    return list(jobs)


def _create(job: Job, corpus: PreparedCorpus, device: str = "cpu") -> tuple[zoo.Model, Config]:
    preparation = corpus.preparation
    settings = {
        "classes": len(corpus.store.labels),
        "mfcc_steps": preparation.mfcc_steps,
        "width": job.recipe.width,
    }
    torch.manual_seed(mix(job.seed, 0, INITIAL))
    with torch.device(device):
        model = zoo.create_model(job.model, **settings)  # type: ignore[arg-type]
    reads = model.reads.values()
    missing = sorted(set(reads) - set(preparation.modalities))
    if missing:
        wanted = [name for name in MODALITIES if name in {*preparation.modalities, *reads}]
        raise InputError(
            f"{corpus.store.folder} was prepared without {', '.join(missing)}: model {job.model} needs it; "
            f"prepare the corpus into another folder with --modalities {','.join(wanted)}"
        )
    have, want = (preparation.frames, preparation.size), (job.recipe.frames, job.recipe.size)
    if "video" in reads and (have[0] < want[0] or have[1] < want[1]):
        raise InputError(
            f"{corpus.store.folder} has {have[0]} frames of {have[1]} px a clip: preset {job.recipe.preset} "
            f"looks at {want[0]} of {want[1]} px; prepare the corpus with more, or choose a smaller preset"
        )
    config = Config(job.model, settings, corpus.store.labels, job.recipe.frames, job.recipe.size, preparation)
    return model, config


def _describe(job: Job, corpus: PreparedCorpus) -> dict[str, object]:
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
        "source": source_of(zoo.find(job.model).build),
        "preparation": dict(corpus.headers[0].preparation),
        "versions": {
            "cfnsr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _is_finished(job: Job, folder: Path, corpus: PreparedCorpus, resume: bool) -> bool:
    """Whether a folder holds this job's finished run; refuses one of another job."""
    path = folder / "run.json"
    if not path.exists():
        return False
    if not resume:
        raise InputError(f"{folder} has a run already: add --resume to go on, or give another --out")
    _refuse_differences(folder, _describe(job, corpus))
    return bool(read_json(path, "the description of a run")["finished"])


def _described_row(job: Job, corpus: PreparedCorpus) -> dict[str, object]:
    """What all runs of one row of the report have in common."""
    shared = ("preset", "folds", "labels", "corpus", "settings", "source", "preparation")
    return {key: value for key, value in _describe(job, corpus).items() if key in shared}


def _refuse_differences(folder: Path, description: Mapping[str, object]) -> None:
    """Refuse a folder whose run was made with other settings, naming them."""
    before = _flat(read_json(folder / "run.json", "the description of a run"))
    now = _flat(description)
    different = [
        f"{key} {before.get(key)} (now {value})"
        for key, value in now.items()
        if not key.startswith("versions") and before.get(key) != value
    ]
    if different:
        raise InputError(
            f"{folder} has a run of other settings: {', '.join(different[:SHOWN])}"
            + (f" and {len(different) - SHOWN} more" if len(different) > SHOWN else "")
            + "; give another --out, or the settings it was begun with"
        )


def _flat(value: Mapping[str, object], above: str = "") -> dict[str, object]:
    """A nested description with its keys joined by dots, as JSON would give it back."""
    flat: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{above}{key}.")
        else:
            flat[above + key] = list(inner) if isinstance(inner, tuple) else inner
    return flat


def _write_predictions(path: Path, under: str, corpus: PreparedCorpus, rows: Sequence[Predicted]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "actor", under, "label", *corpus.store.labels.emotions])
    for row in rows:
        header = corpus.headers[row.place]
        values = (f"{value:.7g}" for value in row.log_probabilities)
        writer.writerow([row.name, header.actor, row.under, header.emotion, *values])
    write_text(path, text.getvalue())
