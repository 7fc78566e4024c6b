"""The long steps as a person runs them: the work, its progress bar and the account at its end."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr.console import bar, say, speaks
from cfnsr.errors import InputError
from cfnsr.files import write_text

if TYPE_CHECKING:
    from cfnsr.corpus.take import Corpus, Take
    from cfnsr.data.clip import Preparation
    from cfnsr.inference.predict import Prediction
    from cfnsr.models.zoo import Model
    from cfnsr.synthesis.corpus import Part
    from cfnsr.training.config import Recipe
    from cfnsr.training.loop import Step
    from cfnsr.training.record import Job

SHOWN = 10  # lines of a long list that are shown; the whole list is in a file


def synthesize(folder: Path, *, actors: int, seed: int, workers: int | None) -> int:
    """Write a synthetic corpus; returns the number of takes."""
    from cfnsr.synthesis.corpus import plan
    from cfnsr.synthesis.corpus import synthesize as write

    total = len(plan(actors=actors))
    done = 0
    with bar("synthesize", total) as step:

        def progress(part: "Part") -> None:
            nonlocal done
            done += 1
            step(completed=done, note=part.name)

        write(folder, actors=actors, seed=seed, workers=workers, progress=progress)
    return total


def prepare(
    corpus: "Corpus", source: Path, out: Path, preparation: "Preparation", *, workers: int | None = None
) -> int:
    """Prepare a scanned corpus and account for every file; returns the number of takes that failed."""
    from cfnsr.data.clip import MODALITIES
    from cfnsr.data.contact import contact_sheet
    from cfnsr.data.prepare import prepare_corpus
    from cfnsr.data.store import Store
    from cfnsr.synthesis.corpus import RECORD

    check_folder(out)
    for modality in preparation.modalities:
        if not any(getattr(take, MODALITIES[modality]) for take in corpus.takes):
            raise InputError(f"{source} has no take with {modality}: leave {modality} out of --modalities")
    name = "synthetic" if (source / RECORD).exists() else corpus.name
    store = Store.create(out, name, corpus.labels, preparation.as_json())
    _account(corpus, out)
    done = 0
    with bar("prepare", len(corpus.takes)) as step:

        def progress(take: "Take", state: str) -> None:
            nonlocal done
            done += 1
            step(completed=done, note="" if state == "made" else f"{take.name} {state}")

        outcome = prepare_corpus(corpus.takes, store, preparation, workers=workers, progress=progress)
    for failure in outcome.failures[:SHOWN]:
        say(f"failed, {failure.reason}: {failure.message}")
    if len(outcome.failures) > SHOWN:
        say(f"... and {len(outcome.failures) - SHOWN} more")
    print(
        f"{len(outcome.made)} clips made, {len(outcome.kept)} kept, {len(outcome.failures)} failed in {out}"
        + (f"; the reasons: {out / 'failures.csv'}" if outcome.failures else "")
    )
    others = {path.name for path in (out / "clips").glob("*.safetensors")}
    others -= {store.path(take.name).name for take in corpus.takes}
    if others:
        say(
            f"{len(others)} clips in {out} are of takes that {source} does not have, such as {min(others)}: "
            "they stay and will be trained on; delete them to leave them out"
        )
    if "video" in preparation.modalities and outcome.made:
        headers = [store.header(name) for name in sorted(outcome.made + outcome.kept)]
        sheet = contact_sheet(store, [header for header in headers if header], out / "contact_sheet.png")
        print(f"look at the crops: {sheet}")
    return len(outcome.failures)


def _account(corpus: "Corpus", out: Path) -> None:
    aside = [f"unknown name: {path}" for path in corpus.unknown]
    aside += [f"the same take again: {path}" for path in corpus.duplicates]
    aside += [f"{count} left out: {reason}" for reason, count in corpus.left_out.items()]
    write_text(out / "left_out.txt", "".join(f"{line}\n" for line in aside))
    for line in corpus.notes():
        say(line)


def check_folder(out: Path) -> None:
    """Refuse a file where a folder is to be written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: expected a folder, or a name for a new one")


def modalities_there(corpus: "Corpus") -> tuple[str, ...]:
    """Pictures and sound as far as the takes have them; OpenFace features where there is neither."""
    there = tuple(role for role in ("video", "audio") if any(getattr(take, role) for take in corpus.takes))
    if len(there) == 1:
        say(f"the corpus has {there[0]} alone: preparing that")
    return there or ("openface",)


def speech_encoder(modalities: Sequence[str], given: str | None) -> tuple[str, str]:
    """Name and SHA-256 of the speech encoder of a preparation; empty where none is needed.

    Args:
        modalities: that are to be prepared.
        given: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names.
    """
    from cfnsr.data.speech import choose_encoder

    if "speech" in modalities:
        encoder = choose_encoder(given)
        return encoder.name, encoder.sha256
    if given is not None:
        raise InputError(
            f"--speech-encoder {given} with modalities {', '.join(modalities)}: expected speech among them; "
            "give --modalities with speech"
        )
    return "", ""


def hear_by(model: "Model", given: str | None) -> None:
    """Find the speech encoder that a model was trained with, before any file needs it.

    Args:
        model: loaded; one that does not hear by a speech encoder needs none.
        given: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names, or the hub's.
    """
    from cfnsr.data.speech import choose_encoder, find_encoder
    from cfnsr.training.checkpoint import config_of

    config = config_of(model)
    if "speech" in model.reads.values():
        if given is not None:
            choose_encoder(given)
        find_encoder(config.preparation.speech_encoder, config.preparation.speech_sha256)
    elif given is not None:
        raise InputError(f"--speech-encoder {given}: model {config.model} does not hear by one; leave it out")


