"""The long steps as a person runs them: the work, its progress bar and the account at its end."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr.console import Step as BarStep
from cfnsr.console import bar, say, speaks
from cfnsr.errors import InputError, require
from cfnsr.files import escaped, visible, write_atomically, write_text

if TYPE_CHECKING:
    import numpy as np

    from cfnsr.corpus.take import Actor, Corpus, Take
    from cfnsr.data.clip import Preparation
    from cfnsr.data.store import Store
    from cfnsr.evaluation.page import Examples
    from cfnsr.evaluation.summary import Row
    from cfnsr.inference.prediction import Prediction
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.media.container import Streams
    from cfnsr.synthesis.corpus import Part
    from cfnsr.training.config import Recipe
    from cfnsr.training.loop import Step
    from cfnsr.training.prepared import PreparedCorpus
    from cfnsr.training.record import Job
    from cfnsr.training.weights import Match

EXPORTED = (".onnx", ".xml")
FEWEST_OF_A_BAR = 10  # windows
# Clips that an export is checked on, calibrated by, and measured on.
CHECKED, CALIBRATION, MEASURED = 6, 48, 200
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
        say(f"failed, {failure.reason}: {visible(failure.message)}")
    if len(outcome.failures) > SHOWN:
        say(f"... and {len(outcome.failures) - SHOWN} more")
    print(
        f"{len(outcome.made)} clips made, {len(outcome.kept)} kept, {len(outcome.failures)} failed in {out}"
        + (f"; the reasons: {out / 'failures.csv'}" if outcome.failures else "")
    )
    _tell_notes(store, outcome.made)
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


def _tell_notes(store: "Store", made: Sequence[str]) -> None:
    """Say what people should know of how takes were read, such as which of several streams was taken."""
    takes: dict[str, list[str]] = {}
    for name in sorted(made):
        header = store.header(name)
        read = {} if header is None else header.sources
        for note in dict.fromkeys(note for source in read.values() for note in source.get("notes", ())):
            takes.setdefault(note, []).append(name)
    for note, names in takes.items():
        say(f"{len(names)} {'take' if len(names) == 1 else 'takes'}, such as {names[0]}: {note}")


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


def check_file(out: Path) -> None:
    """Refuse, before any work, a place where no file can be written."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: expected the name of a file to write")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{out} cannot be written, for {above} is a file: give another name")
    if not os.access(above, os.W_OK):
        raise InputError(f"{out} cannot be written, for {above} is closed to you: give another folder")


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


def hear_by(model: "Recogniser", given: str | None) -> None:
    """Find the speech encoder that a model was trained with, before any file needs it.

    Args:
        model: loaded; one that does not hear by a speech encoder needs none.
        given: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names, or the hub's.
    """
    from cfnsr.data.speech import choose_encoder, find_encoder

    if "speech" in model.reads.values():
        if given is not None:
            choose_encoder(given)
        find_encoder(model.preparation.speech_encoder, model.preparation.speech_sha256)
    elif given is not None:
        raise InputError(f"--speech-encoder {given}: model {model.name} does not hear by one; leave it out")


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
    _say_unheard(corpus)
    _say_weights(training.match_weights(jobs, corpus))
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
    _say_unheard(corpus)
    _say_weights(training.match_weights(jobs, corpus))
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


def _say_unheard(corpus: "PreparedCorpus") -> None:
    if warning := corpus.unheard():
        say(f"note: {warning}")


def _say_weights(found: "Match | None") -> None:
    for line in found.lines() if found is not None else ():
        say(f"video weights: {line}")


def report(
    runs: Path,
    *,
    explain: Path | None = None,
    compare: Sequence[tuple[str, str]] = (),
    margin: float | None = None,
) -> None:
    """Write report.html, tables.md and results.json of some runs, and print the rows' accuracies.

    Args:
        runs: their folder.
        explain: the prepared folder that the runs were given: two test clips of each row are explained.
        compare: pairs of models whose difference is tested, and printed too.
        margin: of equivalence, as a fraction of accuracy; the report's own if not given.
    """
    from cfnsr.evaluation.comparison import MARGIN
    from cfnsr.evaluation.metrics import TOO_FEW
    from cfnsr.evaluation.report import report as write
    from cfnsr.evaluation.tables import limits, mean_and_deviation, versus

    if not speaks():
        return
    written = write(
        runs,
        compare=compare,
        margin=MARGIN if margin is None else margin,
        explained=lambda rows: {} if explain is None else _explained(rows, explain),
    )
    for row in written.rows:
        spread = row.spreads["accuracy"]
        interval = f"95 % interval {limits(spread)}" if spread.ci95 else f"no interval ({TOO_FEW})"
        print(
            f"{row.model}: accuracy {mean_and_deviation(spread)} %, {interval}, "
            f"{row.protocol_label}, {row.progress}"
        )
    for each in written.compared:
        said = f"not compared: {each.found}" if isinstance(each.found, str) else versus(each.found)
        print(f"{each.a} less {each.b}, {each.protocol_label}: {said}")
    print(f"report: {written.html}")


