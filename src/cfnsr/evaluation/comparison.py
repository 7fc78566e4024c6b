"""Paired tests of difference and equivalence, by fold, because a fold's actors share one network.

The unit of the test is the fold. Its actors are answered by the same trained network, so chance in the
training moves all of them together: a test that takes them for independent calls too many pairs of equal
models different. Of several seeds a fold's accuracies are averaged first: the seeds of a fold share its
actors and its training actors, so they are no units of their own, but they make each unit steadier.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import FEWEST, LEVEL, TOO_FEW, Floats
from cfnsr.evaluation.names import entry_of
from cfnsr.evaluation.spread import fold_means

if TYPE_CHECKING:
    from cfnsr.evaluation.summary import Row

FEWEST_FOLDS = 3  # two networks a row say next to nothing of how far networks differ
MARGIN = 0.02  # of accuracy: rows that differ by less are as good as each other
OF_TWO_STREAMS = (  # settings that concern no other model
    "fused_epochs",
    "fused_learning_rate",
    "pretrain",
    "frozen_encoders",
    "calibrated_start",
    "modality_dropout",
    "tune",
)
SHOWN = 5  # differences of settings that are named


@dataclass(frozen=True)
class Difference:
    """The accuracy of a row less another's on the same folds, as fractions.

    Args:
        mean: over folds, of the difference of the two accuracies.
        ci95: 95 % interval of it.
        p: that there is a difference, two-sided.
        p_holm: the same, corrected for the number of pairs compared.
        margin: the largest difference that would not matter.
        p_equivalent: that the difference lies within the margin.
        folds, actors: how many they were compared on.
    """

    mean: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    margin: float
    p_equivalent: float
    folds: int
    actors: int


@dataclass(frozen=True)
class Comparison:
    """Two rows of one protocol: `a` less `b`, or the reason why nothing can be said.

    Args:
        protocol_label: the protocol with its caveat.
    """

    a: str
    b: str
    protocol: str
    protocol_label: str
    found: Difference | str


def paired_test(differences: Floats, actors: int, margin: float = MARGIN) -> Difference:
    """Student's paired t test over folds, its interval, and two one-sided tests of equivalence.

    A fold's difference is what its actors and its two networks make of the models' difference; folds share
    neither, so their mean over its standard error has Student's t distribution with folds - 1 degrees of
    freedom, whatever share the networks and the actors have in the spread. Sign flips over folds would be
    exact too, but with 5 folds they never come below p = 0.0625. The interval is that of the same t, so it
    leaves zero out exactly where p is below 0.05. p of equivalence is the larger of two one-sided tests, that
    the difference is not above -margin and that it is not below +margin; below 0.05 both are refuted.
    Sources: Dietterich, "Approximate statistical tests for comparing supervised classification learning
    algorithms", Neural Computation 10 (1998), for the paired t test over folds and for its limit: training
    sets that overlap make folds a little alike, which no test on one cross-validation can see; Schuirmann,
    "A comparison of the two one-sided tests procedure", Journal of Pharmacokinetics and Biopharmaceutics 15
    (1987).

    Args:
        differences: (folds,) of the two accuracies, as fractions; at least two.
        actors: how many the folds have.
        margin: of equivalence, as a fraction.

    Returns:
        the difference; Holm's p is its own p, as of a single pair.

    >>> found = paired_test(np.array([0.01, 0.02, 0.03, 0.02]), actors=16)
    >>> round(found.mean, 3), round(found.p, 3), round(found.p_equivalent, 3)
    (0.02, 0.016, 0.5)
    """
    from scipy.special import stdtr, stdtrit

    folds = len(differences)
    freedom = folds - 1
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(folds))
    reach = float(stdtrit(freedom, 1 - LEVEL / 2)) * error

    def below(distance: float) -> float:
        """The chance of a mean that lies so far below the one supposed, or farther."""
        if error == 0:
            return 0.5 * (1 + float(np.sign(distance)))
        return float(stdtr(freedom, distance / error))

    p = min(1.0, 2 * below(-abs(mean)))
    return Difference(
        mean=mean,
        ci95=(max(-1.0, mean - reach), min(1.0, mean + reach)),
        p=p,
        p_holm=p,
        margin=margin,
        p_equivalent=below(abs(mean) - margin),
        folds=folds,
        actors=actors,
    )


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


def corrected(found: Sequence[Difference | str]) -> list[Difference | str]:
    """Differences with Holm's p over all of them; the reasons among them stay as they are."""
    p_holm = iter(holm([each.p for each in found if isinstance(each, Difference)]))
    return [replace(each, p_holm=next(p_holm)) if isinstance(each, Difference) else each for each in found]


