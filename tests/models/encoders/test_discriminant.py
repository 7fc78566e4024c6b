"""The discriminant in closed form: against scikit-learn's, and where it says nothing."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from cfnsr.models.encoders.discriminant import DEVIATION, Discriminant, _solve

Array = NDArray[np.float64]


def draw(counts: tuple[int, ...], features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """So many clips of each class, whose features lie about the class's own means; each at its own scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    means = torch.randn(len(counts), features, generator=torch.Generator().manual_seed(99))
    values = means[labels] + torch.randn(len(labels), features, generator=generator)
    return values * torch.linspace(0.1, 20, features) + torch.linspace(-3, 30, features), labels


def fitted(values: Tensor, labels: Tensor, classes: int) -> Discriminant:
    discriminant = Discriminant(values.shape[1], classes).eval()
    discriminant.fit(values, labels)
    return discriminant


def expected(values: Array, labels: Array, asked: Array) -> Array:
    """Scores by scikit-learn, with a clip more of each class in the priors; centred and brought to scale."""
    mean, deviation = values.mean(axis=0), values.std(axis=0) + 1e-4
    values, asked = (np.clip((each - mean) / deviation, -8, 8) for each in (values, asked))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.6).fit(values, labels)
    counts = np.bincount(labels)
    priors = np.log((counts + 1) / (counts + 1).sum()) - np.log(counts / counts.sum())
    of_fitted, scores = (theirs.decision_function(each) + priors for each in (values, asked))
    of_fitted, scores = (each - each.mean(axis=1, keepdims=True) for each in (of_fitted, scores))
    scaled: Array = 4 * scores / of_fitted.std()
    return scaled


@pytest.mark.parametrize("features", [1, 5, 30, 60])
def test_scores_are_those_of_scikit_learn(features: int) -> None:
    """With fewer features than the 30 clips, as many, and more; the classes are not of one size."""
    values, labels = draw((6, 14, 10), features)
    asked = torch.cat([draw((9, 9, 9), features, seed=1)[0], torch.full((1, features), 1e5)])
    scores = fitted(values, labels, 3)(asked)
    theirs = expected(values.double().numpy(), labels.numpy(), asked.double().numpy())
    assert np.allclose(scores.numpy(), theirs, atol=1e-3, rtol=1e-3) and scores.std() > 1


@pytest.mark.parametrize(("clips", "features"), [(4, 9), (8, 9), (9, 9), (20, 9), (7, 1), (1, 5)])
def test_both_ways_to_solve(clips: int, features: int) -> None:
    """Against the inverse, written out; and with each clip thrice, the same covariance of more clips."""
    generator = torch.Generator().manual_seed(clips)
    within = torch.randn(clips, features, generator=generator, dtype=torch.float64)
    targets = torch.randn(features, 3, generator=generator, dtype=torch.float64)
    covariance = sum(np.outer(clip, clip) for clip in within.numpy()) / clips
    level = np.trace(covariance) / features
    inverse = np.linalg.inv(0.4 * covariance + 0.6 * level * np.eye(features))
    for same in (within, within.repeat(3, 1)):
        np.testing.assert_allclose(_solve(same, targets).numpy(), inverse @ targets.numpy(), rtol=1e-9)


@pytest.mark.parametrize("features", [5, 60])
def test_scores_are_centred_and_of_one_deviation(features: int) -> None:
    values, labels = draw((6, 14, 10), features)
    scores = fitted(values, labels, 3)(values).double()
    torch.testing.assert_close(scores.sum(dim=1), torch.zeros(30).double(), atol=1e-4, rtol=0)
    assert scores.std(correction=0).item() == pytest.approx(DEVIATION, rel=1e-4)


@pytest.mark.parametrize(("features", "others"), [(5, (14, 10, 9)), (60, (14, 10, 9)), (5, (20, 0, 0))])
def test_a_class_without_clips_is_not_chosen(features: int, others: tuple[int, ...]) -> None:
    """Where the others lie apart: several of them, or a single one."""
    counts = (others[0], 0, *others[1:])
    values, labels = draw(counts, features)
    discriminant = fitted(values, labels, 4)
    for seen in (values, draw(counts, features, seed=1)[0]):
        scores = discriminant(seen)
        assert scores.isfinite().all() and (scores.argmax(dim=1) != 1).all()
    assert (discriminant(values).argmax(dim=1) == labels).double().mean() > 0.85


