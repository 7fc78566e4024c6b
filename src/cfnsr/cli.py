"""The command line: one verb a step, from a corpus to a prediction."""

import errno
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfnsr import __version__, steps
from cfnsr.console import bar, hang_up, say, show_all
from cfnsr.errors import InputError, require
from cfnsr.files import visible

if TYPE_CHECKING:
    from cfnsr.training.config import Recipe

# What lists are written as: 1,2,5 or 1-4.
Numbers = str
MOST_NUMBERS = 10_000  # of one range; more is a slip

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audio-video emotion recognition: prepare, cross-validate, report, predict. "
    "`cfnsr demo` shows it all on a synthetic corpus.",
    epilog="--debug, anywhere, shows the traceback of an error.",
)

DataOption = Annotated[Path, typer.Option("--data", help="Folder made by `cfnsr prepare`.")]
ProtocolOption = Annotated[
    str,
    typer.Option(
        help="nested (inner validation actors choose the epoch), leave_one_actor_out or paper (optimistic)."
    ),
]
VideoOption = Annotated[
    str | None, typer.Option(help="What the models see: pixels (the default) or openface tracks.")
]
AudioOption = Annotated[
    str | None, typer.Option(help="What they hear: mfcc (the default) or speech, a pretrained encoder.")
]
SpeakerOption = Annotated[
    bool,
    typer.Option(
        "--speaker-normalisation",
        help="Standardise each person's features over all their takes, without labels, the tested ones too "
        "(transductive): needs all emotions in balance. The protocol is then called ..._normalised.",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with what was cut off.")]
VideoStreamOption = Annotated[
    int | None,
    typer.Option(
        help="Which stream of pictures, of a file that has several, from 1; if not given, the one marked "
        "default, else the first."
    ),
]
AudioStreamOption = Annotated[int | None, typer.Option(help="Which stream of sound; the same.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point: bad input ends with one line on stderr and exit code 2, a reader who left with 141."""
    show_all()
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:  # as after >&-
                sys.stdout.flush()
    except BaseException as end:
        # Typer and Rich end by themselves with 1, which is an answer of check-split.
        if isinstance(end, BrokenPipeError) or isinstance(end.__context__, BrokenPipeError):
            hang_up()
        raise


def _run() -> None:
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="cfnsr")
    except InputError as error:
        if debug:
            raise
        _stop(str(error))
    except OSError as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _stop(
                f"the disk is full ({error.filename or 'while writing'}): free some and run it again "
                "(train and crossval with --resume)"
            )
        _stop(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("cfnsr: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        first = visible((str(error).splitlines() or [""])[0])
        say(f"cfnsr: unexpected {type(error).__name__}: {first}; run again with --debug and report it")
        sys.exit(70)  # a fault of the program: 1 is an answer of check-split


def _stop(message: str) -> None:
    say(f"cfnsr: {visible(message)}")
    sys.exit(2)


def parse_numbers(text: str, what: str) -> list[int]:
    """Numbers and ranges, as users write them.

    >>> parse_numbers("1-3,7", "actors")
    [1, 2, 3, 7]
    """
    numbers: list[int] = []
    try:
        for part in text.replace(" ", ",").split(","):
            if part:
                first, _, last = part.partition("-")
                span = range(int(first), int(last or first) + 1)
                numbers += span if len(span) <= MOST_NUMBERS else ()
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"{what} {text!r}: expected numbers such as 1,2,5 or 1-4")
    return list(dict.fromkeys(numbers))


def _version(value: bool) -> None:
    if value:
        print(f"cfnsr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="A Python file of yours that registers models; before the verb, may be repeated."),
    ] = None,
) -> None:
    if plugin:
        from cfnsr.models.plugin import load_plugin

        for path in plugin:
            load_plugin(path)


@app.command(epilog="Example: cfnsr demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that is made.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the synthetic corpus and of the training.")] = 0,
) -> None:
    """Synthetic corpus, preparation, cross-validation, report and a prediction: the whole job in minutes."""
    from cfnsr.demo import run

    run(out, seed=seed)


@app.command(epilog="Example: cfnsr synthesize corpus --actors 24 --seed 0")
def synthesize(
    folder: Annotated[Path, typer.Argument(help="Receives Actor_NN/*.mp4 and landmarks/*.csv.")],
    actors: Annotated[int, typer.Option(help="Number of actors.")] = 24,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores if not given.")] = None,
) -> None:
    """Write a synthetic corpus in RAVDESS's layout: drawn faces that speak."""
    _check_workers(workers)
    if actors < 1:
        raise InputError(f"--actors is {actors}: expected 1 or more")
    total = steps.synthesize(folder, actors=actors, seed=seed, workers=workers)
    print(f"{total} takes in {folder}")


@app.command(epilog="Example: cfnsr download ravdess ravdess --actors 1-4")
def download(
    corpus: Annotated[str, typer.Argument(help="ravdess")],
    folder: Annotated[Path, typer.Argument(help="Receives the unpacked corpus.")],
    actors: Annotated[
        Numbers | None, typer.Option(help="Actors, such as 1-4,7; all 24 if not given.")
    ] = None,
    what: Annotated[str, typer.Option(help="Among video, audio and landmarks.")] = "video,landmarks",
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep the zip files.")] = False,
    base_url: Annotated[str, typer.Option(help="A mirror that speaks Zenodo's API.")] = "https://zenodo.org",
) -> None:
    """Fetch RAVDESS from Zenodo: checked, resumable, unpacked. Non-commercial licence."""
    from cfnsr.corpus.download import plan_download

    if corpus != "ravdess":
        raise InputError(f"corpus {corpus!r} cannot be downloaded: expected ravdess")
    chosen = parse_numbers(actors, "actors") if actors is not None else None
    plan = plan_download(
        folder, actors=chosen, what=_names(what), base_url=base_url.rstrip("/"), keep_archives=keep_archives
    )
    say(plan.summary())
    with bar("download", 1) as step:
        plan.run(lambda name, done, total: step(completed=done, total=total, note=name))
    print(f"RAVDESS is in {folder}")


@app.command(epilog="Example: cfnsr prepare ravdess prepared --workers 4")
def prepare(
    corpus: Annotated[
        Path, typer.Argument(help="A RAVDESS or CREMA-D folder, or a CSV of path,label,speaker.")
    ],
    out: Annotated[Path, typer.Argument(help="Receives the prepared clips.")],
    workers: Annotated[int | None, typer.Option(help="Processes; all cores if not given.")] = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            help="Among video, audio, log_mel (for ERANNs), speech and openface; video,audio (as far as "
            "there) if not given."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="Pictures a clip.")] = 30,
    sampling: Annotated[str, typer.Option(help="even, or consecutive from the middle.")] = "even",
    size: Annotated[int, typer.Option(help="Side of the face crop in pixels.")] = 224,
    margin: Annotated[
        float | None, typer.Option(help="Room around the face, as a part of its height.")
    ] = None,
    speech_encoder: Annotated[
        str | None,
        typer.Option(
            help="For speech: a pretrained Whisper, wav2vec 2.0, HuBERT or WavLM, a folder or a name on the "
            "Hugging Face hub; CFNSR_SPEECH_ENCODER names a folder too."
        ),
    ] = None,
    song: Annotated[bool, typer.Option("--song", help="Take RAVDESS's songs too.")] = False,
    openface: Annotated[
        Path | None,
        typer.Option(
            help="A folder with the OpenFace CSVs; or one CSV of clip means, a row a take (column name): the "
            "takes it lacks are left out."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The label set of a CSV of takes, in class order, such as calm,tense.")
    ] = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient",
            help="Keep takes on which predict gives no answer: silent ones, and those with a face in fewer "
            "than half of the pictures.",
        ),
    ] = False,
) -> None:
    """Decode every take once and cut out face and sound; does only what is missing or changed."""
    from cfnsr.corpus.scan import scan
    from cfnsr.data.clip import Preparation

    _check_workers(workers)
    found = scan(corpus, song=song, openface=openface, labels=_names(labels or ""))
    chosen = steps.modalities_there(found) if modalities is None else _names(modalities)
    encoder, sha256 = steps.speech_encoder(chosen, speech_encoder)
    preparation = Preparation(
        modalities=chosen,
        frames=frames,
        sampling=sampling,  # type: ignore[arg-type]
        size=size,
        speech_encoder=encoder,
        speech_sha256=sha256,
        video_stream=video_stream,
        audio_stream=audio_stream,
        lenient=lenient,
    )
    if margin is not None:
        preparation = replace(preparation, margin=margin)
    if steps.prepare(found, corpus, out, preparation, workers=workers):
        raise typer.Exit(2)


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}: expected 1 or more")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