def _explained(rows: "Sequence[Row]", prepared: Path) -> "Examples":
    """Two test clips of the first run of each row."""
    from cfnsr.data.store import Store
    from cfnsr.inference.examples import examples

    store = Store(prepared)
    made = {}
    with bar("explain", len(rows)) as step:
        for done, row in enumerate(rows):
            step(completed=done, note=row.model)
            made[row.model, row.protocol] = examples(row.runs[0], store)
        step(completed=len(rows))
    return made


@dataclass(frozen=True)
class Outputs:
    """What is written of each prediction; `{name}` in a path stands for the file's name without its suffix.

    Args:
        written: tables and subtitles, whose suffix says which: .csv, .json, .txt, .srt or .vtt.
        plots: pictures of the timeline, .png, .svg or .pdf.
        annotated: videos with box, label and bars, .mp4, .mov or .mkv.
    """

    written: tuple[Path, ...] = ()
    plots: tuple[Path, ...] = ()
    annotated: tuple[Path, ...] = ()

    def check(self, files: Sequence[Path]) -> None:
        """Refuse what could not be written in the end, before any work is done.

        Raises:
            InputError: an unknown suffix, one path for several files, or a place where none can be written.
        """
        from cfnsr.inference.plot import FORMATS
        from cfnsr.inference.writers import WRITERS
        from cfnsr.media.redraw import SUFFIXES

        known = (
            ("--write", self.written, WRITERS),
            ("--plot", self.plots, FORMATS),
            ("--annotate", self.annotated, SUFFIXES),
        )
        for option, paths, suffixes in known:
            for path in paths:
                if path.suffix.lower() not in suffixes:
                    raise InputError(f"{option} {path}: expected a name that ends in {', '.join(suffixes)}")
                if len({self.of(path, file) for file in files}) < len(files):
                    raise InputError(
                        f"{option} {path} for {len(files)} files: expected {{name}} in it, such as "
                        f"{{name}}{path.suffix}, and files of different names"
                    )
                for file in files:
                    check_file(self.of(path, file))
                    if self.of(path, file).resolve() == file.resolve():
                        raise InputError(f"{option} {path}: it is the file to predict; give another name")

    @staticmethod
    def of(path: Path, file: Path) -> Path:
        """A path with the file's name in the place of `{name}`."""
        return Path(str(path).replace("{name}", file.stem))

    def write(self, prediction: "Prediction", file: Path, streams: "Streams") -> None:
        """Write all of it for one file, of which some streams were predicted from."""
        from cfnsr.inference.annotate import annotate
        from cfnsr.inference.plot import plot
        from cfnsr.inference.writers import write

        for path in self.written:
            say(f"written: {write(prediction, self.of(path, file))}")
        for path in self.plots:
            say(f"written: {plot(prediction, self.of(path, file))}")
        for path in self.annotated:
            with bar("annotate", 1) as step:
                written = annotate(
                    file,
                    prediction,
                    self.of(path, file),
                    progress=lambda done, total: step(completed=done, total=total),
                    streams=streams,
                )
            say(f"written: {written}")


def recogniser(checkpoint: str, speech_encoder: str | None) -> "Recogniser":
    """A model to predict with: a checkpoint's folder, an exported file, or a name on the Hugging Face hub."""
    from cfnsr.inference.predict import as_recogniser
    from cfnsr.sharing import hub

    path = Path(checkpoint)
    if path.suffix.lower() in EXPORTED:
        from cfnsr.inference.exported import load_exported

        found: Recogniser = load_exported(path)
    elif not path.exists() and hub.NAME.fullmatch(checkpoint):
        from cfnsr.sharing.pretrained import from_pretrained

        say(f"{checkpoint} is no folder here: looking on the Hugging Face hub")
        found = as_recogniser(from_pretrained(checkpoint))
    else:
        from cfnsr.training.checkpoint import load_model

        found = as_recogniser(load_model(path))
    hear_by(found, speech_encoder)
    return found


