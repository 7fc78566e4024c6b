"""Verbs that use a model: predict, explain, serve, live."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer import Argument, Option

from cfnsr.cli.app import (
    MODEL_HELP,
    AddressOption,
    AudioStreamOption,
    EngineOption,
    JsonOption,
    ModelArgument,
    VideoStreamOption,
    app,
    engine_ready,
    names,
)
from cfnsr.cluster import map_on_cluster
from cfnsr.console import Step, bar, say
from cfnsr.errors import InputError, require
from cfnsr.files import FULL, check_file, escaped, visible, write_atomically
from cfnsr.processes import Spread, map_surviving
from cfnsr.sharing.shipped import DEFAULT, NOTE, is_shipped

if TYPE_CHECKING:
    from cfnsr.inference.lines import Line
    from cfnsr.inference.predict import Progress
    from cfnsr.inference.recogniser import Recogniser, TorchRecogniser
    from cfnsr.inference.timeline import Prediction
    from cfnsr.media.container import Streams

FEWEST_OF_A_BAR = 10  # windows
Outputs = list[tuple[str, Path]]  # option and path, where {name} stands for a file's name without its suffix
WindowOption = Annotated[
    float | None, Option(help="Seconds of a window; as much as a training clip has if not given.")
]

OnlyOption = Annotated[
    str | None,
    Option(help="Emotions to choose among, such as happy,sad,angry,neutral; the others are ruled out."),
]
AdaptOption = Annotated[
    list[Path] | None,
    Option(
        help="Standardise speech by these recordings, without labels, and not by the training's; may be "
        "repeated. They must hold all emotions in balance, by the same microphone and people.",
    ),
]


@app.command(
    epilog="Examples: cfnsr predict talk.mp4 --plot talk.png; "
    "cfnsr predict runs/nested/cfn_sr/seed_0/fold_1 talk.mp4"
)
def predict(
    given: Annotated[
        list[str],
        Argument(
            metavar="[MODEL] FILES...",
            help=f"{MODEL_HELP} Then videos, or sound files. Without a model: everyday.",
        ),
    ],
    window: Annotated[
        float | None,
        Option(
            help="Seconds of a window, of whose sound as much is read as of a training clip. If not given, "
            "a file of up to 6 s is one, and a longer one is cut into windows as long as that sound."
        ),
    ] = None,
    hop: Annotated[float, Option(help="Seconds from one window to the next.")] = 1.0,
    all_faces: Annotated[
        bool, Option("--all-faces", help="Follow everyone in the picture, not only the largest face.")
    ] = False,
    write: Annotated[
        list[Path] | None,
        Option(
            help="Write the timeline: a name ending in .csv, .json, .txt, .srt or .vtt; several times for "
            "several. {name} stands for the file's own name."
        ),
    ] = None,
    plot: Annotated[list[Path] | None, Option(help="Draw the timeline, as .png, .svg or .pdf.")] = None,
    annotate: Annotated[
        list[Path] | None,
        Option(help="Write the video with box, label and bars, and its sound, as .mp4, .mov or .mkv."),
    ] = None,
    openface: Annotated[
        Path | None,
        Option(
            help="A folder with OpenFace CSVs of the files, or a table of clip means; a model of "
            "pictures does without, the face detector then finds the face."
        ),
    ] = None,
    speech_encoder: Annotated[
        str | None,
        Option(
            help="Folder or hub name of the speech encoder that the model was trained with, if it needs one."
        ),
    ] = None,
    only: OnlyOption = None,
    adapt: AdaptOption = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None,
        Option(
            help="For many files: write of each what --json prints, as a line, once it is done. One that "
            "cannot be read has its reason there. Files that have a line are passed over, read or not: "
            "delete a line to have it anew."
        ),
    ] = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
) -> None:
    """Recognise the emotions in videos of any length, over time, prepared as the training clips were."""
    from cfnsr.inference.predict import predict as recognise
    from cfnsr.inference.writers import to_table
    from cfnsr.media.container import Streams
    from cfnsr.media.scan import scan_packets

    streams = Streams(video_stream, audio_stream)
    checkpoint, words = _model_and_files(given)
    if not words:
        raise InputError(f"{checkpoint} is a model: expected a recording behind it to predict")
    files = list(map(Path, words))
    named = {"--write": write, "--plot": plot, "--annotate": annotate}
    outputs: Outputs = [(option, path) for option, paths in named.items() for path in paths or ()]
    _check_outputs(outputs, files)
    if out is not None:
        check_file(out)
        for option, given_too in {**named, "--json": as_json}.items():
            if given_too:
                raise InputError(f"{option} does not go with --out {out}: leave one of the two out")
        if out.exists() and any(file.exists() and out.samefile(file) for file in files):
            raise InputError(f"--out {out}: it is a file to predict; give another name")
    elif engine == "ray":
        raise InputError(
            "--engine ray writes predictions as lines of JSON: expected --out, such as out.jsonl"
        )
    if not any(file.exists() for file in files):
        scan_packets(files[0])  # refuses it without the seconds that torch takes to load
    load = partial(_load_quietly, checkpoint, adapt=adapt, only=only, speech_encoder=speech_encoder)
    _say_model(checkpoint)
    settings: dict[str, Any] = {"window": window, "hop": hop, "all_faces": all_faces, "streams": streams}
    if out is not None:
        from cfnsr.inference.lines import LinePredictor

        with engine_ready(engine, address, local={}, ray={}):
            spread = map_on_cluster if engine == "ray" else partial(map_surviving, workers=1)
            line = LinePredictor(load, settings, partial(_track, openface))
            well = _predict_lines(spread, line, files, out)
        if not well:
            raise typer.Exit(2)
        return
    model = load()
    predictions, well = [], True
    for file in files:
        points = _track(openface, file)
        try:
            with _timeline_bar(file) as progress:
                prediction = recognise(model, file, openface=points, progress=progress, **settings)
            _say_notes(file, prediction.notes)
            predictions.append(prediction.as_json())  # before it is written, which may fail
            if not as_json:
                print(to_table(prediction), flush=True)
            _write_outputs(outputs, prediction, file, streams)
        except (InputError, OSError) as error:
            if isinstance(error, BrokenPipeError) or getattr(error, "errno", 0) in FULL:
                raise  # nobody reads any more, or the next would fail alike
            say(f"cfnsr: {visible(str(error))}")
            well = False
    if as_json:
        print(json.dumps(predictions, indent=2))
    if not well:
        raise typer.Exit(2)


@app.command(
    epilog="Examples: cfnsr explain talk.mp4 why.png; "
    "cfnsr explain runs/nested/cfn_sr/seed_0/fold_1 talk.mp4 why.png --at 12.5"
)
def explain(
    given: Annotated[
        list[str],
        Argument(
            metavar="[MODEL] FILE OUT",
            help="Folder of a checkpoint, a name on the hub, or voice or everyday (if not given); a video, "
            "or a sound file; and the picture to write, .png.",
        ),
    ],
    at: Annotated[float | None, Option(help="Second of the file; its middle if not given.")] = None,
    window: WindowOption = None,
    openface: Annotated[Path | None, Option(help="The file's OpenFace CSV; see predict.")] = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
) -> None:
    """Draw the attention maps of a model over video and audio, and the effect of each modality."""
    from cfnsr.inference.exported import RUNTIMES
    from cfnsr.media.container import Streams
    from cfnsr.media.scan import scan_packets

    checkpoint, words = _model_and_files(given)
    if len(words) != 2:
        raise InputError(f"{' '.join(given)}: expected a model or none, a recording, and a picture to write")
    file, out = map(Path, words)
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} has another ending: expected .png")
    check_file(out)
    if Path(checkpoint).suffix.lower() in RUNTIMES:
        raise InputError(f"{checkpoint} is exported, and cannot be explained: give its checkpoint's folder")
    streams = Streams(video_stream, audio_stream)
    _say_notes(file, scan_packets(file, streams).notes)
    from cfnsr.inference.explained import explain_second  # loads torch, which a refusal need not wait for

    model = cast("TorchRecogniser", _load(checkpoint))  # it is not exported
    explained = explain_second(
        model, file, at, window=window, openface=_track(openface, file), streams=streams
    )
    start, end = explained.span
    picture = explained.as_png(f"{escaped(file.name)}, {start:.1f} to {end:.1f} s")
    write_atomically(out, lambda temporary: temporary.write_bytes(picture))
    print(visible(f"written: {out}"))


@app.command(epilog="Examples: cfnsr serve; cfnsr serve runs/nested/cfn_sr/seed_0/fold_1")
def serve(
    checkpoint: ModelArgument = DEFAULT,
    host: Annotated[str, Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, Option(help="Port; 0 takes a free one.")] = 8000,
    public: Annotated[
        bool, Option("--public", help="Let other machines in: no passwords, no encryption.")
    ] = False,
    max_megabytes: Annotated[int, Option(help="Of an upload, in MiB.")] = 200,
    minutes: Annotated[float, Option(help="Longest recording.")] = 10.0,
    only: OnlyOption = None,
    adapt: AdaptOption = None,
) -> None:
    """Serve a web page and a REST API on this machine: upload or record, see the timeline."""
    require("serve", "fastapi", "uvicorn", "python_multipart")
    if max_megabytes < 1:
        raise InputError(f"--max-megabytes is {max_megabytes}: expected 1 or more")
    if not 1 <= 60 * minutes < math.inf:
        raise InputError(f"--minutes is {minutes:g}: expected a second or more, such as 10")
    from cfnsr.serve import server

    server.listen(host, port, public=public).close()  # refuse an address before torch is loaded
    from cfnsr.serve.app import create_app
    from cfnsr.serve.limits import MEBIBYTE

    app = create_app(
        _load(checkpoint, adapt=adapt, only=only),
        max_bytes=max_megabytes * MEBIBYTE,
        max_seconds=60 * minutes,
        hosts=server.hosts_of(host),
        about=f"{checkpoint}, {NOTE}" if is_shipped(checkpoint) else "",
    )

    def started(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)

    with suppress(KeyboardInterrupt):  # the way to end it
        server.serve(app, host=host, port=port, public=public, started=started)


@app.command(epilog="Example: cfnsr live model.onnx   or: cfnsr live model.onnx --from talk.mp4")
def live(
    checkpoint: ModelArgument = DEFAULT,
    file: Annotated[Path | None, Option("--from", help="Play this file as if live.")] = None,
    camera: Annotated[
        str | None, Option(help="Its number, or its name, such as /dev/video0; 0 if not given.")
    ] = None,
    microphone: Annotated[
        str | None,
        Option(
            help="Its number or a part of its name, as `python -m sounddevice` lists them; the system's own "
            "if not given."
        ),
    ] = None,
    window: WindowOption = None,
    every: Annotated[float, Option(help="Seconds from one answer to the next.")] = 0.4,
    only: OnlyOption = None,
    adapt: AdaptOption = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recognise live, by webcam and microphone; what cannot be kept up with is dropped."""
    from cfnsr.inference.live import live as listen
    from cfnsr.inference.live_view import watch
    from cfnsr.media.capture import Player
    from cfnsr.media.container import USUAL, Streams
    from cfnsr.media.devices import Devices

    streams = Streams(video_stream, audio_stream)
    for option, device in (("--camera", camera), ("--microphone", microphone)):
        if file is not None and device is not None:
            raise InputError(f"--from {file} with {option} {device}: expected one of the two; leave one out")
    if file is None and streams != USUAL:
        raise InputError("--video-stream and --audio-stream are of a file: expected --from, or neither")
    source: Player | Devices
    if file is not None:
        source = Player(file, streams)
        _say_notes(file, source.scan.notes)
        model = _load(checkpoint, adapt=adapt, only=only)
    else:
        model = _load(checkpoint, adapt=adapt, only=only)
        devices = {"video": camera or "0", "audio": microphone or "default"}
        source = Devices(*(device if role in model.reads else None for role, device in devices.items()))
    watch(
        listen(model, source, window=window, every=every),
        name=source.name,
        emotions=model.labels.emotions,
        form="json" if as_json else None,
    )


