"""Training and cross-validation: what a run writes, resumption, leaks, and who may choose the epoch."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

import cfnsr
from cfnsr.data import dataset
from cfnsr.data.augment import normalise
from cfnsr.data.folds import PROTOCOLS, Fold
from cfnsr.data.store import Header, Store
from cfnsr.errors import InputError
from cfnsr.features.preparation import RECIPE as CLIP_RECIPE
from cfnsr.models import zoo
from cfnsr.models.entries import ENTRIES, Model
from cfnsr.models.names import find
from cfnsr.models.settings import Settings
from cfnsr.models.streams import OneStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.checkpoint import config_of
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import check_model
from cfnsr.training.fold import train_fold
from cfnsr.training.job import Job
from cfnsr.training.loop import Step
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import Run

RECIPE = find_recipe("small").changed(epochs=2, batch_size=8)
TABLES = ("predictions.csv", "conditions.csv")
FILES = ("config.json", "model.safetensors", "run.json", "history.jsonl", *TABLES)
NOISE = ["noise_20db", "noise_10db", "noise_0db"]
PICTURES = ["blurred_face", "dark_face"]

Train = Callable[..., list[Path]]
Rows = Callable[..., list[dict[str, str]]]
History = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def run(train: Train) -> Train:
    return partial(train, recipe=RECIPE)


@pytest.fixture(scope="module")
def nested(pictures: PreparedCorpus, run: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run(pictures, out, "cfn_sr")
    return out / "nested"


@pytest.fixture(scope="module")
def folder(nested: Path) -> Path:
    return nested / "cfn_sr" / "seed_0" / "fold_1"


def test_a_run_says_what_it_is(nested: Path, folder: Path, history: History) -> None:
    assert sorted(path.name for path in nested.iterdir()) == ["audio", "cfn_sr", "video"]
    for file in FILES:
        assert (folder / file).is_file(), file
    assert not (folder / "training").exists(), "a finished run has nothing to resume"
    assert list((folder / "tensorboard").glob("events*"))
    about = json.loads((folder / "run.json").read_text())
    assert about["finished"] and about["selected_on"] == "validation"
    assert about["test_actors"] == [1] and about["validation_actors"] == [3]
    assert about["train_actors"] == [2, 4, 5, 6]
    assert about["caveat"] == "" and about["leaky"] is False
    records = history(folder)
    assert [record["epoch"] for record in records] == [1, 2]
    assert not [key for record in records for key in record if key.startswith("test")], "not looked at"
    best = max(records, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))
    assert about["epoch"] == best["epoch"]


def test_a_run_that_is_read_is_written_alike(folder: Path, tmp_path: Path) -> None:
    Run.read(folder).write(tmp_path)
    for file in ("run.json", "history.jsonl", "interaction.csv", *TABLES):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_predictions_are_those_of_the_saved_model(folder: Path, pictures: PreparedCorpus, rows: Rows) -> None:
    """Also of spoilt clips: without pictures each is a normalised zero."""
    written = rows(folder / "predictions.csv")
    assert {row["split"] for row in written} == {"validation", "test"}
    assert {row["actor"] for row in written if row["split"] == "test"} == {"1"}
    model = cfnsr.load_model(folder)
    assert config_of(model).labels == pictures.store.labels
    clips = pictures.clips(model.reads, config_of(model).look)
    place = {header.name: index for index, header in enumerate(pictures.headers)}
    blind = rows(folder / "conditions.csv", "no_picture")
    for row in [*written[::5], *blind[:2]]:
        clip = clips[place[row["clip"]]]
        video = torch.zeros(1, *clip.video.shape) if "condition" in row else normalise(clip.video[None])
        with torch.no_grad():
            found = model(video, clip.audio[None])[0]
        expected = torch.tensor([float(row[emotion]) for emotion in pictures.store.labels.emotions])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_test_actors_choose_nothing(
    nested: Path, tmp_path: Path, fill: Callable[..., Store], run: Train
) -> None:
    """With the test actor's clips turned into others, the same weights come out of the same epoch."""
    run(PreparedCorpus(fill(tmp_path / "store", scrambled=(1,))), tmp_path / "runs", "cfn_sr")
    for name in ("video", "audio", "cfn_sr"):
        ours, theirs = (
            top / "nested" / name / "seed_0" / "fold_1" for top in (tmp_path / "runs", nested.parent)
        )
        for file in ("model.safetensors", "history.jsonl", "config.json"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()
        assert (ours / "predictions.csv").read_bytes() != (theirs / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "conditions"),
    [("cfn_sr", ["silent_sound", *NOISE, "no_picture", *PICTURES]), ("video", PICTURES), ("audio", NOISE)],
)
def test_bad_input_is_tried_on_the_test_clips(
    name: str, conditions: list[str], nested: Path, rows: Rows
) -> None:
    """Every condition that leaves a model something to go by, on every test clip; what it damages matters."""
    folder = nested / name / "seed_0" / "fold_1"
    spoilt = rows(folder / "conditions.csv")
    assert list(dict.fromkeys(row["condition"] for row in spoilt)) == conditions
    clean = {row["clip"]: row for row in rows(folder / "predictions.csv", "test")}
    for condition in conditions:
        met = [row for row in spoilt if row["condition"] == condition]
        assert [row["clip"] for row in met] == list(clean)
        assert any(row["happy"] != clean[row["clip"]]["happy"] for row in met), condition


