"""Verbs of experiments: models, train, crossval, evaluate, report."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from cfnsr.cli.app import (
    AddressOption,
    EngineOption,
    JsonOption,
    ModelArgument,
    Numbers,
    Place,
    app,
    check_workers,
    engine_ready,
    names,
    parse_numbers,
)
from cfnsr.console import bar, enabled, say
from cfnsr.emotions import parse_labels
from cfnsr.errors import InputError
from cfnsr.files import check_folder, locked

if TYPE_CHECKING:
    from cfnsr.data.store import Store
    from cfnsr.evaluation.html import Examples
    from cfnsr.evaluation.rows import Row
    from cfnsr.training.config import Recipe
    from cfnsr.training.fold import Progress
    from cfnsr.training.job import Job
    from cfnsr.training.loop import Step
    from cfnsr.training.prepared import PreparedCorpus

ProtocolOption = Annotated[
    str,
    Option(
        help="nested (inner validation actors choose the epoch), leave_one_actor_out or paper (optimistic)."
    ),
]
VideoOption = Annotated[
    str | None,
    Option(help="Video encoder: pixels (the default), openface tracks, or expression, a pretrained one."),
]
AudioOption = Annotated[
    str | None, Option(help="Audio encoder: mfcc (the default) or speech, a pretrained one.")
]
SpeakerOption = Annotated[
    bool,
    Option(
        "--speaker-normalisation",
        help="Standardise each person's features over all their takes, without labels, the tested ones too "
        "(transductive): needs all emotions in balance. The protocol is then called ..._normalised.",
    ),
]
DataOption = Annotated[
    list[Path],
    Option(help="Folder made by `cfnsr prepare`; several times for several corpora, read as one.", **Place),
]
LabelsOption = Annotated[
    str | None,
    Option(
        help="The label set, in class order, with emotions that count as another, such as "
        "neutral,happy,sad,calm=neutral; others are left out. All that the corpora have if not given."
    ),
]
ResumeOption = Annotated[bool, Option("--resume", help="Go on with what was cut off.")]


@app.command(epilog="Example: cfnsr models --json")
def models(
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """List every model: its parameters beside the paper's, and the accuracy the paper reports."""
    from cfnsr.models import listing

    if as_json:
        print(json.dumps(listing.as_json(), indent=2))
    else:
        print(listing.as_markdown() if as_markdown else listing.as_text())


