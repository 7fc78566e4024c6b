"""The mixture of a speech encoder's layers, the attention over its steps, and what is scored beside them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.encoders.speech import LayerMixture, ScoredMixture, SpeechMixture, StepAttention

from ..by_hand import Array, gelu, linear, numbers, transform

CHANNELS, HIDDEN = 192, 128
CLASSES, SCORES = 3, 8  # the scores of so many emotions, and the channels that they are padded to

Walk = Callable[[nn.Module, Tensor], Tensor]


def live_in(module: nn.Module) -> None:
    """Put a module into evaluation in which nothing is as it began, as after training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        if isinstance(part, Discriminant):
            for buffer in (part.mean, part.weight, part.bias):
                buffer.normal_()
            part.deviation.uniform_(0.2, 2)
    for parameter in module.parameters():
        if parameter.dim() == 1:  # scores, norms and offsets
            nn.init.normal_(parameter)
    module.eval()


@pytest.fixture
def mixture() -> LayerMixture:
    torch.manual_seed(0)
    mixture = LayerMixture(4, 6, 5)
    live_in(mixture)
    return mixture


@pytest.fixture
def encoder() -> SpeechMixture:
    torch.manual_seed(0)
    encoder = SpeechMixture(4, 6, CLASSES)
    live_in(encoder)
    return encoder


def states(clips: int, steps: int, layers: int = 4, width: int = 6, seed: int = 1) -> Tensor:
    return 2 * torch.randn(clips, layers, steps, width, generator=torch.Generator().manual_seed(seed))


def mix(mixture: LayerMixture, clip: Array) -> Array:
    """One clip (layers, S, width) -> (S, channels): layer by layer, step by step, value by value."""
    layers, steps, width = clip.shape
    scores, kernel = numbers(mixture.scores).tolist(), numbers(mixture.project.weight)[:, :, 0]
    mean, variance = numbers(mixture.scale.running_mean), numbers(mixture.scale.running_var)
    out = np.tile(numbers(mixture.project.bias), (steps, 1))
    for layer in range(layers):
        weight = layers * math.exp(scores[layer]) / sum(math.exp(score) for score in scores)
        for step in range(steps):
            for value in range(width):
                place = layer * width + value
                scaled = (clip[layer, step, value] - mean[place]) / math.sqrt(variance[place] + 1e-5)
                out[step] += weight * min(8.0, max(-8.0, scaled)) * kernel[:, place]
    return out


def statistics(clip: Array) -> Array:
    """One clip (layers, S, width) -> of every layer all means, all deviations and all of the changes."""
    changes = np.diff(clip, axis=1) if clip.shape[1] > 1 else np.zeros_like(clip)
    rows = [
        row
        for layer in range(len(clip))
        for row in (clip[layer].mean(axis=0), deviation(clip[layer]), deviation(changes[layer]))
    ]
    return np.concatenate(rows)


def deviation(steps: Array) -> Array:
    """Of every value over the steps; not 0, where the root has no slope."""
    out: Array = np.sqrt(np.square(steps - steps.mean(axis=0)).mean(axis=0) + 1e-4)
    return out


def score(discriminant: Discriminant, clip: Array) -> Array:
    """One clip (layers, S, width) -> (SCORES,): a score of each class, then zeros."""
    scaled = (statistics(clip) - numbers(discriminant.mean)) / numbers(discriminant.deviation)
    scores = np.clip(scaled, -8, 8) @ numbers(discriminant.weight) + numbers(discriminant.bias)
    return np.concatenate([scores, np.zeros(SCORES - CLASSES)])


def first(stage: nn.Module, clip: Array) -> Array:
    """One clip (layers, S, width) -> (S, CHANNELS + SCORES): what is scored is the same at all steps."""
    assert isinstance(stage, ScoredMixture)
    scored = np.tile(score(stage.discriminant, clip), (clip.shape[1], 1))
    return np.concatenate([mix(stage.mixture, clip), scored], axis=1)


def attend(attention: nn.Module, tokens: Array) -> Array:
    """One clip (S, C) -> (S, C): own channels attend, further ones pass on unchanged."""
    assert isinstance(attention, StepAttention)
    tokens, further = np.split(tokens, [attention.channels], axis=1)
    return np.concatenate([transform(attention.layer, tokens)[0], further], axis=1)


