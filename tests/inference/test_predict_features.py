"""Prediction by a model of features: an OpenFace track or clip means, and a pretrained speech encoder."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.corpus.scan import scan
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Store
from cfnsr.emotions import CREMAD
from cfnsr.features import speech_encoder as speech
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.features.speech_encoder import SpeechEncoder
from cfnsr.media.encode import write_video
from cfnsr.media.openface import ACTION_UNITS, POSE
from cfnsr.models.encoders.openface import TemporalConvolution
from cfnsr.models.entries import Model
from cfnsr.training.checkpoint import save_weights

NAME = "01-01-06-01-02-01-05"  # of a file with pictures and sound
SOUND = "03-01-06-01-02-01-05"  # what the sound of the same performance is called
LAYERS, WIDTH = 3, 16
TRACK_STEPS, SPEECH_STEPS = 5, 6
TEMPERATURE = 1.7

# stdout, stderr and the exit code of a command.
Done = tuple[str, list[str], int]
Run = Callable[..., Done]
Write = Callable[..., Path]


def write_table(path: Path, columns: dict[str, list[str]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [columns, *zip(*columns.values(), strict=True)]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


def units(rows: int, seed: int) -> dict[str, list[str]]:
    values = np.random.default_rng(seed).uniform(0, 1, (len(ACTION_UNITS), rows))
    return {name: [f"{value:.2f}" for value in row] for name, row in zip(ACTION_UNITS, values, strict=True)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, write_whisper: Write) -> Path:
    """A recording, its OpenFace track and a table of clip means that tells of its sound's name."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    times = np.arange(round(1.3 * 48_000)) / 48_000
    sound = 0.2 * np.sin(2 * np.pi * (200 + 150 * times) * times) + 0.02 * rng.standard_normal(len(times))
    pictures = rng.integers(0, 255, (39, 64, 64, 3), dtype=np.uint8)  # of no face: nobody is to look for one
    write_video(folder / "corpus" / f"{NAME}.mp4", pictures, 30, sound.astype(np.float32), 48_000)

    count = [str(row) for row in range(39)]
    lost = ["0" if 10 <= row < 14 else "1" for row in range(39)]
    frames = {"frame": [str(row + 1) for row in range(39)], "timestamp": count, "confidence": ["0.9"] * 39}
    track = {**frames, "success": lost, **dict.fromkeys(POSE, count), **units(39, seed=1)}
    write_table(folder / "tracks" / f"{NAME}.csv", track)
    others = ["03-01-01-01-01-01-01", SOUND]
    write_table(folder / "means.csv", {"name": others, **units(2, seed=2)})
    write_whisper(folder / "tiny-whisper")
    return folder


@pytest.fixture(scope="module")
def config(home: Path) -> ModelSpec:
    encoder = SpeechEncoder(home / "tiny-whisper")
    preparation = Preparation(
        modalities=("openface", "speech"), speech_encoder=encoder.name, speech_sha256=encoder.sha256
    )
    sizes = {"openface_features": len(ACTION_UNITS), "speech_layers": LAYERS, "speech_width": WIDTH}
    return ModelSpec(
        "cfn_sr_features",
        {"classes": len(CREMAD), "mfcc_steps": preparation.mfcc_steps, "width": 1.0, **sizes},
        CREMAD,
        openface_steps=TRACK_STEPS,
        speech_steps=SPEECH_STEPS,
        preparation=preparation,
        temperature=TEMPERATURE,
    )