@app.command(epilog="Example: cfnsr models --json")
def models(
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Every model: its parameters beside the paper's, and the accuracy the paper reports."""
    from cfnsr.models import listing

    if as_json:
        print(json.dumps(listing.as_json(), indent=2))
    else:
        print(listing.as_markdown() if as_markdown else listing.as_text())


def _recipe(
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper (30 frames of 224 px, 70 epochs; the default), recommended (our changes to it), "
            "small (for a CPU), or features (OpenFace and speech)."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A recipe as TOML, as `cfnsr train --show-config` prints it, or a part of one."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of a recipe, such as schedule=cosine; may be repeated."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, if not the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips a step, if not the preset's.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of Adam, if not the preset's.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="no (float32) or bf16 (mixed precision).")] = None,
    pretrain: Annotated[
        bool | None,
        typer.Option(
            "--pretrain/--no-pretrain", help="Train each encoder alone first, as the paper's run does."
        ),
    ] = None,
    modality_dropout: Annotated[
        float | None,
        typer.Option(help="Probability that a training clip loses its pictures or its sound, 0 to 0.9."),
    ] = None,
    openface_steps: Annotated[
        int | None, typer.Option(help="Steps in time of an OpenFace track; 1 is its mean over the take.")
    ] = None,
    video_weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights that the 3D ResNeXt-50 begins with, such as those published for Kinetics: "
            "safetensors or a PyTorch state dict. Those of ResNeXt-101 do not fit."
        ),
    ] = None,
    tune: Annotated[
        bool | None,
        typer.Option(
            "--tune",
            help="Choose epochs and learning rate of a fused model on each fold's inner validation actors, "
            "from the same grid.",
        ),
    ] = None,
) -> "Recipe":
    """The recipe of a training: a preset, changed by a file, then by --set, then by the options."""
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


