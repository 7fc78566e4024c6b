"""One fold of one model, from its first weights to its run's folder.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    history.jsonl, tensorboard/      losses and figures of each epoch
    selected/                        where the model is refitted: the checkpoint before that, and its history
    tried.json                       with --tune: figures of each choice of epochs and learning rate
    predictions.csv                  log-probabilities of every validation and test clip
    conditions.csv                   the same of the test clips under bad input, or by few takes of a speaker
    interaction.csv                  the same with the exchange between the modalities disturbed
    run.json                         who trained, who was tested, settings and versions; written last
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from cfnsr.data.folds import Unit, find_protocol
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.spec import ModelSpec
from cfnsr.files import read_json, write_json, write_text
from cfnsr.models import zoo
from cfnsr.models.encoders.resnext import start_residuals
from cfnsr.models.parameters import count_parameters, count_total
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.checkpoint import load_model, read_spec, temper
from cfnsr.training.config import TUNED, mix
from cfnsr.training.loop import State, Step, Trainer
from cfnsr.training.predictions import audit, predict, predict_spoiled, temperature_of, write_predictions
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job, describe, is_finished
from cfnsr.training.weights import begin_with

TRIED = "tried"  # folder of the choice of epochs and learning rate that is being tried
BEST = "best"  # that of the best one so far
SELECTED = "selected"  # folder of what the validation actors chose, before it is refitted to them too
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
    fold = _Fold(job, corpus, folder, accelerator, start_from, resume, progress)
    fold.record({"finished": False})
    chosen = fold.choose() if job.tunes else job
    selecting, state = fold.select(chosen)
    testing, refitted = fold.refit(chosen, state) if job.refits else (selecting, State())
    fold.test(chosen, selecting, testing, state, seconds=state.seconds + refitted.seconds)
    for each in (selecting, testing):
        each.close()
    accelerator.wait_for_everyone()
    return folder


class _Fold:
    """The steps of a fold, see `train_fold`."""

    def __init__(
        self,
        job: Job,
        corpus: PreparedCorpus,
        folder: Path,
        accelerator: Accelerator,
        start_from: Mapping[str, Path] | None,
        resume: bool,
        progress: Progress,
    ) -> None:
        self.job, self.corpus, self.folder, self.accelerator = job, corpus, folder, accelerator
        self.start_from, self.resume, self.progress = start_from, resume, progress
        self.main = accelerator.is_main_process
        self.protocol = find_protocol(job.protocol)
        self.part = Path(SELECTED if job.refits else "")  # where the training lies that chooses the epoch
        self.behind = 0  # epochs of the trainings before the one at work

    def record(self, outcome: Mapping[str, object]) -> None:
        """Write run.json."""
        if self.main:
            write_json(self.folder / "run.json", {**describe(self.job, self.corpus), **outcome})

    def choose(self) -> Job:
        """Train every choice of epochs and learning rate, and keep the training of the best one."""
        tried = _Tried(self.folder, self.resume)
        trying, best = self.folder / TRIED, self.folder / BEST
        for number, candidate in enumerate(self.job.candidates()):
            if number >= len(tried.figures):
                trainer = self._trainer(candidate, self.part, Path(TRIED), *self._choosing)
                figures = trainer.fit(resume=self.resume).kept
                self.accelerator.free_memory()
                self.accelerator.wait_for_everyone()
                if self.main:
                    better = not tried.figures or figures > max(tried.figures)
                    shutil.rmtree(best if better else trying, ignore_errors=True)
                    if better:
                        trying.replace(best)
                tried.add(figures, self.main)
            self.behind += candidate.epochs
        if self.main and best.exists():
            (self.folder / self.part).mkdir(exist_ok=True)
            for file in best.iterdir():
                file.replace(self.folder / self.part / file.name)
            best.rmdir()
        self.accelerator.wait_for_everyone()
        return self.job.candidates()[tried.best]

    def select(self, chosen: Job) -> tuple[Trainer, State]:
        """Train with the epoch selected; what was tried and chosen is trained already."""
        trainer = self._trainer(chosen, self.part, self.part, *self._choosing)
        return trainer, trainer.fit(resume=self.resume or self.job.tunes)

    def refit(self, chosen: Job, state: State) -> tuple[Trainer, State]:
        """Train anew on the validation actors too, for as many epochs as they selected."""
        self.behind += chosen.epochs
        units = (*self.job.fold.train, *self.job.fold.validation)
        trainer = self._trainer(chosen, Path(), Path(), units, (), stop=state.best_epoch)
        return trainer, trainer.fit(resume=self.resume)

    def test(
        self, chosen: Job, selecting: Trainer, testing: Trainer, state: State, *, seconds: float
    ) -> None:
        """Predict validation and test clips, also under bad input and disturbance, and write all of it."""
        job, corpus, folder = self.job, self.corpus, self.folder
        predicted = [
            *predict(selecting, "validation", job, corpus),
            *predict(testing, "test", job, corpus),
        ]
        spoiled = predict_spoiled(testing, job, corpus)
        audited, entropy = audit(testing, job, corpus)
        if not self.main:
            return
        temperature = temperature_of(predicted)
        if temperature is not None:
            for written in {selecting.folder, testing.folder}:
                replace(read_spec(written), temperature=temperature).write(written)
        write_predictions(folder / "predictions.csv", "split", corpus, predicted)
        write_predictions(folder / "conditions.csv", "condition", corpus, spoiled)
        if audited:
            write_predictions(folder / "interaction.csv", "condition", corpus, audited)
        if job.refits:
            history = (folder / SELECTED / "history.jsonl").read_text(encoding="utf-8")
            write_text(folder / "history.jsonl", history)
        model = self.accelerator.unwrap_model(testing.model)
        self.record(
            {
                "params": count_total(model, corpus.speech_parameters),
                "trained_params": count_parameters(model),
                "predicted": len(predicted),
                "epochs": chosen.epochs,
                "epoch": state.best_epoch,
                "learning_rate": chosen.recipe.learning_rate,
                "temperature": temperature,
                "attention_entropy": entropy,
                "seconds": round(seconds, 1),
                "finished": True,
            }
        )

    @property
    def _choosing(self) -> tuple[Sequence[Unit], Sequence[Unit]]:
        """Units that train, and those that select, before a refit."""
        return self.job.fold.train, getattr(self.job.fold, self.protocol.selected_on)

    def _trainer(
        self,
        chosen: Job,
        initial: Path,
        place: Path,
        units: Sequence[Unit],
        select: Sequence[Unit],
        **how: Any,
    ) -> Trainer:
        """A training of the model on some units.

        Args:
            chosen: the job with the epochs and rate of this training.
            initial: part of the encoders' runs that it is initialised from, see `begin`.
            place: its folder within the run's.
            units: that train.
            select: those that choose the epoch.
        """
        job, behind = self.job, self.behind
        model, config = begin(job, self.corpus, self.start_from, initial)
        if self.main:
            config.write(self.folder / place)
        return Trainer(
            model,
            self.corpus.clips(model.reads, config.look, normalised=self.protocol.normalised),
            self.corpus.places(job.protocol, units),
            self.corpus.places(job.protocol, select),
            chosen.recipe,
            epochs=chosen.epochs,
            seed=job.seed,
            folder=self.folder / place,
            selected_on=self.protocol.selected_on,
            accelerator=self.accelerator,
            progress=lambda step: self.progress(
                job, replace(step, epoch=behind + step.epoch, epochs=job.passes)
            ),
            solver=zoo.find(job.model).solver,
            **how,
        )


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


def begin(
    job: Job, corpus: PreparedCorpus, start_from: Mapping[str, Path] | None, part: Path
) -> tuple[zoo.Model, ModelSpec]:
    """Create the model as its training begins: with the encoders of finished runs, if it starts from some.

    Args:
        part: of their folders: what precedes a refit starts from what preceded theirs, so that the
            validation actors have trained nothing that they choose.
    """
    model, config = create(job, corpus)
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


def create(job: Job, corpus: PreparedCorpus, device: str = "cpu") -> tuple[zoo.Model, ModelSpec]:
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
    if any(FEATURES[name].file == "video" for name in reads) and (have[0] < want[0] or have[1] < want[1]):
        raise InputError(
            f"{corpus.store.folder} has {have[0]} frames of {have[1]} px a clip: preset {job.recipe.preset} "
            f"looks at {want[0]} of {want[1]} px; prepare the corpus with more, or choose a smaller preset"
        )
    config = ModelSpec(
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
