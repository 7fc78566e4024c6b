"""The discriminant in closed form against scikit-learn's, and where it is enabled."""

import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from cfnsr.models.encoders.discriminant import DEVIATION, NARROWNESS, SHRINKAGE, Discriminant, _solve

from ..by_hand import Array, numbers


def draw(counts: tuple[int, ...], features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """So many clips of each class, whose features lie about the class's own means; each at its own scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    means = torch.randn(len(counts), features, generator=torch.Generator().manual_seed(99))
    values = means[labels] + torch.randn(len(labels), features, generator=generator)
    return values * torch.linspace(0.1, 20, features) + torch.linspace(-3, 30, features), labels


def fitted(values: Tensor, labels: Tensor, classes: int, waves: int = 0, **settings: float) -> Discriminant:
    torch.manual_seed(0)
    discriminant = Discriminant(values.shape[1], classes, waves, **settings).eval()
    discriminant.fit(values, labels)
    return discriminant


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


@pytest.mark.parametrize("features", [1, 5, 30, 60])
@pytest.mark.parametrize("waves", [0, 7, 30, 200])
@pytest.mark.parametrize(("shrinkage", "deviation"), [(SHRINKAGE, DEVIATION), (0.1, 0.5), (1.0, 10.0)])
def test_scores_are_those_of_scikit_learn(
    features: int, waves: int, shrinkage: float, deviation: float
) -> None:
    """With fewer features or waves than the 30 clips, as many, and more; the classes are not of one size."""
    values, labels = draw((6, 14, 10), features)
    asked = torch.cat([draw((9, 9, 9), features, seed=1)[0], torch.full((1, features), 1e5)])
    discriminant = fitted(values, labels, 3, waves, shrinkage=shrinkage, deviation=deviation)
    arrays = numbers(values), labels.numpy(), numbers(asked)
    theirs = expected(discriminant, *arrays, shrinkage=shrinkage, deviation=deviation)
    scores = discriminant(asked)
    assert np.allclose(scores.numpy(), theirs, atol=1e-3, rtol=1e-3)
    assert scores.std() > deviation / 4


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
        scored = numbers(Discriminant(4, 2, waves).standardise(values))
        worst.append(np.abs(2 * scored @ scored.T / waves - kernel).max())
    assert worst[0] > 0.05 and worst[1] < 0.02


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
    theirs = np.stack([array @ inverse @ mean for mean in means], axis=1)
    theirs += [biases[0], min(biases), biases[1]]
    theirs -= theirs.mean(axis=1, keepdims=True)
    assert np.allclose(scores, 4 * theirs / theirs.std(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("waves", [0, 20])
def test_in_training_it_is_disabled_unless_a_model_starts_from_it(waves: int) -> None:
    values, labels = draw((6, 14, 10), 5)
    discriminant = fitted(values, labels, 3, waves)
    scores = discriminant(values)
    assert scores.abs().min() > 0
    assert discriminant.enabled and not discriminant.train().enabled
    discriminant.in_training = True
    assert discriminant.enabled and torch.equal(discriminant(values), scores)
    assert not list(discriminant.parameters()), "no step of an optimiser changes it"
    other = Discriminant(5, 3, waves)
    assert not other(values).any(), "unfitted"
    other.load_state_dict(discriminant.state_dict())
    assert torch.equal(other(values), scores), "its own waves were others"


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
