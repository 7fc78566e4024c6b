"""The simple baselines: statistics of a clip under a linear classifier that is solved at once.

A solver runs at each of its strengths in turn, where a network is trained for an epoch, so the clips that
choose a network's epoch choose the strength.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.logarithmic import compressed
from cfnsr.models.encoders.discriminant import FARTHEST, LEAST_DEVIATION, linear_discriminant
from cfnsr.models.encoders.speech import over_time
from cfnsr.models.exchanges.silent import Silent
from cfnsr.models.heads.concat import Concat
from cfnsr.models.heads.late import Multiplicative
from cfnsr.models.streams import OneStream, TwoStream

if TYPE_CHECKING:
    from cfnsr.models.zoo import Settings

Linear = tuple[Float[Tensor, "F classes"], Float[Tensor, " classes"]]

GRID = 8  # places of a picture along each side, whose mean colours are its statistics
COEFFICIENTS = 13  # MFCCs
STAGES = 3
MOST_STEPS = 1000  # of L-BFGS, which needs a few dozen
NEAR = 1e-5  # of each weight to the minimum: its gradient is at least strength times as far
LEAST_CHANGE = 1e-12  # of the loss or a weight, below which rounding is all that is left


@dataclass(frozen=True)
class Solver:
    """A method that finds a linear classifier.

    Args:
        strengths: of its regularisation, from the strongest on.
        solve: (values (N, F), labels (N,), classes, strength) -> weights (F, classes), bias (classes,); None
            where a model stays as it began.
    """

    strengths: tuple[float, ...]
    solve: Callable[[Tensor, Tensor, int, float], Linear] | None


def logistic_regression(
    values: Float[Tensor, "N F"], labels: Int[Tensor, " N"], classes: int, strength: float
) -> Linear:
    """Multinomial logistic regression: the minimum of a convex loss, by L-BFGS over all clips at once.

    The loss is the mean negative log-likelihood and half of `strength` times the squared weights; the bias is
    free.

    Source: Nocedal and Wright 2006, "Numerical optimization", algorithms 7.5 and 3.5.
    """
    weight = values.new_zeros(values.shape[1], classes, requires_grad=True)
    bias = values.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MOST_STEPS,
        max_eval=2 * MOST_STEPS,
        history_size=20,
        tolerance_grad=NEAR * strength,
        tolerance_change=LEAST_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = functional.cross_entropy(values @ weight + bias, labels)
        found = found + strength / 2 * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


SOLVERS = {
    "lda": Solver((0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1), linear_discriminant),
    "logistic": Solver((10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003), logistic_regression),
}
AS_BEGUN = Solver((0.0,), None)


class Statistics(nn.Module):
    """A clip's statistics, standardised by those of the training clips, in the place of an encoder.

    Args:
        reads: name of the tensor of a clip.
        shape: of it without the batch; None for a side of any length.
        measure: tensor (B, *shape) -> statistics (B, dim).

    >>> Statistics("audio", (13, None), over_time, 39).pool(torch.rand(2, 13, 50)).shape
    torch.Size([2, 39])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, reads: str, shape: tuple[int | None, ...], measure: Callable[[Tensor], Tensor], dim: int
    ) -> None:
        super().__init__()
        self.reads, self.shape, self.measure, self.dim = reads, shape, measure, dim
        self.channels = (dim,) * STAGES
        self.stages = nn.ModuleList(nn.Identity() for _ in range(STAGES))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def check(self, given: Tensor | None) -> Tensor:
        """Return the features as they came; raise `InputError` for another shape."""
        shape = () if given is None else tuple(given.shape[1:])
        fits = [want in (None, have) for want, have in zip(self.shape, shape, strict=False)]
        if given is None or len(shape) != len(self.shape) or not all(fits):
            found = "none" if given is None else tuple(given.shape)
            sides = ", ".join("any" if side is None else str(side) for side in self.shape)
            raise InputError(f"{self.reads} is {found}: expected shape (B, {sides})")
        return given

    def pool(self, given: Tensor) -> Float[Tensor, "B dim"]:
        """Return the standardised statistics."""
        return self.scaled(self.measure(given))

    def scaled(self, measured: Float[Tensor, "B dim"]) -> Float[Tensor, "B dim"]:
        """Standardise statistics by those of the training clips."""
        return ((measured - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)

    @torch.no_grad()
    def standardise(self, measured: Float[Tensor, "N dim"]) -> None:
        """Take mean and deviation from the statistics of the training clips."""
        deviation, mean = torch.std_mean(measured.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation + LEAST_DEVIATION)


def colours(video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B F"]:
    """Mean colours of the places of a coarse grid over all pictures."""
    return functional.adaptive_avg_pool2d(video.mean(dim=2), GRID).flatten(1)


def units(track: Float[Tensor, "B F T"]) -> Float[Tensor, "B F"]:
    """Mean over time of every OpenFace feature, on the scale of its encoder."""
    return compressed(track).mean(dim=2)


def statistics_of(settings: Settings, modality: str) -> Statistics:
    """Statistics of the input that the encoder of these settings would read."""
    features, layers, width = settings.openface_features, settings.speech_layers, settings.speech_width
    made: dict[str, Callable[[], Statistics]] = {
        "pixels": lambda: Statistics("video", (3, None, None, None), colours, 3 * GRID**2),
        "openface": lambda: Statistics("openface", (features, None), units, features),
        "mfcc": lambda: Statistics("audio", (COEFFICIENTS, None), over_time, 3 * COEFFICIENTS),
        "speech": lambda: Statistics("speech", (layers, None, width), over_time, 3 * layers * width),
    }
    name = getattr(settings, modality)
    if name not in made:
        raise InputError(f"{modality} encoder {name!r} has no statistics: expected one of {', '.join(made)}")
    return made[name]()


def seen(settings: Settings) -> OneStream:
    """Statistics of the video under a linear classifier."""
    return OneStream(statistics_of(settings, "video"), "video", settings.classes)


def heard(settings: Settings) -> OneStream:
    """Statistics of the audio under a linear classifier."""
    return OneStream(statistics_of(settings, "audio"), "audio", settings.classes)


def spliced(settings: Settings) -> TwoStream:
    """Statistics of both side by side under one linear classifier."""
    return _fused(settings, Concat)


def added(settings: Settings) -> TwoStream:
    """Sum of the log-probabilities of the two classifiers, each divided by its own temperature."""
    return _fused(settings, lambda *sizes: Multiplicative(*sizes, beta=0))


def _fused(settings: Settings, head: Callable[[int, int, int], nn.Module]) -> TwoStream:
    video, audio = statistics_of(settings, "video"), statistics_of(settings, "audio")
    silent = [Silent(*channels) for channels in zip(video.channels, audio.channels, strict=True)]
    return TwoStream(video, audio, silent, head(video.dim, audio.dim, settings.classes))