def _recipe(
    preset: Annotated[
        str | None,
        Option(
            help="paper (30 frames of 224 px, 70 epochs; the default), recommended (our changes to it), "
            "small (for a CPU), features (OpenFace and speech) or robust (those, for other people and rooms)."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Option(help="A recipe as TOML, as `cfnsr train --show-config` prints it, or a part of one."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option("--set", help="Any setting of a recipe, such as schedule=cosine; may be repeated."),
    ] = None,
    epochs: Annotated[int | None, Option(help="Epochs, if not the preset's.")] = None,
    batch_size: Annotated[int | None, Option(help="Clips a step, if not the preset's.")] = None,
    learning_rate: Annotated[float | None, Option(help="Learning rate of Adam, if not the preset's.")] = None,
    precision: Annotated[
        str | None,
        Option(help="no (float32) or bf16 (mixed precision; on a CPU only where `cfnsr doctor` names it)."),
    ] = None,
    pretrain: Annotated[
        bool | None,
        Option("--pretrain/--no-pretrain", help="Train each encoder alone first, as the paper's run does."),
    ] = None,
    modality_dropout: Annotated[
        float | None,
        Option(help="Probability that pictures or sound of a training clip are dropped, 0 to 0.9."),
    ] = None,
    openface_steps: Annotated[
        int | None, Option(help="Steps in time of an OpenFace track; 1 is its mean over the take.")
    ] = None,
    video_weights: Annotated[
        Path | None,
        Option(
            help="Weights that the 3D ResNeXt-50 begins with, such as those published for Kinetics: "
            "safetensors or a PyTorch state dict. Those of ResNeXt-101 do not fit."
        ),
    ] = None,
    tune: Annotated[
        bool | None,
        Option(
            "--tune",
            help="Choose epochs and learning rate of a fused model on each fold's inner validation actors, "
            "from the same grid.",
        ),
    ] = None,
) -> "Recipe":
    """Read the recipe of a training: a preset, changed by a file, then by --set, then by the options."""
    from cfnsr.training.config import find_recipe, load_recipe, parse_settings

    recipe = load_recipe(config, preset) if config is not None else find_recipe(preset or "paper")
    written = parse_settings(settings or ())
    if video_weights is not None:
        written = {**written, "video_weights": str(video_weights)}
    return recipe.with_settings(written, "--set").changed(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        pretrain=pretrain,
        modality_dropout=modality_dropout,
        openface_steps=openface_steps,
        tune=tune,
    )


def _open(data: Sequence[Path], labels: str | None) -> "Store":
    """Open the prepared corpora of --data, with the label set of --labels."""
    from cfnsr.data.joined import open_stores

    return open_stores(data, parse_labels(labels) if labels else None)


def _with_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_recipe`, and pass it the recipe instead."""
    shared, whole = signature(_recipe).parameters, signature(command)

    @wraps(command)
    def run(**given: Any) -> None:
        command(recipe=_recipe(**{name: given.pop(name) for name in shared}), **given)

    own = [parameter for name, parameter in whole.parameters.items() if name != "recipe"]
    options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*own, *shared.values())]
    run.__signature__ = whole.replace(parameters=options)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in options}
    return run


@app.command(
    epilog="Examples: cfnsr train cfn_sr --data prepared --fold 1 --out cfn_sr_fold_1; "
    "cfnsr train --show-config --preset small > recipe.toml"
)
@_with_recipe
def train(
    recipe: "Recipe",
    model: Annotated[str | None, Argument(help="One of `cfnsr models`.")] = None,
    data: Annotated[
        list[Path] | None,
        Option(help="Folder made by `cfnsr prepare`; several times for several corpora.", **Place),
    ] = None,
    labels: LabelsOption = None,
    out: Annotated[Path | None, Option(help="Folder of the checkpoint.")] = None,
    fold: Annotated[int, Option(help="Number of the fold, from 1.")] = 1,
    video: VideoOption = None,
    audio: AudioOption = None,
    protocol: ProtocolOption = "nested",
    speaker_normalisation: SpeakerOption = False,
    seed: Annotated[int, Option(help="Of everything random.")] = 0,
    resume: ResumeOption = False,
    show_config: Annotated[
        bool, Option("--show-config", help="Print the recipe as TOML for --config, and train nothing.")
    ] = False,
) -> None:
    """Train one model on one fold of whole actors; its encoders alone first, in OUT/pretrained."""
    if show_config:
        print(recipe.as_toml(), end="")
        return
    if model is None or not data or out is None:
        raise InputError(
            "train needs a model, --data and --out: see cfnsr train --help, or give --show-config"
        )
    from cfnsr.data.folds import with_normalised_speakers
    from cfnsr.evaluation.card import write_card
    from cfnsr.models.names import choose_models
    from cfnsr.training import crossval as training
    from cfnsr.training.devices import accelerator
    from cfnsr.training.fold import train_fold
    from cfnsr.training.prepared import PreparedCorpus

    (named,) = choose_models([model], (), video=video, audio=audio)
    if speaker_normalisation:
        protocol = with_normalised_speakers(protocol)
    check_folder(out)
    corpus = PreparedCorpus(_open(data, labels))
    jobs = training.plan([named], corpus, protocol=protocol, recipe=recipe, seeds=[seed], folds=[fold])
    for job in jobs:  # before the first is trained
        training.check_model(job, corpus)
    _say_notes(jobs, corpus)
    folders = {job: out / "pretrained" / job.model for job in jobs[:-1]}
    with _training_bar(jobs) as progress:
        for job in jobs:
            train_fold(
                job,
                corpus,
                folders.get(job, out),
                accelerator=accelerator(recipe),
                start_from=[folders[stream] for stream in job.encoders],
                resume=resume,
                progress=progress,
            )
    if enabled():
        write_card(out)
    print(f"checkpoint: {out}")


@app.command(
    epilog="Examples: cfnsr crossval cfn_sr --data prepared --out runs --preset small; "
    "cfnsr crossval --table 1 --table 2 --data prepared --out runs; "
    "cfnsr crossval --table 1 --video openface --audio speech --data features --out runs; "
    "cfnsr crossval cfn_sr_features --speaker-normalisation --data features --out runs"
)
@_with_recipe
def crossval(
    recipe: "Recipe",
    data: DataOption,
    out: Annotated[Path, Option(help="Folder of the runs.")],
    models: Annotated[list[str] | None, Argument(help="Some of `cfnsr models`.")] = None,
    table: Annotated[
        list[int] | None, Option(help="All rows of the paper's table 1 or 2; may be repeated.")
    ] = None,
    labels: LabelsOption = None,
    video: VideoOption = None,
    audio: AudioOption = None,
    protocol: Annotated[
        str | None,
        Option(
            help="nested (the default), paper (optimistic), or both: nested,paper (with --table). "
            "Or leave_one_actor_out or leave_one_corpus_out with a fold each. To measure habits: "
            "best_epoch_on_test, shared_actors, repeated_takes."
        ),
    ] = None,
    speaker_normalisation: SpeakerOption = False,
    seeds: Annotated[Numbers, Option(help="Seeds, such as 0,1,2.")] = "0",
    folds: Annotated[Numbers | None, Option(help="Folds, such as 1,2; all if not given.")] = None,
    workers: Annotated[
        int | None,
        Option(
            help="Processes on a CPU, each of which trains some of the folds; 1 if not given.",
            callback=check_workers,
        ),
    ] = None,
    resume: ResumeOption = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_run: Annotated[
        int | None, Option(min=1, help="With ray: CPUs, and threads, of each run; 1 if not given.")
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        Option(min=0, help="With ray: GPUs of each run, such as 0.5; 0 if not given: trained on CPUs."),
    ] = None,
) -> None:
    """Train and test models on every fold of a protocol; encoders alone first, as rows of their own."""
    from cfnsr.data.folds import with_normalised_speakers
    from cfnsr.models.names import choose_models

    alone = speaker_normalisation or recipe.needs_validation
    protocols = names(protocol or ("nested,paper" if table and not alone else "nested"))
    if speaker_normalisation:
        protocols = tuple(dict.fromkeys(map(with_normalised_speakers, protocols)))
    per_run = {"--cpus-per-run": cpus_per_run, "--gpus-per-run": gpus_per_run}
    with engine_ready(engine, address, local={"--workers": workers}, ray=per_run):
        train_models(
            choose_models(models or (), table or (), video=video, audio=audio),
            _open(data, labels),
            out,
            protocols=protocols,
            recipe=recipe,
            seeds=parse_numbers(seeds, "seeds"),
            folds=parse_numbers(folds, "folds") if folds is not None else None,
            workers=workers or 1,
            resume=resume,
            per_run=(cpus_per_run or 1, gpus_per_run or 0) if engine == "ray" else None,
        )
    write_report(out)


@app.command(epilog="Example: cfnsr evaluate everyday urdu_prepared --out other_people")
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path, Argument(help="Folder made by `cfnsr prepare`, of a corpus that did not train.", **Place)
    ],
    out: Annotated[Path, Option(help="Folder of the runs; the report of all runs in it is written.")],
    name: Annotated[
        str | None, Option(help="Of the model in the report; that of the zoo or the package if not given.")
    ] = None,
    adapt: Annotated[
        bool,
        Option(
            "--adapt",
            help="Standardise speech by the corpus itself, without labels (transductive: needs its emotions "
            "in balance).",
        ),
    ] = False,
) -> None:
    """Test a model on a prepared corpus, among the emotions that both know, and write the report."""
    from cfnsr.data.store import Store
    from cfnsr.inference.evaluate import evaluate
    from cfnsr.inference.recogniser import as_recogniser
    from cfnsr.sharing.loading import load
    from cfnsr.sharing.shipped import is_shipped

    check_folder(out)
    store, loaded = Store(data), as_recogniser(load(model))
    if name is None and is_shipped(model):
        name = model
    with bar("evaluate", 1) as step:
        run = evaluate(loaded, store, name=name or "", adapted=adapt, progress=step)
    run.write(out / run.protocol / run.model / "seed_0" / "fold_1")
    write_report(out)


@app.command(epilog="Example: cfnsr report runs --compare cfn_sr,audio")
def report(
    runs: Annotated[Path, Argument(help="Folder of runs.")],
    explain: Annotated[
        list[Path] | None,
        Option(
            help="The prepared folder that the runs were given, each of several: the page then shows what "
            "two test answers of each row rest on.",
            **Place,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        Option(
            metavar="A,B",
            help="Two models whose difference is tested, such as cfn_sr,audio; give it once a pair.",
        ),
    ] = None,
    margin: Annotated[
        float, Option(help="Points of accuracy that do not matter: the tests of equivalence use it.")
    ] = 2.0,
) -> None:
    """Write report.html, tables.md and results.json into the folder of the runs."""
    write_report(
        runs, explain=explain or (), compare=[_pair(each) for each in compare or ()], margin=margin / 100
    )


def _pair(text: str) -> tuple[str, str]:
    first, _, second = (part.strip() for part in text.partition(","))
    if not (first and second) or "," in second:
        raise InputError(f"--compare {text}: expected two models with a comma between, such as cfn_sr,audio")
    return first, second


@contextmanager
def _training_bar(jobs: Sequence["Job"]) -> Iterator["Progress"]:
    """Draw one bar over all runs, with the loss and accuracy of the one at work."""
    epochs = dict.fromkeys(jobs, 0.0)
    with bar("train", sum(job.passes for job in jobs)) as step:

        def progress(job: "Job", at: "Step") -> None:
            epochs[job] = at.epoch - 1 + at.step / at.steps
            state = "was trained before"
            if at.loss is not None:
                state = f"loss {at.loss:.2f}, accuracy {100 * at.accuracy:.0f} %"
            step(
                completed=round(sum(epochs.values()), 2),
                note=f"{job.model} {job.protocol.name} seed {job.seed} fold {job.fold.number}: {state}",
            )

        yield progress


def train_models(
    models: Sequence[str],
    store: "Store",
    out: Path,
    *,
    protocols: Sequence[str],
    recipe: "Recipe",
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
    workers: int = 1,
    resume: bool = False,
    per_run: tuple[int, float] | None = None,
) -> list[Path]:
    """Cross-validate models under some protocols with one progress bar; return the folders of the runs.

    Args:
        per_run: CPUs and GPUs of each run on the Ray cluster that is connected; None trains here.
    """
    from cfnsr.training import crossval as training
    from cfnsr.training.cluster import crossval_on_cluster
    from cfnsr.training.devices import accelerator
    from cfnsr.training.parallel import crossval_in_processes
    from cfnsr.training.prepared import PreparedCorpus

    check_folder(out)
    if workers > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--workers and `accelerate launch` both start processes: use one of the two")
    corpus = PreparedCorpus(store)
    jobs: list[Job] = []
    for protocol in protocols:
        jobs += training.plan(models, corpus, protocol=protocol, recipe=recipe, seeds=seeds, folds=folds)
    training.check_jobs(jobs, corpus, out, resume=resume)
    # Of the processes that `accelerate launch` starts, the main one has the lock.
    with locked(out) if enabled() else nullcontext():
        _say_notes(jobs, corpus)
        with _training_bar(jobs) as progress:
            how: dict[str, Any] = {"resume": resume, "progress": progress}
            if per_run is not None:
                cpus, gpus = per_run
                return crossval_on_cluster(jobs, store, out, cpus=cpus, gpus=gpus, progress=progress)
            if workers > 1:
                return crossval_in_processes(jobs, store, out, workers=workers, **how)
            return training.train_jobs(jobs, corpus, out, accelerator=accelerator(recipe), **how)


def _say_notes(jobs: Sequence["Job"], corpus: "PreparedCorpus") -> None:
    from cfnsr.data.joined import JoinedStore
    from cfnsr.training.crossval import match_weights

    if isinstance(corpus.store, JoinedStore):
        for line in corpus.store.notes():
            say(f"note: {line}")
    if warning := corpus.uncompared():
        say(f"note: {warning}")
    if found := match_weights(jobs, corpus):
        for line in found.lines():
            say(f"video weights: {line}")


def write_report(runs: Path, *, explain: Sequence[Path] = (), **how: Any) -> None:
    """Write report.html, tables.md and results.json of some runs, and print the rows' accuracies.

    Args:
        explain: the prepared folders that the runs were given: two test clips of each row are explained.
        how: `compare` and `margin` of `cfnsr.evaluation.report.report`.
    """
    from cfnsr.evaluation.metrics import TOO_FEW
    from cfnsr.evaluation.render import figure, limits, tested
    from cfnsr.evaluation.report import report as write

    if not enabled():
        return
    if explain:
        how["explained"] = partial(_explained, prepared=explain)
    with locked(runs) if runs.is_dir() else nullcontext():
        written = write(runs, **how)
    for row in written.rows:
        accuracy = row.estimates["accuracy"]
        interval = f"95 % interval {limits(accuracy)}" if accuracy.ci95 else f"no interval ({TOO_FEW})"
        print(f"{row.model}: accuracy {figure(accuracy)} %, {interval}, {row.protocol_label}, {row.progress}")
    for each in written.compared:
        said = f"not compared: {each.found}" if isinstance(each.found, str) else tested(each.found)
        print(f"{each.a} less {each.b}, {each.protocol_label}: {said}")
    print(f"report: {written.html}")


def _explained(rows: "Sequence[Row]", prepared: "Sequence[Path]") -> "Examples":
    """Explain two test clips of the first run of each row."""
    from cfnsr.data.joined import open_stores
    from cfnsr.inference.explained import examples

    run, made = rows[0].runs[0], {}
    # Clips of corpora that were read as one carry the name of theirs.
    store = open_stores(prepared, run.labels if "/" in run.test.clips[0] else None)
    with bar("explain", len(rows)) as step:
        for row in rows:
            step(note=row.model)
            made[row.model, row.protocol] = examples(row.runs[0], store)
            step(advance=1)
    return made
