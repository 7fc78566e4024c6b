"""The audio encoder for the hidden states of a pretrained speech encoder."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant, ScoredStage
from cfnsr.models.streams import Encoder

CHANNELS = 192
HIDDEN = 128  # values of the pooled vector
HEADS = 4
WIDENING = 4  # of the feed-forward part
DROPOUT = 0.15  # in the transformer
FARTHEST = 8.0  # deviations from a value's mean; beyond are outliers of a few channels
LEAST_VARIANCE = 1e-4  # the slope of a root has no bound at 0


class LayerMixture(nn.Module):
    """The layers of a pretrained encoder, each brought to one scale, in a weighted sum; weights begin equal.

    Each value is standardised by its mean and deviation over the training clips, so that a layer counts by
    its weight and not by its loudness. Source of the weights: Yang et al. 2021, "SUPERB: Speech processing
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


class ScoredMixture(ScoredStage):
    """First stage: the mixed layers, and behind them a discriminant's scores of the whole take.

    >>> ScoredMixture(5, 384, 6)(torch.rand(2, 5, 24, 384)).shape
    torch.Size([2, 200, 24])
    """

    def __init__(self, layers: int, width: int, classes: int) -> None:
        super().__init__(Discriminant(3 * layers * width, classes), classes)
        self.mixture = LayerMixture(layers, width, CHANNELS)

    def embed(self, states: Float[Tensor, "B layers S width"]) -> Float[Tensor, "B C S"]:
        mixed: Tensor = self.mixture(states)
        return mixed

    def measure(self, states: Float[Tensor, "B layers S width"]) -> Float[Tensor, "B 3*layers*width"]:
        return over_time(states)


class StepAttention(nn.Module):
    """A pre-norm transformer layer over the steps of a map, so that each step attends to the whole take.

    Channels beyond its own pass on unchanged.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.layer = nn.TransformerEncoderLayer(
            channels, HEADS, WIDENING * channels, DROPOUT, "gelu", batch_first=True, norm_first=True
        )

    def forward(self, speech: Float[Tensor, "B C S"]) -> Float[Tensor, "B C S"]:
        attended: Tensor = self.layer(speech[:, : self.channels].transpose(1, 2))
        return torch.cat([attended.transpose(1, 2), speech[:, self.channels :]], dim=1)


def over_time(values: Float[Tensor, "B C S *width"]) -> Float[Tensor, "B F"]:
    """Mean, deviation and deviation of the changes of every value over the steps.

    >>> over_time(torch.tensor([[[1.0, 3.0, 1.0]]])).round(decimals=2)
    tensor([[1.6700, 0.9400, 2.0000]])
    """
    changes = values.diff(dim=2) if values.shape[2] > 1 else torch.zeros_like(values)
    return torch.cat([values.mean(dim=2), _deviation(values), _deviation(changes)], dim=-1).flatten(1)


def _deviation(values: Float[Tensor, "B C S *width"]) -> Float[Tensor, "B C *width"]:
    """Deviation over the steps."""
    # `var` is ten times as slow on a CPU where the steps are not the innermost dimension.
    squares = (values - values.mean(dim=2, keepdim=True)).square()
    return (squares.mean(dim=2) + LEAST_VARIANCE).sqrt()


class SpeechMixture(Encoder):
    """A learned mixture of a frozen speech encoder's layers, then self-attention over its steps, twice.

    Beside it a linear discriminant scores the take by statistics of the same layers. The two learn apart, and
    a classifier begins with the discriminant's scores as they are, so that it adds up the two. Any number of
    steps will do, from 1.

    Args:
        layers: hidden states a clip has, the embedding's output first; Whisper tiny has 5.
        width: of a hidden state.

    >>> encoder = SpeechMixture()
    >>> speech = torch.rand(2, 5, 24, 384)
    >>> for stage in encoder.stages:
    ...     speech = stage(speech)
    >>> speech.shape, encoder.pool(speech).shape
    (torch.Size([2, 200, 24]), torch.Size([2, 136]))
    """

    reads = "speech"

    def __init__(self, layers: int = 5, width: int = 384, classes: int = 8) -> None:
        super().__init__()
        if layers < 1 or width < 1:
            raise InputError(f"speech_layers is {layers}, speech_width {width}: expected 1 or more of each")
        self.shape = layers, None, width
        self.expected = (
            f"hidden states of shape (B, {layers}, steps, {width}); another encoder's need a model made for "
            "it, create_model(..., speech_layers=..., speech_width=...)"
        )
        first = ScoredMixture(layers, width, classes)
        self.score_channels = first.score_channels
        self.channels = (CHANNELS + self.score_channels,) * 3
        self.dim = HIDDEN + self.score_channels
        self.stages = nn.ModuleList([first, StepAttention(CHANNELS), StepAttention(CHANNELS)])
        self.hidden = nn.Sequential(
            nn.BatchNorm1d(2 * CHANNELS),
            nn.Dropout(2 * DROPOUT),
            nn.Linear(2 * CHANNELS, HIDDEN),
            nn.GELU(),
            nn.Dropout(2 * DROPOUT),
        )

    def average(self) -> Float[Tensor, "layers 1 width"]:
        """Mean of the states over the training clips."""
        first = cast(ScoredMixture, self.stages[0]).mixture
        return cast(Tensor, first.scale.running_mean).view(len(first.scores), 1, -1)

    def pool(self, speech: Float[Tensor, "B C S"]) -> Float[Tensor, "B dim"]:
        """Hidden layer over the mean and the deviation over the steps, and the discriminant's scores."""
        attended, scores = speech[:, :CHANNELS], speech[:, CHANNELS:]
        statistics = torch.cat([attended.mean(dim=2), _deviation(attended)], dim=1)
        hidden: Tensor = self.hidden(statistics)
        return torch.cat([hidden, scores.mean(dim=2)], dim=1)
