"""The paired test by fold against scipy, its false alarms and power in simulated cross-validations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import (
    FEWEST_FOLDS,
    Difference,
    compare,
    comparisons,
    corrected,
    holm,
    paired_test,
)
from cfnsr.evaluation.metrics import FEWEST, Floats
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs

Fabricate = Callable[..., Path]
SMALL = {"takes": 8, "epochs": 3}
TAKES = 60  # of an actor of RAVDESS
NETWORK = 0.0245  # deviation of the difference of two networks, shared by their fold's actors


def experiments(
    number: int,
    folds: int,
    seeds: int = 1,
    *,
    gain: float = 0.0,
    network: float = NETWORK,
    taste: float = 0.0,
) -> Floats:
    """(number, seeds, folds, actors) differences of accuracy between two models.

    Actors differ in how easily they are read as RAVDESS's do (mean 84 %, deviation about 10 points), each
    answer is one draw of 60, all actors of a fold share its network's luck, anew for every seed, and `taste`
    is the deviation of what an actor suits one model better than the other, with every seed.
    """
    rng = np.random.default_rng(folds + 10 * seeds)
    ease = rng.beta(9.2, 1.4, (number, 1, folds, 4)) - 0.03
    suits = rng.normal(0, taste, ease.shape) / 2
    shared = rng.normal(0, network / np.sqrt(2), (2, number, seeds, folds, 1))
    chances = np.clip(np.stack([ease + suits + gain, ease - suits]) + shared, 0, 1)
    one, other = rng.binomial(TAKES, chances) / TAKES
    return np.asarray(one - other)


def by_fold(differences: Floats) -> Floats:
    """(number, folds): what the test is given; seeds and actors averaged."""
    return np.asarray(differences.mean(axis=(1, 3)))


def alarms(folds: Floats) -> float:
    """How often the test calls two models different; by scipy, which is ours but for being quicker."""
    p = stats.ttest_1samp(folds, 0, axis=1).pvalue
    assert [paired_test(each, 20).p for each in folds[:50]] == pytest.approx(p[:50].tolist())
    return float(np.mean(p <= 0.05))


def test_p_interval_and_equivalence_are_those_of_scipy() -> None:
    ours, theirs = np.random.default_rng(0).normal(0.85, 0.03, (2, 6))
    found = paired_test(ours - theirs, actors=24, margin=0.03)
    expected = stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(expected.pvalue) and found.p_holm == found.p
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    above, below = (
        stats.ttest_1samp(ours - theirs, limit, alternative=side).pvalue
        for limit, side in ((-0.03, "greater"), (0.03, "less"))
    )
    assert found.equivalence.p == pytest.approx(max(above, below))
    assert (found.folds, found.actors, found.equivalence.margin) == (6, 24, 0.03)


@pytest.mark.parametrize("differences", [[0.01, 0.06, 0.02, 0.05, 0.03], [0.04, -0.03, 0.02, -0.05, 0.01]])
def test_interval_and_p_say_the_same(differences: list[float]) -> None:
    found = paired_test(np.array(differences), 20)
    low, high = found.ci95
    assert (low > 0 or high < 0) is (found.p < 0.05)
    other = paired_test(-np.array(differences), 20)
    assert other.p == pytest.approx(found.p) and other.ci95 == pytest.approx((-high, -low))
    assert other.equivalence.p == pytest.approx(found.equivalence.p)


def test_models_that_answer_alike_differ_in_nothing() -> None:
    same = paired_test(np.zeros(5), 20)
    assert (same.mean, same.ci95, same.p, same.equivalence.p) == (0, (0, 0), 1, 0)
    steady = paired_test(np.full(4, 0.25), 16)
    assert (steady.p, steady.equivalence.p, steady.ci95) == (0, 1, (0.25, 0.25))
    wild = paired_test(np.array([1.0, -0.9, 0.9]), 9)
    assert wild.ci95 == (-1, 1)  # an accuracy cannot differ by more


@pytest.mark.parametrize(
    ("folds", "seeds", "network"),
    # Sign flips over actors, who share their fold's network, raise 0.088 at NETWORK instead of 0.05.
    [(5, 1, 0.0), (5, 1, NETWORK), (6, 1, NETWORK), (5, 1, 0.06), (5, 3, NETWORK), (6, 3, 0.06)],
)
def test_false_alarms_are_as_rare_as_p_says_where_actors_share_a_network(
    folds: int, seeds: int, network: float
) -> None:
    assert 0.04 <= alarms(by_fold(experiments(6000, folds, seeds, network=network))) <= 0.06


def test_seeds_of_a_fold_are_no_units_of_their_own() -> None:
    # Where actors suit one of the models, every seed says so: three seeds are not three times the evidence.
    drawn = experiments(6000, 5, 3, taste=0.06)
    pairs = drawn.mean(axis=3).reshape(len(drawn), -1)
    assert alarms(pairs) > 0.1 and 0.04 <= alarms(by_fold(drawn)) <= 0.06


@pytest.mark.parametrize(("folds", "seeds", "least"), [(5, 1, 0.7), (6, 1, 0.8), (5, 3, 0.95)])
def test_a_difference_of_six_points_is_found(folds: int, seeds: int, least: float) -> None:
    assert alarms(by_fold(experiments(2000, folds, seeds, gain=0.06))) >= least


def test_equivalence_is_rarely_claimed_of_models_that_differ_by_the_margin() -> None:
    def claims(gain: float) -> float:
        drawn = by_fold(experiments(1000, 5, 3, gain=gain))
        return float(np.mean([paired_test(each, 20, margin=0.05).equivalence.p <= 0.05 for each in drawn]))

    assert claims(0.055) <= 0.06  # a gain is cut off at 100 %, so this one is 0.05
    assert claims(0.0) >= 0.9


def test_holm_by_hand() -> None:
    # In order .005 x 4, .01 x 3, .03 x 2, .04 x 1; the last is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2] and holm([]) == []
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08])


def test_holms_correction_is_over_a_family_and_not_over_reasons() -> None:
    values = ([0.1, 0.2, 0.15], [0.3, 0.1, 0.1], [0.1, 0.3, 0.3])
    one, two, other = (paired_test(np.array(each), 12) for each in values)
    found = corrected([one, "not run", other, two], ["a", "a", "b", "a"])
    assert found[1] == "not run" and found[2] == other
    p = [each.p_holm for each in (found[0], found[3]) if isinstance(each, Difference)]
    assert p == pytest.approx(holm([one.p, two.p]))


def with_runs(row: Row, **changes: Any) -> Row:
    """The row with something else in each of its runs."""
    return replace(row, tally=replace(row.tally, runs=tuple(replace(run, **changes) for run in row.runs)))


def of_folds(row: Row, *folds: int) -> Row:
    """The row as if only some folds were run."""
    places = [place for place, run in enumerate(row.runs) if run.fold in folds]
    runs, counts = ([each[place] for place in places] for each in (row.runs, row.tally.folds))
    return replace(row, tally=replace(row.tally, runs=tuple(runs), folds=tuple(counts)))


@pytest.fixture(scope="module")
def rows(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Three models under the nested protocol, two of them under the paper's too."""
    folder = tmp_path_factory.mktemp("runs")
    fabricate_all(folder, ("cfn_sr", "msaf"), ("nested", "paper"), **SMALL)
    fabricate_all(folder, ("audio",), ("nested",), **SMALL)
    return {f"{row.model} {row.protocol}": row for row in summarise(read_runs(folder))}