def write_checkpoint(folder: Path, config: ModelSpec) -> Path:
    """A checkpoint as training writes it, of a model that has met clips, but learnt nothing of them."""
    torch.manual_seed(0)
    model = cfnsr.create_model(config.model, **config.settings)
    for module in model.modules():
        if isinstance(module, TemporalConvolution):
            nn.init.normal_(module.weight)  # time is to matter
    features = config.settings["openface_features"]
    with torch.no_grad():
        for _ in range(30):  # so that each part of the model answers at the scale it has after training
            model(3 * torch.rand(16, features, TRACK_STEPS), torch.randn(16, LAYERS, SPEECH_STEPS, WIDTH))
    config.write(folder)
    save_weights(model, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(home: Path, config: ModelSpec) -> Path:
    return write_checkpoint(home / "checkpoint", config)


@pytest.fixture(autouse=True)
def named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speech encoder's folder, as a user names it."""
    monkeypatch.setenv(speech.VARIABLE, str(home / "tiny-whisper"))


@pytest.fixture
def run(cfnsr: Callable[..., CompletedProcess[str]]) -> Run:
    def run(*arguments: object) -> Done:
        done = cfnsr(*arguments)
        return done.stdout, done.stderr.splitlines(), done.returncode

    return run


def parts(values: Tensor, steps: int) -> Tensor:
    """A sequence (T, F) as the means of equal parts, one by one; parts share a row that lies in both."""
    ends = [part * len(values) / steps for part in range(steps + 1)]
    return torch.stack([values[int(first) : -int(-last // 1)].mean(dim=0) for first, last in pairwise(ends)])


def expected(model: Model, prepared: dict[str, np.ndarray]) -> list[float]:
    """What the model makes of a prepared clip: the mean over the three speeds, tempered."""
    features = torch.from_numpy(prepared["openface"][:, : len(ACTION_UNITS)])
    track = parts(features, TRACK_STEPS).T[None]
    answers = []
    for name in ("speech", "speech_0.9", "speech_1.1"):
        layers = [parts(torch.from_numpy(layer).float(), SPEECH_STEPS) for layer in prepared[name]]
        with torch.no_grad():
            answers.append(model(track, torch.stack(layers)[None])[0])
    tempered = [value / TEMPERATURE for value in (sum(answers) / 3).tolist()]
    total = sum(np.exp(tempered))
    return [float(np.exp(value) / total) for value in tempered]


def prepare(home: Path, openface: Path, out: Path, config: ModelSpec) -> dict[str, np.ndarray]:
    """The clip that `cfnsr prepare` makes of the recording."""
    found = scan(home / "corpus", openface=openface)
    store = Store.create(out, found.name, found.labels, config.preparation.as_json())
    outcome = prepare_corpus(found.takes, store, config.preparation, workers=0)
    assert outcome.made == [NAME] and not outcome.failures
    return store.load(NAME, ["openface", "speech", "speech_0.9", "speech_1.1"])


def options(home: Path) -> dict[str, Path]:
    """What `--openface` takes: a table of clip means, or a folder of tracks."""
    return {"table": home / "means.csv", "folder": home / "tracks"}


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_prediction_reads_what_training_did(
    home: Path, config: ModelSpec, checkpoint: Path, tmp_path: Path, run: Run, kind: str
) -> None:
    """The clip that `prepare` makes of the same file, by hand; from Python and from the command line."""
    given = options(home)[kind]
    prepared = prepare(home, given, tmp_path / "out", config)
    assert prepared["openface"].shape == ((1, 35) if kind == "table" else (35, 41)), (
        "39 rows, 4 without a face"
    )
    model = cfnsr.load_model(checkpoint)
    recording = home / "corpus" / f"{NAME}.mp4"
    csv = given if kind == "table" else given / f"{NAME}.csv"
    result = cfnsr.predict(model, recording, openface=csv)
    probabilities = expected(model, prepared)
    assert max(probabilities) < 0.999, "a sure answer proves nothing"
    assert result.probabilities == pytest.approx(
        dict(zip(CREMAD.emotions, probabilities, strict=True)), abs=1e-5
    )
    assert list(result.probabilities) == list(CREMAD.emotions)
    assert result.emotion == CREMAD.emotions[int(np.argmax(probabilities))]
    (window,) = result.timeline
    assert (window.face, window.speech) == (True, True), "OpenFace saw a face in more than half of the rows"
    assert window.uses == ("video", "audio")
    assert window.start == 0 and window.end == pytest.approx(1.3, abs=0.05)

    out, err, code = run("predict", checkpoint, recording, "--openface", given, "--json")
    assert (err, code) == ([], 0)
    assert json.loads(out) == [json.loads(json.dumps(result.as_json()))]
    out, err, code = run("predict", checkpoint, recording, "--openface", given)
    assert (err, code) == ([], 0) and result.emotion in out


def test_each_modality_changes_the_answer(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Other action units, and another sound, give another answer."""
    model = cfnsr.load_model(checkpoint)
    recording, csv = home / "corpus" / f"{NAME}.mp4", home / "means.csv"
    first = cfnsr.predict(model, recording, openface=csv).probabilities
    other = write_table(tmp_path / "other.csv", {"name": [NAME], **units(1, seed=3)})
    seen = cfnsr.predict(model, recording, openface=other).probabilities
    black, noise = np.zeros((39, 64, 64, 3), np.uint8), np.random.default_rng(5).uniform(-0.3, 0.3, 62_400)
    noisy = write_video(tmp_path / f"{NAME}.mp4", black, 30, noise.astype(np.float32))
    heard = cfnsr.predict(model, noisy, openface=csv).probabilities
    for probabilities in (seen, heard):
        assert max(abs(probabilities[emotion] - first[emotion]) for emotion in first) > 1e-3


def test_it_abstains_from_silence_and_from_a_track_without_a_face(
    home: Path, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    """A speech encoder's silence was never met in training, nor was a track of nobody."""
    model = cfnsr.load_model(checkpoint)
    recording, csv = home / "corpus" / f"{NAME}.mp4", home / "means.csv"
    black, silence = np.zeros((39, 64, 64, 3), np.uint8), np.zeros(62_400, np.float32)
    quiet = write_video(tmp_path / f"{NAME}.mp4", black, 30, silence)
    result = cfnsr.predict(model, quiet, openface=csv)
    (window,) = result.timeline
    assert (window.face, window.speech, window.uses) == (True, False, ())
    assert result.emotion is None and result.probabilities is None

    lines = (home / "tracks" / f"{NAME}.csv").read_text().splitlines()
    success = lines[0].split(",").index("success")
    cells = [line.split(",") for line in lines]
    for row in cells[1:-15]:
        row[success] = "0"
    faceless = tmp_path / "faceless.csv"
    faceless.write_text("\n".join(map(",".join, cells)) + "\n")
    (window,) = cfnsr.predict(model, recording, openface=faceless).timeline
    assert (window.face, window.speech, window.emotion) == (False, True, None), "seen in 15 of 39 rows"
    out, err, code = run("predict", checkpoint, quiet, "--openface", csv, "--json")
    assert (err, code) == ([], 0) and json.loads(out)[0]["emotion"] is None


def refused(done: Done, *words: str) -> None:
    """Nothing on stdout, one line on stderr that holds the words, exit code 2."""
    out, err, code = done
    assert (out, code) == ("", 2), done
    assert len(err) == 1 and err[0].startswith("cfnsr: "), err
    for word in words:
        assert word in err[0], err[0]


def test_without_action_units_one_line_says_so(
    home: Path, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    predict = ("predict", checkpoint, home / "corpus" / f"{NAME}.mp4")
    refused(run(*predict), "cfn_sr_features sees OpenFace tracks", f"--openface with the CSV of {NAME}.mp4")
    refused(run(*predict, "--openface", tmp_path), f"{NAME}.csv does not exist")


def test_other_features_than_were_trained_on(home: Path, config: ModelSpec, tmp_path: Path, run: Run) -> None:
    """A model that saw the head's pose too has no answer to action units alone; one of tracks does."""
    wide = write_checkpoint(tmp_path, replace(config, settings={**config.settings, "openface_features": 41}))
    predict = ("predict", wide, home / "corpus" / f"{NAME}.mp4", "--openface")
    narrow = f"35, {TRACK_STEPS}): expected tracks of shape (B, 41, steps)"
    refused(run(*predict, home / "means.csv"), narrow)
    assert run(*predict, home / "tracks")[1:] == ([], 0)


def test_the_speech_encoder_has_to_be_the_one_of_training(
    home: Path,
    config: ModelSpec,
    checkpoint: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    write_whisper: Write,
) -> None:
    """Named in the environment, by the option or in Python; one of the same name hears otherwise."""
    recording, means = home / "corpus" / f"{NAME}.mp4", home / "means.csv"
    predict = ("predict", checkpoint, recording, "--openface", means, "--json")
    expected, *_ = run(*predict)
    monkeypatch.delenv(speech.VARIABLE)
    refused(run(*predict), "speech encoder 'tiny-whisper' is no folder here", speech.VARIABLE)
    encoder = home / "tiny-whisper"
    assert run(*predict, "--speech-encoder", encoder) == (expected, [], 0)
    found = cfnsr.predict(cfnsr.load_model(checkpoint), recording, openface=means, speech_encoder=encoder)
    assert [found.as_json()] == json.loads(expected)

    other = write_whisper(tmp_path / "tiny-whisper", seed=1)
    monkeypatch.setenv(speech.VARIABLE, str(other))
    wrong = f"has the SHA-256 {SpeechEncoder(other).sha256}: expected {config.preparation.speech_sha256}"
    refused(run(*predict, "--speech-encoder", other), f"{wrong} (tiny-whisper)")


def test_a_model_of_action_units_alone(home: Path, config: ModelSpec, tmp_path: Path, run: Run) -> None:
    """Its preparation decodes nothing; the file is opened for its length all the same."""
    preparation = Preparation(modalities=("openface",))
    seeing = write_checkpoint(tmp_path, replace(config, model="video+openface", preparation=preparation))
    recording = home / "corpus" / f"{NAME}.mp4"
    out, err, code = run("predict", seeing, recording, "--openface", home / "tracks", "--json")
    assert (err, code) == ([], 0)
    predicted = json.loads(out)[0]
    assert sum(predicted["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert predicted["timeline"][0]["end"] > 0.5
    gone = recording.with_name(f"{NAME}.mkv")
    refused(run("predict", seeing, gone, "--openface", home / "tracks"), str(gone))
    refused(run("predict", seeing, recording, "--speech-encoder", home), "reads no speech")
