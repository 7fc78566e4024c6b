"""Self-attention that makes one vector of a map: the half of the cross-modal block that selects."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cfnsr.errors import InputError

HEADS = 8
FEED_FORWARD = 4  # times the width of a token
LAYER_DROPOUT = 0.1
EMBEDDING_DROPOUT = 0.3


def sinusoidal_positions(steps: int, dim: int) -> Float[Tensor, "S C"]:
    """Sine and cosine of each position at geometrically spaced frequencies (Vaswani et al. 2017, sec. 3.5).

    >>> sinusoidal_positions(2, 4)[0]
    tensor([0., 0., 1., 1.])
    """
    frequencies = torch.exp(torch.arange(dim // 2) * (-math.log(10_000.0) / max(dim // 2 - 1, 1)))
    angles = torch.arange(steps)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Selection(nn.Module):
    """Self-attention among the tokens of one modality, then their mean: one vector (eqs. 5-6).

    Every token attends to every other, so the vector covers the whole clip.

    Args:
        channels: width of a token; divisible by 8.
        depth: transformer layers; 0 leaves the selection out and only averages.
        causal: a token attends to none that follow it, and the last token alone is the vector. The released
            code does so; the paper does not ask for it.

    >>> Selection(64, 5)(torch.rand(1, 26, 64)).shape
    torch.Size([1, 64])
    """

    def __init__(self, channels: int, depth: int, *, causal: bool = False) -> None:
        super().__init__()
        if channels % HEADS:
            raise InputError(
                f"{channels} channels: expected a multiple of {HEADS}, a part for each head of the attention"
            )
        self.depth = depth
        self.causal = causal
        self.dropout = nn.Dropout(EMBEDDING_DROPOUT)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels, HEADS, FEED_FORWARD * channels, LAYER_DROPOUT, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels) if depth else nn.Identity()

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C"]:
        tokens = self._positioned(tokens)
        mask = self._mask(tokens)
        for layer in self.layers:
            tokens = layer(tokens, src_mask=mask)
        tokens = self.norm(tokens)
        return tokens[:, -1] if self.causal else tokens.mean(dim=1)

    def token_weights(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
        """Token weights in the selected vector, by attention rollout; they sum to 1 over a clip.

        In each layer a token becomes half itself, by the layer's shortcut, and half what it attends to, in
        the mean over the heads; the layers' matrices multiply, and the rows of the product are averaged as
        the tokens are. It follows where values come from and not what is done with them: neither their size
        nor the feed-forward parts. Without layers the weights are uniform. For evaluation: dropout would
        change the weights too.

        Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers", section 3.

        >>> Selection(64, 0).token_weights(torch.rand(1, 4, 64))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
        """
        clips, count, _ = tokens.shape
        mixed = torch.eye(count).to(tokens).expand(clips, -1, -1)  # [i, j]: how much of token j is in token i
        tokens = self._positioned(tokens)
        mask = self._mask(tokens)
        for layer in cast(Iterable[nn.TransformerEncoderLayer], self.layers):
            normed = layer.norm1(tokens)
            attended = layer.self_attn(normed, normed, normed, attn_mask=mask)[1] @ mixed
            mixed = (mixed + attended) / 2
            tokens = layer(tokens, src_mask=mask)
        return mixed[:, -1] if self.causal else mixed.mean(dim=1)

    def _mask(self, tokens: Float[Tensor, "B N C"]) -> Bool[Tensor, "N N"] | None:
        """True where a token must not attend: at those that follow it."""
        if not self.causal:
            return None
        count = tokens.shape[1]
        return torch.ones(count, count, dtype=torch.bool, device=tokens.device).triu(1)

    def _positioned(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Add positions to the tokens, where there are layers to make use of them."""
        if not self.depth:
            return tokens
        positions = sinusoidal_positions(tokens.shape[1], tokens.shape[2]).to(tokens)
        positioned: Tensor = self.dropout(tokens * math.sqrt(tokens.shape[2]) + positions)
        return positioned
