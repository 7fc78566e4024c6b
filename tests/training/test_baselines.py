"""Linear classifiers that are solved: against scikit-learn, in a run, and by `predict`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

import cfnsr
from cfnsr.data.store import Store
from cfnsr.evaluation.report import report
from cfnsr.features.base import Look
from cfnsr.models import zoo
from cfnsr.models.baselines import NEAR, SOLVERS, Statistics, linear_discriminant, logistic_regression
from cfnsr.training.checkpoint import config_of
from cfnsr.training.config import find_recipe
from cfnsr.training.fold import SELECTED
from cfnsr.training.inputs import answer
from cfnsr.training.job import Job
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=2, batch_size=8)
LOOK = Look(RECIPE.frames, RECIPE.size, openface_steps=7)
NAMES = ("lda", "lda_late", "logistic", "logistic_late")


Train = Callable[..., list[Path]]
Rows = Callable[..., list[dict[str, str]]]


@pytest.fixture(scope="module")
def runs(tracks: PreparedCorpus, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    train(tracks, out, *(f"{name}+openface+speech" for name in NAMES), recipe=RECIPE)
    return out


def folder(runs: Path, name: str) -> Path:
    return runs / "nested" / name / "seed_0" / "fold_1"


def samples(clips: int, features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % 4
    values = rng.normal(size=(clips, features)) + 0.5 * rng.normal(size=(4, features))[labels]
    return torch.from_numpy(values), torch.from_numpy(labels)


@pytest.mark.parametrize(("clips", "features", "speeds"), [(200, 12, 1), (60, 150, 1), (40, 150, 3)])
@pytest.mark.parametrize("strength", [0.003, 0.1, 3.0])
def test_logistic_regression_is_that_of_scikit_learn(
    clips: int, features: int, speeds: int, strength: float
) -> None:
    """With fewer values than clips, with more, and with clips that come more than once."""
    values, labels = (each.repeat_interleave(speeds, dim=0) for each in samples(clips, features))
    weight, bias = logistic_regression(values, labels, 4)(strength)
    theirs = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-10, max_iter=10_000).fit(
        values, labels
    )
    ours = (values @ weight + bias).softmax(dim=1)
    np.testing.assert_allclose(ours, theirs.predict_proba(values), atol=2 * NEAR)
    np.testing.assert_allclose(weight.T, theirs.coef_, atol=2 * NEAR)


def test_a_class_that_nobody_shows_does_no_harm() -> None:
    values, labels = samples(80, 5)
    weight, bias = logistic_regression(values, labels, 6)(0.1)
    probabilities = (values @ weight + bias).softmax(dim=1)
    assert torch.isfinite(weight).all() and probabilities[:, 4:].max() < 0.01


@pytest.mark.parametrize("shrinkage", [0.1, 0.6, 0.95])
def test_the_discriminant_is_that_of_scikit_learn(shrinkage: float) -> None:
    values, labels = samples(200, 12)
    weight, bias = linear_discriminant(values, labels, 4, shrinkage)
    # Theirs shrinks after it has scaled the values by their deviation within the classes: give them such.
    within = values - torch.stack([values[labels == label].mean(dim=0) for label in range(4)])[labels]
    scaled = values / within.std(dim=0, correction=0)
    weight, bias = linear_discriminant(scaled, labels, 4, shrinkage)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(scaled, labels)
    ours = (scaled @ weight + bias).softmax(dim=1)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=1e-6)


def measured(tracks: PreparedCorpus, places: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of both modalities at both speeds, number by number; and the labels."""
    rows, labels = [], []
    clips = tracks.clips({"video": "openface", "audio": "speech"}, LOOK)
    for place in places:
        clip = clips[place]
        seen = clip.video.numpy()
        track = np.sign(seen) * np.log1p(3 * np.abs(seen))
        for states in clip.audio.float().numpy():  # (layers, steps, width)
            moved = np.diff(states, axis=1)
            spoken = [states.mean(1), np.sqrt(states.var(1) + 1e-4), np.sqrt(moved.var(1) + 1e-4)]
            rows.append(np.concatenate([track.mean(1), np.concatenate(spoken, axis=1).ravel()]))
            labels.append(int(clip.label))
    return np.array(rows, float), np.array(labels)


def test_a_run_is_scikit_learns_on_the_training_actors(
    runs: Path, tracks: PreparedCorpus, job_of: Callable[..., Job], rows: Rows
) -> None:
    """From the clips' features to predictions.csv, at the strength that the validation actors chose."""
    name = "logistic+openface+speech"
    where = folder(runs, name)
    about = json.loads((where / "run.json").read_text())
    strength = SOLVERS["logistic"].strengths[about["epoch"] - 1]
    job = job_of(tracks, name, RECIPE)
    values, labels = measured(tracks, tracks.places(job.protocol, (*job.fold.train, *job.fold.validation)))
    scale = values.mean(0), values.std(0) + 1e-4
    standard = ((values - scale[0]) / scale[1]).clip(-8, 8)
    # Of two classes they penalise one weight vector, twice as long as each of our two.
    theirs = LogisticRegression(C=2 / (strength * len(labels)), tol=1e-10, max_iter=10_000)
    theirs.fit(standard, labels)
    tested = tracks.part(job.protocol, job.fold.test)
    values, _ = measured(tracks, [place for place, _ in tested])
    logs = theirs.predict_log_proba(((values - scale[0]) / scale[1]).clip(-8, 8))
    expected = torch.from_numpy(logs).view(len(tested), 2, 2).mean(dim=1).log_softmax(dim=1).numpy()
    written = rows(where / "predictions.csv", "test")
    assert [row["clip"] for row in written] == [clip for _, clip in tested]
    found = np.array([[float(row[emotion]) for emotion in tracks.store.labels.emotions] for row in written])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_validation_actors_choose_the_strength(
    runs: Path, solver: str, history: Callable[..., list[dict[str, Any]]]
) -> None:
    where, strengths = folder(runs, f"{solver}+openface+speech"), SOLVERS[solver].strengths
    records = history(where)
    assert [record["strength"] for record in records] == list(strengths)
    best = max(records, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))
    about = json.loads((where / "run.json").read_text())
    assert about["epoch"] == best["epoch"] and about["epochs"] == len(strengths)
    assert about["selected_on"] == "validation" and about["caveat"] == ""
    assert history(where, "refit.jsonl")[-1]["strength"] == strengths[about["epoch"] - 1]


