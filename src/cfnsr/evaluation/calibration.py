"""Calibration, temperature scaling and abstention of a row.

Test actors choose nothing here: each fold's temperature and its thresholds of abstention come from the
fold's own inner validation clips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.take import Actor
from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import Floats, Ints, probabilities, share_interval
from cfnsr.evaluation.spread import Spread, Tally, as_pair, over_folds, tally
from cfnsr.training.predictions import AGAIN, Predictions
from cfnsr.training.run import ABOUT, Run

COVERAGES = (0.9, 0.8, 0.7, 0.5)  # shares of the clips that are to be answered
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of confidence, fixed: nobody chose them
FLOOR = -1000.0  # nats: one clip whose emotion was held impossible must not make the mean infinite
TOLERANCE = 1e-3  # nats: predictions are written with 7 digits


@dataclass(frozen=True)
class Answered:
    """Coverage and accuracy of answers whose confidence reaches a threshold.

    Args:
        threshold: of confidence; None where each fold has its own.
        wanted: share of the clips it was chosen to answer on validation; None where nobody chose it.
        coverage: share of the test clips that are answered, over all of them.
        accuracy: of the answered clips; None where none is.
        coverage_ci95, accuracy_ci95: their 95 % intervals by actor; None where it has too few.
    """

    threshold: float | None
    wanted: float | None
    coverage: float
    coverage_ci95: tuple[float, float] | None
    accuracy: float | None
    accuracy_ci95: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of a row's confidence.

    Args:
        raw: the row's predictions as they were written, counted.
        actors: the tested actors, in the order of the counts.
        temperatures: of each run; empty where there are no validation clips to fit them on.
    """

    raw: Tally
    actors: tuple[Actor, ...]
    temperatures: tuple[float, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.raw.runs

    @property
    def reason(self) -> str:
        """The reason why there is no temperature; empty where there is one."""
        if self.temperatures:
            return ""
        return (
            "no temperature is fitted and no threshold chosen: the protocol leaves no validation clips, and "
            "on test clips both would flatter"
        )

    @cached_property
    def predictions(self) -> tuple[Predictions, ...]:
        """The test clips of each run: tempered where there is a temperature."""
        return tuple(
            temper(run.test, temperature)
            for run, temperature in zip(self.runs, self.temperatures or [1.0] * len(self.runs), strict=True)
        )

    @cached_property
    def tempered(self) -> Tally | None:
        """The tempered predictions, counted."""
        return tally(self.runs, self.predictions, self.actors) if self.temperatures else None

    @cached_property
    def ece(self) -> dict[str, Spread]:
        """Expected calibration error, "raw" and "tempered"."""
        tallies = {"raw": self.raw, "tempered": self.tempered}
        return {name: each.spread("ece") for name, each in tallies.items() if each is not None}

    @cached_property
    def nll(self) -> dict[str, Spread]:
        """Mean negative log-likelihood in nats, "raw" and "tempered"; without intervals."""
        return self._proper(nll)

    @cached_property
    def brier(self) -> dict[str, Spread]:
        """Brier score, "raw" and "tempered"; without intervals."""
        return self._proper(brier)

    @cached_property
    def abstention(self) -> tuple[Answered, ...]:
        """Everything answered, then one entry for each of `COVERAGES`, thresholds chosen on validation."""
        if not self.temperatures:
            return ()
        every = self._answered([0.0] * len(self.runs), wanted=1.0)
        chosen = []
        for wanted in COVERAGES:
            thresholds = [
                float(np.quantile(confidence(temper(run.validation, temperature)), 1 - wanted))
                for run, temperature in zip(self.runs, self.temperatures, strict=True)
            ]
            chosen.append(self._answered(thresholds, wanted=wanted))
        return (every, *chosen)

    @cached_property
    def curve(self) -> tuple[Answered, ...]:
        """Coverage and accuracy at each of `THRESHOLDS`, on the tempered confidence where there is one."""
        return tuple(self._answered([value] * len(self.runs), threshold=value) for value in THRESHOLDS)

    def _proper(self, score: Callable[[Predictions], float]) -> dict[str, Spread]:
        raw = over_folds(self.runs, [score(run.test) for run in self.runs])
        found = {"raw": Spread(*raw, None)}
        if self.temperatures:
            tempered = over_folds(self.runs, [score(part) for part in self.predictions])
            found["tempered"] = Spread(*tempered, None)
        return found

    def _answered(
        self, thresholds: Sequence[float], *, threshold: float | None = None, wanted: float | None = None
    ) -> Answered:
        index = {actor: place for place, actor in enumerate(self.actors)}
        sums = np.zeros((len(self.actors), 3))  # clips, answered, right
        for part, least in zip(self.predictions, thresholds, strict=True):
            sure = confidence(part) >= least
            found = sure & (part.log_probabilities.argmax(axis=1) == part.labels)
            places = [index[actor] for actor in part.actors]
            np.add.at(sums, places, np.stack([np.ones(len(sure)), sure, found], axis=1))
        clips, answered, right = sums.T
        return Answered(
            threshold=threshold,
            wanted=wanted,
            coverage=float(answered.sum() / clips.sum()),
            coverage_ci95=as_pair(share_interval(answered, clips)),
            accuracy=float(right.sum() / answered.sum()) if answered.any() else None,
            accuracy_ci95=as_pair(share_interval(right, answered)),
        )


def calibrate(raw: Tally, actors: Sequence[Actor]) -> Calibration:
    """Fit each run's temperature on its validation clips and check it against what the training wrote.

    Raises:
        InputError: a run names a temperature that is not that of its validation clips.
    """
    from cfnsr.training.calibration import fit_temperature

    if not all(run.validation.clips for run in raw.runs):
        return Calibration(raw, tuple(actors), ())
    temperatures = []
    for run in raw.runs:
        fitted = fit_temperature(run.validation.log_probabilities, run.validation.labels)
        if run.temperature is not None:
            # Compared by what they do: where the likelihood is flat, one temperature is as good as another.
            likely = nll(temper(run.validation, fitted)) + TOLERANCE
            if not (run.temperature > 0 and nll(temper(run.validation, run.temperature)) < likely):
                raise InputError(
                    f"{run.folder / ABOUT} has temperature {run.temperature:.4g}: its validation clips give "
                    f"{fitted:.4g}; {AGAIN}"
                )
        temperatures.append(fitted)
    return Calibration(raw, tuple(actors), tuple(temperatures))


def confidence(part: Predictions) -> Floats:
    """(N,) probability of the answer."""
    values: Floats = probabilities(part.log_probabilities).max(axis=1)
    return values


def nll(part: Predictions) -> float:
    """Mean negative log-likelihood of the true emotion, in nats.

    >>> part = Predictions(("a", "b"), (1, 1), np.array([0, 0]), np.log([[0.5, 0.5], [0.25, 0.75]]))
    >>> round(nll(part) / float(np.log(2)), 6)  # bits
    1.5
    """
    true = part.log_probabilities[np.arange(len(part.labels)), part.labels]
    return float(-np.mean(np.maximum(true, FLOOR)))


def brier(part: Predictions) -> float:
    """Brier score: the squared distance of the probabilities from the truth, summed over emotions.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78 (1950).

    >>> brier(Predictions(("a",), (1,), np.array([0]), np.log([[0.5, 0.5]])))
    0.5
    """
    wrong = probabilities(part.log_probabilities)
    wrong[np.arange(len(part.labels)), part.labels] -= 1
    return float(np.mean(np.sum(wrong**2, axis=1)))


def reliability(bins: Floats) -> tuple[Floats, Floats, Ints]:
    """The points of a reliability diagram, one a bin that has clips.

    Args:
        bins: (15, 3) of `metrics.Counts`.

    Returns:
        mean confidence, accuracy and clips of each.

    >>> bins = np.zeros((15, 3)); bins[13] = 4, 3, 3.6
    >>> [values.tolist() for values in reliability(bins)]
    [[0.9], [0.75], [4]]
    """
    clips, right, total = bins[bins[:, 0] > 0].T
    number: NDArray[np.int64] = np.rint(clips).astype(np.int64)
    return total / clips, right / clips, number


def temper(part: Predictions, temperature: float) -> Predictions:
    """The same predictions with their log-probabilities divided by a temperature; as they are by 1."""
    from cfnsr.training.calibration import tempered

    if temperature == 1:
        return part
    return replace(part, log_probabilities=tempered(part.log_probabilities, temperature))