def _predict_lines(spread: Spread, line: Callable[[Path], "Line"], files: Sequence[Path], out: Path) -> bool:
    """Predict the files that have no line yet; tell if all of them could be read, also before."""
    from cfnsr.inference.lines import append_lines, failed, open_lines, read_lines

    with open_lines(out) as lines:
        before = read_lines(lines)
        todo = [file for file in dict.fromkeys(files) if str(file) not in before]
        kept = [before[name] for name in dict.fromkeys(map(str, files)) if name in before]
        found = spread(line, todo, failed=lambda file, death: failed(file, str(death)))
        bad = kept.count(False)
        with bar("predict", len(todo)) as step:
            for each in append_lines(lines, (made for _, made in found)):
                bad += "error" in each
                step(advance=1, note=visible(each.get("error") or f"{each['file']}: {each['emotion']}"))
    print(f"{len(todo)} files predicted, {len(kept)} kept, {bad} failed: {out}")
    return not bad


def _check_outputs(outputs: Outputs, files: Sequence[Path]) -> None:
    """Refuse what could not be written in the end, before any work is done."""
    from cfnsr.inference.plot import FORMATS
    from cfnsr.inference.writers import WRITERS
    from cfnsr.media.overlay import SUFFIXES

    suffixes = {"--write": WRITERS, "--plot": FORMATS, "--annotate": SUFFIXES}
    for option, path in outputs:
        if path.suffix.lower() not in suffixes[option]:
            raise InputError(f"{option} {path}: expected a name that ends in {', '.join(suffixes[option])}")
        targets = [_named_after(file, path) for file in files]
        if len(set(targets)) < len(files):
            raise InputError(
                f"{option} {path} for {len(files)} files: expected {{name}} in it, such as "
                f"{{name}}{path.suffix}, and files of different names"
            )
        for file, target in zip(files, targets, strict=True):
            check_file(target)
            if target.resolve() == file.resolve():
                raise InputError(f"{option} {path}: it is the file to predict; give another name")


