"""Linear classifiers that are solved: against scikit-learn, in a run, and by `predict`."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

import cfnsr
from cfnsr.data.store import Store
from cfnsr.evaluation.report import report
from cfnsr.models import zoo
from cfnsr.models.baselines import SOLVERS, Statistics, linear_discriminant, logistic_regression
from cfnsr.training.checkpoint import config_of
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.fold import SELECTED
from cfnsr.training.inputs import answer
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=2, batch_size=8)
NAMES = ("lda", "lda_late", "logistic", "logistic_late")


@pytest.fixture(scope="module")
def corpus(features: Store) -> PreparedCorpus:
    return PreparedCorpus(features)


@pytest.fixture(scope="module")
def runs(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run(corpus, out, tuple(f"{name}+openface+speech" for name in NAMES))
    return out


def run(corpus: PreparedCorpus, out: Path, names: tuple[str, ...]) -> list[Path]:
    jobs = plan(names, corpus, protocol="nested", recipe=RECIPE, folds=[1])
    return crossval(jobs, corpus, out, accelerator=Accelerator())


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
    np.testing.assert_allclose(ours, theirs.predict_proba(values), atol=1e-4)
    np.testing.assert_allclose(weight.T, theirs.coef_, atol=1e-4)


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


def measured(corpus: PreparedCorpus, places: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of both modalities at both speeds, number by number; and the labels."""
    rows, labels = [], []
    clips = corpus.clips({"video": "openface", "audio": "speech"}, corpus_look(corpus))
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


def corpus_look(corpus: PreparedCorpus) -> object:
    from cfnsr.training.fold import create

    job = plan(["lda+openface+speech"], corpus, protocol="nested", recipe=RECIPE, folds=[1])[-1]
    return create(job, corpus)[1].look