def test_added_log_probabilities_are_tempered_each_by_its_own(runs: Path, tracks: PreparedCorpus) -> None:
    for solver in SOLVERS:
        parts = [folder(runs, f"{solver}_{one}") for one in ("video+openface", "audio+speech")]
        for part in (SELECTED, ""):
            late = cfnsr.load_model(folder(runs, f"{solver}_late+openface+speech") / part)
            clips = tracks.clips(late.reads, config_of(late).look)
            batch = type(clips[0])(
                *(torch.stack(column) for column in zip(*map(clips.__getitem__, range(5)), strict=True))
            )
            batch = batch._replace(audio=batch.audio[:, :1].float())  # at one speed
            with torch.no_grad():
                scores = 0
                for path in parts:
                    one = cfnsr.load_model(path / part)
                    scores = scores + answer(one, batch) / config_of(one).temperature
                torch.testing.assert_close(
                    answer(late, batch), scores.log_softmax(dim=1), atol=1e-4, rtol=1e-4
                )


def test_a_run_counts_what_it_is(runs: Path, tracks: PreparedCorpus) -> None:
    about = json.loads((folder(runs, "lda+openface+speech") / "run.json").read_text())
    assert about["trained_params"] == about["params"] == (35 + 3 * 2 * 8 + 1) * 2, "the store keeps no count"
    assert tracks.speech_parameters == 0


def test_the_report_shows_them(runs: Path) -> None:
    report(runs)
    shown = {row["model"]: row for row in json.loads((runs / "results.json").read_text())["rows"]}
    wanted = {f"{name}+openface+speech" for name in NAMES}
    wanted |= {f"{solver}_{one}" for solver in SOLVERS for one in ("video+openface", "audio+speech")}
    assert set(shown) == wanted
    assert all(0 <= row["accuracy"]["mean"] <= 1 and row["trained_params"] for row in shown.values())


def test_seeds_and_test_actors_change_nothing(
    runs: Path,
    tracks: PreparedCorpus,
    tmp_path: Path,
    train: Train,
    job_of: Callable[..., Job],
    fill_features: Callable[..., Store],
) -> None:
    job = job_of(tracks, "lda+openface+speech", RECIPE)
    changed = tuple(tracks.actors(job.protocol, job.fold.test))
    other = PreparedCorpus(fill_features(tmp_path / "store", changed=changed))
    for name in ("lda+openface+speech", "lda_late+openface+speech"):
        last = train(other, tmp_path / name, name, recipe=RECIPE, seeds=[7])[-1]
        weights = (folder(runs, name) / "model.safetensors").read_bytes()
        assert (last / "model.safetensors").read_bytes() == weights


def test_pictures_and_mfccs_have_statistics_too(
    pictures: PreparedCorpus, tmp_path: Path, train: Train, rows: Rows
) -> None:
    """The made-up clips of an emotion have its colour and its coefficient, so both tell it."""
    recipe = find_recipe("small").changed(batch_size=8)
    emotions = pictures.store.labels.emotions
    for where in train(pictures, tmp_path, "lda_late", "logistic", recipe=recipe):
        for row in rows(where / "predictions.csv", "test"):
            assert max(emotions, key=lambda emotion: float(row[emotion])) == row["label"], where


def test_statistics_say_what_shape_they_expect() -> None:
    model = zoo.create_model("lda_audio+speech")
    with pytest.raises(
        cfnsr.InputError, match=r"speech is \(1, 5, 7, 2\): expected shape \(B, 5, any, 384\)"
    ):
        model(None, torch.zeros(1, 5, 7, 2))
    with pytest.raises(cfnsr.InputError, match=r"speech is none"):
        model(None, None)
    assert isinstance(model.encoder, Statistics)


def test_predict_answers_by_them(
    synthetic: Path, prepared: Path, tmp_path: Path, train: Train, rows: Rows
) -> None:
    """A take of the test actor, from its file: what the run says of its clip, calibrated."""
    recipe = find_recipe("small").changed(batch_size=8)
    (where,) = train(PreparedCorpus(Store(prepared)), tmp_path, "lda_audio", recipe=recipe)
    row = rows(where / "predictions.csv", "test")[0]
    (file,) = synthetic.rglob(f"{row['clip']}.mp4")
    model = cfnsr.load_model(where)
    found = cfnsr.predict(model, file).probabilities
    assert found is not None
    logs = np.array([float(row[emotion]) for emotion in found]) / config_of(model).temperature
    expected = np.exp(logs) / np.exp(logs).sum()
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-4)
