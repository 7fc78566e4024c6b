"""The features preset: its loss and schedule, and the refit on the actors that chose the epoch."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional

import cfnsr
from cfnsr.data.conditions import CONDITIONS
from cfnsr.data.dataset import Batch, Clips, Column
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features.base import Look
from cfnsr.models import zoo
from cfnsr.training import fold
from cfnsr.training.checkpoint import config_of, read_spec
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import plan
from cfnsr.training.fold import SELECTED
from cfnsr.training.inputs import answer, to_input
from cfnsr.training.job import Job
from cfnsr.training.loop import Trainer, _class_weights
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=2, fused_epochs=1, batch_size=8)
NAMES = ("video+openface", "audio+speech", "cfn_sr_features")
WRITTEN = ("model.safetensors", "predictions.csv", "history.jsonl", "config.json")


Trained = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def run(train: Callable[..., list[Path]]) -> Trained:
    def run(corpus: PreparedCorpus, out: Path, **options: Any) -> list[Path]:
        return train(corpus, out, "cfn_sr_features", recipe=RECIPE, **options)

    return run


@pytest.fixture(scope="module")
def refitted(
    tracks: PreparedCorpus, run: Trained, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    return dict(zip(NAMES, run(tracks, tmp_path_factory.mktemp("runs")), strict=True))


def answered(folder: Path, tracks: PreparedCorpus, clip: str) -> torch.Tensor:
    model = cfnsr.load_model(folder)
    clips = tracks.clips(model.reads, config_of(model).look)
    place = next(index for index, header in enumerate(tracks.headers) if header.name == clip)
    batch = Batch(*(value[None] for value in clips[place]))
    with torch.no_grad():
        return answer(model, to_input(batch, torch.device("cpu")))[0]


def test_a_refitted_run_keeps_what_was_selected(refitted: dict[str, Path]) -> None:
    for folder in refitted.values():
        about = json.loads((folder / "run.json").read_text())
        assert about["finished"] and 1 <= about["epoch"] <= 2
        before, after = (part / "model.safetensors" for part in (folder / SELECTED, folder))
        assert before.read_bytes() != after.read_bytes()
        history = (folder / SELECTED / "history.jsonl").read_bytes()
        assert history == (folder / "history.jsonl").read_bytes()
        assert len((folder / "refit.jsonl").read_text().splitlines()) == about["epoch"]
        assert not list(folder.rglob("state.pt"))


@pytest.mark.parametrize("name", NAMES)
def test_the_validation_is_predicted_before_it_is_learnt(
    name: str, refitted: dict[str, Path], tracks: PreparedCorpus, rows: Callable[..., list[dict[str, str]]]
) -> None:
    folder = refitted[name]
    for row in rows(folder / "predictions.csv"):
        expected = torch.tensor([float(row[emotion]) for emotion in tracks.store.labels.emotions])
        right, wrong = folder / SELECTED, folder
        if row["split"] == "test":
            right, wrong = wrong, right
        torch.testing.assert_close(answered(right, tracks, row["clip"]), expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(answered(wrong, tracks, row["clip"]), expected, atol=1e-5)


@pytest.mark.parametrize("part", [SELECTED, ""])
def test_what_is_selected_starts_from_what_was_selected(refitted: dict[str, Path], part: str) -> None:
    """The encoders are frozen, so those of the fused run are those of the runs it started from."""
    fused = cfnsr.load_model(refitted["cfn_sr_features"] / part)
    for modality, name in (("video", NAMES[0]), ("audio", NAMES[1])):
        ours = getattr(fused, modality).state_dict()
        for key, value in cfnsr.load_model(refitted[name] / part).encoder.state_dict().items():
            assert torch.equal(ours[key], value), key


@pytest.mark.long
def test_killed_before_the_refit_and_resumed_it_ends_alike(
    refitted: dict[str, Path],
    tracks: PreparedCorpus,
    tmp_path: Path,
    run: Trained,
    cut_off: Callable[[int], AbstractContextManager[None]],
) -> None:
    with cut_off(2):
        run(tracks, tmp_path)
    for folder in run(tracks, tmp_path, resume=True):
        for file in WRITTEN:
            undisturbed = refitted[folder.parents[1].name] / file
            assert (folder / file).read_bytes() == undisturbed.read_bytes(), (folder, file)


TAKES = ("five_takes", "two_emotions", "one_emotion")


@pytest.mark.long
def test_standardised_speakers_are_scored_by_fewer_takes(
    refitted: dict[str, Path],
    tracks: PreparedCorpus,
    tmp_path: Path,
    run: Trained,
    rows: Callable[..., list[dict[str, str]]],
    job_of: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what the tested speakers are then known by, worked out by hand; no training depends on it."""
    standardised, seen = Column.standardised, []

    def spy(self: Column, *chosen: Any) -> Column:
        seen.append(self.name)
        return standardised(self, *chosen)

    with monkeypatch.context() as patch:
        patch.setattr(Column, "standardised", spy)
        first = run(PreparedCorpus(tracks.store), tmp_path / "first", protocol="nested_normalised")
    assert set(seen) == {"openface", "speech"}
    assert all(read_spec(folder).normalised for folder in first)  # so that predict refuses a lone file
    assert not any(read_spec(folder).normalised for folder in refitted.values())
    with monkeypatch.context() as patch:
        patch.setattr(fold, "predict_under_conditions", lambda *given: {})
        other = PreparedCorpus(tracks.store)
        without = run(other, tmp_path / "without", protocol="nested_normalised")
    job = job_of(tracks, "cfn_sr_features", RECIPE, "nested_normalised")
    tested, emotions = job.fold.test, tracks.store.labels.emotions
    named = {name: place for place, name in tracks.part(job.protocol, tested)}
    for folder, bare in zip(first, without, strict=True):
        for file in WRITTEN:
            assert (folder / file).read_bytes() == (bare / file).read_bytes(), file
        spoilt = rows(folder / "conditions.csv")
        assert tuple(dict.fromkeys(row["condition"] for row in spoilt)) == TAKES
        model = cfnsr.load_model(folder)
        answers = []
        for condition in TAKES:
            met = [row for row in spoilt if row["condition"] == condition]
            assert {int(row["actor"]) for row in met} == set(tested) and len(met) == 4 * len(tested)
            clips = tracks.clips(model.reads, config_of(model).look)
            clips.columns = {
                each: column.standardised(CONDITIONS[condition].among, tested)
                for each, column in clips.columns.items()
            }
            batch = Batch(*map(torch.stack, zip(*(clips[named[row["clip"]]] for row in met), strict=True)))
            with torch.no_grad():
                expected = answer(model, to_input(batch, torch.device("cpu")))
            found = torch.tensor([[float(row[each]) for each in emotions] for row in met])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            answers.append([row["calm"] for row in met])
        clean = [row["calm"] for row in rows(folder / "predictions.csv", "test")]
        assert answers[:2] == [clean, clean], "the made-up speakers have four takes of two emotions in all"
        assert answers[2] != clean