def test_a_run_is_scikit_learns_on_the_training_actors(runs: Path, corpus: PreparedCorpus) -> None:
    """From the clips' features to predictions.csv, at the strength that the validation actors chose."""
    name = "logistic+openface+speech"
    where = folder(runs, name)
    about = json.loads((where / "run.json").read_text())
    strength = SOLVERS["logistic"].strengths[about["epoch"] - 1]
    fold = plan([name], corpus, protocol="nested", recipe=RECIPE, folds=[1])[-1].fold
    values, labels = measured(corpus, corpus.places("nested", (*fold.train, *fold.validation)))
    scale = values.mean(0), values.std(0) + 1e-4
    standard = ((values - scale[0]) / scale[1]).clip(-8, 8)
    # Of two classes they penalise one weight vector, twice as long as each of our two.
    theirs = LogisticRegression(C=2 / (strength * len(labels)), tol=1e-10, max_iter=10_000)
    theirs.fit(standard, labels)
    tested = corpus.part("nested", fold.test)
    values, _ = measured(corpus, [place for place, _ in tested])
    logs = theirs.predict_log_proba(((values - scale[0]) / scale[1]).clip(-8, 8))
    expected = torch.from_numpy(logs).view(len(tested), 2, 2).mean(dim=1).log_softmax(dim=1).numpy()
    rows = [row for row in csv.DictReader((where / "predictions.csv").open()) if row["split"] == "test"]
    assert [row["clip"] for row in rows] == [clip for _, clip in tested]
    found = np.array([[float(row[emotion]) for emotion in corpus.store.labels.emotions] for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("name", [f"{name}+openface+speech" for name in ("lda", "logistic")])
def test_the_validation_actors_choose_the_strength(runs: Path, name: str) -> None:
    where = folder(runs, name)
    history = [json.loads(line) for line in (where / "history.jsonl").read_text().splitlines()]
    strengths = SOLVERS[zoo.base_name(name)].strengths
    assert [record["strength"] for record in history] == list(strengths)
    best = max(history, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))
    about = json.loads((where / "run.json").read_text())
    assert about["epoch"] == best["epoch"] and about["epochs"] == len(strengths)
    assert about["selected_on"] == "validation" and about["caveat"] == ""
    refit = [json.loads(line) for line in (where / "refit.jsonl").read_text().splitlines()]
    assert refit[-1]["strength"] == strengths[about["epoch"] - 1]


def test_added_log_probabilities_are_tempered_each_by_its_own(runs: Path, corpus: PreparedCorpus) -> None:
    for solver in SOLVERS:
        parts = [folder(runs, f"{solver}_{one}") for one in ("video+openface", "audio+speech")]
        for part in (SELECTED, ""):
            late = cfnsr.load_model(folder(runs, f"{solver}_late+openface+speech") / part)
            clips = corpus.clips(late.reads, config_of(late).look)
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


def test_a_run_counts_what_it_is(runs: Path, corpus: PreparedCorpus) -> None:
    about = json.loads((folder(runs, "lda+openface+speech") / "run.json").read_text())
    assert about["trained_params"] == about["params"] == (35 + 3 * 2 * 8 + 1) * 2, "the store keeps no count"
    heard = PreparedCorpus(corpus.store)
    assert heard.speech_parameters == 0


def test_the_report_shows_them(runs: Path) -> None:
    report(runs)
    rows = {row["model"]: row for row in json.loads((runs / "results.json").read_text())["rows"]}
    wanted = {f"{name}+openface+speech" for name in NAMES}
    wanted |= {f"{solver}_{one}" for solver in SOLVERS for one in ("video+openface", "audio+speech")}
    assert set(rows) == wanted
    assert all(0 <= row["accuracy"]["mean"] <= 1 and row["trained_params"] for row in rows.values())


def test_seeds_and_orders_change_nothing(runs: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    jobs = plan(["lda_audio+speech"], corpus, protocol="nested", recipe=RECIPE, folds=[1], seeds=[7])
    (other,) = crossval(jobs, corpus, tmp_path, accelerator=Accelerator())
    first = folder(runs, "lda_audio+speech")
    assert (other / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_test_actors_are_not_looked_at(
    runs: Path, corpus: PreparedCorpus, tmp_path: Path, fill_features: Callable[..., Store]
) -> None:
    fold = plan(["lda"], corpus, protocol="nested", recipe=RECIPE.changed(pretrain=False), folds=[1])[0].fold
    changed = tuple(corpus.actors("nested", fold.test))
    other = PreparedCorpus(fill_features(tmp_path / "store", changed=changed))
    for name, where in zip(("lda", "lda_late"), (tmp_path / "a", tmp_path / "b"), strict=True):
        last = run(other, where, (f"{name}+openface+speech",))[-1]
        same = folder(runs, f"{name}+openface+speech")
        assert (last / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()


def test_pictures_and_mfccs_have_statistics_too(store: Store, tmp_path: Path) -> None:
    """The made-up clips of an emotion have its colour and its coefficient, so both tell it."""
    corpus = PreparedCorpus(store)
    recipe = find_recipe("small").changed(batch_size=8)
    jobs = plan(["lda_late", "logistic"], corpus, protocol="nested", recipe=recipe, folds=[1])
    for where in crossval(jobs, corpus, tmp_path, accelerator=Accelerator()):
        rows = [row for row in csv.DictReader((where / "predictions.csv").open()) if row["split"] == "test"]
        emotions = corpus.store.labels.emotions
        right = [max(emotions, key=lambda emotion: float(row[emotion])) == row["label"] for row in rows]
        assert sum(right) == len(right), where


def test_statistics_say_what_shape_they_expect() -> None:
    model = zoo.create_model("lda_audio+speech")
    with pytest.raises(
        cfnsr.InputError, match=r"speech is \(1, 5, 7, 2\): expected shape \(B, 5, any, 384\)"
    ):
        model(None, torch.zeros(1, 5, 7, 2))
    with pytest.raises(cfnsr.InputError, match=r"speech is none"):
        model(None, None)
    assert isinstance(model.encoder, Statistics)


def test_predict_answers_by_them(synthetic: Path, prepared: Path, tmp_path: Path) -> None:
    """A take of the test actor, from its file: what the run says of its clip, calibrated."""
    corpus = PreparedCorpus(Store(prepared))
    recipe = find_recipe("small").changed(batch_size=8)
    jobs = plan(["lda_audio"], corpus, protocol="nested", recipe=recipe, folds=[1])
    (where,) = crossval(jobs, corpus, tmp_path, accelerator=Accelerator())
    row = next(row for row in csv.DictReader((where / "predictions.csv").open()) if row["split"] == "test")
    (file,) = synthetic.rglob(f"{row['clip']}.mp4")
    model = cfnsr.load_model(where)
    told = cfnsr.predict(model, file).probabilities
    assert told is not None
    logs = np.array([float(row[emotion]) for emotion in told]) / config_of(model).temperature
    expected = np.exp(logs) / np.exp(logs).sum()
    np.testing.assert_allclose(list(told.values()), expected, atol=1e-4)
