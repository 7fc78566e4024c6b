"""Temperature scaling: probabilities that keep their order and lose their overconfidence."""

import numpy as np
from jaxtyping import Float, Int

COLDEST, HOTTEST = 0.05, 20.0  # beyond, the validation clips say no more than "all right" or "all wrong"


def tempered(
    log_probabilities: Float[np.ndarray, "N classes"], temperature: float
) -> Float[np.ndarray, "N classes"]:
    """Log-probabilities divided by a temperature and made to sum to one again.

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
    """The temperature under which some clips' labels are most likely; above 1 for an overconfident model.

    Fit it on clips that neither trained nor test the model. Source: Guo, Pleiss, Sun and Weinberger, "On
    Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        log_probabilities: natural logarithms.
        labels: class indices.

    >>> logs = np.log([[0.99, 0.01]] * 4)  # 99 % sure, right three times in four
    >>> np.exp(tempered(logs, fit_temperature(logs, np.array([0, 0, 0, 1]))))[0, 0].round(3).item()
    0.75
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(tempered(log_probabilities, np.exp(log_temperature))[rows, labels].mean())

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))