def _with_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_recipe`, and pass it the recipe in their stead."""
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
    model: Annotated[str | None, typer.Argument(help="One of `cfnsr models`.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder made by `cfnsr prepare`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the checkpoint.")] = None,
    fold: Annotated[int, typer.Option(help="Number of the fold, from 1.")] = 1,
    video: VideoOption = None,
    audio: AudioOption = None,
    protocol: ProtocolOption = "nested",
    speaker_normalisation: SpeakerOption = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: ResumeOption = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the recipe as TOML for --config, and train nothing.")
    ] = False,
) -> None:
    """Train one model on one fold of whole actors."""
    from cfnsr.data.folds import with_normalised_speakers

    if show_config:
        print(recipe.as_toml(), end="")
        return
    if model is None or data is None or out is None:
        raise InputError(
            "train needs a model, --data and --out: see cfnsr train --help, or give --show-config"
        )
    (named,) = steps.rows_of([model], (), video=video, audio=audio)
    if speaker_normalisation:
        protocol = with_normalised_speakers(protocol)
    steps.train(named, data, out, protocol=protocol, fold=fold, seed=seed, recipe=recipe, resume=resume)
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
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    models: Annotated[list[str] | None, typer.Argument(help="Some of `cfnsr models`.")] = None,
    table: Annotated[
        list[int] | None, typer.Option(help="All rows of the paper's table 1 or 2; may be repeated.")
    ] = None,
    video: VideoOption = None,
    audio: AudioOption = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="nested (the default), paper (optimistic), or both: nested,paper (with --table). "
            "Or leave_one_actor_out with a fold each. To measure habits: best_epoch_on_test, shared_actors, "
            "repeated_takes."
        ),
    ] = None,
    speaker_normalisation: SpeakerOption = False,
    seeds: Annotated[Numbers, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    folds: Annotated[Numbers | None, typer.Option(help="Folds, such as 1,2; all if not given.")] = None,
    workers: Annotated[
        int, typer.Option(help="Processes on a CPU, each of which trains some of the folds.")
    ] = 1,
    resume: ResumeOption = False,
) -> None:
    """Train and test models on every fold of a protocol; encoders alone first, as rows of their own."""
    from cfnsr.data.folds import with_normalised_speakers

    _check_workers(workers)
    alone = speaker_normalisation or recipe.needs_validation
    usual = "nested,paper" if table and not alone else "nested"
    protocols = _names(protocol or usual)
    if speaker_normalisation:
        protocols = tuple(map(with_normalised_speakers, protocols))
    steps.crossval(
        steps.rows_of(models or (), table or (), video=video, audio=audio),
        data,
        out,
        protocols=tuple(dict.fromkeys(protocols)),
        recipe=recipe,
        seeds=parse_numbers(seeds, "seeds"),
        folds=parse_numbers(folds, "folds") if folds is not None else None,
        workers=workers,
        resume=resume,
    )
    steps.report(out)


@app.command(epilog="Example: cfnsr report runs --compare cfn_sr,audio")
def report(
    runs: Annotated[Path, typer.Argument(help="Folder of runs.")],
    explain: Annotated[
        Path | None,
        typer.Option(
            help="The prepared folder that the runs were given: the page then shows what two test answers of "
            "each row rest on."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="Two models whose difference is tested, such as cfn_sr,audio; give it once a pair.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Points of accuracy that do not matter: the tests of equivalence use it.")
    ] = 2.0,
) -> None:
    """Write report.html, tables.md and results.json into the folder of the runs."""
    steps.report(runs, explain=explain, compare=[_pair(each) for each in compare or ()], margin=margin / 100)


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--compare {text}: expected two models with a comma between, such as cfn_sr,audio")
    return names[0], names[1]


def _renamed(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not theirs:
        raise InputError(f"--column {text}: expected name=their_name, such as path=file")
    return ours, theirs


@app.command("check-split", epilog="Example: cfnsr check-split split.csv --media ravdess")
def check_split(
    table: Annotated[
        Path, typer.Argument(help="A CSV with the columns path, split or fold, and optionally actor.")
    ],
    media: Annotated[
        Path | None, typer.Option(help="Folder of the recordings, if they do not lie as the CSV says.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=THEIRS",
            help="What the CSV calls its column path, split, fold or actor, such as path=file; repeatable.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Name what a split leaks: shared actors and takes, copies of a recording, a reused validation.

    Copies are found by their bytes and by their sound, re-coded or trimmed; not halves of a take, nor other
    speeds; of several tracks of sound the default one is heard. Exit code 0 for a clean split, 1 for leaks,
    2 for a table that cannot be read.
    """
    from cfnsr.data.leaks import check_split as check
    from cfnsr.data.split import read_split

    _check_workers(workers)
    renamed = dict(_renamed(text) for text in column or ())
    split = read_split(table, renamed)
    with bar("compare", len(split.recordings)) as step:
        findings = check(
            split,
            media=media,
            workers=workers,
            progress=lambda done, total: step(completed=done, total=total),
        )
    print(json.dumps(findings.as_json(), indent=2) if as_json else "\n".join(findings.lines()))
    if not findings.clean:
        raise typer.Exit(1)


@app.command(epilog="Example: cfnsr predict runs/nested/cfn_sr/seed_0/fold_1 talk.mp4 --plot talk.png")
def predict(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder with config.json and model.safetensors, an exported .onnx or .xml, or a name on the "
            "Hugging Face hub."
        ),
    ],
    files: Annotated[list[Path], typer.Argument(help="Videos, or sound files for an audio model.")],
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds of a window, of whose sound as much is heard as of a training clip. If not given, "
            "a file of up to 6 s is one, and a longer one is cut into windows as long as that sound."
        ),
    ] = None,
    hop: Annotated[float, typer.Option(help="Seconds from one window to the next.")] = 1.0,
    all_faces: Annotated[
        bool, typer.Option("--all-faces", help="Follow everyone in the picture, not only the largest face.")
    ] = False,
    write: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write the timeline: a name ending in .csv, .json, .txt, .srt or .vtt; several times for "
            "several. {name} stands for the file's own name."
        ),
    ] = None,
    plot: Annotated[list[Path] | None, typer.Option(help="Draw the timeline, as .png, .svg or .pdf.")] = None,
    annotate: Annotated[
        list[Path] | None,
        typer.Option(help="Write the video with box, label and bars, and its sound, as .mp4, .mov or .mkv."),
    ] = None,
    openface: Annotated[
        Path | None,
        typer.Option(
            help="A folder with OpenFace CSVs of the files, or a table of clip means; a model that sees "
            "pictures does without, the face detector then finds the face."
        ),
    ] = None,
    speech_encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub name of the speech encoder that the model was trained with, if it needs one."
        ),
    ] = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recognise the emotions in videos of any length, over time, prepared as the training clips were."""
    from cfnsr.media.container import Streams

    outputs = steps.Outputs(tuple(write or ()), tuple(plot or ()), tuple(annotate or ()))
    well = steps.predict(
        checkpoint,
        files,
        openface=openface,
        speech_encoder=speech_encoder,
        window=window,
        hop=hop,
        all_faces=all_faces,
        streams=Streams(video_stream, audio_stream),
        outputs=outputs,
        as_json=as_json,
    )
    if not well:
        raise typer.Exit(2)


CheckpointArgument = Annotated[
    str,
    typer.Argument(
        help="Folder with config.json and model.safetensors, an exported .onnx or .xml, or a name on the "
        "Hugging Face hub."
    ),
]
WindowOption = Annotated[
    float | None, typer.Option(help="Seconds of a window; as much as a training clip has if not given.")
]


@app.command(epilog="Example: cfnsr explain runs/nested/cfn_sr/seed_0/fold_1 talk.mp4 why.png --at 12.5")
def explain(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a checkpoint, or a name on the hub.")],
    file: Annotated[Path, typer.Argument(help="Video, or sound file for an audio model.")],
    out: Annotated[Path, typer.Argument(help="The picture to write, .png.")],
    at: Annotated[float | None, typer.Option(help="Second of the file; its middle if not given.")] = None,
    window: WindowOption = None,
    openface: Annotated[Path | None, typer.Option(help="The file's OpenFace CSV; see predict.")] = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
) -> None:
    """Draw where and when the model looked, what it listened to, and how much each modality counted."""
    from cfnsr.media.container import Streams

    streams = Streams(video_stream, audio_stream)
    steps.explain(checkpoint, file, out, at=at, window=window, openface=openface, streams=streams)


@app.command(epilog="Example: cfnsr export runs/nested/cfn_sr/seed_0/fold_1 model.onnx --data prepared")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder with config.json and model.safetensors.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .onnx, or .xml for OpenVINO.")],
    precision: Annotated[
        str, typer.Option(help="f32; with an .xml file also bf16, or int8, which is calibrated on --data.")
    ] = "f32",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder made by `cfnsr prepare`: clips to check on, and to calibrate int8."),
    ] = None,
) -> None:
    """Write a model as one file that needs no PyTorch: bytes of pictures and a waveform in, answers out."""
    require("export", "onnx", "onnxruntime", "onnxscript", "openvino")
    steps.export(checkpoint, out, precision=precision, data=data)


@app.command(epilog="Example: cfnsr serve runs/nested/cfn_sr/seed_0/fold_1")
def serve(
    checkpoint: CheckpointArgument,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    public: Annotated[
        bool, typer.Option("--public", help="Let other machines in: no passwords, no encryption.")
    ] = False,
    max_megabytes: Annotated[int, typer.Option(help="Of an upload, in MiB.")] = 200,
    minutes: Annotated[float, typer.Option(help="Longest recording.")] = 10.0,
) -> None:
    """Serve a web page and a REST API on this machine: upload or record, see the timeline."""
    steps.serve(checkpoint, host=host, port=port, public=public, max_megabytes=max_megabytes, minutes=minutes)


@app.command(epilog="Example: cfnsr live model.onnx   or: cfnsr live model.onnx --from talk.mp4")
def live(
    checkpoint: CheckpointArgument,
    file: Annotated[Path | None, typer.Option("--from", help="Play this file as if live.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="Its number, or its name, such as /dev/video0; 0 if not given.")
    ] = None,
    microphone: Annotated[
        str | None,
        typer.Option(
            help="Its number or a part of its name, as `python -m sounddevice` lists them; the system's own "
            "if not given."
        ),
    ] = None,
    window: WindowOption = None,
    every: Annotated[float, typer.Option(help="Seconds from one answer to the next.")] = 0.4,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recognise live, by webcam and microphone; what cannot be kept up with is dropped."""
    from cfnsr.media.container import Streams

    steps.live(
        checkpoint,
        file=file,
        streams=Streams(video_stream, audio_stream),
        camera=camera,
        microphone=microphone,
        window=window,
        every=every,
        as_json=as_json,
    )


@app.command(epilog="Example: cfnsr share runs/nested/cfn_sr/seed_0/fold_1 owner/name")
def share(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    to: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub, or with --folder a folder.")],
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder instead of putting it on the hub.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is for its owner alone.")
    ] = False,
) -> None:
    """Share a model with its card, by the Hugging Face hub or as a folder."""
    if folder and private:
        raise InputError("--private with --folder: a folder has no readers to choose; leave out one of them")

    from cfnsr.sharing.pretrained import push_to_hub, save_pretrained
    from cfnsr.training.checkpoint import load_model

    if folder:
        print(save_pretrained(load_model(run), to, run=run))
    else:
        print(push_to_hub(run, to, private=private))


@app.command(epilog="Example: cfnsr doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Say what is there (face detector, codecs, torch, extras, disk), and what to do about what is missing.

    Nothing is fetched. Exit code 0 where the usual work has all it needs, 1 where something is missing.
    """
    from cfnsr.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        print("\n".join(finding.line() for finding in findings))
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: cfnsr bench predict clip.mp4 --out docs/benchmarks.md")
def bench(
    what: Annotated[str, typer.Argument(help="predict")],
    clip: Annotated[Path, typer.Argument(help="A video of a few seconds: a face, and speech.")],
    out: Annotated[Path | None, typer.Option(help="Write the page here.")] = None,
    rounds: Annotated[int, typer.Option(help="Of everything; the median counts.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure how long a prediction takes on this machine."""
    from cfnsr.bench.predict import measure, page
    from cfnsr.files import write_text

    if what != "predict":
        raise InputError(f"bench {what!r} is not known: expected predict")
    require("export", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
    figures = measure(clip, rounds=rounds, progress=lambda task: say(f"bench: {task}"))
    text = page(figures, clip)
    if out is not None:
        write_text(out, text)
    print(json.dumps([figure.as_json() for figure in figures], indent=2) if as_json else text)
