"""Training and cross-validation: what a run writes, resumption, leaks, and who may choose the epoch."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import cfnsr
from cfnsr.data import dataset
from cfnsr.data.folds import Fold
from cfnsr.data.store import Header, Store
from cfnsr.errors import InputError
from cfnsr.models import zoo
from cfnsr.models.streams import OneStream
from cfnsr.training import fold
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import config_of
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.fold import train_fold
from cfnsr.training.loop import Step
from cfnsr.training.predictions import Predicted, temperature_of
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job

RECIPE = find_recipe("small").changed(epochs=3, batch_size=8)
TABLES = ("predictions.csv", "conditions.csv")
FILES = ("config.json", "model.safetensors", "run.json", "history.jsonl", *TABLES)
CONDITIONS = [
    "silent_sound",
    "noise_20db",
    "noise_10db",
    "noise_0db",
    "no_picture",
    "blurred_face",
    "dark_face",
]


@pytest.fixture(scope="module")
def corpus(store: Store) -> PreparedCorpus:
    return PreparedCorpus(store)


def run(
    corpus: PreparedCorpus, out: Path, models: tuple[str, ...] = ("cfn_sr",), **options: object
) -> list[Path]:
    grid = {"protocol": "nested", "recipe": RECIPE, "folds": [1]}
    grid |= {key: options.pop(key) for key in list(options) if key in (*grid, "seeds")}
    jobs = plan(models, corpus, **grid)  # type: ignore[arg-type]
    return crossval(jobs, corpus, out, accelerator=Accelerator(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nested(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run(corpus, out)
    return out / "nested"


def test_a_run_says_what_it_is(nested: Path) -> None:
    folder = nested / "cfn_sr" / "seed_0" / "fold_1"
    for file in FILES:
        assert (folder / file).is_file(), file
    assert not (folder / "training").exists(), "a finished run has nothing to resume"
    assert list((folder / "tensorboard").glob("events*"))
    about = json.loads((folder / "run.json").read_text())
    assert about["finished"] and about["selected_on"] == "validation"
    assert about["test_actors"] == [1] and about["validation_actors"] == [3]
    assert about["train_actors"] == [2, 4, 5, 6]
    assert about["caveat"] == "" and about["leaky"] is False
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert not [key for record in history for key in record if key.startswith("test")], (
        "the test is not looked at"
    )
    best = max(history, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))
    assert about["epoch"] == best["epoch"]


def test_predictions_are_those_of_the_saved_model(nested: Path, corpus: PreparedCorpus) -> None:
    from cfnsr.data.augment import normalise

    folder = nested / "cfn_sr" / "seed_0" / "fold_1"
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert {row["split"] for row in rows} == {"validation", "test"}
    assert {row["actor"] for row in rows if row["split"] == "test"} == {"1"}
    model = cfnsr.load_model(folder)
    assert config_of(model).labels == corpus.store.labels
    clips = corpus.clips(model.reads, config_of(model).look)
    place = {header.name: index for index, header in enumerate(corpus.headers)}
    for row in rows[::5]:
        clip = clips[place[row["clip"]]]
        with torch.no_grad():
            scores = model(normalise(clip.video[None]), clip.audio[None])[0]
        told = torch.tensor([float(row[emotion]) for emotion in corpus.store.labels.emotions])
        torch.testing.assert_close(scores, told, atol=1e-4, rtol=1e-4)


def test_encoders_are_rows_of_their_own_and_shared(nested: Path) -> None:
    assert sorted(path.name for path in nested.iterdir()) == ["audio", "cfn_sr", "video"]


def test_fused_model_starts_from_its_encoders(
    nested: Path, corpus: PreparedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no step taken, the encoders in the fused model are those of the one-stream runs."""
    seen = {}

    class Watched(fold.Trainer):
        def __init__(self, model: torch.nn.Module, *args: object, **options: object) -> None:
            seen.update({name: value.clone() for name, value in model.state_dict().items()})
            raise KeyboardInterrupt

    monkeypatch.setattr(fold, "Trainer", Watched)
    job = plan(["cfn_sr"], corpus, protocol="nested", recipe=RECIPE, folds=[1])[-1]
    start_from = {name: nested / name / "seed_0" / "fold_1" for name in ("video", "audio")}
    with pytest.raises(KeyboardInterrupt):
        train_fold(job, corpus, nested / "nowhere", accelerator=Accelerator(), start_from=start_from)
    for name, folder in start_from.items():
        encoder = cfnsr.load_model(folder).encoder
        for key, value in encoder.state_dict().items():
            assert torch.equal(seen[f"{name}.{key}"], value), key


