"""Paired tests of difference and equivalence, by fold, because a fold's actors share one network.

Chance in the training moves all actors of a fold together: a test that takes them for independent calls too
many pairs of equal models different. Of several seeds a fold's accuracies are averaged first: its seeds share
its actors and its training actors, so they are no units of their own, but they make each unit steadier.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.encoders import entry_of
from cfnsr.evaluation.estimates import Interval, fold_means
from cfnsr.evaluation.metrics import FEWEST, LEVEL, TOO_FEW, Floats

if TYPE_CHECKING:
    from cfnsr.evaluation.rows import Row

FEWEST_FOLDS = 3  # two networks a row say next to nothing of how far networks differ
MARGIN = 0.02  # of accuracy: rows that differ by less are as good as each other
# Settings that concern no other model.
OF_TWO_STREAMS = (
    *("fused_epochs", "fused_learning_rate", "pretrain", "frozen_encoders", "calibrated_start"),
    *("modality_dropout", "tune"),
)
SHOWN = 5  # differences of settings that are named


@dataclass(frozen=True)
class Equivalence:
    """The p value of a difference within a margin, the largest that would not matter."""

    margin: float
    p: float


@dataclass(frozen=True)
class Difference:
    """The accuracy of a row less another's on the same folds, as fractions.

    Args:
        mean: over folds.
        p: of a difference, two-sided.
        p_holm: the same, corrected for the number of pairs compared.
        folds, actors: how many they were compared on.
    """

    mean: float
    ci95: Interval
    p: float
    p_holm: float
    equivalence: Equivalence
    folds: int
    actors: int


@dataclass(frozen=True)
class Comparison:
    """Two models under one protocol, `a` less `b`."""

    a: str
    b: str
    protocol: str
    protocol_label: str  #: with the caveat
    found: Difference | str  #: or the reason why there is none


def paired_test(differences: Floats, actors: int, margin: float = MARGIN) -> Difference:
    """Student's paired t test over folds, its interval, and two one-sided tests of equivalence.

    Sign flips over folds would be exact too, but with 5 folds they never come below p = 0.0625. p of
    equivalence is the larger of two one-sided tests, that the difference is not above -margin and that it is
    not below +margin. Sources: Dietterich, "Approximate statistical tests for comparing supervised
    classification learning algorithms", Neural Computation 10 (1998), also for the limit: training sets that
    overlap make folds a little alike, which no test on one cross-validation can see; Schuirmann, "A
    comparison of the two one-sided tests procedure", Journal of Pharmacokinetics and Biopharmaceutics 15
    (1987).

    Args:
        differences: (folds,) of the two accuracies, as fractions; at least two.
        actors: how many the folds have.
        margin: of equivalence, as a fraction.

    >>> found = paired_test(np.array([0.01, 0.02, 0.03, 0.02]), actors=16)
    >>> round(found.mean, 3), round(found.p, 3), round(found.equivalence.p, 3)
    (0.02, 0.016, 0.5)
    """
    from scipy.special import stdtr, stdtrit

    folds = len(differences)
    freedom = folds - 1
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(folds))
    reach = float(stdtrit(freedom, 1 - LEVEL / 2)) * error

    def below(distance: float) -> float:
        """Chance of a mean that lies so far below the one supposed, or farther."""
        if error == 0:
            return 0.5 * (1 + float(np.sign(distance)))
        return float(stdtr(freedom, distance / error))

    p = min(1.0, 2 * below(-abs(mean)))
    limits = max(-1.0, mean - reach), min(1.0, mean + reach)
    return Difference(mean, limits, p, p, Equivalence(margin, below(abs(mean) - margin)), folds, actors)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of several tests by Holm's step-down method.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return [float(value) for value in corrected]


def corrected(found: Sequence[Difference | str], families: Sequence[Hashable]) -> list[Difference | str]:
    """Give differences Holm's p over those of the same family; the reasons among them stay as they are."""
    result = list(found)
    for family in set(families):
        members = [place for place, own in enumerate(families) if own == family]
        tested = {place: each for place in members if isinstance(each := found[place], Difference)}
        for place, p in zip(tested, holm([each.p for each in tested.values()]), strict=True):
            result[place] = replace(tested[place], p_holm=p)
    return result


