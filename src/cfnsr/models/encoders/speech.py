"""The audio encoder for the hidden states of a pretrained speech encoder."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError

CHANNELS = 192
HIDDEN = 128  # values of the pooled vector
HEADS = 4
WIDENING = 4  # of the feed-forward part
DROPOUT = 0.15  # in the transformer
FARTHEST = 8.0  # deviations from a value's mean; what lies beyond is an outlier of a few channels
LEAST_VARIANCE = 1e-4  # the slope of a root has no bound at 0


class LayerMixture(nn.Module):
    """The layers of a pretrained encoder, each brought to one scale and weighed; weights begin equal.

    Each value is standardised by its mean and deviation over the training clips, so that a layer counts by
    its weight and not by its loudness. Source of the weighing: Yang et al. 2021, "SUPERB: Speech processing
    universal performance benchmark", section 2; here the layers are projected before they are added.

    >>> LayerMixture(5, 384, 192)(torch.rand(2, 5, 24, 384)).shape
    torch.Size([2, 192, 24])
    """

    def __init__(self, layers: int, width: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(layers * width, affine=False)
        self.scores = nn.Parameter(torch.zeros(layers))
        self.project = nn.Conv1d(layers * width, channels, 1)

    def forward(self, states: Float[Tensor, "B layers S width"]) -> Float[Tensor, "B channels S"]:
        flat = states.transpose(2, 3).flatten(1, 2)
        values = self.scale(flat).clamp(-FARTHEST, FARTHEST).unflatten(1, (states.shape[1], -1))
        weights = self.scores.softmax(dim=0) * len(self.scores)  # 1 each at first
        mixed: Tensor = self.project((values * weights.view(1, -1, 1, 1)).flatten(1, 2))
        return mixed


class Attention(nn.Module):
    """A pre-norm transformer layer over the steps of a map, so that each step hears the whole take."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            channels,
            HEADS,
            WIDENING * channels,
            DROPOUT,
            "gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, speech: Float[Tensor, "B C S"]) -> Float[Tensor, "B C S"]:
        attended: Tensor = self.layer(speech.transpose(1, 2))
        return attended.transpose(1, 2)


class SpeechMixture(nn.Module):
    """A learned mixture of a frozen speech encoder's layers, then self-attention over its steps, twice.

    Any number of steps will do, from 1.

    Args:
        layers: hidden states a clip has, the embedding's output first; Whisper tiny has 5.
        width: of a hidden state.

    >>> encoder = SpeechMixture()
    >>> speech = torch.rand(2, 5, 24, 384)
    >>> for stage in encoder.stages:
    ...     speech = stage(speech)
    >>> speech.shape, encoder.pool(speech).shape
    (torch.Size([2, 192, 24]), torch.Size([2, 128]))
    """

    reads = "speech"

    def __init__(self, layers: int = 5, width: int = 384) -> None:
        super().__init__()
        if layers < 1 or width < 1:
            raise InputError(f"speech_layers is {layers}, speech_width {width}: expected 1 or more of each")
        self.layers, self.width = layers, width
        self.channels = (CHANNELS,) * 3
        self.dim = HIDDEN
        self.stages = nn.ModuleList(
            [LayerMixture(layers, width, CHANNELS), Attention(CHANNELS), Attention(CHANNELS)]
        )
        self.hidden = nn.Sequential(
            nn.BatchNorm1d(2 * CHANNELS),
            nn.Dropout(2 * DROPOUT),
            nn.Linear(2 * CHANNELS, HIDDEN),
            nn.GELU(),
            nn.Dropout(2 * DROPOUT),
        )

    def check(self, speech: Tensor | None) -> Float[Tensor, "B layers S width"]:
        """The hidden states as they came; raises `InputError` for another shape."""
        sizes = (self.layers, self.width)
        if speech is None or speech.dim() != 4 or speech.shape[1::2] != sizes or not speech.shape[2]:
            given = "none" if speech is None else tuple(speech.shape)
            raise InputError(
                f"speech is {given}: expected hidden states of shape (B, {self.layers}, steps, "
                f"{self.width}); another encoder's need a model made for it, "
                "create_model(..., speech_layers=..., speech_width=...)"
            )
        return speech

    def pool(self, speech: Float[Tensor, "B C S"]) -> Float[Tensor, "B dim"]:
        """A hidden layer over the mean and the deviation over the steps."""
        deviation = (speech.var(dim=2, unbiased=False) + LEAST_VARIANCE).sqrt()
        pooled: Tensor = self.hidden(torch.cat([speech.mean(dim=2), deviation], dim=1))
        return pooled