def pool(encoder: SpeechMixture, tokens: Array) -> Array:
    """One clip (S, C) -> (dim,): a hidden layer over mean and deviation of each channel; the mean scores."""
    norm, _, hidden, *_ = encoder.hidden
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(hidden, nn.Linear)
    tokens, scores = np.split(tokens, [CHANNELS], axis=1)
    means, variances = numbers(norm.running_mean), numbers(norm.running_var)
    joint = np.concatenate([tokens.mean(axis=0), deviation(tokens)])
    scaled = (joint - means) / np.sqrt(variances + norm.eps)
    vector = gelu(linear(hidden, (numbers(norm.weight) * scaled + numbers(norm.bias))[None]))[0]
    return np.concatenate([vector, scores.mean(axis=0)])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_layers_are_mixed_as_the_formula_says(mixture: LayerMixture, steps: int) -> None:
    """Weights of scores that differ; and values far beyond what is held."""
    speech = states(2, steps)
    speech[0, 1, 0, 2], speech[1, 3, -1, 0] = 1e4, -1e4
    mixed = mixture(speech)
    assert mixed.shape == (2, 5, steps) and mixture.scores.std() > 0.1
    expected = np.stack([mix(mixture, numbers(clip)).T for clip in speech])
    assert np.allclose(numbers(mixed), expected, atol=1e-4, rtol=1e-5)


def test_layers_weigh_alike_at_first() -> None:
    """Each as if it were projected alone with a weight of 1, so that more layers do not make it softer."""
    torch.manual_seed(0)
    mixture, speech = LayerMixture(4, 6, 5).eval(), states(2, 7)
    kernels = torch.split(mixture.project.weight[:, :, 0], 6, dim=1)
    assert mixture.project.bias is not None
    expected = mixture.project.bias[:, None].expand(2, 5, 7)
    for kernel, layer in zip(kernels, speech.unbind(dim=1), strict=True):
        expected = expected + (layer @ kernel.T).transpose(1, 2)
    torch.testing.assert_close(mixture(speech), expected, atol=1e-4, rtol=1e-4)


def test_a_layer_of_a_very_low_score_has_no_influence(mixture: LayerMixture) -> None:
    layer = 1
    speech, other = states(2, 7), states(2, 7)
    other[:, layer] = 1e3 * states(2, 7, seed=2)[:, layer]
    assert not torch.equal(mixture(speech), mixture(other))
    with torch.no_grad():
        mixture.scores[layer] = -1e4
    assert torch.equal(mixture(speech), mixture(other))
    assert mixture(speech).isfinite().all()
    with torch.no_grad():
        mixture.scores[layer] = 1e4
    rest = states(2, 7, seed=2)
    rest[:, layer] = speech[:, layer]
    assert torch.equal(mixture(speech), mixture(rest)), "it is now the only one that has any"


def test_a_layer_counts_by_its_weight_and_not_by_its_loudness() -> None:
    """In training each value is standardised over the clips of the batch."""
    torch.manual_seed(0)
    mixture, speech = LayerMixture(4, 6, 5), states(8, 7)
    loud = torch.tensor([1.0, 30.0, 0.5, 1e3])[:, None, None] * speech + 5
    torch.testing.assert_close(mixture(loud), mixture(speech), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_statistics_of_a_take(steps: int) -> None:
    speech = states(2, steps)
    speech[:, :, :, 1] = 3  # never changes
    expected = np.stack([statistics(numbers(clip)) for clip in speech])
    assert np.allclose(numbers(ScoredMixture(4, 6, CLASSES).measure(speech)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_attention_against_the_formula(steps: int) -> None:
    torch.manual_seed(0)
    attention = StepAttention(24)
    live_in(attention)
    speech = 2 * torch.randn(3, 24 + 5, steps)
    expected = np.stack([attend(attention, numbers(clip).T).T for clip in speech])
    assert np.allclose(numbers(attention(speech)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_pooling_joins_mean_and_deviation(encoder: SpeechMixture, steps: int) -> None:
    mapped = 2 * torch.randn(3, CHANNELS + SCORES, steps, generator=torch.Generator().manual_seed(0))
    expected = np.stack([pool(encoder, numbers(clip).T) for clip in mapped])
    vectors = encoder.pool(mapped)
    assert vectors.shape == (3, encoder.dim)
    assert np.allclose(numbers(vectors), expected, atol=1e-4, rtol=1e-4)


def test_the_whole_encoder_against_its_parts(encoder: SpeechMixture, pooled: Walk) -> None:
    speech = states(2, 5)
    expected = []
    for clip in speech:
        tokens = first(encoder.stages[0], numbers(clip))
        for attention in encoder.stages[1:]:
            tokens = attend(attention, tokens)
        expected.append(pool(encoder, tokens))
    assert np.allclose(numbers(pooled(encoder, speech)), np.stack(expected), atol=1e-4, rtol=1e-4)