def test_any_two_rows_are_compared_by_their_folds(rows: dict[str, Row]) -> None:
    one, two = rows["audio nested"], rows["msaf nested"]
    found = compare(one, two)
    ours, theirs = (row.tally.each_fold("accuracy") for row in (one, two))
    expected = stats.ttest_rel(ours, theirs)
    assert isinstance(found, Difference)
    assert found.mean == pytest.approx(one.estimates["accuracy"].mean - two.estimates["accuracy"].mean)
    assert found.p == pytest.approx(expected.pvalue) and (found.folds, found.actors) == (6, 24)
    # With CFN-SR it is what stands in the tables, but for Holm's correction.
    versus, again = one.versus, compare(one, rows["cfn_sr nested"])
    assert isinstance(versus, Difference) and isinstance(again, Difference)
    assert replace(versus, p_holm=versus.p) == again


def test_asked_comparisons_are_made_under_every_protocol_with_holm_over_its_pairs(
    rows: dict[str, Row],
) -> None:
    recipe = {**rows["audio nested"].runs[0].recipe, "batch": 99}
    large = with_runs(rows["audio nested"], model="large", recipe=recipe)
    asked = [("msaf", "cfn_sr"), ("audio", "msaf"), ("msaf", "cfn_sr"), ("large", "audio")]
    found = comparisons([*rows.values(), large], asked, margin=0.05)
    assert [(each.a, each.b, each.protocol) for each in found] == [
        ("msaf", "cfn_sr", "nested"),
        ("audio", "msaf", "nested"),
        ("large", "audio", "nested"),
        ("msaf", "cfn_sr", "paper"),
    ]
    assert found[2].found == "trained with batch 99, audio with 16"
    tested = [each.found for each in found if isinstance(each.found, Difference)]
    assert len(tested) == 3 and {each.equivalence.margin for each in tested} == {0.05}
    assert [each.p_holm for each in tested[:2]] == pytest.approx(holm([each.p for each in tested[:2]]))
    assert tested[2].p_holm == tested[2].p and "optimistic" in found[3].protocol_label


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (("gate", "audio"), "no run of gate to compare: expected one of "),
        (("audio", "audio"), "audio is to be compared with itself"),
        (("other", "audio"), "other was run under paper and audio under nested"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(
    rows: dict[str, Row], pair: tuple[str, str], says: str
) -> None:
    strange = with_runs(rows["msaf paper"], model="other")
    with pytest.raises(InputError, match=says) as caught:
        comparisons([*rows.values(), strange], [pair])
    assert "\n" not in str(caught.value)


def test_only_folds_that_both_have_are_compared_and_enough_of_them(rows: dict[str, Row]) -> None:
    one, two = rows["audio nested"], rows["msaf nested"]
    found = compare(of_folds(one, 1, 2, 3, 4), of_folds(two, 2, 3, 4, 5))
    assert isinstance(found, Difference) and (found.folds, found.actors) == (3, 12)
    assert compare(of_folds(one, 1, 2), two) == (
        f"2 folds in common, of fewer than {FEWEST_FOLDS} nothing can be concluded"
    )
    assert str(compare(of_folds(one, 1), two)).startswith(f"actors in common: 4; fewer than {FEWEST}")


def test_rows_of_different_choices_are_not_compared(rows: dict[str, Row]) -> None:
    """One whose validation actors chose among more trainings than another's gained by the choice."""
    one, two, alone = (rows[f"{name} nested"] for name in ("cfn_sr", "msaf", "audio"))
    tune = {**one.runs[0].recipe, "tune": True}
    tuned, other, encoder = (with_runs(row, recipe=tune) for row in (one, two, alone))
    assert isinstance(compare(tuned, other), Difference)
    assert compare(encoder, tuned) == (
        "trained with one recipe, cfn_sr with epochs and learning rates to choose from"
    )
    solved = with_runs(two, model="lda")
    assert str(compare(solved, one)).startswith("trained with 7 strengths to choose from")
    assert isinstance(compare(solved, with_runs(one, model="logistic")), str)
    assert isinstance(compare(alone, one), Difference), "one recipe for both"


RECIPE = {"learning_rate": 1e-3, "pretrain": True, "fused_epochs": 4, "modality_dropout": 0.0}


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ("msaf", {}, ""),
        # What only a model of two streams can be trained with cannot concern one of one.
        ("audio", {"modality_dropout": 0.3, "pretrain": False, "fused_epochs": 9}, ""),
        ("audio", {"width": 0.5}, "trained with width 0.5, cfn_sr with unknown"),
        ("msaf", {"modality_dropout": 0.3}, "trained with modality_dropout 0.3, cfn_sr with 0.0"),
        (
            "msaf",
            {"learning_rate": 1e-4, "pretrain": False},
            "trained with learning_rate 0.0001 and pretrain False, cfn_sr with 0.001 and True",
        ),
    ],
)
def test_rows_of_other_settings_are_not_compared(
    rows: dict[str, Row], model: str, settings: dict[str, Any], reason: str
) -> None:
    row = with_runs(rows[f"{model} nested"], recipe=RECIPE | settings)
    found = compare(row, with_runs(rows["cfn_sr nested"], recipe=RECIPE))
    assert found == reason if reason else isinstance(found, Difference)


