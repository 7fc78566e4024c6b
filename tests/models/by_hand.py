"""Parts of networks written out in double precision, one clip at a time: what the tests compare with."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def numbers(values: Tensor | None) -> Array:
    assert values is not None
    found: Array = values.detach().double().numpy()
    return found


def gelu(values: Array) -> Array:
    """x times the normal distribution's share below x."""
    each = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in values.ravel().tolist()]
    return np.array(each).reshape(values.shape)


def linear(layer: nn.Linear, tokens: Array) -> Array:
    out: Array = tokens @ numbers(layer.weight).T + numbers(layer.bias)
    return out


def normed(norm: nn.LayerNorm, tokens: Array) -> Array:
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + norm.eps)
    out: Array = numbers(norm.weight) * centred / deviation + numbers(norm.bias)
    return out


def attend(inner: nn.MultiheadAttention, tokens: Array, *, causal: bool = False) -> tuple[Array, Array]:
    """Eq. 5 of one clip (S, C), head by head and step by step; also the weights (S, S), mean over the heads.

    Where it is causal a step attends to none that follow it.
    """
    steps, size = len(tokens), tokens.shape[1] // inner.num_heads
    joint = tokens @ numbers(inner.in_proj_weight).T + numbers(inner.in_proj_bias)
    query, key, value = np.split(joint, 3, axis=1)
    out, attention = np.zeros_like(tokens), np.zeros((steps, steps))
    for head in range(inner.num_heads):
        part = slice(head * size, (head + 1) * size)
        for step in range(steps):
            seen = step + 1 if causal else steps
            weights = np.exp(key[:seen, part] @ query[step, part] / math.sqrt(size))
            weights /= weights.sum()
            attention[step, :seen] += weights / inner.num_heads
            out[step, part] = weights @ value[:seen, part]
    assert isinstance(inner.out_proj, nn.Linear)
    return linear(inner.out_proj, out), attention


def transform(layer: nn.Module, tokens: Array, *, causal: bool = False) -> tuple[Array, Array]:
    """A transformer layer whose norms stand before each part; also its attention weights."""
    assert isinstance(layer, nn.TransformerEncoderLayer)
    attended, weights = attend(layer.self_attn, normed(layer.norm1, tokens), causal=causal)
    tokens = tokens + attended
    hidden = linear(layer.linear1, normed(layer.norm2, tokens))
    active = np.maximum(hidden, 0) if layer.activation is nn.functional.relu else gelu(hidden)
    return tokens + linear(layer.linear2, active), weights
