"""The discriminant in closed form: against scikit-learn's, with waves and without, and where it is silent."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from cfnsr.models.encoders.discriminant import DEVIATION, NARROWNESS, SHRINKAGE, Discriminant, _solve

Array = NDArray[np.float64]


def draw(counts: tuple[int, ...], features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """So many clips of each class, whose features lie about the class's own means; each at its own scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    means = torch.randn(len(counts), features, generator=torch.Generator().manual_seed(99))
    values = means[labels] + torch.randn(len(labels), features, generator=generator)
    return values * torch.linspace(0.1, 20, features) + torch.linspace(-3, 30, features), labels


def crossed(clips: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes, each in two opposite corners of a square: no line can tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    corners = 2.0 * torch.randint(0, 2, (clips, 2), generator=generator) - 1
    labels = (corners[:, 0] == corners[:, 1]).long()
    return corners + 0.3 * torch.randn(clips, 2, generator=generator), labels


def fitted(values: Tensor, labels: Tensor, classes: int, waves: int = 0, **settings: float) -> Discriminant:
    torch.manual_seed(0)
    discriminant = Discriminant(values.shape[1], classes, waves, **settings).eval()
    discriminant.fit(values, labels)
    return discriminant


def numbers(values: Tensor) -> Array:
    found: Array = values.double().numpy()
    return found


def cosines(discriminant: Discriminant, values: Array) -> Array:
    """Of each clip and each wave: the cosine of its place along the wave's direction."""
    directions, phases = numbers(discriminant.directions), numbers(discriminant.phases)
    out = np.zeros((len(values), len(phases)))
    for clip, place in enumerate(values):
        for wave, phase in enumerate(phases):
            out[clip, wave] = math.cos(sum(place * directions[:, wave]) + phase)
    return out


def expected(
    discriminant: Discriminant,
    values: Array,
    labels: Array,
    asked: Array,
    shrinkage: float = 0.6,
    deviation: float = 4,
) -> Array:
    """Scores by scikit-learn, with a clip more of each class in the priors; centred and brought to scale.

    Of the discriminant nothing is taken but its waves, if it has any.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-4
    values, asked = (np.clip((each - mean) / spread, -8, 8) for each in (values, asked))
    if discriminant.phases.numel():
        values, asked = (cosines(discriminant, each) for each in (values, asked))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(values, labels)
    counts = np.bincount(labels)
    priors = np.log((counts + 1) / (counts + 1).sum()) - np.log(counts / counts.sum())
    of_fitted, scores = (theirs.decision_function(each) + priors for each in (values, asked))
    of_fitted, scores = (each - each.mean(axis=1, keepdims=True) for each in (of_fitted, scores))
    scaled: Array = deviation * scores / of_fitted.std()
    return scaled


def compare(features: int, waves: int = 0, **settings: float) -> None:
    """With scikit-learn's, of other clips and one far from all."""
    values, labels = draw((6, 14, 10), features)
    asked = torch.cat([draw((9, 9, 9), features, seed=1)[0], torch.full((1, features), 1e5)])
    discriminant = fitted(values, labels, 3, waves, **settings)
    theirs = expected(discriminant, numbers(values), labels.numpy(), numbers(asked), **settings)
    scores = discriminant(asked)
    assert np.allclose(scores.numpy(), theirs, atol=1e-3, rtol=1e-3)
    assert scores.std() > settings.get("deviation", 4) / 4


@pytest.mark.parametrize("features", [1, 5, 30, 60])
def test_scores_are_those_of_scikit_learn(features: int) -> None:
    """With fewer features than the 30 clips, as many, and more; the classes are not of one size."""
    compare(features)


@pytest.mark.parametrize("features", [1, 5, 60])
@pytest.mark.parametrize("waves", [1, 7, 30, 200])
def test_scores_of_waves_are_those_of_scikit_learn(features: int, waves: int) -> None:
    """Fewer waves than clips, as many, and more; there it judges cosines as it else judges the features."""
    compare(features, waves)


@pytest.mark.parametrize("waves", [0, 200])
@pytest.mark.parametrize(("shrinkage", "deviation"), [(0.3, 2.0), (0.1, 0.5), (1.0, 10.0)])
def test_another_shrinkage_and_deviation(shrinkage: float, deviation: float, waves: int) -> None:
    compare(5, waves, shrinkage=shrinkage, deviation=deviation)


def test_what_is_wholly_shrunk_asks_for_the_nearest_mean() -> None:
    """There a class's weights are its mean; the less is shrunk, the less they are."""
    values, labels = draw((10, 10, 10), 20)
    standard = (values - values.mean(dim=0)) / (values.std(dim=0, correction=0) + 1e-4)
    means = torch.stack([standard[labels == label].mean(dim=0) for label in range(3)])
    scores = fitted(values, labels, 3, shrinkage=1.0)(values)
    assert torch.equal(scores.argmax(dim=1), torch.cdist(standard, means).argmin(dim=1))
    likeness = []
    for shrinkage in (1.0, 0.6, 0.3, 0.1):
        weight = fitted(values, labels, 3, shrinkage=shrinkage).weight
        likeness.append(torch.cosine_similarity(weight.flatten(), means.T.flatten(), dim=0).item())
    assert likeness[0] == pytest.approx(1, abs=1e-5)
    assert likeness == sorted(likeness, reverse=True) and likeness[-1] < 0.9


@pytest.mark.parametrize("shrinkage", [0.6, 0.3, 1.0])
@pytest.mark.parametrize(("clips", "features"), [(4, 9), (8, 9), (9, 9), (20, 9), (7, 1), (1, 5)])
def test_both_ways_to_solve(clips: int, features: int, shrinkage: float) -> None:
    """Against the inverse, written out; and with each clip thrice, the same covariance of more clips."""
    generator = torch.Generator().manual_seed(clips)
    within = torch.randn(clips, features, generator=generator, dtype=torch.float64)
    targets = torch.randn(features, 3, generator=generator, dtype=torch.float64)
    covariance = sum(np.outer(clip, clip) for clip in within.numpy()) / clips
    level = np.trace(covariance) / features
    inverse = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * level * np.eye(features))
    for same in (within, within.repeat(3, 1)):
        solved = _solve(same, targets, shrinkage)
        np.testing.assert_allclose(solved.numpy(), inverse @ targets.numpy(), rtol=1e-9)


