"""The cross-modal block, in both directions, against a slow, obvious re-derivation of eqs. 5-8."""

import math

import pytest
import torch
from torch import Tensor

from cfnsr.models.exchanges.agreement import Agreement
from cfnsr.models.exchanges.cross_modal import CrossModal, CrossModalMap, CrossModalMaps, CrossModalReleased
from cfnsr.models.exchanges.selection import Selection, sinusoidal_positions
from cfnsr.models.exchanges.video_to_audio import VideoToAudio

from ..by_hand import numbers, transform

Maps = tuple[Tensor, Tensor]


@pytest.fixture
def maps() -> Maps:
    torch.manual_seed(1)
    return torch.randn(2, 16, 2, 3, 3), torch.randn(2, 24, 5)


def select(selection: Selection, tokens: Tensor) -> Tensor:
    """Eqs. 5-6 for one clip: (S, C) -> (C,)."""
    if selection.depth:
        tokens = tokens * math.sqrt(tokens.shape[1]) + sinusoidal_positions(*tokens.shape)
    x = numbers(tokens)
    for layer in selection.layers:
        x, _ = transform(layer, x, causal=selection.causal)
    normed = selection.norm(torch.from_numpy(x).float())
    return normed[-1] if selection.causal else normed.mean(0)


def agree(agreement: Agreement, places: list[Tensor], selected: Tensor) -> list[Tensor]:
    """Exponentials of the scores of eq. 7, place by place."""
    vector = agreement.selected.weight @ selected
    joint = [torch.tanh(agreement.places.weight @ place + agreement.places.bias + vector) for place in places]
    return [(agreement.score.weight[0] @ each).exp() for each in joint]