def test_temperature_is_that_of_the_inner_validation(
    folder: Path, pictures: PreparedCorpus, rows: Rows
) -> None:
    validation = rows(folder / "predictions.csv", "validation")
    emotions = pictures.store.labels.emotions
    logs = torch.tensor([[float(row[emotion]) for emotion in emotions] for row in validation])
    labels = torch.tensor([emotions.index(row["label"]) for row in validation])
    temperature = json.loads((folder / "run.json").read_text())["temperature"]
    assert config_of(cfnsr.load_model(folder)).temperature == temperature
    assert temperature == pytest.approx(fit_temperature(logs.numpy(), labels.numpy()), rel=1e-3)


def test_modality_dropout_changes_no_model_of_one_stream(
    nested: Path, pictures: PreparedCorpus, tmp_path: Path, run: Train
) -> None:
    (folder,) = run(pictures, tmp_path, "audio", recipe=RECIPE.changed(modality_dropout=0.5))
    plain = nested / "audio" / "seed_0" / "fold_1"
    assert (folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_habits_of_the_field_are_labelled(
    pictures: PreparedCorpus, tmp_path: Path, run: Train, rows: Rows
) -> None:
    """Leaky protocols train and test, say what leaks, and name a take that counts twice."""
    about = {}
    for protocol in ("best_epoch_on_test", "shared_actors", "repeated_takes"):
        (folder,) = run(pictures, tmp_path, "audio", protocol=protocol, recipe=RECIPE.changed(epochs=1))
        about[protocol] = json.loads((folder / "run.json").read_text())
    assert about["best_epoch_on_test"]["caveat"] == "optimistic: best epoch on test"
    assert not about["best_epoch_on_test"]["leaky"]
    assert about["shared_actors"]["caveat"].startswith("leaky: actors shared")
    assert set(about["shared_actors"]["train_actors"]) & set(about["shared_actors"]["test_actors"])
    clips = [row["clip"] for row in rows(folder / "predictions.csv")]
    assert any(clip.endswith(" (again)") for clip in clips) and len(set(clips)) == len(clips)


def test_paper_protocol_selects_on_the_test_fold_and_says_so(
    pictures: PreparedCorpus, tmp_path: Path, run: Train, rows: Rows, history: History
) -> None:
    """And training learns."""
    (folder,) = run(pictures, tmp_path, "audio", protocol="paper", recipe=RECIPE.changed(epochs=12))
    losses = [record["train_loss"] for record in history(folder)]
    assert losses[-1] < 0.5 * losses[0]
    about = json.loads((folder / "run.json").read_text())
    assert about["selected_on"] == "test" and about["validation_actors"] == []
    best = max(record["test_accuracy"] for record in history(folder))
    emotions = pictures.store.labels.emotions
    correct = [
        max(emotions, key=lambda emotion: float(row[emotion])) == row["label"]
        for row in rows(folder / "predictions.csv")
    ]
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
recipe = find_recipe("small").changed(epochs=2, batch_size=8)
corpus = PreparedCorpus(Store(Path(folder)))
jobs = plan(["cfn_sr"], corpus, protocol="nested", recipe=recipe, folds=[1])
crossval(jobs, corpus, out, accelerator=Accelerator(), progress=progress, resume=True)
"""


@pytest.mark.parametrize(("fatal", "memory"), [(5, dataset.MEMORY), (8, dataset.MEMORY), (16, -1)])
@pytest.mark.long
def test_killed_and_resumed_training_ends_with_the_same_weights(
    pictures: PreparedCorpus, nested: Path, tmp_path: Path, fatal: int, memory: int
) -> None:
    """Three steps an epoch, two epochs a model: killed in the first, the second and the third model.

    The third time with clips that are read anew every epoch, by another process, as large corpora are.
    """
    given = (pictures.store.folder, tmp_path, fatal, memory)
    command = [sys.executable, "-c", KILLED, *map(str, given)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not list(tmp_path.rglob("cfn_sr/**/predictions.csv"))
    resumed = subprocess.run([*command[:-2], "-1", command[-1]], check=False, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr.decode()
    for name in ("video", "audio", "cfn_sr"):
        for file in ("model.safetensors", "history.jsonl", *TABLES):
            part = Path(name, "seed_0", "fold_1", file)
            assert (tmp_path / "nested" / part).read_bytes() == (nested / part).read_bytes(), part


def test_resumption_of_a_finished_run(
    pictures: PreparedCorpus, nested: Path, folder: Path, run: Train
) -> None:
    """It is left alone; not without `resume`, nor with other settings, on another fold of its row either."""
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run(pictures, nested.parent, "cfn_sr", resume=True)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="has a run already: add --resume"):
        run(pictures, nested.parent, "cfn_sr")
    other = RECIPE.changed(epochs=4)
    with pytest.raises(InputError, match=r"of other settings: .*epochs 2 \(now 4\)"):
        run(pictures, nested.parent, "cfn_sr", resume=True, recipe=other)
    with pytest.raises(InputError, match=r"has a run of other settings: settings\.epochs 2 \(now 4\)"):
        run(pictures, nested.parent, "audio", folds=[2], recipe=other)
    assert not (nested / "audio" / "seed_0" / "fold_2").exists()


def test_seeds_differ_and_repeat(pictures: PreparedCorpus, tmp_path: Path, run: Train) -> None:
    short = RECIPE.changed(epochs=1)
    folders = run(pictures, tmp_path / "a", "audio", seeds=[0, 1], recipe=short)
    (again,) = run(pictures, tmp_path / "b", "audio", seeds=[1], recipe=short)
    first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first != second == (again / "model.safetensors").read_bytes()


def test_a_copied_recording_is_a_leak(pictures: PreparedCorpus) -> None:
    leaking = PreparedCorpus(pictures.store)
    first = leaking.headers[0]
    other = next(index for index, header in enumerate(leaking.headers) if header.actor != first.actor)
    leaking.headers[other] = replace(leaking.headers[other], sources=first.sources)
    fold = Fold(1, (first.actor,), (), (leaking.headers[other].actor,))
    said = r"fold 1 leaks: the recording of .* in train is that of .* in test, by its bytes"
    with pytest.raises(InputError, match=said):
        leaking.check(PROTOCOLS["nested"], fold)


def test_an_entry_that_does_not_say_what_it_is(
    pictures: PreparedCorpus, tmp_path: Path, run: Train, job_of: Callable[..., Job]
) -> None:
    """Refused before the first training, not after the encoders'."""
    try:

        @zoo.entry("mine", fusion="none")
        def mine(settings: Settings) -> Model:
            return OneStream(settings.encoder("audio"), "audio", settings.classes)

        @zoo.entry("theirs", fusion="model")
        def theirs(settings: Settings) -> Model:
            return Settings(settings.classes, settings.mfcc_steps, width=1 / 4).fuse()

        with pytest.raises(InputError, match=r"has audio and is registered with video and audio"):
            run(pictures, tmp_path, "mine")
        with pytest.raises(InputError, match="theirs has another video encoder than model video"):
            run(pictures, tmp_path, "theirs")
        assert not list(tmp_path.iterdir())
        check_model(job_of(pictures, "theirs", RECIPE.changed(pretrain=False)), pictures)
    finally:
        ENTRIES.pop("mine", None)
        ENTRIES.pop("theirs", None)


class Mixing(torch.nn.Module):
    def __init__(self, *channels: int) -> None:
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
    pictures: PreparedCorpus, tmp_path: Path, run: Train, build: Callable[..., Model], message: str
) -> None:
    try:
        zoo.entry("mine", fusion="model")(build)
        with pytest.raises(InputError, match=message):
            run(pictures, tmp_path, "mine")
        assert not list(tmp_path.iterdir())
    finally:
        ENTRIES.pop("mine", None)


