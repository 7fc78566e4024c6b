"""Is a row better than CFN-SR? Paired by actor, because some actors are easier to read than others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.evaluation.metrics import Floats, share_interval
from cfnsr.evaluation.spread import as_pair

FEWEST = 6  # actors; of fewer no two-sided sign-flip test comes below 0.05: its least p is 2 / 2^actors
FLIPS = 19_999  # so all flips of up to 14 actors are tried, and of more a random choice
SEED = 0


@dataclass(frozen=True)
class Difference:
    """How far a row lies above another on the same actors.

    Args:
        mean: over actors, of the difference of an actor's two accuracies, as a fraction.
        ci95: 95 % interval of it by resampling actors.
        p: of the sign-flip test, two-sided.
        p_holm: the same, corrected for the number of rows compared.
        actors: how many there are.
    """

    mean: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    actors: int


def sign_flip_p(differences: Floats) -> float:
    """The p value of a two-sided sign-flip (paired permutation) test of a mean of zero.

    If neither model is better an actor's difference could as well have the other sign. p is the share of
    all ways to choose the signs that give a mean at least as far from zero: exact for up to 14 actors,
    from 19,999 random choices for more. Source: Fisher, "The Design of Experiments" (1935), section 21.

    Args:
        differences: (actors,) of the two accuracies.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.3]))  # 2 of the 8 ways: all up, all down
    0.25
    """
    from scipy.stats import permutation_test

    def mean(values: Floats, axis: int) -> Floats:
        # Two ways to the same sum may differ in the last bit: that must not decide what is as far from zero.
        return np.asarray(np.round(np.mean(values, axis=axis), 12))

    result = permutation_test(
        (differences,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        alternative="two-sided",
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the p values of several tests, so that the chance of any false alarm stays theirs.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none becomes
    smaller than the one before it. Source: Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return [float(value) for value in corrected]


def compare(
    rows: Mapping[str, Mapping[Actor, float]], reference: Mapping[Actor, float]
) -> dict[str, Difference | str]:
    """Each row's difference to the reference, over the actors that both have tested.

    Args:
        rows: name -> actor -> accuracy, of all rows that are compared; Holm's correction is over these.
        reference: actor -> accuracy.

    Returns:
        name -> difference, or the reason why there is none.
    """
    differences = {
        name: np.array([accuracies[actor] - reference[actor] for actor in accuracies if actor in reference])
        for name, accuracies in rows.items()
    }
    tested = {name: values for name, values in differences.items() if len(values) >= FEWEST}
    p_values = {name: sign_flip_p(values) for name, values in tested.items()}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {
        name: Difference(
            mean=float(values.mean()),
            ci95=paired_interval(values) or (np.nan, np.nan),
            p=p_values[name],
            p_holm=corrected[name],
            actors=len(values),
        )
        if name in tested
        else f"{len(values)} actors in common, of fewer than {FEWEST} nothing can be told"
        for name, values in differences.items()
    }


def paired_interval(differences: Floats) -> tuple[float, float] | None:
    """The 95 % interval of a mean difference (actors,) by resampling actors; None of fewer than two."""
    return as_pair(share_interval(differences, np.ones(len(differences))))
