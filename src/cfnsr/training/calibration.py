"""Temperature scaling: probabilities that keep their order without their overconfidence."""

import numpy as np
from jaxtyping import Float, Int

COLDEST, HOTTEST = 0.05, 20.0
IMPOSSIBLE = -1e4  # nats: a class that a model rules out must not make the mean infinite


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


def fit_temperature(
    log_probabilities: Float[np.ndarray, "N classes"], labels: Int[np.ndarray, " N"]
) -> float:
    """Fit the temperature under which some clips' labels are most likely; above 1 for an overconfident model.

    Fit it on clips that neither trained nor test the model. To these one more is added, whose emotion is
    uniform over the classes: else a few dozen clips that are all right would ask for certainty. Sources: Guo,
    Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2; for the
    clip more, Platt, "Probabilistic outputs for support vector machines", 1999, section 2.2.

    Args:
        log_probabilities: natural logarithms.
        labels: class indices.

    >>> logs = np.log([[0.99, 0.01]] * 3)  # 99 % sure, right three times in three
    >>> round(np.exp(tempered(logs, fit_temperature(logs, np.array([0, 0, 0]))))[0, 0].item(), 3)
    0.875
    """
    from scipy.optimize import minimize_scalar

    clips = len(labels)
    weights = np.full(log_probabilities.shape, 1 / log_probabilities.size)  # the clip more, over all classes
    weights[np.arange(clips), labels] += 1

    def loss(log_temperature: float) -> float:
        logs = np.maximum(tempered(log_probabilities, np.exp(log_temperature)), IMPOSSIBLE)
        return -float((weights * logs).sum() / (clips + 1))

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))