def test_what_a_grid_does_not_have(pictures: PreparedCorpus, tmp_path: Path, run: Train) -> None:
    job = Job(find("audio"), PROTOCOLS["nested"], Fold(1, (1, 2), (3,), (99,)), 6, 0, RECIPE)
    with pytest.raises(InputError, match=r"fold 1 has no test clips \(actors 99\)"):
        train_fold(job, pictures, tmp_path, accelerator=Accelerator())
    with pytest.raises(InputError, match="seed -1: expected 0 or more"):
        run(pictures, tmp_path, "cfn_sr", seeds=[-1])
    with pytest.raises(InputError, match="fold 7 does not exist: expected 1 to 6"):
        run(pictures, tmp_path, "cfn_sr", folds=[7])


def test_what_was_not_prepared(pictures: PreparedCorpus, tmp_path: Path, run: Train) -> None:
    silent, mixed = PreparedCorpus(pictures.store), PreparedCorpus(pictures.store)
    silent.headers = [
        replace(header, preparation={**header.preparation, "modalities": ["video"]})
        for header in pictures.headers
    ]
    with pytest.raises(InputError, match="was prepared without audio: model audio needs it"):
        run(silent, tmp_path, "audio")
    with pytest.raises(InputError, match="has 8 frames of 64 px a clip: preset small looks at 16 of 64 px"):
        run(pictures, tmp_path, "video", recipe=RECIPE.changed(frames=16))
    odd: Header = mixed.headers[3]
    mixed.headers[3] = replace(odd, preparation={**odd.preparation, "margin": 2.0})
    with pytest.raises(InputError, match="prepared with different settings"):
        run(mixed, tmp_path, "audio")


