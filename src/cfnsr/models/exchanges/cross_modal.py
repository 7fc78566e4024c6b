"""The cross-modal block of CFN-SR: self-attention and residual structure (section 2.3)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 64  # k of eq. 7
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


class AudioSelection(nn.Module):
    """Self-attention among the steps of the audio map, then their mean: one audio vector (eqs. 5-6).

    A step is a token. Every step sees every other, so the vector weighs the whole clip; the released code
    masks the future and keeps the last step alone, which the paper does not ask for.

    Args:
        channels: width of a token; divisible by 8.
        depth: transformer layers; 0 leaves the selection out and only averages.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.dropout = nn.Dropout(EMBEDDING_DROPOUT)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels, HEADS, FEED_FORWARD * channels, LAYER_DROPOUT, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels) if depth else nn.Identity()

    def forward(self, audio: Float[Tensor, "B C S"]) -> Float[Tensor, "B C"]:
        tokens = audio.transpose(1, 2)
        if self.depth:
            positions = sinusoidal_positions(tokens.shape[1], tokens.shape[2]).to(tokens)
            tokens = self.dropout(tokens * math.sqrt(tokens.shape[2]) + positions)
        for layer in self.layers:
            tokens = layer(tokens)
        selected: Tensor = self.norm(tokens).mean(dim=1)
        return selected


class CrossModal(nn.Module):
    """Weight each place of the video map by its agreement with the audio (section 2.3, eqs. 5-8).

    Self-attention selects among the audio steps; the selected vector scores every place of the
    video map; the softmax of the scores over the places of that clip multiplies the map. The audio
    passes on unchanged.

    Args:
        video_channels: channels of the video map.
        audio_channels: channels of the audio map; divisible by 8.
        depth: self-attention layers; 0 leaves the selection out (Table 2, "w/o self-attention").
        residual: add the unweighted video map back (Table 2, "w/o residual").

    >>> video, audio = CrossModal(2048, 64)(torch.rand(1, 2048, 2, 7, 7), torch.rand(1, 64, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([2048, 2, 7, 7]), torch.Size([64, 26]))
    """

    def __init__(
        self, video_channels: int, audio_channels: int, *, depth: int = 5, residual: bool = True
    ) -> None:
        super().__init__()
        self.selection = AudioSelection(audio_channels, depth)
        self.video_projection = nn.Linear(video_channels, HIDDEN)  # W_v and b_v of eq. 7
        self.audio_projection = nn.Linear(audio_channels, HIDDEN, bias=False)  # W_a
        # A bias would be the same for all places, and the softmax would not see it: the published count
        # has one all the same.
        self.score = nn.Linear(HIDDEN, 1)
        self.residual = residual

    def weights(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> Float[Tensor, "B 1 T H W"]:
        """How much each place of the video map agrees with the audio; sums to 1 over a clip's places."""
        places = video.flatten(2).transpose(1, 2)
        selected = self.audio_projection(self.selection(audio))
        scores = self.score(torch.tanh(self.video_projection(places) + selected[:, None]))
        weights: Tensor = scores.softmax(dim=1).transpose(1, 2).unflatten(2, video.shape[2:])
        return weights

    def forward(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B C2 S"]]:
        weighted = video * self.weights(video, audio)
        return (weighted + video if self.residual else weighted), audio