class TrainingBar:
    """One bar over all runs of a grid; behind it the run at work with its loss and accuracy."""

    def __init__(self, jobs: Sequence["Job"]) -> None:
        self._done = dict.fromkeys(jobs, 0.0)  # epochs of each
        self._bar = bar("train", sum(job.passes for job in jobs))

    def __enter__(self) -> "TrainingBar":
        self._step = self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)  # type: ignore[arg-type]

    def __call__(self, job: "Job", step: "Step") -> None:
        self._done[job] = step.epoch - 1 + step.step / step.steps
        state = "was trained before"
        if step.loss is not None:
            state = f"loss {step.loss:.2f}, accuracy {100 * step.accuracy:.0f} %"
        self._step(
            completed=round(sum(self._done.values()), 2),
            note=f"{job.model} {job.protocol} seed {job.seed} fold {job.fold.number}: {state}",
        )


def rows_of(
    models: Sequence[str], tables: Sequence[int], *, video: str | None = None, audio: str | None = None
) -> list[str]:
    """The models that are named, and those of the paper's tables, each once in the order of the tables.

    Args:
        models: names.
        tables: of the paper, 1 or 2.
        video, audio: encoders that all of them get, as far as they look at pictures and hear; a row of a
            table that has another one for good is left out.
    """
    from cfnsr.models.zoo import TABLES, encoders_of, find, list_models, with_encoders

    for number in tables:
        if number not in TABLES:
            raise InputError(f"table {number}: expected one of the paper's tables, 1 or 2")
    wanted = {name for number in tables for _, name in TABLES[number]}
    of_tables = [name for name in list_models() if name in wanted]
    if not models and not of_tables:
        raise InputError("no model is named: expected some of `cfnsr models`, or --table 1 or 2")
    asked = {name: encoder for name, encoder in (("video", video), ("audio", audio)) if encoder is not None}
    chosen = [with_encoders(name, **asked) for name in models]
    for name in of_tables:
        own = encoders_of(name)
        if find(name).fixed and any(own.get(modality, want) != want for modality, want in asked.items()):
            say(f"{name} is left out: it has its own encoder {', '.join(own.values())}")
        else:
            chosen.append(with_encoders(name, **asked))
    for modality, encoder in asked.items():
        if not any(modality in encoders_of(name) for name in chosen):
            raise InputError(f"--{modality} {encoder}: {', '.join(chosen)} has no {modality}; leave it out")
    return list(dict.fromkeys(chosen))


def crossval(
    models: Sequence[str],
    data: Path,
    out: Path,
    *,
    protocols: Sequence[str],
    recipe: "Recipe",
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
    workers: int = 1,
    resume: bool = False,
) -> list[Path]:
    """Cross-validate models under some protocols with one progress bar; returns the folders of the runs."""
    from cfnsr.data.store import Store
    from cfnsr.training import crossval as training
    from cfnsr.training.devices import accelerator
    from cfnsr.training.parallel import crossval_in_processes
    from cfnsr.training.prepared import PreparedCorpus

    check_folder(out)
    if workers > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--workers and `accelerate launch` both start processes: use one of the two")
    corpus = PreparedCorpus(Store(data))
    plans = [
        training.plan(models, corpus, protocol=protocol, recipe=recipe, seeds=seeds, folds=folds)
        for protocol in protocols
    ]
    jobs = [job for plan in plans for job in plan]
    training.check_jobs(jobs, corpus, out, resume=resume)
    with TrainingBar(jobs) as progress:
        if workers > 1:
            return crossval_in_processes(jobs, data, out, workers=workers, resume=resume, progress=progress)
        return training.train_jobs(
            jobs, corpus, out, accelerator=accelerator(recipe), resume=resume, progress=progress
        )


def train(
    model: str, data: Path, out: Path, *, protocol: str, fold: int, seed: int, recipe: "Recipe", resume: bool
) -> Path:
    """Train one model on one fold, its encoders alone first in `out/pretrained`, and write its model card."""
    from cfnsr.data.store import Store
    from cfnsr.training import crossval as training
    from cfnsr.training.devices import accelerator
    from cfnsr.training.prepared import PreparedCorpus

    check_folder(out)
    corpus = PreparedCorpus(Store(data))
    jobs = training.plan([model], corpus, protocol=protocol, recipe=recipe, seeds=[seed], folds=[fold])
    for job in jobs:  # before the first is trained
        training.check_model(job, corpus)
    encoders = {job.model: out / "pretrained" / job.model for job in jobs[:-1]}
    with TrainingBar(jobs) as progress:
        for job in jobs:
            training.train_fold(
                job,
                corpus,
                encoders.get(job.model, out),
                accelerator=accelerator(recipe),
                start_from=encoders if encoders and job is jobs[-1] else None,
                resume=resume,
                progress=progress,
            )
    if speaks():
        from cfnsr.evaluation.card import write_card

        write_card(out)
    return out


def report(runs: Path) -> None:
    """Write report.html, tables.md and results.json of some runs, and print the rows' accuracies."""
    from cfnsr.evaluation.report import report as write
    from cfnsr.evaluation.tables import limits, mean_and_deviation

    if not speaks():
        return
    written = write(runs)
    for row in written.rows:
        spread = row.spreads["accuracy"]
        print(
            f"{row.model}: accuracy {mean_and_deviation(spread)} %, 95 % interval {limits(spread)}, "
            f"{row.protocol_label}, {row.progress}"
        )
    print(f"report: {written.html}")


def show(prediction: "Prediction") -> None:
    """Print a prediction: the emotion, then every probability as a bar."""
    print(f"{prediction.file}: {prediction.emotion}")
    for emotion, probability in prediction.probabilities.items():
        print(f"  {emotion:<12}{100 * probability:5.1f} %  {'#' * round(40 * probability)}")
