"""The encoder of OpenFace tracks against a slow, obvious re-derivation, place by place."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.encoders.openface import Embedding, InTime, OpenFaceEncoder, Seen

CHANNELS = 128
CLASSES, JUDGED = 3, 8  # the scores of so many emotions, and the channels that they are padded to

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
    seen = encoder.stages[0]
    assert isinstance(seen, Seen)
    return seen.discriminant


def tracks(clips: int, features: int, steps: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(clips, features, steps, generator=torch.Generator().manual_seed(seed))


def numbers(values: Tensor | None) -> np.ndarray:
    assert values is not None
    return values.detach().double().numpy()


def gelu(value: float) -> float:
    """x times the normal distribution's share below x."""
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def standard(norm: nn.BatchNorm1d, place: int, value: float) -> float:
    mean, variance = numbers(norm.running_mean)[place], numbers(norm.running_var)[place]
    return float((value - mean) / math.sqrt(variance + norm.eps))


def stretch(value: float) -> float:
    return math.copysign(math.log(1 + 3 * abs(value)), value)


def embed(embedding: Embedding, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (C, T, F): each value stretched, standardised, held, and sent in its direction."""
    direction, offset = numbers(embedding.direction), numbers(embedding.offset)
    features, steps = track.shape
    places = np.zeros((CHANNELS, steps, features))
    for feature in range(features):
        for step in range(steps):
            value = standard(embedding.scale, feature, stretch(track[feature, step]))
            held = min(6.0, max(-6.0, value))
            for channel in range(CHANNELS):
                places[channel, step, feature] = direction[channel, feature] * held + offset[channel, feature]
    return places


def judge(discriminant: Discriminant, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (JUDGED,): a score of each class by the track's stretched mean, then zeros."""
    mean, deviation = numbers(discriminant.mean), numbers(discriminant.deviation)
    directions, phases = numbers(discriminant.directions), numbers(discriminant.phases)
    features, steps = track.shape
    held = []
    for feature in range(features):
        average = sum(stretch(value) for value in track[feature]) / steps
        held.append(min(8.0, max(-8.0, (average - mean[feature]) / deviation[feature])))
    scores = np.zeros(JUDGED)
    scores[:CLASSES] = numbers(discriminant.bias)
    for wave, phase in enumerate(phases):
        along = sum(held[feature] * directions[feature, wave] for feature in range(features))
        scores[:CLASSES] += math.cos(along + phase) * numbers(discriminant.weight)[wave]
    return scores


def see(seen: Seen, track: np.ndarray) -> np.ndarray:
    """One clip (F, T) -> (C + JUDGED, T, F): what is judged is the same at all places."""
    features, steps = track.shape
    judged = np.tile(judge(seen.discriminant, track)[:, None, None], (1, steps, features))
    return np.concatenate([embed(seen.embedding, track), judged])


def in_time(stage: InTime, places: np.ndarray) -> np.ndarray:
    """Each place and channel with its neighbours in time; beside the first and last stands nothing.

    What is judged passes on unchanged.
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
    """One clip (C + JUDGED, T, F) -> (C + JUDGED,); what is judged is not rectified."""
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
        assert places.shape == (2, CHANNELS + JUDGED, steps, 3, 1)
        if isinstance(stage, Seen):
            expected = [see(stage, clip) for clip in expected]
            assert np.abs(np.stack(expected)[:, CHANNELS : CHANNELS + CLASSES]).min() > 0.01
        else:
            assert isinstance(stage, InTime) and stage.weight.abs().min() > 0
            expected = [in_time(stage, clip) for clip in expected]
        assert np.allclose(numbers(places[..., 0]), np.stack(expected), atol=1e-4, rtol=1e-5)
    vectors = np.stack([pool(encoder, clip) for clip in expected])
    assert np.allclose(numbers(encoder.pool(places)), vectors, atol=1e-4, rtol=1e-5)


def test_a_value_by_hand() -> None:
    """(e - 1) / 3 is stretched to 1, with its sign; what is farther than 6 deviations away is 6 away."""
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


@pytest.mark.parametrize("features", [1, 35, 185])
@pytest.mark.parametrize("steps", [1, 2, 16, 130])
def test_any_number_of_steps(through: Walk, features: int, steps: int) -> None:
    encoder = lived_in(features)
    track = tracks(2, features, steps)
    for training in (True, False):
        places = through(encoder.train(training), track)
        assert places.shape == (2, CHANNELS + JUDGED, steps, features, 1)
        vector = encoder.pool(places)
        assert vector.shape == (2, encoder.dim) and vector.isfinite().all()
    assert encoder.reads == "openface"


def test_other_shapes_and_settings_are_refused_with_a_sentence() -> None:
    encoder = OpenFaceEncoder(4)
    wrong = (None, torch.zeros(2, 35, 7), torch.zeros(4, 7), torch.zeros(2, 4, 0), torch.zeros(2, 4, 7, 1, 1))
    for track in wrong:
        given = "none" if track is None else str(tuple(track.shape))
        with pytest.raises(InputError) as error:
            encoder.check(track)
        said = str(error.value)
        assert said.startswith(f"openface is {given}: expected tracks of shape (B, 4, steps)"), said
        assert "\n" not in said
    good = torch.zeros(2, 4, 1)
    assert encoder.check(good) is good
    for features in (0, -1):
        with pytest.raises(InputError, match=f"openface_features is {features}: expected 1 or more"):
            OpenFaceEncoder(features)


def test_a_clip_does_not_depend_on_the_others(pooled: Walk) -> None:
    encoder, track = lived_in(35), tracks(5, 35, 7)
    together = pooled(encoder, track)
    for part in together.split(CHANNELS, dim=1):
        assert part.std(dim=0).max() > 0.01, "the clips must differ for this to prove anything"
    alone = torch.cat([pooled(encoder, clip[None]) for clip in track])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    beside = torch.cat([track[:1], 1e4 * track[1:]])
    torch.testing.assert_close(pooled(encoder, beside)[0], together[0], atol=1e-5, rtol=1e-5)


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
    places = torch.randn(3, CHANNELS + JUDGED, 9, 35, 1)
    assert torch.equal(encoder.stages[2](encoder.stages[1](places)), places)


def test_two_stages_hear_two_steps_away(through: Walk) -> None:
    """And what is judged, the whole take."""
    encoder, track = lived_in(), tracks(2, 3, 9)
    other = track.clone()
    other[..., 4] += 1
    with torch.no_grad():
        moved = through(encoder, other) != through(encoder, track)
    own = moved[:, :CHANNELS].any(dim=1).all(dim=(0, 2, 3))
    assert own.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    assert moved[:, CHANNELS : CHANNELS + CLASSES].all()


@pytest.mark.parametrize("feature", [0, 17, 34])
def test_a_place_depends_on_its_own_feature_alone(through: Walk, feature: int) -> None:
    """But for what is judged, which depends on all of them."""
    encoder, track = lived_in(35), tracks(2, 35, 6)
    other = track.clone()
    other[:, feature] += torch.linspace(0.5, 1, 6)
    with torch.no_grad():
        moved = through(encoder, track) != through(encoder, other)
    rest = [place for place in range(35) if place != feature]
    assert not moved[:, :CHANNELS, :, rest].any()
    assert moved[:, :CHANNELS, :, feature].any(dim=1).all(), "at every step"
    assert moved[:, CHANNELS : CHANNELS + CLASSES].all()


def test_its_discriminant_judges_stretched_means() -> None:
    """By 1000 waves; less shrunk, and not as loud, as one is by itself."""
    encoder, track = OpenFaceEncoder(5, CLASSES).eval(), tracks(30, 5, 7)
    seen, labels = encoder.stages[0], torch.arange(30) % CLASSES
    assert isinstance(seen, Seen)
    means = torch.tensor([[sum(map(stretch, row)) / 7 for row in clip] for clip in track.tolist()])
    torch.testing.assert_close(seen.statistics(track), means, atol=1e-5, rtol=1e-5)
    other = Discriminant(5, CLASSES, 1000, shrinkage=0.3, deviation=2.0).eval()
    other.load_state_dict(seen.discriminant.state_dict())
    for discriminant in (seen.discriminant, other):
        discriminant.fit(means, labels)
    assert torch.equal(seen.discriminant(means), other(means))
    assert other(means).std(correction=0).item() == pytest.approx(2, rel=1e-4)


def test_the_same_seed_makes_the_same_encoder(pooled: Walk) -> None:
    """Its waves too; and one of another seed becomes it by its state."""
    track, states = tracks(3, 35, 5), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(OpenFaceEncoder().state_dict())
    name = "stages.0.discriminant.directions"
    assert all(torch.equal(states[0][each], states[1][each]) for each in states[0])
    assert not torch.equal(states[0][name], states[2][name])
    encoder, other = lived_in(35), OpenFaceEncoder(35, CLASSES).eval()
    assert not torch.equal(pooled(other, track), pooled(encoder, track))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(pooled(other, track), pooled(encoder, track))
