"""The loop's own arithmetic: accumulated gradients, averaged weights, the choice, and what it draws."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from cfnsr.data import augment
from cfnsr.data.dataset import Batch
from cfnsr.features.base import Look
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.training import loop
from cfnsr.training.augmentation import AUGMENT
from cfnsr.training.config import Recipe, find_recipe, mix
from cfnsr.training.fold import initialise
from cfnsr.training.inputs import to_input
from cfnsr.training.job import Job
from cfnsr.training.loop import EpochOrder, Step, Trainer, _synchronised
from cfnsr.training.prepared import PreparedCorpus

RECIPE = replace(find_recipe("small"), epochs=3, batch_size=8, learning_rate=0.01)
LOOK = Look(8, 64)
TRAIN = list(range(22))
SELECT = list(range(24, 36))

History = Callable[..., list[dict[str, Any]]]


class Plain(nn.Module):
    """Log-probabilities by a layer without batch statistics; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(13, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        if self.training:
            self.shown.append((video.clone(), audio.clone()))
        log_probabilities: Tensor = self.layers(audio.double().mean(dim=2) / 8).log_softmax(dim=1)
        return log_probabilities


Fitted = Callable[..., Trainer]
Shown = dict[tuple[int, int], tuple[Tensor, Tensor]]
Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def audio(pictures: PreparedCorpus, job_of: Callable[..., Job]) -> Job:
    return job_of(pictures, "audio", RECIPE)


@pytest.fixture(scope="module")
def network(pictures: PreparedCorpus, audio: Job) -> Callable[[], nn.Module]:
    """Builds the audio row, with batch normalisation and dropout."""
    return lambda: initialise(audio, pictures, ())[0]


@pytest.fixture(scope="module")
def trainer(pictures: PreparedCorpus, audio: Job) -> Fitted:
    """Sets up the training of a model, on MFCCs unless it `reads` more."""

    def make(
        folder: Path,
        recipe: Recipe,
        model: nn.Module | None = None,
        *,
        reads: tuple[str, ...] = ("audio",),
        train: list[int] = TRAIN,
        select: list[int] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Trainer:
        return Trainer(
            model or Plain(),
            replace(audio, recipe=recipe, seed=seed),
            pictures.clips({name: name for name in reads}, LOOK),
            train,
            select or [],
            folder=folder,
            accelerator=Accelerator(),
            **options,
        )

    return make


@pytest.fixture(scope="module")
def shown_by(trainer: Fitted) -> Show:
    """Gives by epoch and clip the pictures and the sound that a model was shown."""

    def show(folder: Path, recipe: Recipe, *, seed: int = 0, train: list[int] = TRAIN) -> Shown:
        model, order = Plain(), EpochOrder(len(train), seed)
        recipe = replace(recipe, epochs=2)
        trainer(folder, recipe, model, reads=("video", "audio"), seed=seed, train=train).fit()
        places = []
        for epoch in (1, 2):
            order.set_epoch(epoch)
            places += [(epoch, train[index]) for index in order]
        video, audio = (torch.cat(column) for column in zip(*model.shown, strict=True))
        return {key: (video[row], audio[row]) for row, key in enumerate(places)}

    return show


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 2), (2, 4)])
def test_accumulated_batches_are_one_large_batch(
    batch: int, accumulate: int, trainer: Fitted, tmp_path: Path
) -> None:
    """22 clips by 8, 8 and 6: at the end of an epoch what is left is one step, each clip counting alike."""
    recipe = replace(RECIPE, schedule="one_cycle", clip_gradient=0.1, class_balance=True, label_smoothing=0.1)
    large = trainer(tmp_path / "large", recipe)
    large.fit()
    small = trainer(tmp_path / "small", replace(recipe, batch_size=batch, accumulate=accumulate))
    small.fit()
    begun = Plain().state_dict()
    ours, theirs = small.model.state_dict(), large.model.state_dict()
    for name, value in theirs.items():
        assert (value - begun[name]).abs().max() > 0.02, "it has learnt"
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0)
    for each in (small, large):
        counted = {int(state["step"]) for state in each.optimizer.state_dict()["state"].values()}
        assert counted == {9}
    separate = trainer(tmp_path / "separate", replace(recipe, batch_size=batch))
    separate.fit()
    name = "layers.0.weight"
    assert (separate.model.state_dict()[name] - theirs[name]).abs().max() > 1e-3