def test_test_actors_choose_nothing(nested: Path, tmp_path: Path, fill: Callable[..., Store]) -> None:
    """With the test actor's clips turned into others, the same weights come out of the same epoch."""
    other = PreparedCorpus(fill(tmp_path / "store", scrambled=(1,)))
    run(other, tmp_path / "runs")
    for name in ("video", "audio", "cfn_sr"):
        part = Path("nested", name, "seed_0", "fold_1")
        for file in ("model.safetensors", "history.jsonl", "config.json"):
            ours, theirs = tmp_path / "runs" / part / file, nested.parent / part / file
            assert ours.read_bytes() == theirs.read_bytes()
        predictions = (tmp_path / "runs" / part / "predictions.csv").read_bytes()
        assert predictions != (nested.parent / part / "predictions.csv").read_bytes()


def test_bad_input_is_tried_on_the_test_clips(nested: Path) -> None:
    """Every condition that leaves a model something to go by, on every test clip; what it damages matters."""
    for name, conditions in (
        ("cfn_sr", CONDITIONS),
        ("video", ["blurred_face", "dark_face"]),
        ("audio", ["noise_20db", "noise_10db", "noise_0db"]),
    ):
        folder = nested / name / "seed_0" / "fold_1"
        rows = list(csv.DictReader((folder / "conditions.csv").open()))
        assert list(dict.fromkeys(row["condition"] for row in rows)) == conditions
        clean = {
            row["clip"]: row
            for row in csv.DictReader((folder / "predictions.csv").open())
            if row["split"] == "test"
        }
        for condition in conditions:
            met = [row for row in rows if row["condition"] == condition]
            assert [row["clip"] for row in met] == list(clean)
            assert any(row["happy"] != clean[row["clip"]]["happy"] for row in met), condition


def test_spoiled_predictions_are_those_of_spoiled_clips(nested: Path, corpus: PreparedCorpus) -> None:
    folder = nested / "cfn_sr" / "seed_0" / "fold_1"
    model = cfnsr.load_model(folder)
    row = next(
        row for row in csv.DictReader((folder / "conditions.csv").open()) if row["condition"] == "no_picture"
    )
    place = next(index for index, header in enumerate(corpus.headers) if header.name == row["clip"])
    clip = corpus.clips(model.reads, config_of(model).look)[place]
    with torch.no_grad():
        scores = model(torch.zeros(1, *clip.video.shape), clip.audio[None])[0]
    told = torch.tensor([float(row[emotion]) for emotion in corpus.store.labels.emotions])
    torch.testing.assert_close(scores, told, atol=1e-4, rtol=1e-4)


def test_temperature_is_that_of_the_inner_validation(nested: Path, corpus: PreparedCorpus) -> None:
    folder = nested / "cfn_sr" / "seed_0" / "fold_1"
    rows = [r for r in csv.DictReader((folder / "predictions.csv").open()) if r["split"] == "validation"]
    emotions = corpus.store.labels.emotions
    logs = torch.tensor([[float(row[emotion]) for emotion in emotions] for row in rows])
    labels = torch.tensor([emotions.index(row["label"]) for row in rows])
    told = json.loads((folder / "run.json").read_text())["temperature"]
    assert config_of(cfnsr.load_model(folder)).temperature == told
    assert told == pytest.approx(fit_temperature(logs.numpy(), labels.numpy()), rel=1e-3)


