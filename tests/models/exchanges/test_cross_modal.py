"""The cross-modal block against a slow, obvious re-derivation of eqs. 5-8."""

import math

import pytest
import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.exchanges.cross_modal import (
    CrossModal,
    CrossModalMap,
    CrossModalMaps,
    CrossModalReleased,
)
from cfnsr.models.exchanges.selection import sinusoidal_positions


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 12, 2, 3, 3), torch.randn(2, 16, 5)


def attention(layer: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Eq. 5 head by head, token by token."""
    steps, dim = tokens.shape
    size = dim // layer.num_heads
    q, k, v = (tokens @ layer.in_proj_weight.T + layer.in_proj_bias).split(dim, dim=1)
    out = torch.zeros(steps, dim)
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        for step in range(steps):
            scores = torch.stack([q[step, part] @ k[other, part] / math.sqrt(size) for other in range(steps)])
            weights = scores.exp() / scores.exp().sum()
            out[step, part] = sum(weights[other] * v[other, part] for other in range(steps))
    return layer.out_proj(out)


def select(block: CrossModal, audio: Tensor) -> Tensor:
    """Eqs. 5-6 for one clip: (C, S) -> (C,)."""
    tokens = audio.T
    if block.selection.depth:
        tokens = tokens * math.sqrt(tokens.shape[1]) + sinusoidal_positions(*tokens.shape)
    for layer in block.selection.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        tokens = tokens + attention(layer.self_attn, layer.norm1(tokens))
        tokens = tokens + layer.linear2(layer.linear1(layer.norm2(tokens)).relu())
    return block.selection.norm(tokens).mean(0)


def derive(block: CrossModal, video: Tensor, audio: Tensor) -> Tensor:
    """Eqs. 7-8 place by place for each clip: the weighted sum of the places is added to each."""
    projection, score = block.agreement.places, block.agreement.score
    out = torch.zeros_like(video)
    for clip in range(len(video)):
        vector = block.agreement.selected.weight @ select(block, audio[clip])
        places = [(t, h, w) for t in range(2) for h in range(3) for w in range(3)]
        scores = {}
        for t, h, w in places:
            projected = projection.weight @ video[clip, :, t, h, w] + projection.bias
            scores[t, h, w] = (score.weight[0] @ torch.tanh(projected + vector)).exp()
        total = sum(scores.values())
        attended = sum(video[clip, :, t, h, w] * scores[t, h, w] / total for t, h, w in places)
        for t, h, w in places:
            out[clip, :, t, h, w] = attended
    return out + video if block.attended.residual else out


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_against_the_equations(maps: tuple[Tensor, Tensor], depth: int, residual: bool) -> None:
    torch.manual_seed(2)
    block = CrossModal(12, 16, depth=depth, residual=residual).eval()
    video, audio = block(*maps)
    torch.testing.assert_close(video, derive(block, *maps), atol=1e-5, rtol=1e-5)
    assert torch.equal(audio, maps[1]), "the audio passes on unchanged"


def test_the_pooled_vector_is_the_mean_and_the_attended_sum(maps: tuple[Tensor, Tensor]) -> None:
    """An effect of order one, however many places there are; multiplying the map has one by their number."""
    video, audio = maps
    for kind, share in ((CrossModal, 1), (CrossModalMap, 1 / 18)):
        block = kind(12, 16).eval()
        weights = block.weights(video, audio)
        attended = (video * weights).sum(dim=(2, 3, 4))
        pooled = block(video, audio)[0].mean(dim=(2, 3, 4))
        torch.testing.assert_close(pooled, video.mean(dim=(2, 3, 4)) + share * attended)


@pytest.mark.parametrize("residual", [True, False])
def test_behind_trained_encoders_uniform_weights_change_no_mean(
    maps: tuple[Tensor, Tensor], residual: bool
) -> None:
    video, audio = maps
    block = CrossModal(12, 16, residual=residual).eval()
    block.attended.start_neutral()
    torch.testing.assert_close(block.uniform(video, audio)[0].mean(dim=(2, 3, 4)), video.mean(dim=(2, 3, 4)))
    if residual:
        torch.testing.assert_close(block.uniform(video, audio)[0], video)
    share = 0.5 if residual else 1
    attended = (video * block.weights(video, audio)).sum(dim=(2, 3, 4))
    expected = (1 - share) * video.mean(dim=(2, 3, 4)) + share * attended
    torch.testing.assert_close(block(video, audio)[0].mean(dim=(2, 3, 4)), expected)


def test_the_released_block_against_a_derivation(maps: tuple[Tensor, Tensor]) -> None:
    """Softmax over each time step's places, sixteen times; the last step of a causal attention."""
    block = CrossModalReleased(12, 16).eval()
    video, audio = maps
    agreement, selection = block.agreement, block.selection
    out = block(video, audio)[0]
    for clip in range(2):
        tokens = audio[clip].T * 4 + sinusoidal_positions(5, 16)
        for layer in selection.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            normed = layer.norm1(tokens)
            # The last row of attention sees all before it; each earlier step only those up to itself.
            attended = torch.stack([attention(layer.self_attn, normed[: n + 1])[n] for n in range(5)])
            tokens = tokens + attended
            tokens = tokens + layer.linear2(layer.linear1(layer.norm2(tokens)).relu())
        vector = agreement.selected.weight @ selection.norm(tokens)[-1]
        for t in range(2):
            places = [(h, w) for h in range(3) for w in range(3)]
            scores = [
                (
                    agreement.score.weight[0]
                    @ torch.tanh(
                        agreement.places.weight @ video[clip, :, t, h, w] + agreement.places.bias + vector
                    )
                ).exp()
                for h, w in places
            ]
            for (h, w), score in zip(places, scores, strict=True):
                expected = video[clip, :, t, h, w] * (1 + 16 * score / sum(scores))
                torch.testing.assert_close(out[clip, :, t, h, w], expected, atol=1e-4, rtol=1e-4)
    places, steps = block.attention(video, audio)
    torch.testing.assert_close(places.sum(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(steps.sum(dim=1), torch.ones(2))


def test_k_maps_are_the_mean_of_their_vectors(maps: tuple[Tensor, Tensor]) -> None:
    """Eq. 7's channels map by map, each with a softmax over the places; their vectors are averaged."""
    video, audio = maps
    block = CrossModalMaps(12, 16).eval()
    expected = video.clone()
    for clip in range(2):
        places = video[clip].flatten(1).T
        added = block.agreement.selected.weight @ select(block, audio[clip])
        vectors = []
        for weight, bias, plus in zip(*block.agreement.places.parameters(), added, strict=True):
            scores = torch.stack([torch.tanh(weight @ place + bias + plus) for place in places]).exp()
            vectors.append(
                sum(score / scores.sum() * place for score, place in zip(scores, places, strict=True))
            )
        expected[clip] += torch.stack(vectors).mean(0)[:, None, None, None]
    torch.testing.assert_close(block(video, audio)[0], expected, atol=1e-5, rtol=1e-5)


def test_weights_of_a_clip_sum_to_one(maps: tuple[Tensor, Tensor]) -> None:
    weights = CrossModal(12, 16).eval().weights(*maps)
    assert weights.shape == (2, 1, 2, 3, 3)
    torch.testing.assert_close(weights.sum(dim=(1, 2, 3, 4)), torch.ones(2))


def test_one_clip_moves_no_other(maps: tuple[Tensor, Tensor]) -> None:
    block = CrossModal(12, 16).eval()
    video, audio = maps
    before = block(video, audio)[0][0]
    after = block(torch.cat([video[:1], 9 * video[1:]]), torch.cat([audio[:1], -audio[1:]]))[0][0]
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_published_size() -> None:
    """250,048 for self-attention and 135,297 for the scores (facts of the reproduced counts)."""
    full, without = CrossModal(2048, 64), CrossModal(2048, 64, depth=0)
    assert sum(p.numel() for p in without.parameters()) == 135_297
    assert sum(p.numel() for p in full.parameters()) == 135_297 + 250_048


def test_hand_computed_positions() -> None:
    expected = torch.tensor([[0, 0, 1, 1], [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)]])
    torch.testing.assert_close(sinusoidal_positions(2, 4), expected)


def test_channels_that_heads_cannot_share() -> None:
    with pytest.raises(InputError, match="20 channels: expected a multiple of 8"):
        CrossModal(12, 20)
