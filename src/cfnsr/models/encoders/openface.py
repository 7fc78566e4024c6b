"""The video encoder for OpenFace tracks: action units, pose, gaze and landmarks instead of pictures."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.logarithmic import compressed, expanded
from cfnsr.models.encoders.discriminant import Discriminant, ScoredStage
from cfnsr.models.streams import Encoder

CHANNELS = 128
KERNEL = 3  # in time
FARTHEST = 6.0  # deviations from a feature's mean
DROPOUT = 0.3
# Of the discriminant: borders may be curved, and its scores count half as much as those of speech.
WAVES = 1000
SHRINKAGE = 0.3
DEVIATION = 2.0


class Embedding(nn.Module):
    """Each feature of a track as a place of the map, with a direction of its own for its value.

    The sum over the places is then a linear layer's answer to the features, and an exchange that weights
    places, as CFN-SR's does, weights action units.

    >>> Embedding(35)(torch.rand(2, 35, 7)).shape
    torch.Size([2, 128, 7, 35, 1])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(features, affine=False)
        self.direction = nn.Parameter(torch.empty(CHANNELS, features))
        self.offset = nn.Parameter(torch.zeros(CHANNELS, features))
        bound = features**-0.5
        nn.init.uniform_(self.direction, -bound, bound)

    def forward(self, track: Float[Tensor, "B F T"]) -> Float[Tensor, "B C T F 1"]:
        values = self.scale(compressed(track)).clamp(-FARTHEST, FARTHEST)
        places = torch.einsum("bft,cf->bctf", values, self.direction) + self.offset[:, None]
        return places.unsqueeze(-1)


def mean_units(track: Float[Tensor, "B F T"]) -> Float[Tensor, "B F"]:
    """Mean over time of every feature of a track, on a logarithmic scale."""
    return compressed(track).mean(dim=2)


class ScoredEmbedding(ScoredStage):
    """First stage: the embedded features, and behind them a discriminant's scores of the track's mean.

    >>> ScoredEmbedding(35, 6)(torch.rand(2, 35, 7)).shape
    torch.Size([2, 136, 7, 35, 1])
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(Discriminant(features, classes, WAVES, SHRINKAGE, DEVIATION), classes)
        self.embedding = Embedding(features)

    def embed(self, track: Float[Tensor, "B F T"]) -> Float[Tensor, "B C T F 1"]:
        places: Tensor = self.embedding(track)
        return places

    def measure(self, track: Float[Tensor, "B F T"]) -> Float[Tensor, "B F"]:
        return mean_units(track)


class TemporalConvolution(nn.Module):
    """Add to each place a convolution over its neighbours in time, channel by channel; zero at first.

    Channels beyond its own pass on unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        # Over (T, F): ten times as fast on a CPU as the same convolution over (T, F, 1).
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, (KERNEL, 1), padding=(KERNEL // 2, 0), groups=CHANNELS)
        self.weight = nn.Parameter(torch.zeros(CHANNELS, 1, 1, 1))

    def forward(self, places: Float[Tensor, "B C T F 1"]) -> Float[Tensor, "B C T F 1"]:
        own, others = places[:, :CHANNELS], places[:, CHANNELS:]
        added = own + self.weight * functional.gelu(self.conv(own.squeeze(-1))).unsqueeze(-1)
        return torch.cat([added, others], dim=1)


class OpenFaceEncoder(Encoder):
    """A face's track as a map whose places are its features in time, `(B, C, T, F, 1)`.

    Any number of time steps will do, from 1: the mean of a whole take is a track of one step. Beside the
    network a discriminant scores the take by its mean, as in the encoder of speech.

    Args:
        features: values a step has; 35 are the action units.

    >>> encoder = OpenFaceEncoder()
    >>> track = torch.rand(2, 35, 7)
    >>> for stage in encoder.stages:
    ...     track = stage(track)
    >>> track.shape, encoder.pool(track).shape
    (torch.Size([2, 136, 7, 35, 1]), torch.Size([2, 136]))
    """

    reads = "openface"
    setting = "openface_features"  # of `create_model`

    def __init__(self, features: int = 35, classes: int = 8) -> None:
        super().__init__()
        if features < 1:
            raise InputError(f"{self.setting} is {features}: expected 1 or more, as many as a step has")
        self.shape = features, None
        self.expected = (
            f"tracks of shape (B, {features}, steps); another number of features needs a model made for it, "
            f"create_model(..., {self.setting}=...)"
        )
        first = ScoredEmbedding(features, classes)
        self.score_channels = first.score_channels
        self.dim = CHANNELS + self.score_channels
        self.channels = (self.dim,) * 3
        self.stages = nn.ModuleList([first, TemporalConvolution(), TemporalConvolution()])
        self.standardise = nn.BatchNorm1d(CHANNELS)
        self.dropout = nn.Dropout(DROPOUT)

    def average(self) -> Float[Tensor, "F 1"]:
        """Track of the mean over the training clips, on the logarithmic scale that is standardised first."""
        mean = cast(ScoredEmbedding, self.stages[0]).embedding.scale.running_mean
        return expanded(cast(Tensor, mean))[:, None]

    def pool(self, places: Float[Tensor, "B C T F 1"]) -> Float[Tensor, "B dim"]:
        """Hidden layer of a perceptron over the mean of all places, and the discriminant's scores."""
        means = places.mean(dim=(2, 3, 4))
        hidden: Tensor = self.dropout(functional.gelu(self.standardise(means[:, :CHANNELS])))
        return torch.cat([hidden, means[:, CHANNELS:]], dim=1)