def _rewrite(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (partial(_rewrite, format=99), "has format 99"),
        (partial(_rewrite, labels=None), "damaged"),
        (partial(_rewrite, settings={"classes": 3, "depth": 2}), "does not fit"),
        (partial(_rewrite, settings={"classes": 8}), "damaged"),
        (partial(_rewrite, preparation="junk"), "damaged"),
        (partial(_rewrite, preparation={"recipe": CLIP_RECIPE}), "damaged"),
        (partial(_rewrite, preparation={"recipe": 3}), "prepared by recipe 3: this version"),
        (partial(_rewrite, frames=1000), "damaged"),
        (partial(_rewrite, speech_steps="junk"), "damaged"),
        (partial(_rewrite, temperature=-1), "damaged"),
        (partial(_rewrite, model="nothing"), "'nothing' is unknown"),
        (partial(_rewrite, model="eranns"), "does not fit"),
        (partial(_rewrite, source="0" * 64), "trained with other code of model audio"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 50), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
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


def test_diverged_training_is_told(
    pictures: PreparedCorpus, tmp_path: Path, run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cfnsr.training.loop.functional.nll_loss", lambda scores, labels: scores.sum() * float("nan")
    )
    with pytest.raises(InputError, match=r"the loss is nan at step 1 of epoch 1.* lower the learning rate"):
        run(pictures, tmp_path, "audio")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


STATE = Path("nested/audio/seed_0/fold_1/training/state.pt")


def test_state_holds_no_pickled_code(pictures: PreparedCorpus, tmp_path: Path, run: Train) -> None:
    """A state file of another origin cannot run code: only tensors and plain values are read."""
    (tmp_path / STATE).parent.mkdir(parents=True)
    torch.save({"state": Evil(tmp_path / "pwned")}, tmp_path / STATE)
    with pytest.raises(InputError, match=r"state\.pt is damaged: delete it"):
        run(pictures, tmp_path, "audio", resume=True)
    assert not (tmp_path / "pwned").exists()


@pytest.fixture(scope="module")
def stopped(pictures: PreparedCorpus, run: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off in its second epoch."""
    out = tmp_path_factory.mktemp("stopped")

    def stop(job: Job, step: Step) -> None:
        if step.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures, out, "audio", progress=stop)
    return out


def _cut(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


def _other(path: Path, **entries: object) -> None:
    torch.save({**torch.load(path, weights_only=True), **entries}, path)


DAMAGED = "is damaged"
OTHER = "does not fit the model and settings of this run"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((partial(_cut, kept=kept), DAMAGED) for kept in (0, 1000, -1)),
        (partial(_other, model={}), OTHER),
        (partial(_other, model=1), OTHER),
        (partial(_other, state={"epochs": 1}), OTHER),
        (partial(_other, optimizer={}), OTHER),
    ],
)
def test_a_state_that_cannot_be_used_is_refused_in_a_line(
    pictures: PreparedCorpus,
    stopped: Path,
    tmp_path: Path,
    run: Train,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / STATE
    damage(path)
    with pytest.raises(InputError) as error:
        run(pictures, tmp_path, "audio", resume=True)
    assert str(error.value) == f"{path} {message}: delete it to train this run from its beginning"


def test_a_run_that_lost_its_history_is_not_resumed(
    pictures: PreparedCorpus, stopped: Path, tmp_path: Path, run: Train, history: History
) -> None:
    """Its report would lack the epochs. Without its state it begins anew."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    ((tmp_path / STATE).parents[1] / "history.jsonl").unlink()
    with pytest.raises(InputError, match=r"history\.jsonl has 0 epochs: expected the 1 .* delete the run's"):
        run(pictures, tmp_path, "audio", resume=True)
    (tmp_path / STATE).unlink()
    (folder,) = run(pictures, tmp_path, "audio", resume=True)
    assert len(history(folder)) == RECIPE.epochs
