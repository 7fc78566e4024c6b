"""Cross-validation: the grid of model x fold x seed, each cell a folder that can be resumed.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    history.jsonl, tensorboard/      what happened in each epoch
    predictions.csv                  log-probabilities of every validation and test clip
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

import numpy as np
import torch
from accelerate import Accelerator

from cfnsr import __version__
from cfnsr.corpus.take import Actor
from cfnsr.data.clip import Preparation
from cfnsr.data.dataset import Clips
from cfnsr.data.folds import Fold, choose_folds, find_protocol
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.files import read_json, write_json, write_text
from cfnsr.models import zoo
from cfnsr.models.streams import OneStream, TwoStream
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

    def folder(self, runs: Path) -> Path:
        """Where this cell's run lies."""
        return runs / self.protocol / self.model / f"seed_{self.seed}" / f"fold_{self.fold.number}"


class PreparedCorpus:
    """A store with its headers read and its clips at hand for every kind of model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.headers = store.headers()
        self._clips: dict[tuple[tuple[str, ...], int, int], Clips] = {}

    def clips(self, modalities: tuple[str, ...], recipe: Recipe) -> Clips:
        """All clips with the tensors of some modalities; read once for all folds."""
        key = modalities, recipe.frames, recipe.size
        if key not in self._clips:
            self._clips[key] = Clips(self.store, self.headers, modalities, recipe.frames, recipe.size)
        return self._clips[key]

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

    def folds(self, protocol: str) -> list[Fold]:
        """The folds of a protocol over the actors that have clips."""
        return find_protocol(protocol).folds({header.actor: header.sex for header in self.headers})

    def part(self, actors: Iterable[Actor]) -> list[int]:
        """Places of the clips of some actors."""
        chosen = set(actors)
        return [place for place, header in enumerate(self.headers) if header.actor in chosen]

    def check(self, fold: Fold) -> None:
        """Refuse a fold with an empty part, or with one recording in two parts under different names."""
        owner: dict[str, str] = {}
        for part, actors in (("train", fold.train), ("validation", fold.validation), ("test", fold.test)):
            places = self.part(actors)
            if actors and len(places) < (2 if part == "train" else 1):
                few, who = "too few" if places else "no", ", ".join(map(str, actors))
                raise InputError(
                    f"fold {fold.number} has {few} {part} clips (actors {who}): prepare those actors too"
                )
            for place in places:
                header = self.headers[place]
                for role, source in header.sources.items():
                    if role != "openface" and owner.setdefault(source["sha256"], part) != part:
                        raise InputError(
                            f"fold {fold.number} leaks: the recording of {header.name} stands in "
                            f"{owner[source['sha256']]} and in {part}: remove the copy"
                        )


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
        return folder
    corpus.check(job.fold)
    model, config = _create(job, corpus)
    if start_from is not None and isinstance(model, TwoStream):
        video, audio = load_model(start_from["video"]), load_model(start_from["audio"])
        if not isinstance(video, OneStream) or not isinstance(audio, OneStream):
            raise InputError("a two-stream model starts from one-stream models: give runs of video and audio")
        model.start_from(video, audio)
    protocol = find_protocol(job.protocol)
    select = corpus.part(getattr(job.fold, protocol.selected_on))
    trainer = Trainer(
        model,
        corpus.clips(model.modalities, job.recipe),
        corpus.part(job.fold.train),
        select,
        job.recipe,
        seed=job.seed,
        folder=folder,
        selected_on=protocol.selected_on,
        accelerator=accelerator,
        progress=lambda step: progress(job, step),
    )
    if accelerator.is_main_process:
        config.write(folder)
        write_json(folder / "run.json", {**_describe(job, corpus), "finished": False})
    state = trainer.fit(resume=resume)
    evaluated = [
        (part, place) for part in ("validation", "test") for place in corpus.part(getattr(job.fold, part))
    ]
    log_probabilities = trainer.predict([place for _, place in evaluated]).numpy()
    if accelerator.is_main_process:
        _write_predictions(folder / "predictions.csv", corpus, evaluated, log_probabilities)
        outcome = {
            "params": zoo.count_parameters(model),
            "predicted": len(evaluated),
            "epoch": state.best_epoch,
            "seconds": round(state.seconds, 1),
            "finished": True,
        }
        write_json(folder / "run.json", {**_describe(job, corpus), **outcome})
    trainer.close()
    accelerator.wait_for_everyone()
    return folder


def crossval(
    models: Sequence[str],
    corpus: PreparedCorpus,
    runs: Path,
    *,
    protocol: str,
    recipe: Recipe,
    accelerator: Accelerator,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test models on every fold of a protocol with every seed.

    The encoders of a two-stream model are trained alone once a fold and seed, as the rows "video" and
    "audio" of the same runs, and shared by all models that start from them.
    """
    jobs = plan(models, corpus, protocol=protocol, recipe=recipe, seeds=seeds, folds=folds)
    if not resume:
        begun = [job.folder(runs) for job in jobs if (job.folder(runs) / "run.json").exists()]
        if begun:
            raise InputError(f"{begun[0]} has a run already: add --resume to go on, or give another --out")
    for job in jobs:
        corpus.check(job.fold)
        for other in job.folder(runs).parent.parent.glob("seed_*/fold_*/run.json"):
            _refuse_differences(other.parent, _described_row(job, corpus))
    accelerator.wait_for_everyone()
    folders = []
    for job in jobs:
        start_from = {modality: replace(job, model=modality).folder(runs) for modality in _pretrained_by(job)}
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
                for needed in _pretrained_by(job):
                    jobs[replace(job, model=needed)] = None
                jobs[job] = None
    return list(jobs)


