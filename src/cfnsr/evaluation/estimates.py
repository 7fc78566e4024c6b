"""Figures of several runs with their mean, deviation and interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.corpus.take import Actor, actor_order
from cfnsr.evaluation.metrics import FIGURES, Counts, Floats, average, count, interval
from cfnsr.training.predictions import Predictions
from cfnsr.training.run import Run

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """One figure of a row, as fractions.

    Args:
        mean: over folds; of several seeds each fold's mean is taken first.
        std: over those folds, n - 1 in the denominator; None for a single fold.
        ci95: 95 % interval by actor, about the mean; None of fewer than `metrics.FEWEST` actors.
    """

    mean: float
    std: float | None = None
    ci95: Interval | None = None


@dataclass(frozen=True, eq=False)
class Tally:
    """The predictions of several runs, counted."""

    runs: tuple[Run, ...]
    folds: tuple[Counts, ...]  #: of each run
    names: tuple[Actor, ...]  #: of the tested actors
    actors: Counts  #: of each of them (first axis), averaged over seeds

    def each_fold(self, figure: str) -> list[float]:
        """Compute one of `metrics.FIGURES` for every run."""
        return [float(FIGURES[figure](fold)) for fold in self.folds]

    def estimate(self, figure: str) -> Estimate:
        """Compute mean, deviation and interval of one of `metrics.FIGURES`."""
        found = over_folds(self.runs, self.each_fold(figure))
        limits = interval(FIGURES[figure], self.actors, about=found.mean)
        return Estimate(found.mean, found.std, as_interval(limits))


def tally(runs: Sequence[Run], predictions: Sequence[Predictions]) -> Tally:
    """Count the predictions of each run."""
    names = tuple(sorted({actor for part in predictions for actor in part.actors}, key=actor_order))
    place = {actor: index for index, actor in enumerate(names)}
    counts = [
        count(part.labels, part.log_probabilities, [place[actor] for actor in part.actors], len(names))
        for part in predictions
    ]
    by_seed: dict[int, Counts] = {}
    for run, each in zip(runs, counts, strict=True):
        by_seed[run.seed] = by_seed[run.seed] + each if run.seed in by_seed else each
    folds = tuple(each.pooled() for each in counts)
    return Tally(tuple(runs), folds, names, average(list(by_seed.values())))


def over_folds(runs: Sequence[Run], values: Sequence[float]) -> Estimate:
    """Compute mean and deviation over folds of one value a run; the seeds of a fold are averaged first."""
    folds = list(fold_means(runs, values).values())
    return Estimate(float(np.mean(folds)), float(np.std(folds, ddof=1)) if len(folds) > 1 else None)


def fold_means(runs: Sequence[Run], values: Sequence[float]) -> dict[int, float]:
    """Average one value a run over the seeds of each fold."""
    by_fold: dict[int, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        by_fold.setdefault(run.fold, []).append(value)
    return {fold: float(np.mean(each)) for fold, each in by_fold.items()}


def as_interval(limits: Floats) -> Interval | None:
    """Return two limits as an interval; None where they are NaN."""
    low, high = limits.tolist()
    return None if np.isnan(limits).any() else (low, high)