def _named_after(file: Path, path: Path) -> Path:
    return Path(str(path).replace("{name}", file.stem))


def _write_outputs(outputs: Outputs, prediction: "Prediction", file: Path, streams: "Streams") -> None:
    from cfnsr.inference.annotate import annotate
    from cfnsr.inference.plot import plot
    from cfnsr.inference.writers import write

    for option, path in outputs:
        target = _named_after(file, path)
        if option == "--write":
            write(prediction, target)
        elif option == "--plot":
            plot(prediction, target)
        else:
            with bar("annotate", 1) as step:
                annotate(file, prediction, target, progress=step, streams=streams)
        say(visible(f"written: {target}"))


def _say_notes(file: Path, notes: Sequence[str]) -> None:
    for note in notes:
        say(visible(f"{file}: {note}"))


@contextmanager
def _timeline_bar(file: Path) -> Iterator["Progress"]:
    """Draw a bar over the windows of a long file; a short one needs none."""
    with ExitStack() as stack:
        step: Step | None = None

        def progress(done: int, total: int) -> None:
            nonlocal step
            if total >= FEWEST_OF_A_BAR:
                step = step or stack.enter_context(bar(file.name, total))
                step(completed=done)

        yield progress


def _track(openface: Path | None, file: Path) -> Path | None:
    """Find a file's track where a folder of them is given."""
    if openface is None or openface.is_file():
        return openface
    return openface / f"{file.stem}.csv"


