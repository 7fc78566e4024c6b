"""Verbs of a corpus: synthesize, download, prepare, check-split."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from cfnsr.cli.app import (
    AddressOption,
    AudioStreamOption,
    EngineOption,
    JsonOption,
    Numbers,
    Place,
    VideoStreamOption,
    WorkersOption,
    app,
    engine_ready,
    names,
    parse_numbers,
)
from cfnsr.cluster import map_on_cluster
from cfnsr.console import bar, say
from cfnsr.errors import InputError
from cfnsr.files import check_folder, locked, visible, write_text

if TYPE_CHECKING:
    from cfnsr.corpus.take import Corpus, Take
    from cfnsr.data.store import Store
    from cfnsr.features.preparation import Preparation
    from cfnsr.processes import Spread
    from cfnsr.synthesis.corpus import Part

SHOWN = 10  # lines of a long list that are shown; the whole list is in a file


@app.command(epilog="Example: cfnsr synthesize corpus --actors 24 --seed 0")
def synthesize(
    folder: Annotated[Path, Argument(help="Receives Actor_NN/*.mp4 and landmarks/*.csv.")],
    actors: Annotated[int, Option(help="Number of actors.")] = 24,
    seed: Annotated[int, Option(help="The same seed gives the same files.")] = 0,
    workers: WorkersOption = None,
) -> None:
    """Write a synthetic corpus in RAVDESS's layout: drawn faces that speak."""
    total = write_synthetic(folder, actors=actors, seed=seed, workers=workers)
    print(f"{total} takes in {folder}")


@app.command(epilog="Example: cfnsr download ravdess ravdess --actors 1-4")
def download(
    corpus: Annotated[str, Argument(help="ravdess")],
    folder: Annotated[Path, Argument(help="Receives the unpacked corpus.")],
    actors: Annotated[Numbers | None, Option(help="Actors, such as 1-4,7; all 24 if not given.")] = None,
    what: Annotated[str, Option(help="Among video, audio and landmarks.")] = "video,landmarks",
    keep_archives: Annotated[bool, Option("--keep-archives", help="Keep the zip files.")] = False,
    base_url: Annotated[str, Option(help="A mirror with Zenodo's API.")] = "https://zenodo.org",
) -> None:
    """Fetch RAVDESS from Zenodo: checked, resumable, unpacked. Non-commercial licence."""
    from cfnsr.corpus.download import plan_download

    if corpus != "ravdess":
        raise InputError(f"corpus {corpus!r} cannot be downloaded: expected ravdess")
    chosen = parse_numbers(actors, "actors") if actors is not None else None
    plan = plan_download(
        folder, actors=chosen, what=names(what), base_url=base_url.rstrip("/"), keep_archives=keep_archives
    )
    say(plan.summary())
    with locked(folder), bar("download", 1) as step:
        plan.run(lambda name, done, total: step(done, total, note=name))
    print(f"RAVDESS is in {folder}")