def test_temperature_is_fitted_on_validation_clips_alone() -> None:
    rng = np.random.default_rng(0)

    def rows(part: str, sharpness: float) -> list[Predicted]:
        """Answers right three times in four, at a confidence that is not."""
        logits = sharpness * np.eye(4)[rng.integers(0, 4, 400)]
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        right = logits.argmax(1)
        labels = np.where(rng.random(400) < 0.75, right, (right + 1) % 4)
        return [Predicted(part, 0, "", int(label), row) for label, row in zip(labels, logs, strict=True)]

    validation, test = rows("validation", 12.0), rows("test", 0.1)
    told = temperature_of([*test, *validation])
    expected = fit_temperature(
        np.stack([row.log_probabilities for row in validation]), np.array([row.label for row in validation])
    )
    assert told == expected and told is not None and told > 3
    assert temperature_of(test) is None


def test_modality_dropout_changes_two_stream_models_alone(
    nested: Path, corpus: PreparedCorpus, tmp_path: Path
) -> None:
    run(corpus, tmp_path, recipe=RECIPE.changed(modality_dropout=0.5))
    for name, same in (("audio", True), ("video", True), ("cfn_sr", False)):
        part = Path("nested", name, "seed_0", "fold_1", "model.safetensors")
        assert ((tmp_path / part).read_bytes() == (nested.parent / part).read_bytes()) is same


def test_habits_of_the_field_are_labelled(corpus: PreparedCorpus, tmp_path: Path) -> None:
    """Leaky protocols train and test, say what leaks, and name a take that counts twice."""
    recipe = RECIPE.changed(epochs=1)
    about = {}
    for protocol in ("best_epoch_on_test", "shared_actors", "repeated_takes"):
        folder = run(corpus, tmp_path, ("audio",), protocol=protocol, recipe=recipe)[0]
        about[protocol] = json.loads((folder / "run.json").read_text())
    assert about["best_epoch_on_test"]["caveat"] == "optimistic: best epoch on test"
    assert not about["best_epoch_on_test"]["leaky"]
    assert about["shared_actors"]["caveat"].startswith("leaky: actors shared")
    assert set(about["shared_actors"]["train_actors"]) & set(about["shared_actors"]["test_actors"])
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert any(row["clip"].endswith(" (again)") for row in rows)
    assert len({row["clip"] for row in rows}) == len(rows)


def test_training_learns(corpus: PreparedCorpus, tmp_path: Path) -> None:
    recipe = RECIPE.changed(epochs=12)
    folder = run(corpus, tmp_path, ("audio",), recipe=recipe)[0]
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]


def test_paper_protocol_selects_on_the_test_fold_and_says_so(corpus: PreparedCorpus, tmp_path: Path) -> None:
    folder = run(corpus, tmp_path, ("audio",), protocol="paper")[0]
    about = json.loads((folder / "run.json").read_text())
    assert about["selected_on"] == "test" and about["validation_actors"] == []
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    best = max(record["test_accuracy"] for record in history)
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    emotions = corpus.store.labels.emotions
    correct = [max(emotions, key=lambda e: float(row[e])) == row["label"] for row in rows]
    assert sum(correct) / len(correct) == pytest.approx(best)


KILLED = """
import os, signal, sys
from pathlib import Path
from accelerate import Accelerator
from cfnsr.data.store import Store
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.data import dataset
from cfnsr.training import loop
folder, out, fatal = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
dataset.MEMORY, loop.READERS = int(sys.argv[4]), 1
steps = 0
def progress(job, step):
    global steps
    steps += 1
    if steps == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
recipe = find_recipe("small").changed(epochs=3, batch_size=8)
corpus = PreparedCorpus(Store(Path(folder)))
jobs = plan(["cfn_sr"], corpus, protocol="nested", recipe=recipe, folds=[1])
crossval(jobs, corpus, out, accelerator=Accelerator(), progress=progress, resume=True)
"""