def compare(row: "Row", other: "Row", margin: float = MARGIN) -> Difference | str:
    """Compare a row with another of the same protocol, over the folds that both have.

    Returns:
        the difference, or why there is none: other corpora, settings or seeds, too few folds or actors.
    """
    if unlike := _unlike(row, other):
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
        return f"{len(folds)} folds in common, of fewer than {FEWEST_FOLDS} nothing can be concluded"
    return paired_test(np.array([ours[fold] - theirs[fold] for fold in folds]), actors, margin)


def by_model(rows: Iterable["Row"]) -> dict[str, dict[str, "Row"]]:
    """Index rows by model and protocol."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.model, {})[row.protocol] = row
    return found


def comparisons(
    rows: Sequence["Row"], pairs: Iterable[tuple[str, str]], margin: float = MARGIN
) -> list[Comparison]:
    """Compare pairs of models under every protocol that both were run under; Holm's p is over its pairs.

    Raises:
        InputError: a model without a row, the same model twice, or two that share no protocol.
    """
    rows_of = by_model(rows)
    found: list[Comparison] = []
    for a, b in dict.fromkeys(pairs):
        for model in (a, b):
            if model not in rows_of:
                raise InputError(f"no run of {model} to compare: expected one of {', '.join(rows_of)}")
        if a == b:
            raise InputError(f"{a} is to be compared with itself: give two models")
        common = [protocol for protocol in rows_of[a] if protocol in rows_of[b]]
        if not common:
            raise InputError(
                f"{a} was run under {', '.join(rows_of[a])} and {b} under {', '.join(rows_of[b])}: "
                "expected a protocol that both were run under"
            )
        for protocol in common:
            row, other = rows_of[a][protocol], rows_of[b][protocol]
            found.append(Comparison(a, b, protocol, row.protocol_label, compare(row, other, margin)))
    protocols = [each.protocol for each in found]
    found.sort(key=lambda each: protocols.index(each.protocol))
    differences = corrected([each.found for each in found], [each.protocol for each in found])
    return [replace(each, found=versus) for each, versus in zip(found, differences, strict=True)]


def _unlike(row: "Row", other: "Row") -> str:
    """Say why two rows of a protocol cannot be compared; empty when they can."""
    ours, theirs = row.runs[0], other.runs[0]
    if ours.leaky or theirs.leaky:
        return "the protocol leaks, so its folds share their actors"
    for what in ("corpus", "fingerprint", "clips", "labels", "preset"):
        if getattr(ours, what) != getattr(theirs, what):
            return f"run with another {'corpus' if what != 'preset' else what} than {other.model}"
    differing: list[tuple[str, str]] = []
    if _choice(row) != _choice(other):
        differing.append((_choice(row), _choice(other)))
    if row.seeds != other.seeds:
        differing.append((_seeds(row), _seeds(other)))
    else:  # a fold's mean over other seeds is of other trainings
        one_of, two_of = (_seeds_of_folds(each) for each in (row, other))
        folds = sorted(fold for fold in one_of.keys() & two_of.keys() if one_of[fold] != two_of[fold])
        if folds:
            differing.append((f"other seeds in fold {', '.join(map(str, folds))}", "all of them"))
    two_streams = all((*row.encoders, *other.encoders))
    for name in dict.fromkeys([*ours.settings, *theirs.settings]):
        same = ours.settings.get(name) == theirs.settings.get(name)
        if not same and (two_streams or name not in OF_TWO_STREAMS):
            mine, its = (str(run.settings.get(name, "unknown")) for run in (ours, theirs))
            differing.append((f"{name} {mine}", its))
    if not differing:
        return ""
    mine, its = (" and ".join(values) for values in zip(*differing[:SHOWN], strict=True))
    more = f"; {len(differing) - SHOWN} more settings differ" if len(differing) > SHOWN else ""
    return f"trained with {mine}, {other.model} with {its}{more}"


def _choice(row: "Row") -> str:
    """Name the choices that the inner validation actors had, beside an epoch of one training."""
    entry = entry_of(row.model)
    if entry is not None and entry.solver is not None:
        return f"{len(entry.solver.strengths)} strengths to choose from"
    if row.runs[0].settings.get("tune") and entry is not None and entry.starts_from:
        return "epochs and learning rates to choose from"
    return "one recipe"


def _seeds(row: "Row") -> str:
    return f"seed{'s' if len(row.seeds) > 1 else ''} {', '.join(map(str, row.seeds))}"


def _seeds_of_folds(row: "Row") -> dict[int, set[int]]:
    return {run.fold: {each.seed for each in row.runs if each.fold == run.fold} for run in row.runs}