@app.command(epilog="Example: cfnsr prepare ravdess prepared --workers 4")
def prepare(
    corpus: Annotated[Path, Argument(help="A RAVDESS or CREMA-D folder, or a CSV of path,label,speaker.")],
    out: Annotated[Path, Argument(help="Receives the prepared clips; or s3://bucket/folder.", **Place)],
    workers: WorkersOption = None,
    modalities: Annotated[
        str | None,
        Option(
            help="Among video, audio, log_mel (for ERANNs), speech, openface and expression; video,audio (as "
            "far as there) if not given."
        ),
    ] = None,
    frames: Annotated[int, Option(help="Pictures a clip.")] = 30,
    sampling: Annotated[str, Option(help="even, or consecutive from the middle.")] = "even",
    size: Annotated[int, Option(help="Side of the face crop in pixels.")] = 224,
    margin: Annotated[float | None, Option(help="Room around the face, as a part of its height.")] = None,
    speech_encoder: Annotated[
        str | None,
        Option(
            help="For speech: a pretrained Whisper, wav2vec 2.0, HuBERT or WavLM, a folder or a name on the "
            "Hugging Face hub; CFNSR_SPEECH_ENCODER names a folder too."
        ),
    ] = None,
    song: Annotated[bool, Option("--song", help="Take RAVDESS's songs too.")] = False,
    openface: Annotated[
        Path | None,
        Option(
            help="A folder with the OpenFace CSVs; or one CSV of clip means, a row a take (column name): the "
            "takes it lacks are left out."
        ),
    ] = None,
    labels: Annotated[
        str | None, Option(help="The label set of a CSV of takes, in class order, such as calm,tense.")
    ] = None,
    video_stream: VideoStreamOption = None,
    audio_stream: AudioStreamOption = None,
    degraded: Annotated[
        int,
        Option(
            min=0,
            max=9,
            help="Versions of each take with the sound of another microphone, codec or room, which --set "
            "degraded=true trains on too; for modalities of sound alone.",
        ),
    ] = 0,
    lenient: Annotated[
        bool,
        Option(
            "--lenient",
            help="Keep takes that are silent where a model listens, and those with a face in fewer than half "
            "of the pictures.",
        ),
    ] = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
) -> None:
    """Decode every take once and cut out face and sound; does only what is missing or changed."""
    from cfnsr.corpus.scan import scan
    from cfnsr.data.degraded import degraded_takes
    from cfnsr.features.expression import Expression
    from cfnsr.features.expression_net import find_net
    from cfnsr.features.preparation import Preparation

    found = scan(corpus, song=song, openface=openface, labels=names(labels or ""))
    chosen = _modalities_there(found) if modalities is None else names(modalities)
    encoder, sha256 = _speech_encoder(chosen, speech_encoder)
    expression_sha256 = find_net().sha256 if Expression.name in chosen else ""
    preparation = Preparation(
        modalities=chosen,
        frames=frames,
        sampling=sampling,  # type: ignore[arg-type]
        size=size,
        speech_encoder=encoder,
        speech_sha256=sha256,
        expression_sha256=expression_sha256,
        video_stream=video_stream,
        audio_stream=audio_stream,
        lenient=lenient,
    )
    if margin is not None:
        preparation = replace(preparation, margin=margin)
    if degraded:
        if preparation.features != preparation.of_sound:
            raise InputError(
                f"--degraded {degraded} with modalities {', '.join(chosen)}: expected those of sound alone"
            )
        found = replace(found, takes=(*found.takes, *degraded_takes(found.takes, degraded)))
    spread = map_on_cluster if engine == "ray" else None
    with engine_ready(engine, address, local={"--workers": workers}, ray={}):
        failed = prepare_takes(found, corpus, out, preparation, workers=workers, spread=spread)
    if failed:
        raise typer.Exit(2)