def predict(
    checkpoint: str,
    files: Sequence[Path],
    *,
    openface: Path | None,
    speech_encoder: str | None,
    window: float | None,
    hop: float,
    all_faces: bool,
    streams: "Streams",
    outputs: Outputs,
    as_json: bool,
) -> bool:
    """Predict every file, write what is asked for and print it; whether all went well."""
    from cfnsr.inference.predict import predict as recognise
    from cfnsr.inference.writers import to_table

    outputs.check(files)
    model = recogniser(checkpoint, speech_encoder)
    told, well = [], True
    for file in files:
        points = openface
        if openface is not None and not openface.is_file():
            points = openface / f"{file.stem}.csv"
        try:
            with TimelineBar(file) as progress:
                prediction = recognise(
                    model,
                    file,
                    openface=points,
                    window=window,
                    hop=hop,
                    all_faces=all_faces,
                    streams=streams,
                    progress=progress,
                )
            tell_notes(file, prediction.notes)
            told.append(prediction.as_json())  # before it is written, which may fail
            if not as_json:
                print(to_table(prediction), flush=True)
            outputs.write(prediction, file, streams)
        except BrokenPipeError:  # nobody reads any more
            raise
        except (InputError, OSError) as error:
            say(f"cfnsr: {visible(str(error))}")
            well = False
    if as_json:
        print(json.dumps(told, indent=2))
    return well


def tell_notes(file: Path, notes: Sequence[str]) -> None:
    """Say what people should know of how a file was read."""
    for note in notes:
        say(visible(f"{file}: {note}"))


class TimelineBar:
    """A bar over the windows of a long file; a short one needs none."""

    def __init__(self, file: Path) -> None:
        self._file, self._bar = file, ExitStack()
        self._step: BarStep | None = None

    def __enter__(self) -> "TimelineBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        if total < FEWEST_OF_A_BAR:
            return
        if self._step is None:
            self._step = self._bar.enter_context(bar(self._file.name, total))
        self._step(completed=done)


