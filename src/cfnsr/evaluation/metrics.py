"""The figures of merit, computed from counts.

Clips are counted once, actor by actor (`count`). Every figure is a function of such counts with any number of
leading axes, so leaving out each actor in turn costs one matrix product.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfnsr.errors import InputError
from cfnsr.training.calibration import probabilities

BINS = 15
FEWEST = 8  # actors: where accuracies crowd below 100 %, a 95 % interval of 8 holds 92 %, of fewer less
TOO_FEW = f"fewer than {FEWEST} actors: an interval by actor would not hold"
LEVEL = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of one or more groups of clips, from which the figures are computed."""

    confusion: Floats  # (..., classes, classes), clips by true class (rows) and predicted class (columns)
    bins: Floats  # (..., 15, 3), for each bin of confidence: clips, correct clips, sum of the confidences

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.confusion + other.confusion, self.bins + other.bins)

    def pooled(self, weights: ArrayLike | None = None) -> "Counts":
        """Pool the groups of the first axis, group i `weights[..., i]` times (default: once)."""
        times = np.ones(len(self.confusion)) if weights is None else np.asarray(weights, dtype=float)
        return Counts(np.tensordot(times, self.confusion, axes=1), np.tensordot(times, self.bins, axes=1))


Figure = Callable[[Counts], Floats]


def count(
    labels: ArrayLike, log_probabilities: ArrayLike, actors: ArrayLike = 0, number: int | None = None
) -> Counts:
    """Count clips by actor, true class, predicted class and confidence.

    Args:
        labels: (clips,) class indices.
        log_probabilities: (clips, classes), natural logarithms.
        actors: (clips,) indices from 0, the first axis of the counts; all clips are one actor's by default.
        number: of actors; as many as the indices name by default.

    Raises:
        InputError: no clips, or log-probabilities that are none.

    >>> logs = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> count([0, 1, 1], logs, actors=[0, 0, 1]).confusion.astype(int).tolist()
    [[[1, 0], [1, 0]], [[0, 0], [0, 1]]]
    """
    truth: Ints = np.asarray(labels, dtype=np.int64)
    if truth.size == 0:
        raise InputError("no predictions to count: expected at least one clip; check the fold's test actors")
    values = probabilities(log_probabilities)
    classes = values.shape[1]
    who: Ints = np.broadcast_to(np.asarray(actors, dtype=np.int64), truth.shape)
    groups = int(who.max()) + 1 if number is None else number

    predicted = values.argmax(axis=1)
    confusion = np.zeros((groups, classes, classes))
    np.add.at(confusion, (who, truth, predicted), 1)

    confidence = np.minimum(values.max(axis=1), 1.0)
    bin_of = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins = np.zeros((groups, BINS, 3))
    np.add.at(bins, (who, bin_of), np.stack([np.ones(len(truth)), predicted == truth, confidence], axis=1))
    return Counts(confusion, bins)


def accuracy(counts: Counts) -> Floats:
    """Share of clips whose class was found."""
    return _ratio(np.trace(counts.confusion, axis1=-2, axis2=-1), counts.confusion.sum(axis=(-2, -1)))


def recalls(counts: Counts) -> Floats:
    """Share of each class's clips that were found, (..., classes); NaN for a class without clips.

    >>> recalls(Counts(np.array([[3.0, 1.0], [0.0, 0.0]]), np.zeros((15, 3)))).tolist()
    [0.75, nan]
    """
    return _ratio(np.diagonal(counts.confusion, axis1=-2, axis2=-1), counts.confusion.sum(axis=-1))


def uar(counts: Counts) -> Floats:
    """Unweighted average recall: the mean recall over the classes that are present."""
    return _mean_of_present(recalls(counts), counts)


def macro_f1(counts: Counts) -> Floats:
    """Mean F1 over the classes that are present; a present class that was never found counts 0."""
    found = np.diagonal(counts.confusion, axis1=-2, axis2=-1)
    f1 = _ratio(2 * found, counts.confusion.sum(axis=-1) + counts.confusion.sum(axis=-2))
    return _mean_of_present(f1, counts)


