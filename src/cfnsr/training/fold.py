"""One fold of one model, from its first weights to its run's folder.

RUNS/<protocol>/<model>/seed_<s>/fold_<k>/
    config.json, model.safetensors   the checkpoint of the chosen epoch
    tensorboard/                     the history, as curves
    selected/                        where the model is refitted: the checkpoint before that, and its history
    tried.json                       with --tune: figures of each choice of epochs and learning rate
    run.json and the rest            see `run`
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from cfnsr.data.folds import Unit
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.pictures import Pictures
from cfnsr.features.spec import LIMITS, ModelSpec
from cfnsr.files import read_json, write_json
from cfnsr.models import zoo
from cfnsr.models.encoders.resnext import start_residuals
from cfnsr.models.entries import Model
from cfnsr.models.parameters import count_parameters, count_total
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import load_model, read_spec, temper
from cfnsr.training.config import TUNED, mix
from cfnsr.training.job import Job, describe, is_finished
from cfnsr.training.loop import State, Step, Trainer
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.scoring import audit, predict, predict_under_conditions
from cfnsr.training.weights import initialise_from

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
    start_from: Sequence[Path] = (),
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> Path:
    """Train one model on one fold and write its run; a finished run is left as it is.

    Args:
        start_from: finished runs of two one-stream models on the same fold, video, then audio, whose encoders
            a two-stream model is initialised from.
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
    if fold.main:
        describe(job, corpus).write(folder)
    chosen = fold.choose() if job.tunes else job
    selecting, state = fold.select(chosen)
    testing, refitted = fold.refit(chosen, state) if job.refits else (selecting, State())
    fold.test(chosen, selecting, testing, replace(state, seconds=state.seconds + refitted.seconds))
    for each in (selecting, testing):
        each.close()
    accelerator.wait_for_everyone()
    return folder


@dataclass
class _Fold:
    """The steps of a fold, see `train_fold`."""

    job: Job
    corpus: PreparedCorpus
    folder: Path
    accelerator: Accelerator
    start_from: Sequence[Path]
    resume: bool
    progress: Progress
    done: int = 0  #: epochs of the trainings before the one at work

    def __post_init__(self) -> None:
        self.main = self.accelerator.is_main_process
        self.part = Path(SELECTED if self.job.refits else "")  # folder of the training that is selected

    def choose(self) -> Job:
        """Train every choice of epochs and learning rate, and keep the training of the best one."""
        path, trying, best = (self.folder / name for name in ("tried.json", TRIED, BEST))
        figures = _read_tried(path) if self.resume else []
        candidates = self.job.candidates()
        for number, candidate in enumerate(candidates):
            if number >= len(figures):
                trainer = self._selecting(candidate, Path(TRIED))
                found = trainer.fit(resume=self.resume).kept
                self.accelerator.free_memory()
                self.accelerator.wait_for_everyone()
                if self.main:
                    better = not figures or found > max(figures)
                    worse = best if better else trying
                    # The state first: after a kill between the two, there is none without its history.
                    for left in (worse / "training", worse):
                        shutil.rmtree(left, ignore_errors=True)
                    if better:
                        trying.replace(best)
                figures.append(found)
                if self.main:
                    write_json(path, {"multiples": TUNED, "figures": figures})
            self.done += candidate.epochs
        if self.main and best.exists():
            (self.folder / self.part).mkdir(exist_ok=True)
            for file in best.iterdir():
                file.replace(self.folder / self.part / file.name)
            best.rmdir()
        self.accelerator.wait_for_everyone()
        return candidates[figures.index(max(figures))]  # of equal ones the first

    def select(self, chosen: Job) -> tuple[Trainer, State]:
        """Train with the epoch selected; what was tried and chosen is trained already."""
        trainer = self._selecting(chosen, self.part)
        return trainer, trainer.fit(resume=self.resume or self.job.tunes)

    def refit(self, chosen: Job, state: State) -> tuple[Trainer, State]:
        """Train anew on the validation actors too, for as many epochs as they selected."""
        self.done += chosen.epochs
        units = (*self.job.fold.train, *self.job.fold.validation)
        trainer = self._trainer(chosen, Path(), Path(), units, (), stop=state.best_epoch)
        return trainer, trainer.fit(resume=self.resume)

    def test(self, chosen: Job, selecting: Trainer, testing: Trainer, state: State) -> None:
        """Predict validation and test clips, also under bad input and disturbance, and write the run."""
        job, corpus = self.job, self.corpus
        validation = predict(selecting, job, corpus, job.fold.validation)
        test = predict(testing, job, corpus, job.fold.test)
        conditions = predict_under_conditions(testing, job, corpus)
        interaction, entropy = audit(testing, job, corpus)
        if not self.main:
            return
        temperature = None
        if validation.clips:
            temperature = fit_temperature(validation.log_probabilities, validation.labels)
            for written in {selecting.folder, testing.folder}:
                replace(read_spec(written), temperature=temperature).write(written)
        model = self.accelerator.unwrap_model(testing.model)
        replace(
            describe(job, corpus),
            epochs=chosen.epochs,
            params=count_total(model, corpus.speech_parameters),
            trained_params=count_parameters(model),
            predicted=len(validation.clips) + len(test.clips),
            epoch=state.best_epoch,
            learning_rate=chosen.recipe.learning_rate,
            temperature=temperature,
            attention_entropy=entropy,
            seconds=round(state.seconds, 1),
            finished=True,
            history=selecting.history,
            validation=validation,
            test=test,
            conditions=conditions,
            interaction=interaction,
        ).write(self.folder)

    def _selecting(self, chosen: Job, place: Path) -> Trainer:
        """Set up a training whose epoch is selected."""
        select = getattr(self.job.fold, self.job.protocol.selected_on)
        return self._trainer(chosen, self.part, place, self.job.fold.train, select)

    def _trainer(
        self,
        chosen: Job,
        part: Path,
        place: Path,
        train: Sequence[Unit],
        select: Sequence[Unit],
        stop: int | None = None,
    ) -> Trainer:
        """Set up a training of the model on some units; `place` is its folder within the run's."""
        job, corpus = self.job, self.corpus
        model, spec = initialise(job, corpus, self.start_from, part)
        if self.main:
            spec.write(self.folder / place)
        return Trainer(
            model,
            chosen,
            corpus.clips(model.reads, spec.look, normalised=job.protocol.normalised),
            corpus.places(job.protocol, train, degraded=job.recipe.degraded),
            corpus.places(job.protocol, select),
            folder=self.folder / place,
            accelerator=self.accelerator,
            stop=stop,
            progress=lambda step: self.progress(  # of a training as that of the whole fold
                job, replace(step, epoch=self.done + step.epoch, epochs=job.passes)
            ),
        )


