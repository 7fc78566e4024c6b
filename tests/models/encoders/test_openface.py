"""The encoder of OpenFace tracks against a slow, obvious re-derivation, place by place."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.encoders.openface import Embedding, OpenFaceEncoder, ScoredEmbedding, TemporalConvolution

from ..by_hand import gelu, numbers

CHANNELS = 128
CLASSES, SCORES = 3, 8  # the scores of so many emotions, and the channels that they are padded to

Walk = Callable[[nn.Module, Tensor], Tensor]


def lived_in(features: int = 3, *, in_time: bool = True) -> OpenFaceEncoder:
    """An encoder in evaluation in which nothing is as it began, as after training."""
    torch.manual_seed(0)
    encoder = OpenFaceEncoder(features, CLASSES).eval()
    discriminant_of(encoder).fit(torch.randn(40, features), torch.arange(40) % CLASSES)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    for name, parameter in encoder.named_parameters():
        if name.endswith(("direction", "offset", "bias", "weight")):
            nn.init.normal_(parameter, std=0.5)
        if parameter.shape == (CHANNELS, 1, 1, 1) and not in_time:
            nn.init.zeros_(parameter)
    return encoder


def discriminant_of(encoder: OpenFaceEncoder) -> Discriminant:
    stage = encoder.stages[0]
    assert isinstance(stage, ScoredEmbedding)
    return stage.discriminant


def tracks(clips: int, features: int, steps: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(clips, features, steps, generator=torch.Generator().manual_seed(seed))


def standard(norm: nn.BatchNorm1d, place: int, value: float) -> float:
    mean, variance = numbers(norm.running_mean)[place], numbers(norm.running_var)[place]
    return float((value - mean) / math.sqrt(variance + norm.eps))


def logarithm(value: float) -> float:
    return math.copysign(math.log(1 + 3 * abs(value)), value)


def embed(embedding: Embedding, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (C, T, F): each value logarithmic, standardised, held, and sent in its direction."""
    direction, offset = numbers(embedding.direction), numbers(embedding.offset)
    features, steps = track.shape
    places = np.zeros((CHANNELS, steps, features))
    for feature in range(features):
        for step in range(steps):
            value = standard(embedding.scale, feature, logarithm(track[feature, step]))
            held = min(6.0, max(-6.0, value))
            for channel in range(CHANNELS):
                places[channel, step, feature] = direction[channel, feature] * held + offset[channel, feature]
    return places