def attend(places: list[Tensor], scores: list[Tensor]) -> Tensor:
    """The vector of eq. 8."""
    return sum(
        (place * score / sum(scores) for place, score in zip(places, scores, strict=True)), Tensor([0])
    )


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_against_the_equations(maps: Maps, depth: int, residual: bool) -> None:
    """The weighted sum of the places is added to each; the other modality passes on unchanged."""
    video, audio = maps
    torch.manual_seed(2)
    block = CrossModal(16, 24, depth=depth, residual=residual).eval()
    out, same = block(video, audio)
    assert torch.equal(same, audio)
    for clip in range(2):
        places = list(video[clip].flatten(1).T)
        scores = agree(block.agreement, places, select(block.selection, audio[clip].T))
        expected = attend(places, scores)[:, None, None, None] + residual * video[clip]
        torch.testing.assert_close(out[clip], expected.expand_as(video[clip]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_the_other_direction_against_the_equations(maps: Maps, depth: int, residual: bool) -> None:
    video, audio = maps
    torch.manual_seed(2)
    block = VideoToAudio(16, 24, depth=depth, residual=residual).eval()
    same, out = block(video, audio)
    assert torch.equal(same, video)
    for clip in range(2):
        tokens = video[clip].flatten(1).T @ block.tokens.weight.T + block.tokens.bias
        steps = list(audio[clip].T)
        scores = agree(block.agreement, steps, select(block.selection, tokens))
        expected = attend(steps, scores)[:, None] + residual * audio[clip]
        torch.testing.assert_close(out[clip], expected.expand_as(audio[clip]), atol=1e-5, rtol=1e-5)


def test_the_released_block_against_a_derivation(maps: Maps) -> None:
    """Softmax over each time step's places, sixteen times; the last step of a causal attention."""
    video, audio = maps
    block = CrossModalReleased(16, 24).eval()
    out = block(video, audio)[0]
    for clip in range(2):
        selected = select(block.selection, audio[clip].T)
        for t in range(2):
            places = list(video[clip, :, t].flatten(1).T)
            scores = torch.stack(agree(block.agreement, places, selected))
            weighted = video[clip, :, t] * (1 + 16 * scores / scores.sum()).view(3, 3)
            torch.testing.assert_close(out[clip, :, t], weighted, atol=1e-4, rtol=1e-4)
    places, steps = block.attention(video, audio)
    torch.testing.assert_close(places.sum(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(steps.sum(dim=1), torch.ones(2))


def test_k_maps_are_the_mean_of_their_vectors(maps: Maps) -> None:
    """Eq. 7's channels map by map, each with a softmax over the places; their vectors are averaged."""
    video, audio = maps
    block = CrossModalMaps(16, 24).eval()
    expected = video.clone()
    for clip in range(2):
        places = list(video[clip].flatten(1).T)
        added = block.agreement.selected.weight @ select(block.selection, audio[clip].T)
        vectors = []
        for weight, bias, plus in zip(*block.agreement.places.parameters(), added, strict=True):
            vectors.append(attend(places, [torch.tanh(weight @ each + bias + plus).exp() for each in places]))
        expected[clip] += torch.stack(vectors).mean(0)[:, None, None, None]
    torch.testing.assert_close(block(video, audio)[0], expected, atol=1e-5, rtol=1e-5)


def test_the_pooled_vector_is_the_mean_and_the_attended_sum(maps: Maps) -> None:
    """An effect of order one, however many places there are; multiplying the map has one by their number."""
    video, audio = maps
    for kind, share in ((CrossModal, 1), (CrossModalMap, 1 / 18)):
        block = kind(16, 24).eval()
        weights = block.weights(video, audio)
        torch.testing.assert_close(weights.sum(dim=(1, 2, 3, 4)), torch.ones(2))
        attended = (video * weights).sum(dim=(2, 3, 4))
        pooled = block(video, audio)[0].mean(dim=(2, 3, 4))
        torch.testing.assert_close(pooled, video.mean(dim=(2, 3, 4)) + share * attended)


@pytest.mark.parametrize("residual", [True, False])
def test_uniform_weights(maps: Maps, residual: bool) -> None:
    """The mean of the map, and the map itself beside it; behind trained encoders they change no mean."""
    video, audio = maps
    block = CrossModal(16, 24, residual=residual).eval()
    mean = video.mean(dim=(2, 3, 4), keepdim=True)
    out, same = block.uniform(video, audio)
    torch.testing.assert_close(out, mean + residual * video)
    assert torch.equal(same, audio)
    block.attended.start_neutral()
    expected = video if residual else mean.expand_as(video)
    torch.testing.assert_close(block.uniform(video, audio)[0], expected)
    share = 0.5 if residual else 1
    attended = (video * block.weights(video, audio)).sum(dim=(2, 3, 4))
    pooled = (1 - share) * mean.flatten(1) + share * attended
    torch.testing.assert_close(block(video, audio)[0].mean(dim=(2, 3, 4)), pooled)
    same, to_audio = VideoToAudio(16, 24, residual=residual).uniform(video, audio)
    torch.testing.assert_close(to_audio, audio.mean(dim=2, keepdim=True) + residual * audio)
    assert torch.equal(same, video)


def test_positions_tell_places_apart(maps: Maps) -> None:
    """The same places in another order are another film; without self-attention they are only averaged."""
    video, audio = maps
    for depth, moves in ((2, True), (0, False)):
        torch.manual_seed(3)
        block = VideoToAudio(16, 24, depth=depth).eval()
        difference = (block.weights(video.flip(2), audio) - block.weights(video, audio)).abs().max()
        assert (difference > 1e-5) == moves


def test_attention_is_weights_and_token_weights(maps: Maps) -> None:
    video, audio = maps
    block = CrossModal(16, 24, depth=2).eval()
    places, steps = block.attention(video, audio)
    torch.testing.assert_close(places, block.weights(video, audio)[:, 0])
    assert torch.equal(steps, block.selection.token_weights(audio.transpose(1, 2)))
    other = VideoToAudio(16, 24, depth=2).eval()
    places, steps = other.attention(video, audio)
    assert torch.equal(steps, other.weights(video, audio)[:, 0])
    tokens = torch.stack(
        [other.tokens(video[:, :, t, h, w]) for t in range(2) for h in range(3) for w in range(3)], 1
    )
    torch.testing.assert_close(places.flatten(1), other.selection.token_weights(tokens))