def test_a_class_without_clips_is_not_chosen_among_more_values_than_clips() -> None:
    """There every clip is far from the means of the others, and their middle is near."""
    generator = torch.Generator().manual_seed(0)
    means = 0.1 * torch.randn(4, 1000, generator=generator)

    def near(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
        return means[labels] + torch.randn(len(labels), 1000, generator=generator), labels

    discriminant = Discriminant(1000, 4).eval()
    discriminant.fit(*near((50, 50, 0, 50)))
    values, labels = near((40, 40, 0, 40))
    chosen = discriminant(values).argmax(dim=1)
    assert (chosen == 2).double().mean() < 0.02 and (chosen == labels).double().mean() > 0.5


@pytest.mark.parametrize("features", [5, 60])
def test_a_class_without_clips_lies_in_the_middle_of_all(features: int) -> None:
    """With the mean of all clips for its own, and the least bias of the others."""
    values, labels = draw((14, 0, 10), features)
    scores = fitted(values, labels, 3)(values).double().numpy()
    array = values.double().numpy()
    array = (array - array.mean(axis=0)) / (array.std(axis=0) + 1e-4)
    means = [array[:14].mean(axis=0), array.mean(axis=0), array[14:].mean(axis=0)]
    within = np.stack([clip - means[label] for clip, label in zip(array, labels.tolist(), strict=True)])
    covariance = within.T @ within / 24
    inverse = np.linalg.inv(0.4 * covariance + 0.6 * np.trace(covariance) / features * np.eye(features))
    biases = [
        np.log(count / 26) - mean @ inverse @ mean / 2
        for count, mean in zip((15, 11), means[::2], strict=True)
    ]
    told = np.stack([array @ inverse @ mean for mean in means], axis=1)
    told += [biases[0], min(biases), biases[1]]
    told -= told.mean(axis=1, keepdims=True)
    assert np.allclose(scores, 4 * told / told.std(), atol=1e-3, rtol=1e-3)


def test_while_it_trains_it_is_silent_unless_it_speaks() -> None:
    values, labels = draw((6, 14, 10), 5)
    discriminant = fitted(values, labels, 3)
    told = discriminant(values)
    assert told.abs().min() > 0
    assert discriminant.train()(values).shape == (30, 3) and not discriminant(values).any()
    discriminant.speaks = True
    assert torch.equal(discriminant(values), told)
    assert not list(discriminant.parameters()), "no step of an optimiser changes it"


@pytest.mark.parametrize("training", [True, False])
def test_unfitted_it_is_silent(training: bool) -> None:
    discriminant = Discriminant(5, 3).train(training)
    discriminant.speaks = True
    assert torch.equal(discriminant(torch.randn(4, 5)), torch.zeros(4, 3))


def test_saved_and_loaded_it_says_the_same() -> None:
    values, labels = draw((6, 14, 10), 5)
    discriminant, other = fitted(values, labels, 3), Discriminant(5, 3).eval()
    other.load_state_dict(discriminant.state_dict())
    assert torch.equal(other(values), discriminant(values))


@pytest.mark.parametrize("clips", [10, 200])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1000.1])
def test_a_value_that_never_changes_says_nothing(constant: float, clips: int) -> None:
    values, labels = draw((clips, clips, clips), 60)
    values[:, 7] = constant
    discriminant = fitted(values, labels, 3)
    other = values.clone()
    other[:, 7] += 5
    assert discriminant(values).isfinite().all()
    torch.testing.assert_close(discriminant(other), discriminant(values), atol=1e-3, rtol=1e-3)


def test_clips_that_are_all_alike() -> None:
    discriminant = fitted(torch.ones(6, 5), torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    assert discriminant(torch.randn(4, 5)).isfinite().all()


@pytest.mark.parametrize("features", [5, 60])
def test_neither_the_order_nor_the_scale_matters(features: int) -> None:
    values, labels = draw((6, 14, 10), features)
    told = fitted(values, labels, 3)(values)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted(values[order], labels[order], 3)(values), told, atol=1e-3, rtol=1e-3)
    scale = torch.logspace(0, 3, features)
    for other in (values * scale, values * scale - 100):
        torch.testing.assert_close(fitted(other, labels, 3)(other), told, atol=0.02, rtol=0.01)
