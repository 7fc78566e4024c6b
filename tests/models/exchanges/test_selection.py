"""Which tokens the selected vector is made of: attention rollout, re-derived head by head."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cfnsr.models.exchanges.selection import Selection, sinusoidal_positions

from ..by_hand import Array, transform


def rollout(selection: Selection, tokens: Array) -> Array:
    """Abnar and Zuidema's section 3 for one clip (N, C), from the weights of the layers alone."""
    steps, dim = tokens.shape
    x = tokens * math.sqrt(dim) + sinusoidal_positions(steps, dim).numpy()
    product = np.eye(steps)
    for layer in selection.layers:
        x, weights = transform(layer, x)
        product = (weights + np.eye(steps)) / 2 @ product
    rolled: Array = product.mean(axis=0)
    return rolled


def made(depth: int) -> Selection:
    """A selection whose attention is far from uniform."""
    torch.manual_seed(depth)
    selection = Selection(16, depth).double().eval()
    for layer in selection.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        nn.init.normal_(layer.self_attn.in_proj_weight, std=1.5)
    return selection


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_token_weights_against_the_rollout_by_hand(depth: int) -> None:
    selection = made(depth)
    tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = selection.token_weights(tokens)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
    for clip in range(2):
        expected = rollout(selection, tokens[clip].numpy()) if depth else np.full(7, 1 / 7)
        np.testing.assert_allclose(weights[clip].detach().numpy(), expected, atol=1e-6)
    if depth:
        assert weights.max() > 1.3 / 7, "a uniform attention would show nothing"


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
    torch.testing.assert_close(selection.token_weights(tokens), expected, atol=1e-4, rtol=0)


def test_the_selected_vector_is_what_it_was() -> None:
    """Asking for the weights changes nothing, and nothing is held that a checkpoint would have to keep."""
    selection = made(2)
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    before, names = selection(tokens), list(selection.state_dict())
    selection.token_weights(tokens)
    assert torch.equal(selection(tokens), before)
    assert list(selection.state_dict()) == names


def test_hand_computed_positions() -> None:
    expected = torch.tensor([[0, 0, 1, 1], [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)]])
    torch.testing.assert_close(sinusoidal_positions(2, 4), expected)