def test_of_many_differing_settings_some_are_named(rows: dict[str, Row]) -> None:
    many = with_runs(rows["msaf nested"], recipe={f"knob {number}": number for number in range(9)})
    found = str(compare(many, with_runs(rows["cfn_sr nested"], recipe={})))
    assert found.startswith("trained with knob 0 0 and knob 1 1 and ")
    assert found.endswith("; 4 more settings differ")


def test_rows_of_other_seeds_are_not_compared(rows: dict[str, Row]) -> None:
    one, two = rows["audio nested"], rows["msaf nested"]
    first, *others = two.runs
    runs = (*two.runs, replace(first, seed=1))
    counts = (*two.tally.folds, two.tally.folds[0])
    both = replace(two, tally=replace(two.tally, runs=runs, folds=counts))
    assert compare(one, both) == "trained with seed 0, msaf with seeds 0, 1"
    assert isinstance(compare(both, both), Difference)
    elsewhere = replace(both, tally=replace(both.tally, runs=(*two.runs, replace(others[0], seed=1))))
    assert compare(both, elsewhere) == "trained with other seeds in fold 1, 2, msaf with all of them"


def test_folds_of_other_actors_are_not_paired(rows: dict[str, Row]) -> None:
    one, two = rows["audio nested"], rows["msaf nested"]
    first, second, *others = one.runs
    runs = (replace(first, fold=2), replace(second, fold=1), *others)
    swapped = replace(one, tally=replace(one.tally, runs=runs))
    assert compare(swapped, two) == "fold 1, 2 has other test actors than that of msaf"
    assert compare(with_runs(one, leaky=True), two) == "the protocol leaks, so its folds share their actors"