def _model_and_files(given: Sequence[str]) -> tuple[str, list[str]]:
    """Part the name of a model, or the one that is used without, from the files behind it."""
    from cfnsr.sharing.loading import is_model

    return (given[0], list(given[1:])) if is_model(given[0]) else (DEFAULT, list(given))


def _load(checkpoint: str, adapt: Sequence[Path] | None = None, only: str | None = None) -> "Recogniser":
    """Say which model it is, and load it."""
    _say_model(checkpoint)
    return _load_quietly(checkpoint, adapt=adapt, only=only)


def _say_model(checkpoint: str) -> None:
    """Say what is to be known of a model that is not a folder here."""
    from cfnsr.sharing.loading import is_hub_name

    if is_shipped(checkpoint):
        say(f"model {checkpoint}: {NOTE}")
    elif is_hub_name(checkpoint):
        say(f"{checkpoint} is no folder here: looking on the Hugging Face hub")


def _load_quietly(
    checkpoint: str,
    adapt: Sequence[Path] | None = None,
    only: str | None = None,
    speech_encoder: str | None = None,
) -> "Recogniser":
    """Load a model to predict with, and the networks that it needs, and change it as was asked."""
    from cfnsr.inference.recogniser import among, as_recogniser
    from cfnsr.sharing.loading import load

    model = as_recogniser(load(checkpoint))
    model.find_networks(speech_encoder)
    if adapt:
        from cfnsr.inference.adapt import adapt as adapted
        from cfnsr.inference.adapt import windows_of

        model = adapted(model, windows_of(model, adapt))
    return model if only is None else among(model, names(only))