@app.command("check-split", epilog="Example: cfnsr check-split split.csv --media ravdess")
def check_split(
    table: Annotated[
        Path, Argument(help="A CSV with the columns path, split or fold, and optionally actor.")
    ],
    column: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=THEIRS",
            help="What the CSV calls its column path, split, fold or actor, such as path=file; repeatable.",
        ),
    ] = None,
    media: Annotated[
        Path | None, Option(help="Folder of the recordings, if they do not lie as the CSV says.")
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name what a split leaks: shared actors and takes, copies of a recording, a reused validation.

    Copies are found by their bytes and by their sound, re-coded or trimmed; not halves of a take, nor other
    speeds; of several audio tracks the default one is read. Exit code 0 for a clean split, 1 for leaks,
    2 for a table that cannot be read.
    """
    from cfnsr.data.leaks import check_split as check
    from cfnsr.data.split import read_split

    renamed = {}
    for text in column or ():
        ours, _, theirs = text.partition("=")
        if not theirs:
            raise InputError(f"--column {text}: expected name=their_name, such as path=file")
        renamed[ours] = theirs
    split = read_split(table, renamed)
    with bar("compare", len(split.recordings)) as step:
        findings = check(split, media=media, workers=workers, progress=step)
    print(json.dumps(findings.as_json(), indent=2) if as_json else "\n".join(findings.lines()))
    if not findings.clean:
        raise typer.Exit(1)


def prepare_takes(
    corpus: "Corpus",
    source: Path,
    out: Path,
    preparation: "Preparation",
    *,
    workers: int | None = None,
    spread: "Spread | None" = None,
) -> int:
    """Prepare a scanned corpus and account for every file; returns the number of takes that failed."""
    from cfnsr.data.contact_sheet import contact_sheet
    from cfnsr.data.prepare import prepare_corpus
    from cfnsr.data.store import Store
    from cfnsr.synthesis.corpus import RECORD

    check_folder(out)
    for feature in preparation.features:
        if not any(getattr(take, feature.file) for take in corpus.takes):
            raise InputError(
                f"{source} has no take with {feature.name}: leave {feature.name} out of --modalities"
            )
    name = "synthetic" if (source / RECORD).exists() else corpus.name
    with locked(out):
        store = Store.create(out, name, corpus.labels, preparation.as_json(), len(corpus.takes))
        aside = [f"unknown name: {path}" for path in corpus.unknown]
        aside += [f"the same take again: {path}" for path in corpus.duplicates]
        aside += [f"{count} left out: {reason}" for reason, count in corpus.left_out.items()]
        write_text(out / "left_out.txt", "".join(f"{visible(line)}\n" for line in aside))
        for line in corpus.notes():
            say(line)
        with bar("prepare", len(corpus.takes)) as step:

            def progress(take: "Take", state: str) -> None:
                step(advance=1, note="" if state == "made" else f"{take.name} {state}")

            outcome = prepare_corpus(
                corpus.takes, store, preparation, workers=workers, spread=spread, progress=progress
            )
        for failure in outcome.failures[:SHOWN]:
            say(f"failed, {failure.reason}: {visible(failure.message)}")
        if len(outcome.failures) > SHOWN:
            say(f"... and {len(outcome.failures) - SHOWN} more")
        print(
            f"{len(outcome.made)} clips made, {len(outcome.kept)} kept, {len(outcome.failures)} failed "
            f"in {out}" + (f"; the reasons: {out / 'failures.csv'}" if outcome.failures else "")
        )
        _say_notes(store, outcome.made)
        others = store.stamps().keys() - {store.file(take.name) for take in corpus.takes}
        if others:
            say(
                f"{len(others)} clips in {out} are of takes that {source} does not have, such as "
                f"{min(others)}: they stay and will be trained on; delete them to leave them out"
            )
        if "video" in preparation.modalities and outcome.made:
            with store.index() as index:
                there = store.stamps()
                headers = [store.known(index, there, name) for name in sorted(outcome.made + outcome.kept)]
            sheet = contact_sheet(store, [header for header in headers if header], out / "contact_sheet.png")
            print(f"look at the crops: {sheet}")
        return len(outcome.failures)


def _say_notes(store: "Store", made: Sequence[str]) -> None:
    """Print notes on how takes were read, such as which of several streams was taken."""
    takes: dict[str, list[str]] = {}
    for name in sorted(made):
        header = store.header(name)
        read = {} if header is None else header.sources
        for note in dict.fromkeys(note for source in read.values() for note in source.get("notes", ())):
            takes.setdefault(note, []).append(name)
    for note, among in takes.items():
        say(visible(f"{len(among)} {'take' if len(among) == 1 else 'takes'}, such as {among[0]}: {note}"))


def _modalities_there(corpus: "Corpus") -> tuple[str, ...]:
    """Modalities of the takes: pictures and sound, or OpenFace features where there is neither."""
    there = tuple(role for role in ("video", "audio") if any(getattr(take, role) for take in corpus.takes))
    if len(there) == 1:
        say(f"the corpus has {there[0]} alone: preparing that")
    return there or ("openface",)


def _speech_encoder(modalities: Sequence[str], given: str | None) -> tuple[str, str]:
    """Name and SHA-256 of the speech encoder of a preparation; empty where none is needed."""
    from cfnsr.features.base import FEATURES
    from cfnsr.features.speech_encoder import choose_encoder

    if any(name in FEATURES and FEATURES[name].pretrained for name in modalities):
        encoder = choose_encoder(given)
        return encoder.name, encoder.sha256
    if given is not None:
        raise InputError(
            f"--speech-encoder {given} with modalities {', '.join(modalities)}: expected speech among them; "
            "give --modalities with speech"
        )
    return "", ""


def write_synthetic(folder: Path, *, actors: int, seed: int, workers: int | None) -> int:
    """Write a synthetic corpus; return the number of takes."""
    from cfnsr.synthesis.corpus import plan
    from cfnsr.synthesis.corpus import synthesize as write

    total = len(plan(actors=actors))
    with bar("synthesize", total) as step:

        def progress(part: "Part") -> None:
            step(advance=1, note=part.name)

        with locked(folder):
            write(folder, actors=actors, seed=seed, workers=workers, progress=progress)
    return total
