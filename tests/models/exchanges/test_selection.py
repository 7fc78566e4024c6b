"""Which tokens the selected vector is made of: attention rollout, re-derived head by head."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cfnsr.models.exchanges.cross_modal import CrossModal
from cfnsr.models.exchanges.selection import HEADS, Selection, sinusoidal_positions
from cfnsr.models.exchanges.video_to_audio import VideoToAudio


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    weights: np.ndarray = exponentials / exponentials.sum()
    return weights


def normed(norm: nn.LayerNorm, tokens: np.ndarray) -> np.ndarray:
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + norm.eps)
    out: np.ndarray = scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    return out


def rollout(selection: Selection, tokens: np.ndarray) -> np.ndarray:
    """Abnar and Zuidema's section 3 for one clip (N, C), from the weights of the layers alone."""
    steps, dim = tokens.shape
    size = dim // HEADS
    x = tokens * math.sqrt(dim) + sinusoidal_positions(steps, dim).numpy()
    product = np.eye(steps)
    for layer in selection.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        weight, bias = (
            value.detach().numpy() for value in (layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)
        )
        q, k, v = np.split(normed(layer.norm1, x) @ weight.T + bias, 3, axis=1)
        attention, heard = np.zeros((steps, steps)), np.zeros_like(x)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for step in range(steps):
                weights = softmax(k[:, part] @ q[step, part] / math.sqrt(size))
                attention[step] += weights / HEADS
                heard[step, part] = weights @ v[:, part]
        product = (0.5 * attention + 0.5 * np.eye(steps)) @ product
        out = layer.self_attn.out_proj
        x = x + heard @ out.weight.detach().numpy().T + out.bias.detach().numpy()
        with torch.no_grad():
            x = x + layer.linear2(layer.linear1(layer.norm2(torch.from_numpy(x))).relu()).numpy()
    shares: np.ndarray = product.sum(axis=0) / steps
    return shares


def made(depth: int) -> Selection:
    """A selection whose attention is far from even."""
    torch.manual_seed(depth)
    selection = Selection(16, depth).double().eval()
    for layer in selection.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        nn.init.normal_(layer.self_attn.in_proj_weight, std=1.5)
    return selection


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_shares_against_the_rollout_by_hand(depth: int) -> None:
    selection = made(depth)
    tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = selection.shares(tokens)
    assert shares.shape == (2, 7)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, dtype=torch.float64))
    for clip in range(2):
        expected = rollout(selection, tokens[clip].numpy()) if depth else np.full(7, 1 / 7)
        np.testing.assert_allclose(shares[clip].detach().numpy(), expected, atol=1e-6)
    if depth:
        assert shares.max() > 1.3 / 7, "an attention that is even would show nothing"


def test_a_planted_step_has_all_the_attention() -> None:
    """Keys that know one step alone: each token becomes half itself and half that step."""
    selection = Selection(8, 1).eval()
    layer = selection.layers[0]
    assert isinstance(layer, nn.TransformerEncoderLayer)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.zero_()
        layer.self_attn.in_proj_bias.zero_()
        layer.self_attn.in_proj_bias[:8] = 1  # the queries, one value a head
        layer.self_attn.in_proj_weight[8:16, 0] = 50  # the keys: the token's first value
    tokens = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    tokens[..., 0] = -20
    tokens[0, 3, 0] = 20
    expected = torch.full((1, 5), 0.1)
    expected[0, 3] = 0.6
    torch.testing.assert_close(selection.shares(tokens), expected, atol=1e-4, rtol=0)


def test_the_selected_vector_is_what_it_was() -> None:
    """Asking for the shares changes nothing, and nothing is held that a checkpoint would have to keep."""
    selection = made(2)
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    before, names = selection(tokens), list(selection.state_dict())
    selection.shares(tokens)
    assert torch.equal(selection(tokens), before)
    assert list(selection.state_dict()) == names


@pytest.mark.parametrize("residual", [True, False])
def test_uniform_weights(residual: bool) -> None:
    """Eq. 8 with the same weight everywhere: the mean of the map, and the map itself beside it."""
    torch.manual_seed(0)
    video, audio = torch.randn(2, 16, 2, 3, 3), torch.randn(2, 16, 5)
    beside = 1 if residual else 0
    to_video, same = CrossModal(16, 16, depth=1, residual=residual).uniform(video, audio)
    torch.testing.assert_close(to_video, video.mean(dim=(2, 3, 4), keepdim=True) + beside * video)
    assert torch.equal(same, audio)
    same, to_audio = VideoToAudio(16, 16, depth=1, residual=residual).uniform(video, audio)
    torch.testing.assert_close(to_audio, audio.mean(dim=2, keepdim=True) + beside * audio)
    assert torch.equal(same, video)


def test_attention_is_weights_and_shares() -> None:
    torch.manual_seed(0)
    video, audio = torch.randn(2, 16, 2, 3, 3), torch.randn(2, 16, 5)
    block = CrossModal(16, 16, depth=2).eval()
    places, steps = block.attention(video, audio)
    torch.testing.assert_close(places, block.weights(video, audio)[:, 0])
    assert torch.equal(steps, block.selection.shares(audio.transpose(1, 2)))
    other = VideoToAudio(16, 16, depth=2).eval()
    places, steps = other.attention(video, audio)
    assert torch.equal(steps, other.weights(video, audio)[:, 0])
    assert places.shape == (2, 2, 3, 3)
    tokens = torch.stack([other.tokens(video[:, :, t, h, w]) for t, h, w in np.ndindex(2, 3, 3)], dim=1)
    torch.testing.assert_close(places.flatten(1), other.selection.shares(tokens))
