"""The seeds of a row as one model: their tempered log-probabilities averaged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.calibration import temper
from cfnsr.evaluation.predictions import Predictions
from cfnsr.evaluation.runs import Run
from cfnsr.evaluation.spread import Spread, tally
from cfnsr.evaluation.summary import Row


@dataclass(frozen=True)
class Ensemble:
    """What a row's seeds know together.

    Args:
        seeds: how many they are.
        inner_alone, inner_together: accuracy on the inner validation clips, mean over folds, as fractions:
            of one seed, mean over seeds, and of all. Whether an ensemble pays is chosen by these.
        together: accuracy of all on the test clips.
    """

    seeds: int
    inner_alone: float
    inner_together: float
    together: Spread


def seeds_together(row: Row) -> Ensemble | None:
    """The ensemble of a row's seeds; None for a single seed or folds without an inner validation.

    Raises:
        InputError: the runs of a fold have other clips.
    """
    folds: dict[int, list[Run]] = {}
    for run in row.runs:
        folds.setdefault(run.fold, []).append(run)
    if len(row.seeds) < 2 or not all(run.validation.clips for run in row.runs):
        return None
    if any(len(runs) != len(row.seeds) for runs in folds.values()):
        return None
    first = [runs[0] for runs in folds.values()]
    inner = [_averaged(runs, [run.validation for run in runs]) for runs in folds.values()]
    tested = [_averaged(runs, [run.test for run in runs]) for runs in folds.values()]
    return Ensemble(
        seeds=len(row.seeds),
        inner_alone=float(np.mean([_accuracy(run.validation) for run in row.runs])),
        inner_together=float(np.mean([_accuracy(part) for part in inner])),
        together=tally(first, tested, row.actors).spread("accuracy"),
    )


def _averaged(runs: Sequence[Run], parts: Sequence[Predictions]) -> Predictions:
    from cfnsr.training.calibration import tempered

    if any(part.clips != parts[0].clips for part in parts):
        raise InputError(f"{runs[0].folder} and its other seeds have other clips: train them on one corpus")
    each = [temper(part, run.temperature or 1) for run, part in zip(runs, parts, strict=True)]
    mean = np.mean([part.log_probabilities for part in each], axis=0)
    return replace(parts[0], log_probabilities=tempered(mean, 1.0))  # sums to 1 again


def _accuracy(part: Predictions) -> float:
    return float((part.log_probabilities.argmax(axis=1) == part.labels).mean())