@pytest.mark.parametrize("deviation", [DEVIATION, 0.5])
@pytest.mark.parametrize("waves", [0, 200])
@pytest.mark.parametrize("features", [5, 60])
def test_scores_are_centred_and_of_one_deviation(features: int, waves: int, deviation: float) -> None:
    values, labels = draw((6, 14, 10), features)
    scores = fitted(values, labels, 3, waves, deviation=deviation)(values).double()
    torch.testing.assert_close(scores.sum(dim=1), torch.zeros(30).double(), atol=1e-4, rtol=0)
    assert scores.std(correction=0).item() == pytest.approx(deviation, rel=1e-4)


def test_products_of_waves_are_a_gaussian_kernel() -> None:
    """Of near and of far clips, held at 8 deviations; the more waves, the closer."""
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(20, 4, generator=generator), torch.eye(4), -20 * torch.eye(4)])
    kernel = np.zeros((28, 28))
    for one, ours in enumerate(np.clip(numbers(values), -8, 8)):
        for other, theirs in enumerate(np.clip(numbers(values), -8, 8)):
            kernel[one, other] = math.exp(-(0.1**2) * sum((ours - theirs) ** 2) / 2)
    assert kernel.min() < 0.6 and NARROWNESS == 0.1
    worst = []
    for waves in (100, 100_000):
        torch.manual_seed(0)
        judged = numbers(Discriminant(4, 2, waves)._judged(values))
        worst.append(np.abs(2 * judged @ judged.T / waves - kernel).max())
    assert worst[0] > 0.05 and worst[1] < 0.02


