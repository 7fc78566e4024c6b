"""Cross-validation: the grid of model x fold x seed, each cell a folder that can be resumed.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    history.jsonl, tensorboard/      figures of each epoch
    selected/                        where the model is refitted: the checkpoint before that, and its history
    tried.json                       with --tune: figures of each choice of epochs and learning rate
    predictions.csv                  log-probabilities of every validation and test clip
    conditions.csv                   the same of the test clips under bad input, or by few takes of a speaker
    interaction.csv                  the same with the exchange between the modalities disturbed
    run.json                         who trained, who was tested, settings and versions; written last
"""

import csv
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from cfnsr.data.conditions import Condition, conditions_of
from cfnsr.data.dataset import Batch, Column
from cfnsr.data.folds import Unit, choose_folds, find_protocol
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.files import read_json, write_json, write_text
from cfnsr.models import zoo
from cfnsr.models.encoders.resnext import start_residuals
from cfnsr.models.parameters import count_total
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import Config, load_model, temper
from cfnsr.training.config import TUNED, Recipe, mix
from cfnsr.training.inputs import at_one_speed, to_input
from cfnsr.training.interaction import (
    WITHOUT,
    beside,
    disturbances,
    disturbed,
    entropies,
    joins_early,
    pooled,
)
from cfnsr.training.loop import Step, Trainer
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job, describe, described_row, is_finished, refuse_differences
from cfnsr.training.weights import Match, begin_with

