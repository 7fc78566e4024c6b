"""The simple baselines: statistics of a clip under a linear classifier that is solved at once.

A solver runs at each of its strengths in turn, where a network is trained for an epoch, so the clips that
choose a network's epoch choose the strength.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import FARTHEST, LEAST_DEVIATION, linear_discriminant
from cfnsr.models.encoders.openface import mean_units
from cfnsr.models.encoders.speech import over_time
from cfnsr.models.settings import STAGES, Settings
from cfnsr.models.streams import Encoder

Linear = tuple[Float[Tensor, "F classes"], Float[Tensor, " classes"]]

GRID = 8  # places of a picture along each side, whose mean colours are its statistics
COEFFICIENTS = 13  # MFCCs
MOST_STEPS = 1000  # of L-BFGS, which needs a few dozen
NEAR = 1e-3  # of each weight to the minimum: its gradient is at least strength times as far
LEAST_CHANGE = 1e-12  # of the loss or a weight, below which rounding is all that is left


Solve = Callable[[float], Linear]  # strength of the regularisation -> weights and bias


@dataclass(frozen=True)
class Solver:
    """A method that finds a linear classifier.

    Args:
        strengths: of its regularisation, from the strongest on.
        prepare: (values (N, F), labels (N,), classes) -> what solves them at a strength; None where a model
            stays as it began.
    """

    strengths: tuple[float, ...]
    prepare: Callable[[Tensor, Tensor, int], Solve] | None


def logistic_regression(values: Float[Tensor, "N F"], labels: Int[Tensor, " N"], classes: int) -> Solve:
    """Multinomial logistic regression: the minimum of a convex loss, by L-BFGS over all clips at once.

    The loss is the mean negative log-likelihood and half of `strength` times the squared weights; the bias is
    free. The penalty leaves the weights in the span of the clips, so they are sought along its principal
    axes, which are no more than the clips. Each axis is scaled by the most that the loss may be curved along
    it, so that all strengths take few steps.

    Sources: Hastie and Tibshirani 2004, "Efficient quadratic regularization for expression arrays", sec. 2.1;
    Böhning 1992, "Multinomial logistic regression algorithm" (the bound); Nocedal and Wright 2006, "Numerical
    optimization", algorithms 7.5 and 3.5.
    """
    rows, to_weights = principal_axes(values)
    curvature = rows.square().sum(dim=0) / (2 * len(rows))

    def solve(strength: float) -> Linear:
        scale = (curvature + strength).rsqrt()[:, None]
        scaled = values.new_zeros(len(scale), classes, requires_grad=True)
        bias = values.new_zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [scaled, bias],
            max_iter=MOST_STEPS,
            max_eval=2 * MOST_STEPS,
            history_size=20,
            tolerance_grad=NEAR * strength * scale.min().item(),
            tolerance_change=LEAST_CHANGE,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            weight = scale * scaled
            found = functional.cross_entropy(rows @ weight + bias, labels)
            found = found + strength / 2 * weight.square().sum()
            found.backward()  # type: ignore[no-untyped-call]
            return found

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        return to_weights(scale * scaled.detach()), bias.detach()

    return solve


def principal_axes(values: Float[Tensor, "N F"]) -> tuple[Float[Tensor, "N R"], Callable[[Tensor], Tensor]]:
    """Clips along the axes of their span, and what turns weights (R, classes) of axes into those of values.

    Of clips and values the fewer are decomposed: with 960 clips of 5,760 values in a tenth of the time that a
    singular value decomposition takes.
    """
    wide = values.shape[1] > len(values)
    squares, vectors = torch.linalg.eigh(values @ values.T if wide else values.T @ values)
    kept = squares > squares.max() * max(values.shape) * torch.finfo(values.dtype).eps
    sizes, vectors = squares[kept].sqrt(), vectors[:, kept]
    if wide:
        return vectors * sizes, lambda weight: values.T @ (vectors @ (weight / sizes[:, None]))
    return values @ vectors, lambda weight: vectors @ weight


def discriminant_analysis(values: Float[Tensor, "N F"], labels: Int[Tensor, " N"], classes: int) -> Solve:
    """Linear discriminant analysis; the strength is the shrinkage of the covariance."""
    return partial(linear_discriminant, values, labels, classes)


SOLVERS = {
    "lda": Solver((0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1), discriminant_analysis),
    "logistic": Solver((10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003), logistic_regression),
}
AS_BEGUN = Solver((0.0,), None)


class Statistics(Encoder):
    """A clip's statistics, standardised by those of the training clips, in the place of an encoder.

    Of an input of NaN, one that is missing, they are NaN.

    Args:
        reads: name of the tensor of a clip.
        shape: of it without the batch; None for a side of any length.
        measure: tensor (B, *shape) -> statistics (B, dim).

    >>> Statistics("audio", (13, None), over_time, 39).pool(torch.rand(2, 13, 50)).shape
    torch.Size([2, 39])
    """

    def __init__(
        self, reads: str, shape: tuple[int | None, ...], measure: Callable[[Tensor], Tensor], dim: int
    ) -> None:
        super().__init__()
        self.reads, self.shape, self.measure, self.dim = reads, shape, measure, dim
        self.expected = f"shape (B, {', '.join('any' if side is None else str(side) for side in shape)})"
        self.channels = (dim,) * STAGES
        self.stages = nn.ModuleList(nn.Identity() for _ in range(STAGES))
        self.mean = nn.Buffer(torch.zeros(dim))
        self.deviation = nn.Buffer(torch.ones(dim))

    def pool(self, given: Tensor) -> Float[Tensor, "B dim"]:
        """Return the standardised statistics."""
        return self.standardise(self.measure(given))

    def standardise(self, measured: Float[Tensor, "B dim"]) -> Float[Tensor, "B dim"]:
        """Standardise statistics by those of the training clips."""
        standardised = ((measured - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
        return torch.where(measured.isnan(), measured, standardised)  # some runtimes clamp NaN to a limit

    @torch.no_grad()
    def fit(self, measured: Float[Tensor, "N dim"]) -> None:
        """Take mean and deviation from the statistics of the training clips."""
        deviation, mean = torch.std_mean(measured.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation + LEAST_DEVIATION)


def mean_steps(values: Float[Tensor, "B F T"]) -> Float[Tensor, "B F"]:
    """Mean over time of every value."""
    return values.mean(dim=2)


def mean_colours(video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B F"]:
    """Mean colours of the places of a coarse grid over all pictures."""
    return functional.adaptive_avg_pool2d(video.mean(dim=2), GRID).flatten(1)


# By the name of the encoder that reads the same.
STATISTICS: dict[str, Callable[[Settings], Statistics]] = {
    "pixels": lambda settings: Statistics("video", (3, None, None, None), mean_colours, 3 * GRID**2),
    "openface": lambda settings: Statistics(
        "openface", (settings.openface_features, None), mean_units, settings.openface_features
    ),
    "expression": lambda settings: Statistics(
        "expression", (settings.expression_features, None), mean_steps, settings.expression_features
    ),
    "mfcc": lambda settings: Statistics("audio", (COEFFICIENTS, None), over_time, 3 * COEFFICIENTS),
    "speech": lambda settings: Statistics(
        "speech",
        (settings.speech_layers, None, settings.speech_width),
        over_time,
        3 * settings.speech_layers * settings.speech_width,
    ),
}


class StatisticsSettings(Settings):
    """Settings whose encoders are statistics of what the named encoders read."""

    def encoder(self, modality: str) -> Statistics:
        """Build the statistics of a modality."""
        name = getattr(self, modality)
        if name not in STATISTICS:
            known = ", ".join(STATISTICS)
            raise InputError(f"{modality} encoder {name!r} has no statistics: expected one of {known}")
        return STATISTICS[name](self)