def _read_tried(path: Path) -> list[tuple[float, float]]:
    """Read of each choice that was tried the figure that selects, and minus the loss."""
    if not path.exists():
        return []
    tried = read_json(path, "what was tried")
    try:
        multiples = [tuple(each) for each in tried["multiples"]]
        figures = [(float(figure), float(loss)) for figure, loss in tried["figures"]]
    except (KeyError, TypeError, ValueError):
        multiples, figures = [], []
    if multiples != list(TUNED) or len(figures) > len(TUNED):
        raise InputError(
            f"{path} does not list figures of the {len(TUNED)} choices that this version tries: "
            "delete the run's folder to train it from its beginning"
        )
    return figures


def initialise(
    job: Job, corpus: PreparedCorpus, start_from: Sequence[Path], part: Path = Path()
) -> tuple[Model, ModelSpec]:
    """Build the model as its training begins: with the encoders of finished runs, if it starts from some.

    Args:
        part: of their folders: what precedes a refit starts from what preceded theirs, so that the
            validation actors have trained nothing that they choose.
    """
    model, spec = build(job, corpus)
    if not start_from and job.recipe.video_weights is not None:
        initialise_from(model, job.recipe.video_weights)
    if start_from and isinstance(model, TwoStream):
        video, audio = (load_model(trained / part) for trained in start_from)
        if not isinstance(video, OneStream) or not isinstance(audio, OneStream):
            raise InputError("a two-stream model starts from one-stream models: give runs of video and audio")
        if job.recipe.calibrated_start or job.entry.solver:
            temper(video)
            temper(audio)
        model.start_from(video, audio)
        if job.recipe.frozen_encoders:
            model.freeze()
    return model, spec


def build(job: Job, corpus: PreparedCorpus, device: str = "cpu") -> tuple[Model, ModelSpec]:
    """Build the model of a job for a corpus, with weights drawn from its seed."""
    recipe, sizes = job.recipe, corpus.sizes(job.entry.encoders.values())
    look = {name: getattr(recipe, name) for name in LIMITS}
    # No more than any clip has: all may be clip means.
    look = {name: min(value, sizes.pop(name, value)) for name, value in look.items()}
    settings = {
        "classes": len(corpus.store.labels),
        "mfcc_steps": corpus.preparation.mfcc_steps,
        "width": recipe.width,
        **sizes,
    }
    torch.manual_seed(mix(job.seed, 0, INITIAL))
    with torch.device(device):
        model = zoo.create_model(job.model, **settings)  # type: ignore[arg-type]
        start_residuals(model, recipe.residual_start)
    _check_prepared(job, corpus, model)
    spec = ModelSpec(
        job.model,
        settings,
        corpus.store.labels,
        **look,
        preparation=corpus.preparation,
        source=job.entry.source,
        normalised=job.protocol.normalised,
        modality_dropout=0.0 if job.entry.solver else recipe.modality_dropout,
    )
    return model, spec


def _check_prepared(job: Job, corpus: PreparedCorpus, model: Model) -> None:
    """Refuse a corpus that was prepared without what the model reads, or with less than the recipe asks."""
    preparation, recipe, reads = corpus.preparation, job.recipe, model.reads.values()
    missing = sorted(set(reads) - set(preparation.modalities))
    if missing:
        wanted = [name for name in FEATURES if name in {*preparation.modalities, *reads}]
        raise InputError(
            f"{corpus.store.folder} was prepared without {', '.join(missing)}: model {job.model} needs it; "
            f"prepare the corpus into another folder with --modalities {','.join(wanted)}"
        )
    if Pictures.name in reads and (preparation.frames < recipe.frames or preparation.size < recipe.size):
        raise InputError(
            f"{corpus.store.folder} has {preparation.frames} frames of {preparation.size} px a clip: preset "
            f"{recipe.preset} looks at {recipe.frames} of {recipe.size} px; prepare the corpus with more, or "
            "choose a smaller preset"
        )