def explain(
    checkpoint: str,
    file: Path,
    out: Path,
    *,
    at: float | None,
    window: float | None,
    openface: Path | None,
    streams: "Streams",
) -> None:
    """Draw why a model answers one window of a file as it does.

    Args:
        checkpoint: folder or hub name; an exported file cannot be looked into.
        file: video or sound.
        out: the picture, .png.
        at: second of the file; None takes its middle.
        window, openface, streams: see `predict`.

    Raises:
        InputError: see `explain_second`; or a picture that cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} has another ending: expected .png")
    check_file(out)
    if Path(checkpoint).suffix.lower() in EXPORTED:
        raise InputError(f"{checkpoint} is exported, and cannot be looked into: give its checkpoint's folder")
    from cfnsr.inference.explained import explain_second
    from cfnsr.inference.recogniser import TorchRecogniser
    from cfnsr.media.container import scan_packets

    tell_notes(file, scan_packets(file, streams).notes)  # and refuse it before a model is loaded for it
    model = recogniser(checkpoint, None)
    assert isinstance(model, TorchRecogniser)  # noqa: S101 - it is not exported
    explained = explain_second(model, file, at, window=window, openface=openface, streams=streams)
    start, end = explained.span
    picture = explained.as_png(f"{escaped(file.name)}, {start:.1f} to {end:.1f} s")
    write_atomically(out, lambda temporary: temporary.write_bytes(picture))
    print(f"written: {out}")


def export(checkpoint: Path, out: Path, *, precision: str, data: Path | None) -> None:
    """Write a checkpoint as an ONNX or OpenVINO file, check it against PyTorch and say what it costs.

    Args:
        checkpoint: folder of a run, or of a model alone.
        out: .onnx, or .xml for OpenVINO.
        precision: "f32", "bf16" or "int8"; the latter two are OpenVINO's.
        data: prepared clips: those of the run's training actors calibrate int8, those of its tested actors
            tell what it costs; the file is checked on them.
    """
    from cfnsr.export.onnx import export_onnx
    from cfnsr.export.openvino import export_int8, export_openvino
    from cfnsr.inference.exported import RUNTIMES
    from cfnsr.inference.manifest import PRECISIONS

    suffix = out.suffix.lower()
    if suffix not in RUNTIMES:
        raise InputError(f"{out} has another ending: expected {' or '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision} is not known: expected one of {', '.join(PRECISIONS)}")
    if suffix == ".onnx" and precision != "f32":
        raise InputError(f"--precision {precision} for {out.name}: expected an .xml file, or f32")
    check_file(out)
    if precision == "int8" and data is None:
        raise InputError("int8 is calibrated on training clips: expected --data with a prepared corpus")
    clips = _Clips(checkpoint, data)
    if precision == "int8":
        done = export_int8(checkpoint, out, clips.training(CALIBRATION), clips.tested(MEASURED))
        told = "on them "
        if done.float_accuracy is not None and done.accuracy is not None:
            cost = 100 * (done.accuracy - done.float_accuracy)
            told = (
                f"on {done.clips} others accuracy {100 * done.accuracy:.1f} %, in float32 "
                f"{100 * done.float_accuracy:.1f} % ({cost:+.1f}), "
            )
        print(
            f"{out}: {done.bytes / 1e6:.1f} MB, int8 by {done.calibrated} training clips; {told}"
            f"the same answer on {100 * done.agreement:.1f} %"
        )
        return
    if suffix == ".onnx":
        checked = export_onnx(checkpoint, out, clips.training(CHECKED))
    else:
        checked = export_openvino(checkpoint, out, clips.training(CHECKED), precision=precision)
    kind = "prepared" if checked.real else "made-up"
    print(
        f"{out}: {checked.bytes / 1e6:.1f} MB; on {checked.clips} {kind} clips no log-probability is further "
        f"than {checked.difference:.1e} from PyTorch"
    )


class _Clips:
    """Prepared clips for an export; none without a corpus."""

    def __init__(self, checkpoint: Path, data: Path | None) -> None:
        from cfnsr.data.store import Store
        from cfnsr.evaluation.runs import ABOUT, read_run
        from cfnsr.training.checkpoint import Config

        self._store = None if data is None else Store(data)
        self._labels = Config.read(checkpoint).labels
        self._run = read_run(checkpoint) if (checkpoint / ABOUT).exists() else None

    def training(self, most: int) -> "list[Mapping[str, np.ndarray]]":
        """Some clips of the actors that the run was trained on; of all actors where there is no run."""
        actors = None if self._run is None else set(self._run.train_actors)
        return [clip for clip, _ in self._some(actors, most)]

    def tested(self, most: int) -> "list[tuple[Mapping[str, np.ndarray], int]]":
        """Some clips of the actors that it was tested on, with their class; none where there is no run."""
        return [] if self._run is None else self._some(set(self._run.test_actors), most)

    def _some(self, actors: "set[Actor] | None", most: int) -> "list[tuple[Mapping[str, np.ndarray], int]]":
        from cfnsr.media.decode import spread

        if self._store is None:
            return []
        headers = [each for each in self._store.headers() if actors is None or each.actor in actors]
        chosen = sorted(set(spread(len(headers), min(most, len(headers))).tolist())) if headers else []
        return [
            (self._store.load(headers[place].name), self._labels.index(headers[place].emotion))
            for place in chosen
        ]


def serve(checkpoint: str, *, host: str, port: int, public: bool, max_megabytes: int, minutes: float) -> None:
    """Serve the page and the REST API of a model until Ctrl-C."""
    require("serve", "fastapi", "uvicorn", "python_multipart")
    if max_megabytes < 1:
        raise InputError(f"--max-megabytes is {max_megabytes}: expected 1 or more")
    if not 1 <= 60 * minutes < math.inf:
        raise InputError(f"--minutes is {minutes:g}: expected a second or more, such as 10")
    from cfnsr.serve.app import create_app
    from cfnsr.serve.limits import MEBIBYTE
    from cfnsr.serve.server import hosts_of
    from cfnsr.serve.server import serve as run

    app = create_app(
        recogniser(checkpoint, None),
        max_bytes=max_megabytes * MEBIBYTE,
        max_seconds=60 * minutes,
        hosts=hosts_of(host),
    )
    with suppress(KeyboardInterrupt):  # the way to end it
        run(
            app,
            host=host,
            port=port,
            public=public,
            started=lambda address: print(f"{address}  (Ctrl-C ends it)", flush=True),
        )


def live(
    checkpoint: str,
    *,
    file: Path | None,
    streams: "Streams",
    camera: str | None,
    microphone: str | None,
    window: float | None,
    every: float,
    as_json: bool,
) -> None:
    """Recognise live, from a camera and a microphone or from a file played as if live."""
    from cfnsr.inference.live import live as listen
    from cfnsr.inference.live_view import watch
    from cfnsr.media.capture import Player
    from cfnsr.media.container import USUAL
    from cfnsr.media.devices import Devices

    for option, device in (("--camera", camera), ("--microphone", microphone)):
        if file is not None and device is not None:
            raise InputError(f"--from {file} with {option} {device}: expected one of the two; leave one out")
    source: Player | Devices | None = None
    if file is None:
        if streams != USUAL:
            raise InputError("--video-stream and --audio-stream are of a file: expected --from, or neither")
    else:
        source = Player(file, streams)
        tell_notes(file, source.scan.notes)
    model = recogniser(checkpoint, None)
    if source is None:
        source = Devices(
            (camera or "0") if "video" in model.reads else None,
            (microphone or "default") if "audio" in model.reads else None,
        )
    watch(
        listen(model, source, window=window, every=every),
        name=source.name,
        emotions=model.labels.emotions,
        form="json" if as_json else None,
    )
