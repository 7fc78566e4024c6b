"""Calibration, temperature scaling and abstention of a row.

Test actors choose nothing here: each fold's temperature and its thresholds of abstention come from the fold's
own inner validation clips.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.errors import InputError
from cfnsr.evaluation.estimates import Estimate, Interval, Tally, as_interval, over_folds, tally
from cfnsr.evaluation.metrics import Floats, Ints, share_interval
from cfnsr.training.calibration import fit_temperature, probabilities, tempered
from cfnsr.training.predictions import AGAIN, Predictions
from cfnsr.training.run import ABOUT, Run

COVERAGES = (0.9, 0.8, 0.7, 0.5)  # shares of the clips that are to be answered
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of confidence, fixed: nobody chose them
FLOOR = -1000.0  # nats: one clip whose emotion was held impossible must not make the mean infinite
TOLERANCE = 1e-3  # nats: predictions are written with 7 digits
NO_VALIDATION = (
    "no temperature is fitted and no threshold chosen: the protocol leaves no validation clips, and on test "
    "clips both would flatter"
)


@dataclass(frozen=True)
class Answered:
    """Coverage and accuracy of answers whose confidence reaches a threshold, with 95 % intervals by actor."""

    threshold: float | None  #: of confidence; None where each fold has its own
    wanted: float | None  #: share of the validation clips it was chosen to answer; None where nobody chose it
    coverage: float  #: share of the test clips that are answered
    coverage_ci95: Interval | None
    accuracy: float | None  #: of the answered clips; None where none is
    accuracy_ci95: Interval | None


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of a row's confidence: "raw", and "tempered" where its runs have validation clips."""

    temperatures: tuple[float, ...]  #: of each run; empty without validation clips to fit them on
    tallies: Mapping[str, Tally]
    ece: Mapping[str, Estimate]
    nll: Mapping[str, Estimate]  #: in nats, without an interval; neither has `brier` one
    brier: Mapping[str, Estimate]
    abstention: tuple[Answered, ...]  #: all answered, then each of `COVERAGES`; empty without a temperature
    curve: tuple[Answered, ...]  #: at each of `THRESHOLDS`, on the tempered confidence where there is one

    @property
    def reason(self) -> str:
        """The reason why there is no temperature; empty where there is one."""
        return "" if self.temperatures else NO_VALIDATION


def calibrate(raw: Tally) -> Calibration:
    """Fit each run's temperature on its validation clips, and score the test clips with it and without.

    Raises:
        InputError: the training wrote a temperature that is not that of the run's validation clips.
    """
    runs = raw.runs
    temperatures: tuple[float, ...] = ()
    tested = {"raw": [run.test for run in runs]}
    tallies = {"raw": raw}
    abstention: list[Answered] = []
    if all(run.validation.clips for run in runs):
        temperatures = tuple(_fitted_temperature(run) for run in runs)
        pairs = list(zip(runs, temperatures, strict=True))
        tested["tempered"] = [temper(run.test, value) for run, value in pairs]
        tallies["tempered"] = tally(runs, tested["tempered"])
        inner = [confidence(temper(run.validation, value)) for run, value in pairs]
        for wanted in (1.0, *COVERAGES):
            least = [float(np.quantile(each, 1 - wanted)) if wanted < 1 else 0.0 for each in inner]
            abstention.append(_answered(tested["tempered"], raw.names, least, wanted=wanted))

    def scored(score: Callable[[Predictions], float]) -> dict[str, Estimate]:
        return {kind: over_folds(runs, [score(part) for part in parts]) for kind, parts in tested.items()}

    last = tested.get("tempered", tested["raw"])
    return Calibration(
        temperatures,
        tallies,
        ece={kind: each.estimate("ece") for kind, each in tallies.items()},
        nll=scored(nll),
        brier=scored(brier),
        abstention=tuple(abstention),
        curve=tuple(_answered(last, raw.names, [each] * len(runs), threshold=each) for each in THRESHOLDS),
    )


def _fitted_temperature(run: Run) -> float:
    fitted = fit_temperature(run.validation.log_probabilities, run.validation.labels)
    if run.temperature is not None:
        # Compared by what they do: where the likelihood is flat, one temperature is as good as another.
        likely = nll(temper(run.validation, fitted)) + TOLERANCE
        if not (run.temperature > 0 and nll(temper(run.validation, run.temperature)) < likely):
            raise InputError(
                f"{run.folder / ABOUT} has temperature {run.temperature:.4g}: its validation clips give "
                f"{fitted:.4g}; {AGAIN}"
            )
    return fitted


def _answered(
    parts: Sequence[Predictions],
    actors: Sequence[Actor],
    thresholds: Sequence[float],
    *,
    threshold: float | None = None,
    wanted: float | None = None,
) -> Answered:
    """Count the answers of each run that reach its threshold."""
    index = {actor: place for place, actor in enumerate(actors)}
    sums = np.zeros((len(actors), 3))  # clips, answered, right
    for part, least in zip(parts, thresholds, strict=True):
        sure = confidence(part) >= least
        right = sure & (part.log_probabilities.argmax(axis=1) == part.labels)
        places = [index[actor] for actor in part.actors]
        np.add.at(sums, places, np.stack([np.ones(len(sure)), sure, right], axis=1))
    clips, answered, right = sums.T
    return Answered(
        threshold,
        wanted,
        coverage=float(answered.sum() / clips.sum()),
        coverage_ci95=as_interval(share_interval(answered, clips)),
        accuracy=float(right.sum() / answered.sum()) if answered.any() else None,
        accuracy_ci95=as_interval(share_interval(right, answered)),
    )


def confidence(part: Predictions) -> Floats:
    """(N,) probability of the answer."""
    return np.asarray(probabilities(part.log_probabilities).max(axis=1))


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

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78
        (1950).

    >>> brier(Predictions(("a",), (1,), np.array([0]), np.log([[0.5, 0.5]])))
    0.5
    """
    wrong = probabilities(part.log_probabilities)
    wrong[np.arange(len(part.labels)), part.labels] -= 1
    return float(np.mean(np.sum(wrong**2, axis=1)))


def reliability(bins: Floats) -> tuple[Floats, Floats, Ints]:
    """Mean confidence, accuracy and clips of each bin that has clips.

    Args:
        bins: (15, 3) of `metrics.Counts`.

    >>> bins = np.zeros((15, 3)); bins[13] = 4, 3, 3.6
    >>> [values.tolist() for values in reliability(bins)]
    [[0.9], [0.75], [4]]
    """
    clips, right, total = bins[bins[:, 0] > 0].T
    return total / clips, right / clips, np.rint(clips).astype(np.int64)


def temper(part: Predictions, temperature: float) -> Predictions:
    """Divide the log-probabilities of some predictions by a temperature."""
    return replace(part, log_probabilities=tempered(part.log_probabilities, temperature))