TRIED = "tried"  # folder of the choice of epochs and learning rate that is being tried
BEST = "best"  # that of the best one so far
SELECTED = "selected"  # folder of what the validation actors chose, before it is refitted to them too
INITIAL = 3  # purpose of a mixed seed, beside those of the loop

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
        job: model, protocol, fold, seed and recipe.
        start_from: finished runs of two one-stream models on the same fold, by name, whose encoders a
            two-stream model is initialised from: video, then audio.
        resume: go on with a run that was cut off.

    Raises:
        InputError: when the folder has a run and `resume` is not set, or one of other settings.
    """
    finished = is_finished(job, folder, corpus, resume)
    accelerator.wait_for_everyone()  # before one process writes what another still checks for
    if finished:
        for left in (folder, folder / SELECTED):  # by a kill between the last two steps
            shutil.rmtree(left / "training", ignore_errors=True)
        progress(job, Step(job.passes, job.passes, 1, 1))
        return folder
    corpus.check(job.protocol, job.fold)
    main = accelerator.is_main_process
    protocol = find_protocol(job.protocol)

    behind = 0  # epochs of the trainings before the one at work

    def trainer(
        chosen: Job, begin: Path, place: Path, units: Sequence[Unit], select: Sequence[Unit], **how: Any
    ) -> Trainer:
        model, config = _begin(job, corpus, start_from, begin)
        if main:
            config.write(folder / place)
        done = behind
        return Trainer(
            model,
            corpus.clips(model.reads, config.look, normalised=protocol.normalised),
            corpus.places(job.protocol, units),
            corpus.places(job.protocol, select),
            chosen.recipe,
            epochs=chosen.epochs,
            seed=job.seed,
            folder=folder / place,
            selected_on=protocol.selected_on,
            accelerator=accelerator,
            progress=lambda step: progress(job, replace(step, epoch=done + step.epoch, epochs=job.passes)),
            solver=zoo.find(job.model).solver,
            **how,
        )

    if main:
        write_json(folder / "run.json", {**describe(job, corpus), "finished": False})
    part = Path(SELECTED if job.refits else "")
    choosing = job.fold.train, getattr(job.fold, protocol.selected_on)
    chosen, tried = job, _Tried(folder, resume)
    if job.tunes:
        for number, candidate in enumerate(job.candidates()):
            if number >= len(tried.figures):
                trying = trainer(candidate, part, Path(TRIED), *choosing)
                figures = trying.fit(resume=resume).kept
                accelerator.free_memory()
                accelerator.wait_for_everyone()
                if main:
                    better = not tried.figures or figures > max(tried.figures)
                    shutil.rmtree(folder / (BEST if better else TRIED), ignore_errors=True)
                    if better:
                        (folder / TRIED).replace(folder / BEST)
                tried.add(figures, main)
            behind += candidate.epochs
        chosen = job.candidates()[tried.best]
        if main and (folder / BEST).exists():
            (folder / part).mkdir(exist_ok=True)
            for file in (folder / BEST).iterdir():
                file.replace(folder / part / file.name)
            (folder / BEST).rmdir()
        accelerator.wait_for_everyone()
    selecting = trainer(chosen, part, part, *choosing)
    state = selecting.fit(resume=resume or job.tunes)  # what was chosen is trained already
    testing, seconds = selecting, state.seconds
    if job.refits:
        behind += chosen.epochs
        testing = trainer(
            chosen, Path(), Path(), (*job.fold.train, *job.fold.validation), (), stop=state.best_epoch
        )
        seconds += testing.fit(resume=resume).seconds
    predicted = [
        *_predict(selecting, "validation", job, corpus),
        *_predict(testing, "test", job, corpus),
    ]
    spoiled = _predict_spoiled(testing, job, corpus)
    audited, entropy = _audit(testing, job, corpus)
    if main:
        temperature = _temperature(predicted)
        if temperature is not None:
            for written in {selecting.folder, testing.folder}:
                replace(Config.read(written), temperature=temperature).write(written)
        _write_predictions(folder / "predictions.csv", "split", corpus, predicted)
        _write_predictions(folder / "conditions.csv", "condition", corpus, spoiled)
        if audited:
            _write_predictions(folder / "interaction.csv", "condition", corpus, audited)
        if job.refits:
            history = (folder / SELECTED / "history.jsonl").read_text(encoding="utf-8")
            write_text(folder / "history.jsonl", history)
        outcome = {
            "params": count_total(accelerator.unwrap_model(testing.model), corpus.speech_parameters),
            "trained_params": zoo.count_parameters(accelerator.unwrap_model(testing.model)),
            "predicted": len(predicted),
            "epochs": chosen.epochs,
            "epoch": state.best_epoch,
            "learning_rate": chosen.recipe.learning_rate,
            "temperature": temperature,
            "attention_entropy": entropy,
            "seconds": round(seconds, 1),
            "finished": True,
        }
        write_json(folder / "run.json", {**describe(job, corpus), **outcome})
    for each in (selecting, testing):
        each.close()
    accelerator.wait_for_everyone()
    return folder


class _Tried:
    """Figures of the choices of epochs and learning rate that were tried, kept in the run's folder.

    Args:
        resume: read those that an earlier run has tried.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self.path = folder / "tried.json"
        self.figures: list[tuple[float, float]] = []
        if resume and self.path.exists():
            found = read_json(self.path, "what was tried")
            try:
                multiples = [tuple(each) for each in found["multiples"]]
                self.figures = [(float(figure), float(loss)) for figure, loss in found["figures"]]
            except (KeyError, TypeError, ValueError):
                multiples = []
            if multiples != list(TUNED) or len(self.figures) > len(TUNED):
                raise InputError(
                    f"{self.path} does not list figures of the {len(TUNED)} choices that this version tries: "
                    "delete the run's folder to train it from its beginning"
                )

    def add(self, figures: tuple[float, float], write: bool) -> None:
        """Keep the figure by which the epoch is selected, and minus the loss, of the next choice."""
        self.figures.append(figures)
        if write:
            write_json(self.path, {"multiples": TUNED, "figures": self.figures})

    @property
    def best(self) -> int:
        """Number of the best choice; of equal ones the first."""
        return self.figures.index(max(self.figures))


def _begin(
    job: Job, corpus: PreparedCorpus, start_from: Mapping[str, Path] | None, part: Path
) -> tuple[zoo.Model, Config]:
    """Create the model as its training begins: with the encoders of finished runs, if it starts from some.

    Args:
        part: of their folders: what precedes a refit starts from what preceded theirs, so that the
            validation actors have trained nothing that they choose.
    """
    model, config = _create(job, corpus)
    if start_from is None and job.recipe.video_weights is not None:
        begin_with(model, job.recipe.video_weights)
    if start_from is not None and isinstance(model, TwoStream):
        video, audio = (load_model(trained / part) for trained in start_from.values())
        if not isinstance(video, OneStream) or not isinstance(audio, OneStream):
            raise InputError("a two-stream model starts from one-stream models: give runs of video and audio")
        if job.recipe.calibrated_start or zoo.find(job.model).solver:
            temper(video)
            temper(audio)
        model.start_from(video, audio)
        if job.recipe.frozen_encoders:
            model.freeze()
    return model, config


