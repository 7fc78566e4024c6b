"""The paired test against enumeration of all sign flips, and Holm's correction by hand."""

from itertools import product

import numpy as np
import pytest

from cfnsr.evaluation.comparison import FEWEST, Difference, compare, holm, paired_interval, sign_flip_p
from cfnsr.evaluation.metrics import Floats


def slow_p(differences: Floats) -> float:
    """The share of all choices of signs whose mean is at least as far from zero."""
    observed = abs(differences.mean())
    flips = product([1, -1], repeat=len(differences))
    return float(np.mean([abs(np.mean(differences * signs)) >= observed - 1e-12 for signs in flips]))


@pytest.mark.parametrize("seed", range(4))
def test_p_is_the_share_of_all_sign_flips(seed: int) -> None:
    # Sixtieths, as accuracies over 60 takes are: many flips tie.
    differences = np.random.default_rng(seed).integers(-4, 9, 10) / 60
    assert sign_flip_p(differences) == pytest.approx(slow_p(differences))


def test_p_of_more_actors_comes_near_the_exact_one() -> None:
    differences = np.random.default_rng(5).normal(0.02, 0.05, 16)
    exact = slow_p(differences)
    assert 0.01 < exact < 0.5 and sign_flip_p(differences) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(differences) == sign_flip_p(differences)


@pytest.mark.parametrize("actors", [8, 24])
def test_p_knows_no_direction_and_no_scale(actors: int) -> None:
    differences = np.random.default_rng(actors).normal(0.03, 0.05, actors)
    p = sign_flip_p(differences)
    assert 0 < p < 1
    assert sign_flip_p(-differences) == pytest.approx(p, abs=0.005)
    assert sign_flip_p(100 * differences) == p
    assert sign_flip_p(differences[::-1]) == pytest.approx(p, abs=0.005)


def test_p_at_its_limits() -> None:
    assert sign_flip_p(np.zeros(12)) == 1
    assert sign_flip_p(np.full(6, 0.1)) == 2 / 2**6  # the least that six actors can give
    assert sign_flip_p(np.full(24, 0.1)) < 0.001


def test_p_is_rarely_small_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    p = [sign_flip_p(rng.normal(0, 0.05, 8)) for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) < 0.1


def test_holm_by_hand() -> None:
    # In order .005 x 4, .01 x 3, .03 x 2, .04 x 1; the last is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2] and holm([]) == []
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08])


def test_the_interval_is_that_of_resampled_actors() -> None:
    differences = np.random.default_rng(1).normal(0.03, 0.05, 24)
    drawn = np.random.default_rng(7).choice(differences, (20_000, 24)).mean(axis=1)
    assert paired_interval(differences) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.002)
    assert paired_interval(differences[:1]) is None


def test_only_actors_that_both_have_tested_are_compared() -> None:
    reference = dict.fromkeys(range(1, 25), 0.5)
    better = dict.fromkeys(range(5, 25), 0.6) | {99: 0.0}
    few = dict.fromkeys(range(1, FEWEST), 0.6)
    found = compare({"better": better, "few": few, "same": reference}, reference)
    difference = found["better"]
    assert isinstance(difference, Difference)
    assert difference.actors == 20 and difference.mean == pytest.approx(0.1)
    assert difference.ci95 == pytest.approx((0.1, 0.1))
    assert difference.p < 0.001
    assert difference.p_holm == pytest.approx(2 * difference.p)  # two rows were tested, not three
    assert found["few"] == f"{FEWEST - 1} actors in common, of fewer than {FEWEST} nothing can be told"
    same = found["same"]
    assert isinstance(same, Difference) and (same.mean, same.p, same.p_holm) == (0, 1, 1)


def test_pairing_finds_what_the_spread_of_actors_would_hide() -> None:
    # Actors differ by far more than the models do, but every actor is read better by the same little.
    actors = np.random.default_rng(0).uniform(0.3, 0.9, 24)
    found = compare({"row": dict(enumerate(actors + 0.02))}, dict(enumerate(actors)))["row"]
    assert isinstance(found, Difference) and found.p < 0.001 and found.ci95[0] > 0.019
