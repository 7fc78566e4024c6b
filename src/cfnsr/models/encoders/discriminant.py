"""A discriminant of a clip's statistics, solved in closed form, and the stage that appends its scores."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

FARTHEST = 8.0  # deviations from a value's mean
LEAST_DEVIATION = 1e-4  # of a value that hardly changes
SHRINKAGE = 0.6  # of the covariance towards a multiple of the identity: there are more values than clips
DEVIATION = 4.0  # of the scores of the clips it was fitted to, so that they count beside a network's
NARROWNESS = 0.1  # of the Gaussian kernel that waves stand for: one over its deviation
MULTIPLE = 8  # of which a map's channels are one, as the exchanges' attention needs


class Discriminant(nn.Module):
    """Scores of Gaussian classes with one common covariance, shrunk towards a multiple of the identity.

    It knows the clips it was fitted to almost by heart, so a network that trains beside it on those would
    have nothing left to learn. So in training it is disabled unless `in_training` is set; in evaluation it is
    enabled. Unfitted its scores are all zeros.

    Args:
        features: statistics of a clip.
        waves: where more than 0, as many cosines of random directions of the statistics are scored instead: a
            Gaussian kernel, so that borders between the classes may be curved.
        shrinkage: of the covariance, above 0 and at most 1.
        deviation: of the scores of the clips it was fitted to.

    Sources: Friedman 1989, "Regularized discriminant analysis", sec. 3, with one covariance for all classes;
    Rahimi and Recht 2007, "Random features for large-scale kernel machines", algorithm 1.

    >>> discriminant = Discriminant(3, 2).eval()
    >>> values = torch.tensor([[1.0, 0, 0], [2, 1, 0], [7, 0, 1], [8, 1, 1]])
    >>> discriminant.fit(values, torch.tensor([0, 0, 1, 1]))
    >>> discriminant(torch.tensor([[1.5, 0.5, 0], [7.5, 0.5, 1]])).argmax(dim=1)
    tensor([0, 1])
    """

    def __init__(
        self,
        features: int,
        classes: int,
        waves: int = 0,
        shrinkage: float = SHRINKAGE,
        deviation: float = DEVIATION,
    ) -> None:
        super().__init__()
        self.shrinkage, self.spread = shrinkage, deviation
        self.in_training = False
        self.mean = nn.Buffer(torch.zeros(features))
        self.deviation = nn.Buffer(torch.ones(features))
        self.directions = nn.Buffer(NARROWNESS * torch.randn(features, waves))
        self.phases = nn.Buffer(2 * math.pi * torch.rand(waves))
        self.weight = nn.Buffer(torch.zeros(waves or features, classes))
        self.bias = nn.Buffer(torch.zeros(classes))

    @property
    def enabled(self) -> bool:
        """False while it trains beside a network that does not start from it."""
        return self.in_training or not self.training

    def standardise(self, values: Float[Tensor, "N F"]) -> Float[Tensor, "N W"]:
        """Standardise statistics by those of the clips it was fitted to, and make any waves of them."""
        values = ((values - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
        return (values @ self.directions + self.phases).cos() if self.phases.numel() else values

    @torch.no_grad()
    def fit(self, values: Float[Tensor, "N F"], labels: Int[Tensor, " N"]) -> None:
        """Solve for the weights; a class without a clip lies in the middle of all and is the least likely."""
        deviation, mean = torch.std_mean(values, dim=0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation + LEAST_DEVIATION)
        values = self.standardise(values).double()
        weight, bias = linear_discriminant(values, labels, self.bias.numel(), self.shrinkage)
        scores = values @ weight + bias
        centred = scores - scores.mean(dim=1, keepdim=True)
        scale = self.spread / centred.std(correction=0).clamp(min=LEAST_DEVIATION)
        self.weight.copy_((weight - weight.mean(dim=1, keepdim=True)) * scale)
        self.bias.copy_((bias - bias.mean()) * scale)

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B classes"]:
        """Score each class; the mean over the classes is 0."""
        return self.standardise(values) @ self.weight + self.bias


class ScoredStage(nn.Module):
    """A stage of an encoder: a map of its input, and behind it a discriminant's scores of the whole input.

    The score of each class is a channel that is the same at all places, and channels of zeros fill up to
    `MULTIPLE`, so that an exchange that weights the map weights the scores too. While the discriminant is
    disabled its channels are zeros.

    Args:
        discriminant: of as many statistics as `measure` gives.
    """

    def __init__(self, discriminant: Discriminant, classes: int) -> None:
        super().__init__()
        self.discriminant = discriminant
        self.score_channels = math.ceil(classes / MULTIPLE) * MULTIPLE

    def embed(self, given: Tensor) -> Float[Tensor, "B C *places"]:
        """Make the map."""
        raise NotImplementedError

    def measure(self, given: Tensor) -> Float[Tensor, "B F"]:
        """Make the statistics that are scored."""
        raise NotImplementedError

    def forward(self, given: Tensor) -> Float[Tensor, "B C+scores *places"]:
        embedded = self.embed(given)
        if self.discriminant.enabled:
            scores = self.discriminant(self.measure(given))
        else:  # the statistics cost more than the map
            scores = embedded.new_zeros(len(embedded), self.discriminant.bias.numel())
        scores = functional.pad(scores, (0, self.score_channels - scores.shape[1]))
        places = embedded.shape[2:]
        everywhere = scores.view(*scores.shape, *(1 for _ in places)).expand(-1, -1, *places)
        return torch.cat([embedded, everywhere], dim=1)


def linear_discriminant(
    values: Float[Tensor, "N F"], labels: Int[Tensor, " N"], classes: int, shrinkage: float
) -> tuple[Float[Tensor, "F classes"], Float[Tensor, " classes"]]:
    """Weights and bias of Gaussian classes of one shrunk covariance, so that scores are log-probabilities.

    A class without a clip lies in the middle of all and is the least likely.

    Args:
        values: in float64, for there may be more values than clips.
    """
    members = functional.one_hot(labels, classes).to(values)
    counts = members.sum(dim=0)
    means = torch.where(
        counts[:, None] > 0, members.T @ values / counts.clamp(min=1)[:, None], values.mean(dim=0)
    )
    weight = _solve(values - means[labels], means.T, shrinkage)
    bias = ((counts + 1) / (len(values) + classes)).log() - (means.T * weight).sum(dim=0) / 2
    # A class without clips lies near to everything when there are more values than clips.
    bias = torch.where(counts > 0, bias, bias[counts > 0].min())
    return weight, bias


def _solve(
    within: Float[Tensor, "N F"], targets: Float[Tensor, "F K"], shrinkage: float
) -> Float[Tensor, "F K"]:
    """Multiply the inverse of the shrunk covariance of `within` by `targets`."""
    clips, features = within.shape
    share = (1 - shrinkage) / clips
    level = shrinkage * (within.square().sum() / (clips * features)).clamp(min=LEAST_DEVIATION)
    if features <= clips:
        covariance = share * within.T @ within + level * torch.eye(features).to(within)
        solved: Tensor = torch.linalg.solve(covariance, targets)
        return solved
    # With fewer clips than values the smaller matrix, of clips, is enough (Woodbury's identity).
    among = share * within @ within.T + level * torch.eye(clips).to(within)
    correction: Tensor = share * within.T @ torch.linalg.solve(among, within @ targets)
    return (targets - correction) / level