def test_a_single_last_clip_falls_away_when_accumulated_too(trainer: Fitted, tmp_path: Path) -> None:
    steps: list[Step] = []
    recipe = replace(RECIPE, batch_size=4, accumulate=2)
    twenty_one = trainer(tmp_path, recipe, train=TRAIN[:21], progress=steps.append)
    twenty_one.fit()
    assert [step.steps for step in steps] == [5] * 15
    counted = {int(state["step"]) for state in twenty_one.optimizer.state_dict()["state"].values()}
    assert counted == {9}, "8, 8 and 4 clips, three times"


def test_averaged_weights_by_slow_arithmetic(
    trainer: Fitted, network: Callable[[], nn.Module], history: History, tmp_path: Path
) -> None:
    """Every value after every optimizer step, batch normalisation's statistics among them."""
    seen: list[dict[str, Tensor]] = []
    recipe = replace(RECIPE, average_weights=0.3, batch_size=4, accumulate=2, keep="last")
    model = network()

    def progress(step: Step) -> None:
        if step.step in (2, 4, 6):  # of six batches
            seen.append({name: value.clone() for name, value in model.state_dict().items()})

    averaged = trainer(tmp_path, recipe, model, select=SELECT, progress=progress)
    averaged.fit()
    assert len(seen) == 9
    expected = {name: value.double() for name, value in seen[0].items()}
    for step, values in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in values.items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)
    for name in ("classify.weight", "encoder.stages.0.2.running_mean"):
        assert not torch.allclose(model.state_dict()[name], seen[-1][name], atol=1e-5)
    # And these weights are what was scored.
    rows = averaged.predict(SELECT)
    labels = torch.tensor([averaged.clips.labels[place] for place in SELECT])
    assert nn.functional.nll_loss(rows, labels).item() == pytest.approx(
        history(tmp_path)[-1]["validation_loss"]
    )