@pytest.mark.parametrize(("fatal", "memory"), [(5, dataset.MEMORY), (14, dataset.MEMORY), (25, -1)])
@pytest.mark.long
def test_killed_and_resumed_training_ends_with_the_same_weights(
    corpus: PreparedCorpus, nested: Path, tmp_path: Path, fatal: int, memory: int
) -> None:
    """Three steps an epoch, three epochs a model: killed in the first, the second and the third model.

    The third time with clips that are read anew every epoch, by another process, as large corpora are.
    """
    command = [sys.executable, "-c", KILLED, str(corpus.store.folder), str(tmp_path), str(fatal), str(memory)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not list(tmp_path.rglob("cfn_sr/**/predictions.csv"))
    resumed = subprocess.run([*command[:-2], "-1", command[-1]], check=False, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr.decode()
    for name in ("video", "audio", "cfn_sr"):
        for file in ("model.safetensors", "history.jsonl", *TABLES):
            part = Path(name, "seed_0", "fold_1", file)
            ours, undisturbed = tmp_path / "nested" / part, nested / part
            assert ours.read_bytes() == undisturbed.read_bytes(), part


def test_resume_leaves_finished_runs_alone(corpus: PreparedCorpus, nested: Path) -> None:
    weights = nested / "cfn_sr" / "seed_0" / "fold_1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run(corpus, nested.parent, resume=True)
    assert weights.stat().st_mtime_ns == before


def test_a_second_run_without_resume_is_refused(corpus: PreparedCorpus, nested: Path) -> None:
    with pytest.raises(InputError, match="has a run already: add --resume"):
        run(corpus, nested.parent)


def test_resume_with_other_settings_is_refused(corpus: PreparedCorpus, nested: Path) -> None:
    with pytest.raises(InputError, match=r"of other settings: .*epochs 3 \(now 4\)"):
        run(corpus, nested.parent, resume=True, recipe=RECIPE.changed(epochs=4))


def test_other_settings_are_refused_before_training(corpus: PreparedCorpus, nested: Path) -> None:
    """Another fold of the same row cannot be trained otherwise: the report could not average the two."""
    with pytest.raises(InputError, match=r"has a run of other settings: settings\.epochs 3 \(now 4\)"):
        run(corpus, nested.parent, ("audio",), folds=[2], recipe=RECIPE.changed(epochs=4))
    assert not (nested / "audio" / "seed_0" / "fold_2").exists()


def test_seeds_differ_and_repeat(corpus: PreparedCorpus, tmp_path: Path) -> None:
    folders = run(corpus, tmp_path / "a", ("audio",), seeds=[0, 1])
    again = run(corpus, tmp_path / "b", ("audio",), seeds=[1])
    first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first != second
    assert second == (again[0] / "model.safetensors").read_bytes()


def test_grid_trains_encoders_before_what_needs_them(corpus: PreparedCorpus) -> None:
    jobs = plan(["cfn_sr", "audio"], corpus, protocol="nested", recipe=RECIPE, folds=[2, 1])
    assert [(job.fold.number, job.model) for job in jobs] == [
        (number, model) for number in (2, 1) for model in ("video", "audio", "cfn_sr")
    ]
    alone = plan(["cfn_sr"], corpus, protocol="nested", recipe=RECIPE.changed(pretrain=False), folds=[1])
    assert [job.model for job in alone] == ["cfn_sr"]


def test_a_copied_recording_is_a_leak(corpus: PreparedCorpus) -> None:
    leaking = PreparedCorpus(corpus.store)
    first = leaking.headers[0]
    other = next(index for index, header in enumerate(leaking.headers) if header.actor != first.actor)
    leaking.headers[other] = replace(leaking.headers[other], sources=first.sources)
    fold = Fold(1, (first.actor,), (), (leaking.headers[other].actor,))
    with pytest.raises(
        InputError, match=r"fold 1 leaks: the recording of .* in train is that of .* in test, by its bytes"
    ):
        leaking.check("nested", fold)


def test_an_entry_that_does_not_say_what_it_is(corpus: PreparedCorpus, tmp_path: Path) -> None:
    """Told before the first training, not after the encoders'."""
    try:

        @zoo.entry("mine", fusion="none")
        def mine(settings: zoo.Settings) -> zoo.Model:
            return OneStream(settings.encoder("audio"), "audio", settings.classes)

        @zoo.entry("theirs", fusion="model")
        def theirs(settings: zoo.Settings) -> zoo.Model:
            return zoo.Settings(settings.classes, settings.mfcc_steps, width=1 / 4).fuse()

        with pytest.raises(InputError, match=r"has audio and is registered with video and audio"):
            run(corpus, tmp_path, ("mine",))
        with pytest.raises(InputError, match="theirs has another video encoder than model video"):
            run(corpus, tmp_path, ("theirs",))
        assert not list(tmp_path.iterdir())
        run(corpus, tmp_path, ("theirs",), recipe=RECIPE.changed(pretrain=False, epochs=1))
    finally:
        zoo.ENTRIES.pop("mine", None)
        zoo.ENTRIES.pop("theirs", None)


class Mixing(torch.nn.Module):
    def __init__(self, video_channels: int, audio_channels: int) -> None:
        super().__init__()

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return video - video.mean(0), audio


class Narrow(Mixing):
    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return video[:, 1:], audio


class Raw(torch.nn.Module):
    def __init__(self, video_dim: int, audio_dim: int, classes: int) -> None:
        super().__init__()
        self.classify = torch.nn.Linear(video_dim, classes)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classify(video)
        return scores


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda settings: settings.fuse(Mixing), "mixes clips: a clip's result differs by"),
        (lambda settings: settings.fuse(Narrow), r"fails on three clips \("),
        (lambda settings: settings.fuse(head=Raw), "gives no log-probabilities of 3 emotions"),
        (lambda settings: None, "is built as NoneType"),
    ],
)
def test_a_model_of_ones_own_is_tried_before_training(
    corpus: PreparedCorpus, tmp_path: Path, build: Callable[[zoo.Settings], zoo.Model], message: str
) -> None:
    try:
        zoo.entry("mine", fusion="model")(build)
        with pytest.raises(InputError, match=message):
            run(corpus, tmp_path, ("mine",))
        assert not list(tmp_path.iterdir())
    finally:
        zoo.ENTRIES.pop("mine", None)