def test_one_track_under_two_names_is_a_leak(fill_features: Callable[..., Store], tmp_path: Path) -> None:
    """By its features: its file may be a table that all takes share."""
    store = fill_features(tmp_path)
    copy = store.load("calm-1-1", ["openface", "speech", "speech_0.9"])
    header = next(header for header in store.headers() if header.name == "calm-2-1")
    theirs = store.load("calm-2-1", ["speech", "speech_0.9"])
    store.write(header, {**theirs, "openface": copy["openface"]})
    leaky = PreparedCorpus(store)
    apart = [fold for fold in leaky.folds(PROTOCOLS["nested"]) if len({1, 2} & {*fold.test}) == 1]
    assert apart
    said = r"leaks: the recording of calm-.-1 in .* is that of calm-.-1 in .*, by its bytes"
    with pytest.raises(InputError, match=said):
        leaky.check(PROTOCOLS["nested"], apart[0])


def test_rare_classes_weigh_more() -> None:
    """Six clips of the first class and two of the second: 2/3 and 2, 1 on the mean over the clips."""
    clips = Clips({}, [0] * 6 + [1] * 2 + [1] * 90, 2)
    weights = _class_weights(clips, range(8))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


def test_the_losses_by_hand(tracks: PreparedCorpus, job_of: Callable[..., Job], tmp_path: Path) -> None:
    logs, labels = torch.randn(4, 2).log_softmax(dim=1), torch.tensor([0, 1, 1, 0])
    batch = Batch(torch.randn(4, 35, 3), torch.empty(0), labels, torch.arange(4))
    small = find_recipe("small")
    plain, smooth = (
        Trainer(
            zoo.create_model("video+openface", classes=2),
            job_of(tracks, "video+openface", recipe),
            tracks.clips({"video": "openface"}, Look(8, 64)),
            [0, 1, 2, 3],
            [],
            folder=tmp_path,
            accelerator=Accelerator(),
        )
        for recipe in (small, small.changed(label_smoothing=0.1))
    )
    same, targets = plain.augmentation.soften(batch, torch.zeros(4))
    assert same is batch and targets is None
    assert torch.equal(plain._loss(logs, labels, targets), functional.nll_loss(logs, labels))
    loss = smooth._loss(logs, labels, smooth.augmentation.soften(batch, torch.zeros(4))[1])
    expected = -torch.stack([0.95 * row[k] + 0.05 * row[1 - k] for row, k in zip(logs, labels, strict=True)])
    torch.testing.assert_close(loss, expected.mean())


def test_the_preset_needs_inner_validation_actors(tracks: PreparedCorpus) -> None:
    """Under the paper's protocol its temperatures and its refit would be silently left out."""
    for protocol in ("paper", "best_epoch_on_test"):
        said = f"'{protocol}' has no inner validation actors, and preset features"
        with pytest.raises(InputError, match=said):
            plan(["cfn_sr_features"], tracks, protocol=protocol, recipe=RECIPE)
    assert plan(["cfn_sr_features"], tracks, protocol="leave_one_actor_out", recipe=RECIPE)