@pytest.mark.long
def test_killed_and_resumed_with_everything_on_it_ends_alike(
    trainer: Fitted, network: Callable[[], nn.Module], tmp_path: Path
) -> None:
    recipe = replace(
        RECIPE,
        batch_size=4,
        accumulate=2,
        average_weights=0.9,
        select_by="uar",
        time_mask=0.3,
        frequency_mask=0.3,
        schedule="step",
    )
    trainer(tmp_path / "undisturbed", recipe, network(), select=SELECT).fit()

    def kill(step: Step) -> None:
        if (step.epoch, step.step) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "killed", recipe, network(), select=SELECT, progress=kill).fit()
    trainer(tmp_path / "killed", recipe, network(), select=SELECT).fit(resume=True)
    for file in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "undisturbed" / file).read_bytes()
    plain = replace(recipe, average_weights=0.0)
    trainer(tmp_path / "plain", plain, network(), select=SELECT).fit()
    weights = [tmp_path / name / "model.safetensors" for name in ("plain", "undisturbed")]
    assert weights[0].read_bytes() != weights[1].read_bytes()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_the_same(
    trainer: Fitted, network: Callable[[], nn.Module], history: History, tmp_path: Path
) -> None:
    """But for what it drops, which compiled code draws in another order."""
    recipe = replace(RECIPE, average_weights=0.9)
    for name in ("plain", "compiled"):
        model = network()
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        trained = trainer(tmp_path / name, replace(recipe, compile=name == "compiled"), model, select=SELECT)
        trained.fit()
        assert (trained.model._compiled_call_impl is not None) == (name == "compiled")
    for ours, theirs in zip(history(tmp_path / "compiled"), history(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(("select_by", "best"), [("accuracy", 2), ("uar", 3)])
def test_the_figure_that_chooses(
    select_by: str, best: int, trainer: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal figures the lower loss wins, whatever the other figure says."""
    losses, accuracies, uars = (0.6, 0.5, 0.1), (0.8, 0.8, 0.7), (0.5, 0.4, 0.9)
    scores = iter(
        {"validation_loss": loss, "validation_accuracy": accuracy, "validation_uar": uar}
        for loss, accuracy, uar in zip(losses, accuracies, uars, strict=True)
    )
    monkeypatch.setattr(Trainer, "_select", lambda self, selecting: next(scores))
    chosen = trainer(tmp_path, replace(RECIPE, select_by=select_by), select=SELECT)
    assert chosen.fit().best_epoch == best


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_both_figures_stand_in_the_history(trainer: Fitted, history: History, tmp_path: Path) -> None:
    uneven = SELECT[:9]
    fitted = trainer(tmp_path, replace(RECIPE, keep="last"), select=uneven)
    fitted.fit()
    answers = fitted.predict(uneven).argmax(1).numpy()
    labels = np.array([fitted.clips.labels[place] for place in uneven])
    last = history(tmp_path)[-1]
    assert last["validation_accuracy"] == pytest.approx((answers == labels).mean())
    assert last["validation_uar"] == pytest.approx(balanced_accuracy_score(labels, answers))


ALTERED = replace(RECIPE, colour_jitter=0.4, time_mask=0.4, frequency_mask=0.4)


def test_what_is_drawn_depends_on_seed_epoch_and_clip_alone(shown_by: Show, tmp_path: Path) -> None:
    """Not on the clips beside it, their number or their order."""
    told = shown_by(tmp_path, ALTERED)
    again = shown_by(tmp_path, replace(ALTERED, batch_size=2, accumulate=2), train=TRAIN[::-1])
    for key, (video, audio) in told.items():
        torch.testing.assert_close(again[key][0], video, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again[key][1], audio, atol=1e-5, rtol=1e-5)
    other = shown_by(tmp_path, ALTERED, seed=1)
    for part in (0, 1):
        for place in TRAIN[:4]:
            assert not torch.equal(told[1, place][part], told[2, place][part])
        assert not all(torch.equal(told[1, place][part], other[1, place][part]) for place in TRAIN[:4])


def test_strength_nothing_changes_nothing(pictures: PreparedCorpus, shown_by: Show, tmp_path: Path) -> None:
    """Neither what is shown nor what else is drawn: crop and flip are those of the same seed and epoch."""
    clips = pictures.clips({"video": "video", "audio": "audio"}, LOOK)
    plain = shown_by(tmp_path, RECIPE)
    cut = augment.draw(len(clips), torch.Generator().manual_seed(mix(0, 2, AUGMENT)))
    for place in TRAIN:
        batch = Batch(*(value[None] for value in clips[place]))
        expected = to_input(batch, torch.device("cpu"), cut[[place]])
        torch.testing.assert_close(plain[2, place][0], expected.video[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(plain[2, place][1], clips[place].audio)
    whole = shown_by(tmp_path, replace(RECIPE, crop=1.0, flip=False))
    for place in TRAIN:
        expected = augment.normalise(clips[place].video[None])[0]
        torch.testing.assert_close(whole[1, place][0], expected, atol=1e-4, rtol=1e-4)


def test_modalities_are_dropped_from_some_clips(
    pictures: PreparedCorpus, shown_by: Show, tmp_path: Path
) -> None:
    shown, silence = shown_by(tmp_path, replace(RECIPE, modality_dropout=0.5)), pictures.silence("audio")
    assert silence is not None
    unseen = {key for key, (video, _) in shown.items() if not video.any()}
    unheard = {key for key, (_, audio) in shown.items() if torch.equal(audio, silence)}
    assert unseen and unheard and not unseen & unheard and len(unseen | unheard) < len(shown)


def test_what_is_masked_is_the_mean_of_the_training_clips(
    pictures: PreparedCorpus, shown_by: Show, tmp_path: Path
) -> None:
    """Of each coefficient, so that nothing is left to tell there; all else is as it was."""
    told = shown_by(tmp_path, ALTERED)
    clips = pictures.clips({"audio": "audio"}, LOOK)
    sounds = np.stack([clips[place].audio.numpy() for place in range(len(clips))]).astype(float)
    mean = sounds[TRAIN].mean(axis=(0, 2))
    widths = []
    for (_, place), (_, audio) in told.items():
        changed = audio.numpy() != clips[place].audio.numpy()
        hidden = np.broadcast_to(mean[:, None], changed.shape)[changed]
        np.testing.assert_allclose(audio.numpy()[changed], hidden, atol=1e-4)
        columns, rows = changed.all(axis=0), changed.all(axis=1)
        assert (changed == (columns[None] | rows[:, None])).all()
        widths.append((columns.sum(), rows.sum()))
    steps, coefficients = np.array(widths).T
    assert 0 < steps.max() <= 0.4 * audio.shape[1] and 0 < coefficients.max() <= 5


def test_features_are_not_masked(tracks: PreparedCorpus, job_of: Callable[..., Job], tmp_path: Path) -> None:
    """The states of a speech encoder and OpenFace tracks stay as they are."""
    recipe = replace(find_recipe("features"), epochs=1, refit=False, batch_size=8)
    weights = []
    for each in (recipe, replace(recipe, time_mask=0.5, frequency_mask=0.5, colour_jitter=0.5)):
        job = job_of(tracks, "audio+speech", each)
        model, spec = initialise(job, tracks, ())
        clips = tracks.clips(model.reads, spec.look)
        Trainer(model, job, clips, TRAIN[:12], [], folder=tmp_path, accelerator=Accelerator()).fit()
        weights.append(model.state_dict())
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


def accelerator_of(processes: int, device: str) -> Any:
    return SimpleNamespace(num_processes=processes, device=torch.device(device), is_main_process=True)


def test_batch_norms_of_several_gpus_see_the_whole_batch() -> None:
    model = nn.Sequential(ResNeXt3D(width=1 / 32), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2))
    before, parameters = set(model.state_dict()), [id(each) for each in model.parameters()]
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    made = _synchronised(model, accelerator_of(2, "cuda"))
    found = [part for part in made.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert len(found) == len(norms) > 50
    assert all(isinstance(part, nn.SyncBatchNorm) for part in found)
    assert set(made.state_dict()) == before, "a checkpoint fits with one process too"
    assert [id(each) for each in made.parameters()] == parameters, "what the optimizer holds"


def test_where_they_cannot_that_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    loop._say_unsynchronised.cache_clear()
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert _synchronised(model, accelerator_of(1, "cpu")) is model
    assert _synchronised(nn.Linear(2, 2), accelerator_of(2, "cpu")) and not capsys.readouterr().err
    for _ in range(3):
        assert _synchronised(model, accelerator_of(2, "cpu")) is model
    assert capsys.readouterr().err.count("2 processes on cpu: batch normalisation") == 1
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in model.modules())


@pytest.mark.parametrize("start", [1.0, 0.25])
def test_residual_blocks_begin_as_the_recipe_says(
    start: float, pictures: PreparedCorpus, job_of: Callable[..., Job]
) -> None:
    model, _ = initialise(job_of(pictures, "video", replace(RECIPE, residual_start=start)), pictures, ())
    last = [value for name, value in model.state_dict().items() if name.endswith("convolutions.2.1.weight")]
    assert len(last) == 16
    assert {value for weight in last for value in weight.tolist()} == {start}