def test_a_fold_without_clips(corpus: PreparedCorpus, tmp_path: Path) -> None:
    job = Job("audio", "nested", Fold(1, (1, 2), (3,), (99,)), 6, 0, RECIPE)
    with pytest.raises(InputError, match=r"fold 1 has no test clips \(actors 99\)"):
        train_fold(job, corpus, tmp_path, accelerator=Accelerator())
    with pytest.raises(InputError, match="seed -1: expected 0 or more"):
        run(corpus, tmp_path, seeds=[-1])
    with pytest.raises(InputError, match="fold 7 does not exist: expected 1 to 6"):
        run(corpus, tmp_path, folds=[7])


def test_a_missing_modality_is_told_before_training(corpus: PreparedCorpus, tmp_path: Path) -> None:
    silent = PreparedCorpus(corpus.store)
    silent.headers = [
        replace(header, preparation={**header.preparation, "modalities": ["video"]})
        for header in corpus.headers
    ]
    with pytest.raises(InputError, match="was prepared without audio: model audio needs it"):
        run(silent, tmp_path, ("audio",))


def test_a_preset_that_asks_for_more_than_was_prepared(corpus: PreparedCorpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 8 frames of 64 px a clip: preset small looks at 16 of 64 px"):
        run(corpus, tmp_path, ("video",), recipe=RECIPE.changed(frames=16))


def test_clips_prepared_differently_do_not_mix(corpus: PreparedCorpus, tmp_path: Path) -> None:
    mixed = PreparedCorpus(corpus.store)
    odd: Header = mixed.headers[3]
    mixed.headers[3] = replace(odd, preparation={**odd.preparation, "margin": 2.0})
    with pytest.raises(InputError, match="prepared with different settings"):
        run(mixed, tmp_path, ("audio",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: _rewrite(folder, format=99), "has format 99"),
        (lambda folder: _rewrite(folder, labels=None), "damaged"),
        (lambda folder: _rewrite(folder, settings={"classes": 3, "depth": 2}), "damaged"),
        (lambda folder: _rewrite(folder, settings={"classes": 8}), "damaged"),
        (lambda folder: _rewrite(folder, preparation="junk"), "damaged"),
        (lambda folder: _rewrite(folder, preparation={"recipe": 4}), "damaged"),
        (lambda folder: _rewrite(folder, preparation={"recipe": 3}), "prepared by recipe 3: this version"),
        (lambda folder: _rewrite(folder, preparation={"recipe": 99}), "prepared by recipe 99"),
        (lambda folder: _rewrite(folder, frames="junk"), "damaged"),
        (lambda folder: _rewrite(folder, frames=1000), "damaged"),
        (lambda folder: _rewrite(folder, model="nothing"), "'nothing' is unknown"),
        (lambda folder: _rewrite(folder, openface_steps=0), "damaged"),
        (lambda folder: _rewrite(folder, speech_steps="junk"), "damaged"),
        (lambda folder: _rewrite(folder, temperature=-1), "damaged"),
        (lambda folder: _rewrite(folder, model="eranns"), "damaged"),
        (lambda folder: _rewrite(folder, source="0" * 64), "trained with other code of model audio"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 50), "does not fit"),
        (lambda folder: (folder / "model.safetensors").unlink(), "does not fit"),
    ],
)
def test_damaged_checkpoints(
    nested: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    source = nested / "audio" / "seed_0" / "fold_1"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    cfnsr.load_model(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        cfnsr.load_model(tmp_path)


def _rewrite(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_diverged_training_is_told(
    corpus: PreparedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cfnsr.training.loop.functional.nll_loss",
        lambda scores, labels: scores.sum() * float("nan"),
    )
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1 .* lower the learning rate"):
        run(corpus, tmp_path, ("audio",))


def test_state_holds_no_pickled_code(corpus: PreparedCorpus, tmp_path: Path) -> None:
    """A state file of another origin cannot run code: only tensors and plain values are read."""
    folder = tmp_path / "nested" / "audio" / "seed_0" / "fold_1"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    (folder / "training").mkdir(parents=True)
    torch.save({"state": Evil()}, folder / "training" / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt is damaged: delete it"):
        run(corpus, tmp_path, ("audio",), resume=True)
    assert not (tmp_path / "pwned").exists()


@pytest.fixture(scope="module")
def stopped(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off in its second epoch."""
    out = tmp_path_factory.mktemp("stopped")

    def stop(job: Job, step: Step) -> None:
        if step.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, out, ("audio",), progress=stop)
    return out


STATE = Path("nested/audio/seed_0/fold_1/training/state.pt")


@pytest.mark.parametrize("kept", [0, 1, 1000, 50_000, -1])
def test_a_damaged_state_is_told_in_a_line(
    corpus: PreparedCorpus, stopped: Path, tmp_path: Path, kept: int
) -> None:
    """And once it is deleted the run begins anew."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError) as error:
        run(corpus, tmp_path, ("audio",), resume=True)
    assert str(error.value) == f"{path} is damaged: delete it to train this run from its beginning"
    if kept == 0:
        path.unlink()
        (folder,) = run(corpus, tmp_path, ("audio",), resume=True)
        assert len((folder / "history.jsonl").read_text().splitlines()) == RECIPE.epochs


@pytest.mark.parametrize("change", [{"model": {}}, {"state": {"epochs": 1}}, {"optimizer": {}}, {"model": 1}])
def test_a_state_of_other_settings_is_told_in_a_line(
    corpus: PreparedCorpus, stopped: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / STATE
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(InputError) as error:
        run(corpus, tmp_path, ("audio",), resume=True)
    assert str(error.value) == (
        f"{path} does not fit the model and settings of this run: "
        "delete it to train this run from its beginning"
    )


def test_a_run_that_lost_its_history_is_not_resumed(
    corpus: PreparedCorpus, stopped: Path, tmp_path: Path
) -> None:
    """Its report would lack the epochs; the whole run is to be trained again."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = (tmp_path / STATE).parents[1] / "history.jsonl"
    path.unlink()
    with pytest.raises(InputError, match=r"history\.jsonl has 0 epochs: expected the 1 .* delete the run's"):
        run(corpus, tmp_path, ("audio",), resume=True)
    shutil.rmtree(path.parent)
    run(corpus, tmp_path, ("audio",), resume=True)
    assert len(path.read_text().splitlines()) == RECIPE.epochs
