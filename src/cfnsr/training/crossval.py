"""Cross-validation: the grid of model x fold x seed, each cell a folder that can be resumed.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    history.jsonl, tensorboard/      what happened in each epoch
    predictions.csv                  log-probabilities of every validation and test clip
    conditions.csv                   the same of the test clips under bad input
    run.json                         who trained, who was tested, settings and versions; written last
"""

import csv
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from cfnsr.data import augment
from cfnsr.data.clip import MODALITIES
from cfnsr.data.conditions import Condition, conditions_of
from cfnsr.data.dataset import Batch
from cfnsr.data.folds import choose_folds, find_protocol
from cfnsr.errors import InputError
from cfnsr.files import write_json, write_text
from cfnsr.models import zoo
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import Config, load_model
from cfnsr.training.config import Recipe, mix
from cfnsr.training.loop import Step, Trainer
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job, describe, described_row, is_finished, refuse_differences

INITIAL = 3  # what a mixed seed is for, beside those of the loop

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
    finished = is_finished(job, folder, corpus, resume)
    accelerator.wait_for_everyone()  # before one process writes what another still looks for
    if finished:
        shutil.rmtree(folder / "training", ignore_errors=True)  # left by a kill between the last two steps
        progress(job, Step(job.epochs, job.epochs, 1, 1))
        return folder
    corpus.check(job.protocol, job.fold)
    model, config = _create(job, corpus)
    if start_from is not None and isinstance(model, TwoStream):
        video, audio = load_model(start_from["video"]), load_model(start_from["audio"])
        if not isinstance(video, OneStream) or not isinstance(audio, OneStream):
            raise InputError("a two-stream model starts from one-stream models: give runs of video and audio")
        model.start_from(video, audio)
    selected_on = find_protocol(job.protocol).selected_on
    trainer = Trainer(
        model,
        corpus.clips(model.reads, job.recipe.frames, job.recipe.size),
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
        write_json(folder / "run.json", {**describe(job, corpus), "finished": False})
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
        write_json(folder / "run.json", {**describe(job, corpus), **outcome})
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
    return train_jobs(jobs, corpus, runs, accelerator=accelerator, resume=resume, progress=progress)


def train_jobs(
    jobs: Sequence[Job],
    corpus: PreparedCorpus,
    runs: Path,
    *,
    accelerator: Accelerator,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """What `crossval` does once the jobs are checked."""
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
    for job in {job.model: job for job in jobs}.values():
        _check_model(job, corpus)
        if zoo.find(job.model).source:
            _try(job, corpus)
    for job in jobs:
        corpus.check(job.protocol, job.fold)
    for first in {(job.protocol, job.model): job for job in jobs}.values():
        described = described_row(first, corpus)
        for other in first.folder(runs).parent.parent.glob("seed_*/fold_*/run.json"):
            refuse_differences(other.parent, described)


def _check_model(job: Job, corpus: PreparedCorpus) -> None:
    """Refuse a model that cannot read the corpus, or has other encoders than those it would start from."""
    model, _ = _create(job, corpus, device="meta")
    modalities = zoo.find(job.model).modalities
    if set(model.reads) != set(modalities):
        raise InputError(
            f"model {job.model} has {' and '.join(model.reads)} and is registered with "
            f"{' and '.join(modalities)}: give its @entry modalities={tuple(model.reads)}"
        )
    for name in job.starts_from:
        alone, _ = _create(replace(job, model=name), corpus, device="meta")
        ours, theirs = getattr(model, name), getattr(alone, "encoder", None)
        if _shapes(ours) != _shapes(theirs):
            raise InputError(
                f"model {job.model} has another {name} encoder than model {name}, which it would start from: "
                "train it with --no-pretrain"
            )


def _try(job: Job, corpus: PreparedCorpus) -> None:
    """Show a user's own model three clips: it must give log-probabilities, and each clip its own."""
    model, config = _create(job, corpus)
    clips = corpus.clips(model.reads, config.frames, config.size)
    batch = Batch(
        *(torch.stack(column) for column in zip(*(clips[place] for place in range(3)), strict=True))
    )
    video = augment.normalise(batch.video) if "video" in model.reads.values() else batch.video
    try:
        with torch.no_grad():
            together = model.eval()(video, batch.audio)
            alone = torch.cat([model(video[[place]], batch.audio[[place]]) for place in range(3)])
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"model {job.model} fails on three clips ({first}): mend its file") from error
    if together.shape != (3, len(config.labels)) or not torch.allclose(
        together.exp().sum(dim=1), torch.ones(3), atol=1e-3
    ):
        raise InputError(
            f"model {job.model} gives no log-probabilities of {len(config.labels)} emotions: its head must "
            "end with log_softmax(dim=1)"
        )
    if not torch.allclose(together, alone, atol=1e-3):
        raise InputError(
            f"model {job.model} mixes clips: a clip's result differs by "
            f"{(together - alone).abs().max().item():.2g} with others beside it; see docs/your-own-fusion.md"
        )


def _shapes(module: torch.nn.Module | None) -> dict[str, torch.Size]:
    return {} if module is None else {name: value.shape for name, value in module.state_dict().items()}


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
    config = Config(
        job.model,
        settings,
        corpus.store.labels,
        job.recipe.frames,
        job.recipe.size,
        preparation,
        source=zoo.find(job.model).source,
    )
    return model, config


def _write_predictions(path: Path, under: str, corpus: PreparedCorpus, rows: Sequence[Predicted]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "actor", under, "label", *corpus.store.labels.emotions])
    for row in rows:
        header = corpus.headers[row.place]
        values = (f"{value:.7g}" for value in row.log_probabilities)
        writer.writerow([row.name, header.actor, row.under, header.emotion, *values])
    write_text(path, text.getvalue())
