"""Temperature scaling: probabilities that keep their order without their overconfidence."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from cfnsr.errors import InputError

COLDEST, HOTTEST = 0.05, 20.0
SUM_TOLERANCE = 1e-3  # leaves room for log-probabilities written with four decimals
RULED_OUT = -1e5  # nats of a class that cannot be
IMPOSSIBLE = -1e4  # nats: a class that a model rules out must not make the mean infinite


def probabilities(log_probabilities: ArrayLike) -> NDArray[np.float64]:
    """Probabilities (clips, classes) from natural-log probabilities, checked.

    Raises:
        InputError: a value is NaN, or a row does not sum to one (within 0.001).

    >>> probabilities([[np.log(0.75), np.log(0.25)]]).round(2).tolist()
    [[0.75, 0.25]]
    """
    logs = np.asarray(log_probabilities, dtype=float)
    if np.isnan(logs).any():
        row = int(np.isnan(logs).any(axis=1).argmax()) + 1
        raise InputError(
            f"prediction {row} has NaN: expected natural-log probabilities; train the run again, it diverged"
        )
    with np.errstate(over="ignore"):
        values: NDArray[np.float64] = np.exp(logs)
    total = values.sum(axis=1)
    wrong = ~(np.abs(total - 1) <= SUM_TOLERANCE)
    if wrong.any():
        row = int(wrong.argmax()) + 1
        raise InputError(
            f"prediction {row}: probabilities sum to {total[row - 1]:.4g}, expected 1; "
            "give natural-log probabilities of every class"
        )
    return values


def tempered(
    log_probabilities: Float[np.ndarray, "N classes"], temperature: float
) -> Float[np.ndarray, "N classes"]:
    """Divide log-probabilities by a temperature and make them sum to one again.

    >>> np.exp(tempered(np.log([[0.8, 0.2]]), 2.0)).round(3).tolist()
    [[0.667, 0.333]]
    """
    scaled = np.maximum(log_probabilities, np.finfo(np.float64).min / HOTTEST) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: np.ndarray = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def among(
    log_probabilities: Float[np.ndarray, "N classes"], possible: Bool[np.ndarray, "N classes"]
) -> Float[np.ndarray, "N classes"]:
    """Rule out the classes that are not possible, and make what is left sum to one again.

    >>> np.exp(among(np.log([[0.5, 0.3, 0.2]]), np.array([[False, True, True]]))).round(2).tolist()
    [[0.0, 0.6, 0.4]]
    """
    return tempered(np.where(possible, log_probabilities, RULED_OUT), 1.0)


def fit_temperature(
    log_probabilities: Float[np.ndarray, "N classes"], labels: Int[np.ndarray, " N"]
) -> float:
    """Fit the temperature under which some clips' labels are most likely; above 1 for an overconfident model.

    To the clips, which neither trained nor test the model, one is added whose emotion is uniform over the
    classes: else a few dozen that are all right would ask for certainty. Sources: Guo, Pleiss, Sun and
    Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2; for the clip more, Platt,
    "Probabilistic outputs for support vector machines", 1999, section 2.2.

    >>> logs = np.log([[0.99, 0.01]] * 3)  # 99 % sure, right three times in three
    >>> round(np.exp(tempered(logs, fit_temperature(logs, np.array([0, 0, 0]))))[0, 0].item(), 3)
    0.875
    """
    from scipy.optimize import minimize_scalar

    clips = len(labels)
    possible = log_probabilities > RULED_OUT / 2
    weights = possible / possible.sum(axis=1, keepdims=True) / clips  # the clip more, over all classes
    weights[np.arange(clips), labels] += 1

    def loss(log_temperature: float) -> float:
        logs = np.maximum(tempered(log_probabilities, np.exp(log_temperature)), IMPOSSIBLE)
        return -float((weights * logs).sum() / (clips + 1))

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))