def score(discriminant: Discriminant, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (SCORES,): a score of each class by the track's logarithmic mean, then zeros."""
    mean, deviation = numbers(discriminant.mean), numbers(discriminant.deviation)
    directions, phases = numbers(discriminant.directions), numbers(discriminant.phases)
    features, steps = track.shape
    held = []
    for feature in range(features):
        average = sum(logarithm(value) for value in track[feature]) / steps
        held.append(min(8.0, max(-8.0, (average - mean[feature]) / deviation[feature])))
    scores = np.zeros(SCORES)
    scores[:CLASSES] = numbers(discriminant.bias)
    for wave, phase in enumerate(phases):
        along = sum(held[feature] * directions[feature, wave] for feature in range(features))
        scores[:CLASSES] += math.cos(along + phase) * numbers(discriminant.weight)[wave]
    return scores


def first(stage: ScoredEmbedding, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (C + SCORES, T, F): what is scored is the same at all places."""
    features, steps = track.shape
    scored = np.tile(score(stage.discriminant, track)[:, None, None], (1, steps, features))
    return np.concatenate([embed(stage.embedding, track), scored])


def in_time(stage: TemporalConvolution, places: np.ndarray) -> np.ndarray:
    """Each place and channel with its neighbours in time; beside the first and last stands nothing.

    What is scored passes on unchanged.
    """
    kernel, bias, weight = numbers(stage.conv.weight), numbers(stage.conv.bias), numbers(stage.weight)
    _, steps, features = places.shape
    out = places.copy()
    for channel in range(CHANNELS):
        for step in range(steps):
            for feature in range(features):
                total = bias[channel]
                for neighbour in (-1, 0, 1):
                    if 0 <= step + neighbour < steps:
                        tap = kernel[channel, 0, 1 + neighbour, 0]
                        total += tap * places[channel, step + neighbour, feature]
                out[channel, step, feature] += weight[channel, 0, 0, 0] * gelu(total)
    return out


def pool(encoder: OpenFaceEncoder, places: np.ndarray) -> np.ndarray:
    """One clip (C + SCORES, T, F) -> (C + SCORES,); what is scored is not rectified."""
    scale, shift = numbers(encoder.standardise.weight), numbers(encoder.standardise.bias)
    vector = np.array([sum(channel.ravel().tolist()) / channel.size for channel in places])
    for channel in range(CHANNELS):
        mean = standard(encoder.standardise, channel, vector[channel])
        vector[channel] = gelu(mean * scale[channel] + shift[channel])
    return vector


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_against_the_formula(steps: int) -> None:
    """Every stage, from a value far beyond what is held to one of nothing."""
    encoder = lived_in()
    track = tracks(2, 3, steps)
    track[0, 0, 0], track[0, 1, 0], track[1, 2, -1] = 1e6, -1e6, 0.0
    places = track
    expected = [numbers(clip) for clip in track]
    for stage in encoder.stages:
        places = stage(places)
        assert places.shape == (2, CHANNELS + SCORES, steps, 3, 1)
        if isinstance(stage, ScoredEmbedding):
            expected = [first(stage, clip) for clip in expected]
            assert np.abs(np.stack(expected)[:, CHANNELS : CHANNELS + CLASSES]).min() > 0.01
        else:
            assert isinstance(stage, TemporalConvolution) and stage.weight.abs().min() > 0
            expected = [in_time(stage, clip) for clip in expected]
        assert np.allclose(numbers(places[..., 0]), np.stack(expected), atol=1e-4, rtol=1e-5)
    vectors = np.stack([pool(encoder, clip) for clip in expected])
    assert np.allclose(numbers(encoder.pool(places)), vectors, atol=1e-4, rtol=1e-5)


def test_a_value_by_hand() -> None:
    """(e - 1) / 3 is logarithmic to 1, with its sign; what is farther than 6 deviations away is 6 away."""
    embedding = Embedding(1).eval()
    nn.init.ones_(embedding.direction)
    track = torch.tensor([[[(math.e - 1) / 3, -(math.e - 1) / 3, 0, 1e6, -1e6]]])
    places = embedding(track)[0, 0, :, 0, 0]
    torch.testing.assert_close(places, torch.tensor([1.0, -1.0, 0.0, 6.0, -6.0]), atol=1e-5, rtol=1e-5)


def test_training_standardises_by_the_batch() -> None:
    """Each feature over all steps of all clips, and the running statistics follow; directions are its own."""
    embedding = Embedding(4)
    nn.init.ones_(embedding.direction)
    loud = torch.tensor([0.1, 1.0, 10.0, 100.0])[:, None]
    values = embedding(loud * (3 + tracks(16, 4, 7)))[:, 5, :, :, 0]
    torch.testing.assert_close(values.mean(dim=(0, 1)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.square().mean(dim=(0, 1)), torch.ones(4), atol=1e-2, rtol=0)
    assert embedding.scale.running_mean is not None and (embedding.scale.running_mean > 0).all()


def test_the_order_of_time_matters_by_neighbours_alone(pooled: Walk) -> None:
    """Where they weigh nothing, a take is a set of moments, and a track of one value is one moment."""
    track = tracks(3, 35, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    deaf, hearing = lived_in(35, in_time=False), lived_in(35)
    torch.testing.assert_close(pooled(deaf, track[..., order]), pooled(deaf, track), atol=1e-4, rtol=1e-5)
    moment = track[..., :1]
    torch.testing.assert_close(
        pooled(deaf, moment.expand(3, 35, 9)), pooled(deaf, moment), atol=1e-4, rtol=1e-5
    )
    moved = (pooled(hearing, track[..., order]) - pooled(hearing, track)).abs()
    assert moved[:, :CHANNELS].max() > 0.01
    assert moved[:, CHANNELS:].max() < 1e-4, "a mean has no order"


def test_neighbours_add_nothing_at_first() -> None:
    encoder = OpenFaceEncoder()
    places = torch.randn(3, CHANNELS + SCORES, 9, 35, 1)
    assert torch.equal(encoder.stages[2](encoder.stages[1](places)), places)


def test_two_stages_hear_two_steps_away(through: Walk) -> None:
    """And what is scored, the whole take."""
    encoder, track = lived_in(), tracks(2, 3, 9)
    other = track.clone()
    other[..., 4] += 1
    with torch.no_grad():
        moved = through(encoder, other) != through(encoder, track)
    own = moved[:, :CHANNELS].any(dim=1).all(dim=(0, 2, 3))
    assert own.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    assert moved[:, CHANNELS : CHANNELS + CLASSES].all()


def test_a_place_depends_on_its_own_feature_alone(through: Walk) -> None:
    """But for what is scored, which depends on all of them."""
    encoder, track, feature = lived_in(35), tracks(2, 35, 6), 17
    other = track.clone()
    other[:, feature] += torch.linspace(0.5, 1, 6)
    with torch.no_grad():
        moved = through(encoder, track) != through(encoder, other)
    rest = [place for place in range(35) if place != feature]
    assert not moved[:, :CHANNELS, :, rest].any()
    assert moved[:, :CHANNELS, :, feature].any(dim=1).all(), "at every step"
    assert moved[:, CHANNELS : CHANNELS + CLASSES].all()


def test_its_discriminant_scores_means_of_logarithms() -> None:
    """By 1000 waves; less shrunk, and counting less, than one is by itself."""
    encoder, track = OpenFaceEncoder(5, CLASSES).eval(), tracks(30, 5, 7)
    stage, labels = encoder.stages[0], torch.arange(30) % CLASSES
    assert isinstance(stage, ScoredEmbedding)
    means = torch.tensor([[sum(map(logarithm, row)) / 7 for row in clip] for clip in track.tolist()])
    torch.testing.assert_close(stage.measure(track), means, atol=1e-5, rtol=1e-5)
    other = Discriminant(5, CLASSES, 1000, shrinkage=0.3, deviation=2.0).eval()
    other.load_state_dict(stage.discriminant.state_dict())
    for discriminant in (stage.discriminant, other):
        discriminant.fit(means, labels)
    assert torch.equal(stage.discriminant(means), other(means))
    assert other(means).std(correction=0).item() == pytest.approx(2, rel=1e-4)