class Predicted(NamedTuple):
    """One clip's prediction."""

    under: str  # the part it stands in, or the condition it was met under
    place: int
    name: str
    label: int
    log_probabilities: np.ndarray


def _predict(trainer: Trainer, part: str, job: Job, corpus: PreparedCorpus) -> list[Predicted]:
    """Predict the clips of the fold's "validation" or "test" part, as far as it has one."""
    clips = corpus.part(job.protocol, getattr(job.fold, part))
    if not clips:
        return []
    rows = trainer.predict([place for place, _ in clips]).numpy()
    labels = trainer.clips.labels
    return [Predicted(part, *clip, labels[clip[0]], row) for clip, row in zip(clips, rows, strict=True)]


def _predict_spoiled(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> list[Predicted]:
    """Predict the test clips under every condition that concerns the model."""
    predicted: list[Predicted] = []
    plain = {  # where speakers are standardised, the trainer's own columns are so by all takes
        each: corpus.clips({each: column.name}, column.look).columns[each]
        for each, column in trainer.clips.columns.items()
    }
    reads = {each: column.name for each, column in plain.items()}
    clips = corpus.part(job.protocol, job.fold.test)
    tested = corpus.actors(job.protocol, job.fold.test)
    places = [place for place, _ in clips]
    normalised = find_protocol(job.protocol).normalised
    for name, condition in conditions_of(reads, normalised=normalised).items():
        known: dict[str, Column] = {}
        if condition.among is not None:
            known = {each: column.standardised(condition.among, tested) for each, column in plain.items()}

        def spoil(
            batch: Batch, name: str = name, condition: Condition = condition, known: dict[str, Column] = known
        ) -> Batch:
            if known:
                at = batch.place.tolist()
                told = {each: torch.stack([column[place] for place in at]) for each, column in known.items()}
                return batch._replace(**told)
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


def _audit(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> tuple[list[Predicted], float | None]:
    """Predict the test clips under every disturbance of the exchange, with the entropy of its weights."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, TwoStream):
        return [], None
    clips = corpus.part(job.protocol, job.fold.test)
    places, labels = [place for place, _ in clips], trainer.clips.labels
    predicted: list[Predicted] = []
    entropy: list[torch.Tensor] = []
    with pooled(model) as vectors:
        if joins_early(model):
            trainer.predict(places)
    for how in disturbances(model):
        with disturbed(model, how, vectors):
            if how == WITHOUT:
                with entropies(model) as entropy:
                    rows = trainer.predict(places).numpy()
            else:
                rows = trainer.predict(places, beside(trainer.clips, places)).numpy()
        predicted += [
            Predicted(how, *clip, labels[clip[0]], row) for clip, row in zip(clips, rows, strict=True)
        ]
    return predicted, float(torch.cat(entropy).mean()) if entropy else None


def _temperature(predicted: Sequence[Predicted]) -> float | None:
    """Temperature fitted on the inner validation clips; None where the protocol has none."""
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
    """Train and test every cell of a grid, as `plan` orders them, and return their folders.

    The encoders of a two-stream model are trained alone once a fold and seed, as rows of the same runs such
    as "video" and "audio". All models that start from them use the same ones.

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
    """Run the jobs of `crossval` once they are checked."""
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
        check_model(job, corpus)
        if zoo.find(job.model).source:
            _try(job, corpus)
    for job in jobs:
        corpus.check(job.protocol, job.fold)
    for first in {(job.protocol, job.model): job for job in jobs}.values():
        described = described_row(first, corpus)
        for other in first.folder(runs).parent.parent.glob("seed_*/fold_*/run.json"):
            refuse_differences(other.parent, described)


def check_model(job: Job, corpus: PreparedCorpus) -> None:
    """Refuse a model that does not suit the corpus, the recipe or the encoders it would start from."""
    model, _ = _create(job, corpus, device="meta")
    modalities = zoo.find(job.model).modalities
    if set(model.reads) != set(modalities):
        raise InputError(
            f"model {job.model} has {' and '.join(model.reads)} and is registered with "
            f"{' and '.join(modalities)}: give its @entry modalities={tuple(model.reads)}"
        )
    if job.recipe.modality_dropout and len(model.reads) > 1:
        normalised, heard = find_protocol(job.protocol).normalised, model.reads["audio"]
        if normalised or corpus.silence(heard) is None:
            raise InputError(
                f"modality dropout {job.recipe.modality_dropout:g} needs sound whose silence is known: model "
                f"{job.model} reads {heard}{', standardised per speaker' if normalised else ''}; train it "
                "without --modality-dropout"
            )
    for modality, name in zip(modalities, job.starts_from, strict=False):  # from none, or from both
        alone, _ = _create(replace(job, model=name), corpus, device="meta")
        ours, theirs = getattr(model, modality), getattr(alone, "encoder", None)
        if _shapes(ours) != _shapes(theirs):
            raise InputError(
                f"model {job.model} has another {modality} encoder than model {name}, which it would start "
                "from: train it with --no-pretrain"
            )


def match_weights(jobs: Sequence[Job], corpus: PreparedCorpus) -> Match | None:
    """Match the recipe's file of video weights, if it has one, with the models that start from nothing.

    Raises:
        InputError: when none of them has a 3D ResNeXt.
    """
    file = jobs[0].recipe.video_weights
    if file is None:
        return None
    for job in {job.model: job for job in jobs if not job.starts_from}.values():
        model, _ = _create(job, corpus, device="meta")
        if (matched := begin_with(model, file)) is not None:
            return matched
    raise InputError(
        f"video weights {file.path}: none of {', '.join(dict.fromkeys(job.model for job in jobs))} begins "
        "with a 3D ResNeXt; leave them out, or choose a model that sees pixels"
    )


def _try(job: Job, corpus: PreparedCorpus) -> None:
    """Try a user's own model on three clips: it must give log-probabilities, and each clip its own."""
    model, config = _create(job, corpus)
    clips = corpus.clips(model.reads, config.look)
    batch = Batch(
        *(torch.stack(column) for column in zip(*(clips[place] for place in range(3)), strict=True))
    )
    batch = to_input(at_one_speed(batch, torch.zeros(3)), torch.device("cpu"))
    video, audio = batch.video, batch.audio
    try:
        with torch.no_grad():
            together = model.eval()(video, audio)
            alone = torch.cat([model(video[[place]], audio[[place]]) for place in range(3)])
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
    """List the cells of the grid as they are trained: fold by fold, encoders before what needs them."""
    if any(seed < 0 for seed in seeds):
        raise InputError(f"seed {min(seeds)}: expected 0 or more")
    if recipe.tune and not recipe.pretrain:
        raise InputError(
            "--tune chooses for models that start from trained encoders, and --no-pretrain starts none from "
            "them: leave one of the two out"
        )
    if recipe.needs_validation and find_protocol(protocol).selected_on != "validation":
        what, instead = f"preset {recipe.preset}", "another preset"
        if recipe.tune:
            what, instead = "--tune", "leave --tune out"
        raise InputError(
            f"protocol {protocol!r} has no inner validation actors, and {what} needs them: choose nested, "
            f"leave_one_actor_out or {instead}"
        )
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
    sizes = corpus.sizes(zoo.encoders_of(job.model).values())
    # No more than any clip has, such as one where all are clip means.
    openface_steps = min(job.recipe.openface_steps, sizes.pop("openface_steps", job.recipe.openface_steps))
    settings = {
        "classes": len(corpus.store.labels),
        "mfcc_steps": preparation.mfcc_steps,
        "width": job.recipe.width,
        **sizes,
    }
    torch.manual_seed(mix(job.seed, 0, INITIAL))
    with torch.device(device):
        model = zoo.create_model(job.model, **settings)  # type: ignore[arg-type]
        start_residuals(model, job.recipe.residual_start)
    reads = model.reads.values()
    missing = sorted(set(reads) - set(preparation.modalities))
    if missing:
        wanted = [name for name in FEATURES if name in {*preparation.modalities, *reads}]
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
        openface_steps,
        job.recipe.speech_steps,
        preparation,
        source=zoo.find(job.model).source,
        normalised=find_protocol(job.protocol).normalised,
        modality_dropout=0.0 if zoo.find(job.model).solver else job.recipe.modality_dropout,
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
