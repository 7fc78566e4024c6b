"""From the predictions of several runs to a figure with its mean, deviation and interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.evaluation.metrics import FIGURES, Counts, Floats, average, count, interval
from cfnsr.training.predictions import Predictions
from cfnsr.training.run import Run


@dataclass(frozen=True)
class Spread:
    """One figure of a row, as fractions.

    Args:
        mean: over folds; of several seeds each fold's mean is taken first.
        std: over those folds, n - 1 in the denominator; None for a single fold.
        ci95: 95 % interval by actor, about the mean; None of fewer than `metrics.FEWEST` actors.
    """

    mean: float
    std: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Tally:
    """The predictions of several runs, counted.

    Args:
        runs: whose predictions they are.
        folds: the counts of each run, in the same order.
        actors: the counts of each tested actor (first axis), averaged over seeds.
    """

    runs: tuple[Run, ...]
    folds: tuple[Counts, ...]
    actors: Counts

    def each_fold(self, figure: str) -> list[float]:
        """One of `metrics.FIGURES` for every run."""
        return [float(FIGURES[figure](fold)) for fold in self.folds]

    def spread(self, figure: str) -> Spread:
        """Mean, deviation and interval of one of `metrics.FIGURES`."""
        mean, std = over_folds(self.runs, self.each_fold(figure))
        return Spread(mean, std, as_pair(interval(FIGURES[figure], self.actors, about=mean)))


def tally(runs: Sequence[Run], predictions: Sequence[Predictions], actors: Sequence[Actor]) -> Tally:
    """Count one set of predictions a run.

    Args:
        predictions: of each run, in the same order.
        actors: the tested actors; their places are the first axis of the counts.
    """
    index = {actor: place for place, actor in enumerate(actors)}
    folds, by_seed = [], []
    for run, part in zip(runs, predictions, strict=True):
        counts = count(
            part.labels, part.log_probabilities, [index[actor] for actor in part.actors], len(actors)
        )
        folds.append(counts.pooled())
        by_seed.append((run.seed, counts))
    seeds = dict.fromkeys(seed for seed, _ in by_seed)
    return Tally(
        tuple(runs),
        tuple(folds),
        average([_sum([counts for each, counts in by_seed if each == seed]) for seed in seeds]),
    )


def over_folds(runs: Sequence[Run], values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and deviation over folds of one value a run; the seeds of a fold are averaged first."""
    folds = list(fold_means(runs, values).values())
    return float(np.mean(folds)), float(np.std(folds, ddof=1)) if len(folds) > 1 else None


def fold_means(runs: Sequence[Run], values: Sequence[float]) -> dict[int, float]:
    """Of each fold the mean of one value a run, over its seeds."""
    by_fold: dict[int, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        by_fold.setdefault(run.fold, []).append(value)
    return {fold: float(np.mean(each)) for fold, each in by_fold.items()}


def as_pair(limits: Floats) -> tuple[float, float] | None:
    """The limits of one interval; None where there is none.

    >>> as_pair(np.array([0.25, 0.75])), as_pair(np.array([np.nan, np.nan]))
    ((0.25, 0.75), None)
    """
    low, high = limits.tolist()
    return None if np.isnan(limits).any() else (low, high)


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(
        np.sum([each.confusion for each in counts], axis=0), np.sum([each.bins for each in counts], axis=0)
    )