def compare(row: "Row", other: "Row", margin: float = MARGIN) -> Difference | str:
    """The difference of a row to another of the same protocol, over the folds that both have.

    Returns:
        the difference, or the reason why there is none: rows whose corpus, settings or seeds differ are not
        compared, nor what too few folds or actors say nothing of.
    """
    unlike = _unlike(row, other)
    if unlike:
        return unlike
    ours, theirs = (fold_means(each.runs, each.tally.each_fold("accuracy")) for each in (row, other))
    folds = sorted(ours.keys() & theirs.keys())
    tested = [{run.test_actors for each in (row, other) for run in each.runs if run.fold == f} for f in folds]
    unequal = [str(fold) for fold, casts in zip(folds, tested, strict=True) if len(casts) > 1]
    if unequal:
        return f"fold {', '.join(unequal)} has other test actors than that of {other.model}"
    actors = len({actor for casts in tested for cast in casts for actor in cast})
    if actors < FEWEST:
        return f"actors in common: {actors}; {TOO_FEW}"
    if len(folds) < FEWEST_FOLDS:
        return f"{len(folds)} folds in common, of fewer than {FEWEST_FOLDS} nothing can be told"
    return paired_test(np.array([ours[fold] - theirs[fold] for fold in folds]), actors, margin)


def comparisons(
    rows: Sequence["Row"], pairs: Iterable[tuple[str, str]], margin: float = MARGIN
) -> list[Comparison]:
    """Compare pairs of models under every protocol that both were run under.

    Holm's correction is over the pairs of a protocol.

    Raises:
        InputError: a model without a row, the same model twice, or two that share no protocol.
    """
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.protocol] = row
    found: dict[str, list[Comparison]] = {}
    for a, b in dict.fromkeys(pairs):
        for model in (a, b):
            if model not in by_model:
                raise InputError(f"no run of {model} to compare: expected one of {', '.join(by_model)}")
        if a == b:
            raise InputError(f"{a} is to be compared with itself: give two models")
        common = [protocol for protocol in by_model[a] if protocol in by_model[b]]
        if not common:
            raise InputError(
                f"{a} was run under {', '.join(by_model[a])} and {b} under {', '.join(by_model[b])}: "
                "expected a protocol that both were run under"
            )
        for protocol in common:
            row = by_model[a][protocol]
            versus = compare(row, by_model[b][protocol], margin)
            found.setdefault(protocol, []).append(Comparison(a, b, protocol, row.protocol_label, versus))
    return [
        replace(pair, found=versus)
        for asked in found.values()
        for pair, versus in zip(asked, corrected([pair.found for pair in asked]), strict=True)
    ]


def _unlike(row: "Row", other: "Row") -> str:
    """The reason why two rows of a protocol cannot be compared; empty when they can."""
    ours, theirs = row.runs[0], other.runs[0]
    if ours.leaky or theirs.leaky:
        return "the protocol leaks, so its folds share their actors"
    for what in ("corpus", "fingerprint", "clips", "labels", "preset"):
        if getattr(ours, what) != getattr(theirs, what):
            return f"run with another {'corpus' if what != 'preset' else what} than {other.model}"
    return trained_otherwise(row, other)


def trained_otherwise(row: "Row", other: "Row") -> str:
    """In what the training of two rows differs beside the model; empty where it does not."""
    found = [(f"{name} {ours}", theirs) for name, (ours, theirs) in different_settings(row, other).items()]
    if row.seeds != other.seeds:
        ours, theirs = (
            f"seed{'s' if len(each.seeds) > 1 else ''} {', '.join(map(str, each.seeds))}"
            for each in (row, other)
        )
        found.insert(0, (ours, theirs))
    elif unequal := _folds_of_other_seeds(row, other):
        found.insert(0, (f"other seeds in fold {', '.join(map(str, unequal))}", "all of them"))
    if _choice(row) != _choice(other):
        found.insert(0, (_choice(row), _choice(other)))
    if not found:
        return ""
    ours, theirs = (" and ".join(values) for values in zip(*found[:SHOWN], strict=True))
    more = f"; {len(found) - SHOWN} more settings differ" if len(found) > SHOWN else ""
    return f"trained with {ours}, {other.model} with {theirs}{more}"


def _choice(row: "Row") -> str:
    """The choices that the inner validation actors had, beside an epoch of one training."""
    entry = entry_of(row.model)
    if entry is not None and entry.solver is not None:
        return f"{len(entry.solver.strengths)} strengths to choose from"
    if row.runs[0].settings.get("tune") and entry is not None and entry.starts_from:
        return "epochs and learning rates to choose from"
    return "one recipe"


def _folds_of_other_seeds(row: "Row", other: "Row") -> list[int]:
    """The folds that both rows have, and not with the same seeds: their means are of other trainings."""
    ours, theirs = (
        {fold: {run.seed for run in one.runs if run.fold == fold} for fold in {run.fold for run in one.runs}}
        for one in (row, other)
    )
    return sorted(fold for fold in ours.keys() & theirs.keys() if ours[fold] != theirs[fold])


def different_settings(row: "Row", other: "Row") -> dict[str, tuple[str, str]]:
    """The settings that differ, with both values, of those that concern both models."""
    ours, theirs = row.runs[0].settings, other.runs[0].settings
    one_stream = not all(row.encoders) or not all(other.encoders)
    return {
        name: (str(ours.get(name, "not told")), str(theirs.get(name, "not told")))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name) and not (one_stream and name in OF_TWO_STREAMS)
    }