def ece(counts: Counts) -> Floats:
    """Expected calibration error: sum over bins of (clips in bin / clips) |accuracy - mean confidence|.

    Confidence is the probability of the predicted class; 15 bins of equal width, bin m holds
    ((m - 1) / 15, m / 15]. Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, eqs. 2-3.

    >>> float(ece(count([0, 1], np.log([[0.9, 0.1], [0.9, 0.1]])).pooled()).round(6))  # |0.5 - 0.9|
    0.4
    """
    gaps = np.abs(counts.bins[..., 1] - counts.bins[..., 2]).sum(axis=-1)
    return _ratio(gaps, counts.bins[..., 0].sum(axis=-1))


FIGURES: Mapping[str, Figure] = {"accuracy": accuracy, "uar": uar, "macro_f1": macro_f1, "ece": ece}


def average(counts: Sequence[Counts]) -> Counts:
    """Average several seeds' counts, actor by actor; a seed that has not tested an actor is left out.

    >>> one, two = count([0], np.log([[0.9, 0.1]])), count([0], np.log([[0.2, 0.8]]))
    >>> average([one, two]).confusion.tolist()
    [[[0.5, 0.5], [0.0, 0.0]]]
    """
    total = reduce(add, counts)
    tested = np.sum([each.confusion.any(axis=(-2, -1)) for each in counts], axis=0)
    seeds = np.maximum(tested, 1)[:, None, None]
    return Counts(total.confusion / seeds, total.bins / seeds)


def interval(figure: Figure, counts: Counts, about: float | None = None) -> Floats:
    """Compute a 95 % interval of a figure by actor: Student's t with the delete-one-actor jackknife's error.

    Clips of one actor are not independent, actors are. Of the figures with each of the n actors left out in
    turn, sqrt((n - 1) / n * sum of squared deviations from their mean) is the standard error.
    Source: Tukey, "Bias and confidence in not-quite large samples", Annals of Mathematical Statistics 29
    (1958); Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9 (1981).

    Args:
        figure: a function of counts with values from 0 to 1.
        counts: first axis the actors.
        about: the interval's middle; by default the figure of all clips together.

    Returns:
        lower and upper limit, (2, ...), within 0 and 1; NaN with fewer than `FEWEST` actors, and where the
        figure is unknown without one of them.
    """
    middle = figure(counts.pooled()) if about is None else np.asarray(about, dtype=float)
    return _limits(middle, figure(counts.pooled(1 - np.eye(len(counts.confusion)))))


def share_interval(part: ArrayLike, whole: ArrayLike) -> Floats:
    """Compute a 95 % interval of `sum(part) / sum(whole)` by actor (actors,), as `interval` does.

    An actor whose whole is nothing is left out.

    >>> share_interval([0, 60] * 6, [60] * 12).round(2).tolist()  # six actors always wrong, six right
    [0.17, 0.83]
    """
    parts, wholes = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    without = _ratio(parts.sum() - parts, wholes.sum() - wholes)
    return _limits(_ratio(parts.sum(), wholes.sum()), without)


def _limits(middle: Floats, without: Floats) -> Floats:
    """The interval about `middle` (...), from the values (actors, ...) with each actor left out."""
    from scipy.special import stdtrit

    actors = len(without)
    if actors < FEWEST:
        return np.full((2, *without.shape[1:]), np.nan)
    error = np.sqrt((actors - 1) / actors * np.sum((without - without.mean(axis=0)) ** 2, axis=0))
    reach = stdtrit(actors - 1, 1 - LEVEL / 2) * error
    return np.asarray(np.clip([middle - reach, middle + reach], 0, 1), dtype=float)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with NaN where the whole is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan), dtype=float)


def _mean_of_present(values: Floats, counts: Counts) -> Floats:
    present = counts.confusion.sum(axis=-1) > 0
    return _ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1).astype(float))