def _pretrained_by(job: Job) -> tuple[str, ...]:
    """The one-stream models whose encoders a job starts from."""
    modalities = zoo.find(job.model).modalities
    return modalities if job.recipe.pretrain and len(modalities) > 1 else ()


def _create(job: Job, corpus: PreparedCorpus) -> tuple[zoo.Model, Config]:
    preparation = corpus.preparation()
    modalities = zoo.find(job.model).modalities
    missing = sorted(set(modalities) - set(preparation.modalities))
    if missing:
        raise InputError(
            f"{corpus.store.folder} was prepared without {', '.join(missing)}: model {job.model} needs it; "
            f"prepare the corpus into another folder with --modalities {','.join(modalities)}"
        )
    have, want = (preparation.frames, preparation.size), (job.recipe.frames, job.recipe.size)
    if "video" in modalities and (have[0] < want[0] or have[1] < want[1]):
        raise InputError(
            f"{corpus.store.folder} has {have[0]} frames of {have[1]} px a clip: preset {job.recipe.preset} "
            f"looks at {want[0]} of {want[1]} px; prepare the corpus with more, or choose a smaller preset"
        )
    settings = {
        "classes": len(corpus.store.labels),
        "mfcc_steps": preparation.mfcc_steps,
        "video_width": job.recipe.video_width,
    }
    torch.manual_seed(mix(job.seed, 0, INITIAL))
    model = zoo.create_model(job.model, **settings)  # type: ignore[arg-type]
    config = Config(job.model, settings, corpus.store.labels, job.recipe.frames, job.recipe.size, preparation)
    return model, config


def _describe(job: Job, corpus: PreparedCorpus) -> dict[str, object]:
    return {
        "model": job.model,
        "protocol": job.protocol,
        "preset": job.recipe.preset,
        "fold": job.fold.number,
        "folds": job.folds,
        "seed": job.seed,
        "epochs": job.recipe.epochs,
        "selected_on": find_protocol(job.protocol).selected_on,
        "labels": asdict(corpus.store.labels),
        "train_actors": list(job.fold.train),
        "validation_actors": list(job.fold.validation),
        "test_actors": list(job.fold.test),
        "corpus": {
            "name": corpus.store.corpus,
            "clips": len(corpus.headers),
            "sha256": corpus.fingerprint,
        },
        "settings": job.recipe.as_json(),
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
    shared = ("preset", "folds", "labels", "corpus", "settings", "preparation")
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


def _write_predictions(
    path: Path, corpus: PreparedCorpus, evaluated: Sequence[tuple[str, int]], log_probabilities: np.ndarray
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "actor", "split", "label", *corpus.store.labels.emotions])
    for (part, place), row in zip(evaluated, log_probabilities, strict=True):
        header = corpus.headers[place]
        writer.writerow([header.name, header.actor, part, header.emotion, *(f"{value:.7g}" for value in row)])
    write_text(path, text.getvalue())