def test_waves_bend_the_border() -> None:
    """Where no line will do; where one does, they lose little."""
    values, labels = crossed(200, seed=0)
    others, truth = crossed(500, seed=1)

    def rightly(waves: int, shrinkage: float) -> float:
        told = fitted(values, labels, 2, waves, shrinkage=shrinkage)(others).argmax(dim=1)
        return (told == truth).double().mean().item()

    for shrinkage in (SHRINKAGE, 0.3):
        assert rightly(1000, shrinkage) > 0.95 and rightly(0, shrinkage) < 0.65
    values, labels = draw((40, 40, 40), 10)
    others, truth = draw((100, 100, 100), 10, seed=1)
    straight, bent = (
        (fitted(values, labels, 3, waves)(others).argmax(dim=1) == truth).double().mean()
        for waves in (0, 1000)
    )
    assert straight > 0.9 and bent > straight - 0.05


def test_waves_are_drawn_by_the_seed() -> None:
    """Normal directions and even phases; all else is solved, so that the same seed makes the same scores."""
    values, labels = draw((6, 14, 10), 5)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        discriminant = Discriminant(5, 3, 2000).eval()
        discriminant.fit(values, labels)
        drawn.append((discriminant.directions, discriminant.phases, discriminant(values)))
    for first, same, other in zip(*drawn, strict=True):
        assert torch.equal(first, same) and not torch.equal(first, other)
    directions, phases, _ = drawn[0]
    assert directions.shape == (5, 2000) and phases.shape == (2000,)
    assert directions.mean().abs() < 0.005 and directions.std().item() == pytest.approx(0.1, rel=0.05)
    quarters = torch.histc(phases, 4, 0, 2 * math.pi)
    assert quarters.sum() == 2000 and (quarters - 500).abs().max() < 80


@pytest.mark.parametrize("waves", [0, 500])
@pytest.mark.parametrize(("features", "others"), [(5, (14, 10, 9)), (60, (14, 10, 9)), (5, (20, 0, 0))])
def test_a_class_without_clips_is_not_chosen(features: int, others: tuple[int, ...], waves: int) -> None:
    """Where the others lie apart: several of them, or a single one."""
    counts = (others[0], 0, *others[1:])
    values, labels = draw(counts, features)
    discriminant = fitted(values, labels, 4, waves)
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


@pytest.mark.parametrize("waves", [0, 20])
def test_while_it_trains_it_is_silent_unless_it_speaks(waves: int) -> None:
    values, labels = draw((6, 14, 10), 5)
    discriminant = fitted(values, labels, 3, waves)
    told = discriminant(values)
    assert told.abs().min() > 0
    assert not discriminant.silent and discriminant.train().silent
    discriminant.speaks = True
    assert not discriminant.silent and torch.equal(discriminant(values), told)
    assert not list(discriminant.parameters()), "no step of an optimiser changes it"


@pytest.mark.parametrize("waves", [0, 20])
@pytest.mark.parametrize("training", [True, False])
def test_unfitted_it_is_silent(training: bool, waves: int) -> None:
    discriminant = Discriminant(5, 3, waves).train(training)
    discriminant.speaks = True
    assert torch.equal(discriminant(torch.randn(4, 5)), torch.zeros(4, 3))


@pytest.mark.parametrize("waves", [0, 20])
def test_saved_and_loaded_it_says_the_same(waves: int) -> None:
    """By one whose own waves were others."""
    values, labels = draw((6, 14, 10), 5)
    discriminant, other = fitted(values, labels, 3, waves), Discriminant(5, 3, waves).eval()
    assert not waves or not torch.equal(other.directions, discriminant.directions)
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


@pytest.mark.parametrize("waves", [0, 20])
def test_clips_that_are_all_alike(waves: int) -> None:
    discriminant = fitted(torch.ones(6, 5), torch.tensor([0, 0, 1, 1, 2, 2]), 3, waves)
    assert discriminant(torch.randn(4, 5)).isfinite().all()


@pytest.mark.parametrize("waves", [0, 200])
@pytest.mark.parametrize("features", [5, 60])
def test_neither_the_order_nor_the_scale_matters(features: int, waves: int) -> None:
    values, labels = draw((6, 14, 10), features)
    told = fitted(values, labels, 3, waves)(values)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        fitted(values[order], labels[order], 3, waves)(values), told, atol=1e-3, rtol=1e-3
    )
    scale = torch.logspace(0, 3, features)
    for other in (values * scale, values * scale - 100):
        torch.testing.assert_close(fitted(other, labels, 3, waves)(other), told, atol=0.02, rtol=0.01)
