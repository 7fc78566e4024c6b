"""The cross-modal block against a slow, obvious re-derivation of eqs. 5-8."""

import math

import pytest
import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.exchanges.cross_modal import CrossModal
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
    """Eqs. 7-8 place by place for each clip."""
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
        for t, h, w in places:
            out[clip, :, t, h, w] = video[clip, :, t, h, w] * scores[t, h, w] / total
    return out + video if block.residual else out


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_against_the_equations(maps: tuple[Tensor, Tensor], depth: int, residual: bool) -> None:
    torch.manual_seed(2)
    block = CrossModal(12, 16, depth=depth, residual=residual).eval()
    video, audio = block(*maps)
    torch.testing.assert_close(video, derive(block, *maps), atol=1e-5, rtol=1e-5)
    assert torch.equal(audio, maps[1]), "the audio passes on unchanged"


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
